// A worker: handlers for one type, for several, and for all. It prints its file of handlers, and what they do.

import pg from 'pg'
import { Handlers, publish, status } from './walrelay.mjs'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })
await pool.query('CREATE TABLE IF NOT EXISTS effects_node (handler text, text text)')

const handlers = new Handlers(pool, process.env.WEBHOOK_SECRET)
await handlers.migrate()
handlers.on('welcome', ['user.created'], async (event, client) => {
  if (event.attempt < 2) throw new Error('not yet')
  await client.query("INSERT INTO effects_node VALUES ('welcome', $1)", [event.data.email])
})
handlers.on('bill', ['order.created', 'order.updated'], async (event, client) => {
  await client.query("INSERT INTO effects_node VALUES ('bill', $1)", [`${event.type} ${event.data.order} of ${event.key}`])
})
handlers.on('audit', [], async (event, client) => {
  await client.query("INSERT INTO effects_node VALUES ('audit', $1)", [`${event.type} ${event.subject ?? ''}`])
})

const server = handlers.server()
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
console.log(JSON.stringify(handlers.file(`http://127.0.0.1:${server.address().port}`, 'secret')))

// What publishes may be anywhere: here, in a transaction.
const client = await pool.connect()
await client.query('BEGIN')
const id = await publish(client, 'user.created', '/users', { email: 'ada@example.org' })
await publish(client, 'order.created', '/orders', { order: 456 }, { key: 'customer-8', subject: 'Order #456 ü' })
await publish(client, 'order.updated', '/orders', { order: 456 }, { key: 'customer-8', at: new Date(Date.now() + 500) })
await client.query('COMMIT')
client.release()

process.on('SIGTERM', async () => {
  let state
  for (let i = 0; i < 100 && state !== 'published'; i++) {
    state = (await status(pool, id)).state
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  console.log(state)
  server.close()
  server.closeAllConnections()
  await pool.end()
})
