# Events with Sequel.

require "sequel"

DB = Sequel.connect(ENV.fetch("DATABASE_URL"))
DB.extension :pg_json
DB.run "CREATE TABLE IF NOT EXISTS orders_sequel (id serial PRIMARY KEY, customer text)"

# Writes an event into the transaction of the database, and returns its id.
def publish(event_type, data, **more)
  DB[Sequel[:public][:outbox]].returning(:id)
    .insert({ event_type: event_type, source: "/orders", subject: "sequel", data: Sequel.pg_jsonb(data) }.merge(more)).first[:id]
end

placed = DB.transaction do
  number = DB[:orders_sequel].insert(customer: "customer-8")
  publish("order.placed", { order: number }, partition_key: "customer-8")
end

DB.transaction do
  DB[:orders_sequel].insert(customer: "nobody")
  publish("order.never", {})
  raise Sequel::Rollback
end

publish("order.reminder", { order: 1 }, scheduled_at: Time.now + 1)

state = nil
100.times do
  state = DB["SELECT state FROM walrelay.event_status(?::text)", placed].get
  break if state == "published"

  sleep 0.1
end
puts "#{placed} #{state}"
