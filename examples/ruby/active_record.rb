# Events with ActiveRecord: a model of the outbox table, in the transaction that you have.

require "active_record"
require "json"

ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))
# walrelay's own tables are none of the schema dump's business.
ActiveRecord::SchemaDumper.ignore_tables = [/^walrelay\./, "outbox"]

class OutboxEvent < ActiveRecord::Base
  self.table_name = "public.outbox"

  def status
    self.class.connection.select_value("SELECT state FROM walrelay.event_status(#{self.class.connection.quote(id)}::text)")
  end
end

class Order < ActiveRecord::Base
  self.table_name = "orders_active_record"
end

ActiveRecord::Base.connection.execute("CREATE TABLE IF NOT EXISTS orders_active_record (id serial PRIMARY KEY, customer text)")

event = nil
ActiveRecord::Base.transaction do
  order = Order.create!(customer: "customer-8")
  event = OutboxEvent.create!(event_type: "order.placed", source: "/orders", subject: "active_record",
                              data: { order: order.id }, partition_key: "customer-8")
end

ActiveRecord::Base.transaction do
  Order.create!(customer: "nobody")
  OutboxEvent.create!(event_type: "order.never", source: "/orders", subject: "active_record")
  raise ActiveRecord::Rollback
end

OutboxEvent.create!(event_type: "order.reminder", source: "/orders", subject: "active_record", scheduled_at: Time.now + 1)

state = nil
100.times do
  state = event.status
  break if state == "published"

  sleep 0.1
end
puts "#{event.id} #{state}"
