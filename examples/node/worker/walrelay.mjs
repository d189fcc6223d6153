// Publish events and handle them with node-postgres. Copy this file.

import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

// Publishes an event in the transaction of the client, and returns its id.
export async function publish(client, type, source, data, { key, subject, at, maxRetries } = {}) {
  const { rows } = await client.query(
    `INSERT INTO public.outbox (event_type, source, data, partition_key, subject, scheduled_at, max_retries)
     VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
    [type, source, JSON.stringify(data), key, subject, at, maxRetries],
  )
  return rows[0].id
}

// Says what became of an event: { state, attempts, last_error, … }.
export async function status(client, id) {
  return (await client.query('SELECT * FROM walrelay.event_status($1::text)', [id])).rows[0]
}

// Handlers, called by "walrelay deliver". What a handler does with its client, and the note that it has handled the event, are
// one transaction.
export class Handlers {
  #pool
  #key
  #handlers = new Map()

  // The secret is that of secret_file: whsec_ and base64.
  constructor(pool, secret) {
    this.#pool = pool
    this.#key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  }

  // Registers a function for types or patterns (order.*); for every event without any. The name is what walrelay knows
  // the handler by.
  on(name, types, handle) {
    if (this.#handlers.has(name)) throw new Error(`two handlers have the name ${name}`)
    this.#handlers.set(name, { types, handle })
  }

  // What belongs into handlers.yaml, if the handlers are reached at the address.
  file(address, secretFile) {
    return {
      handlers: [...this.#handlers].map(([name, { types }]) => ({ name, types, url: `${address}/${name}`, secret_file: secretFile })),
    }
  }

  // Makes the table of what was handled. Its rows may be deleted when they are older than the stream's messages.
  async migrate() {
    await this.#pool.query(`CREATE TABLE IF NOT EXISTS handled_events (
      handler text, key text, handled_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (handler, key))`)
  }

  // Returns a server; listen on loopback, or behind something that ends TLS.
  server() {
    return createServer(async (request, response) => {
      const [code, text] = await this.#answer(request).catch((error) => [500, String(error)])
      response.writeHead(code, { 'Content-Type': 'text/plain' }).end(text)
    })
  }

  async #answer(request) {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    if (!this.#isSigned(request.headers, body)) return [401, 'the signature is wrong']
    const name = request.url.slice(1)
    const handler = this.#handlers.get(name)
    if (!handler) return [404, 'no such handler']
    const client = await this.#pool.connect()
    try {
      await client.query('BEGIN')
      const { rowCount } = await client.query('INSERT INTO handled_events (handler, key) VALUES ($1, $2) ON CONFLICT DO NOTHING', [
        name,
        request.headers['idempotency-key'],
      ])
      if (rowCount > 0) await handler.handle(eventOf(request.headers, body), client)
      await client.query('COMMIT')
      client.release()
      return [200, '']
    } catch (error) {
      client.release(error) // closes the connection, and so rolls back
      return [500, String(error)] // it is tried again
    }
  }

  #isSigned(headers, body) {
    const signed = Buffer.concat([Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`), body])
    const want = Buffer.from('v1,' + createHmac('sha256', this.#key).update(signed).digest('base64'))
    const got = Buffer.from(headers['webhook-signature'] ?? '')
    return want.length === got.length && timingSafeEqual(want, got)
  }
}

// Reads a request in the binary mode of CloudEvents.
function eventOf(headers, body) {
  const event = { attempt: Number(headers['walrelay-attempt'] ?? 1) }
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith('ce-')) event[name.slice(3)] = decodeURIComponent(value)
  }
  const isJSON = /json$/i.test((headers['content-type'] ?? 'application/json').split(';')[0].trim())
  event.data = isJSON && body.length > 0 ? JSON.parse(body) : body
  event.key = event.partitionkey
  return event
}
