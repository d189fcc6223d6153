// Events with Knex.

import knexFactory from 'knex'

const knex = knexFactory({ client: 'pg', connection: process.env.DATABASE_URL })
await knex.raw('CREATE TABLE IF NOT EXISTS orders_knex (id serial PRIMARY KEY, customer text)')

// Writes an event into the transaction, and returns its id.
async function publish(trx, type, data, more = {}) {
  const [row] = await trx('outbox')
    .withSchema('public')
    .insert({ event_type: type, source: '/orders', subject: 'knex', data: JSON.stringify(data), ...more })
    .returning('id')
  return row.id
}

const placed = await knex.transaction(async (trx) => {
  const [order] = await trx('orders_knex').insert({ customer: 'customer-8' }).returning('id')
  return publish(trx, 'order.placed', { order: order.id }, { partition_key: 'customer-8' })
})

await knex
  .transaction(async (trx) => {
    await trx('orders_knex').insert({ customer: 'nobody' })
    await publish(trx, 'order.never', {})
    throw new Error('the order is not taken')
  })
  .catch(() => {})

await publish(knex, 'order.reminder', {}, { scheduled_at: new Date(Date.now() + 1000) })

let state
for (let i = 0; i < 100 && state !== 'published'; i++) {
  await new Promise((resolve) => setTimeout(resolve, 100))
  state = (await knex.raw('SELECT state FROM walrelay.event_status(?::text)', [placed])).rows[0].state
}
console.log(placed, state)
await knex.destroy()
