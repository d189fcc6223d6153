# Publish events and handle them with ActiveRecord. Copy this file; in Rails, to app/lib, and mount
# Walrelay::Endpoint in config/routes.rb: mount Walrelay::Endpoint.new(secret) => "/events"

require "active_record"
require "base64"
require "cgi"
require "json"
require "openssl"
require "rack"
require "time"

module Walrelay
  # An event that is to be published: create! it in the transaction that you have.
  class OutboxEvent < ActiveRecord::Base
    self.table_name = "public.outbox"

    def status
      @status = self.class.connection.select_one("SELECT state, last_error FROM walrelay.event_status(#{self.class.connection.quote(id)}::text)")
      @status["state"]
    end

    def last_error
      status
      @status["last_error"]
    end
  end

  # What was handled. Its rows may be deleted when they are older than the stream's messages.
  class HandledEvent < ActiveRecord::Base
    def self.migrate
      connection.execute("CREATE TABLE IF NOT EXISTS handled_events (
        handler text, key text, handled_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (handler, key))")
    end
  end

  def self.publish(event_type, source, data, key: nil, subject: nil, scheduled_at: nil, max_retries: nil)
    OutboxEvent.create!(event_type: event_type, source: source, data: data, partition_key: key, subject: subject,
                        scheduled_at: scheduled_at, max_retries: max_retries)
  end

  # An event as a handler gets it.
  Event = Struct.new(:type, :source, :id, :subject, :key, :time, :data, :attempt, :attributes, keyword_init: true)

  # The handlers, by their names, which walrelay knows them by.
  HANDLERS = {}

  # Registers a block for types or patterns (order.*); for every event without any.
  def self.on(name, *types, &handle)
    raise ArgumentError, "two handlers have the name #{name}" if HANDLERS.key?(name)

    HANDLERS[name] = { types: types, handle: handle }
  end

  # What belongs into handlers.yaml, if the endpoint is reached at the address.
  def self.file(address, secret_file)
    { handlers: HANDLERS.map { |name, h| { name: name, types: h[:types], url: "#{address}/#{name}", secret_file: secret_file } } }
  end

  # A Rack application that "walrelay deliver" posts to. What a handler changes in the database, and the note
  # that it has handled the event, are one transaction.
  class Endpoint
    def initialize(secret)
      @key = Base64.decode64(secret.delete_prefix("whsec_"))
    end

    def call(env)
      body = env["rack.input"]&.read.to_s
      return answer(401, "the signature is wrong") unless signed?(env, body)

      name = env["PATH_INFO"].delete_prefix("/")
      handler = HANDLERS[name] or return answer(404, "no such handler")
      HandledEvent.transaction do
        new = HandledEvent.connection.exec_update(
          "INSERT INTO handled_events (handler, key) VALUES (#{quote(name)}, #{quote(env["HTTP_IDEMPOTENCY_KEY"])}) ON CONFLICT DO NOTHING"
        )
        handler[:handle].call(event(env, body)) if new.positive?
      end
      answer(200, "")
    rescue StandardError => e
      answer(500, e.inspect) # it is tried again
    end

    private

    def quote(text) = HandledEvent.connection.quote(text)

    def answer(code, text) = [code, { "content-type" => "text/plain" }, [text]]

    def signed?(env, body)
      signed = "#{env["HTTP_WEBHOOK_ID"]}.#{env["HTTP_WEBHOOK_TIMESTAMP"]}.".b + body.b
      want = "v1,#{Base64.strict_encode64(OpenSSL::HMAC.digest("SHA256", @key, signed))}"
      Rack::Utils.secure_compare(want, env["HTTP_WEBHOOK_SIGNATURE"].to_s)
    end

    # Reads a request in the binary mode of CloudEvents.
    def event(env, body)
      attributes = env.filter_map { |name, value| [name.delete_prefix("HTTP_CE_").downcase, decode(value)] if name.start_with?("HTTP_CE_") }.to_h
      json = (env["CONTENT_TYPE"] || "application/json").split(";").first.strip.downcase.end_with?("json")
      Event.new(
        type: attributes["type"], source: attributes["source"], id: attributes["id"], subject: attributes["subject"],
        key: attributes["partitionkey"], time: attributes["time"] && Time.iso8601(attributes["time"]),
        data: json && !body.empty? ? JSON.parse(body) : body, attempt: (env["HTTP_WALRELAY_ATTEMPT"] || 1).to_i, attributes: attributes
      )
    end

    # Percent-decoding, which leaves + as it is.
    def decode(value) = value.b.gsub(/%\h\h/) { |escape| escape[1..].hex.chr }.force_encoding(Encoding::UTF_8)
  end
end
