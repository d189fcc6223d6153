# A worker: handlers for one type, for several, and for all. It prints its file of handlers.

require_relative "walrelay"
require "rack/handler/webrick"

ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))
ActiveRecord::Base.connection.execute("CREATE TABLE IF NOT EXISTS effects_ruby (handler text, text text)")
Walrelay::HandledEvent.migrate

class Effect < ActiveRecord::Base
  self.table_name = "effects_ruby"
end

Walrelay.on("welcome", "user.created") do |event|
  raise "not yet" if event.attempt < 2

  Effect.create!(handler: "welcome", text: event.data["email"])
end
Walrelay.on("bill", "order.created", "order.updated") do |event|
  Effect.create!(handler: "bill", text: "#{event.type} #{event.data["order"]} of #{event.key}")
end
Walrelay.on("audit") do |event|
  Effect.create!(handler: "audit", text: "#{event.type} #{event.subject}")
end

endpoint = Walrelay::Endpoint.new(ENV.fetch("WEBHOOK_SECRET"))
event = nil
ready = proc do |server|
  port = server.listeners.first.addr[1]
  $stdout.puts JSON.generate(Walrelay.file("http://127.0.0.1:#{port}", "secret"))
  $stdout.flush
  # What publishes may be anywhere: here, in a transaction.
  ActiveRecord::Base.transaction do
    event = Walrelay.publish("user.created", "/users", { email: "ada@example.org" })
    Walrelay.publish("order.created", "/orders", { order: 456 }, key: "customer-8", subject: "Order #456 ü")
    Walrelay.publish("order.updated", "/orders", { order: 456 }, key: "customer-8", scheduled_at: Time.now + 0.5)
  end
  trap("TERM") { server.shutdown }
end
Rack::Handler::WEBrick.run(endpoint, Host: "127.0.0.1", Port: 0, AccessLog: [], Logger: WEBrick::Log.new(File::NULL), &ready)
100.times do
  break if event.status == "published"

  sleep 0.1
end
puts event.status
