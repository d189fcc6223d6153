// Events with Prisma and its driver adapter: a model of the outbox table, in the transaction that you have.

import { PrismaPg } from '@prisma/adapter-pg'
import { PrismaClient } from '@prisma/client'

const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL }) })
await prisma.$executeRaw`CREATE TABLE IF NOT EXISTS orders_prisma (id serial PRIMARY KEY, customer text)`

// The event's id comes from the database.
const placed = await prisma.$transaction(async (tx) => {
  const [{ id }] = await tx.$queryRaw`INSERT INTO orders_prisma (customer) VALUES ('customer-8') RETURNING id`
  return tx.outboxEvent.create({
    data: { eventType: 'order.placed', source: '/orders', subject: 'prisma', data: { order: id }, partitionKey: 'customer-8' },
  })
})

await prisma
  .$transaction(async (tx) => {
    await tx.$executeRaw`INSERT INTO orders_prisma (customer) VALUES ('nobody')`
    await tx.outboxEvent.create({ data: { eventType: 'order.never', source: '/orders', subject: 'prisma' } })
    throw new Error('rolled back')
  })
  .catch((error) => {
    if (error.message !== 'rolled back') throw error
  })

await prisma.outboxEvent.create({
  data: { eventType: 'order.reminder', source: '/orders', subject: 'prisma', scheduledAt: new Date(Date.now() + 1000) },
})

let state
for (let i = 0; i < 100 && state !== 'published'; i++) {
  await new Promise((resolve) => setTimeout(resolve, 100))
  ;[{ state }] = await prisma.$queryRaw`SELECT state FROM walrelay.event_status(${placed.id}::text)`
}
console.log(placed.id, state)
await prisma.$disconnect()
