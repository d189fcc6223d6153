// Events with Sequelize: a model of the outbox table, which sync must leave alone.

import { DataTypes, Sequelize } from 'sequelize'

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: false })
const Order = sequelize.define('Order', { customer: DataTypes.TEXT }, { tableName: 'orders_sequelize', timestamps: false })
const OutboxEvent = sequelize.define(
  'OutboxEvent',
  {
    id: { type: DataTypes.UUID, primaryKey: true, defaultValue: DataTypes.UUIDV4 },
    event_type: { type: DataTypes.TEXT, allowNull: false },
    source: { type: DataTypes.TEXT, allowNull: false, defaultValue: '/orders' },
    subject: DataTypes.TEXT,
    data: DataTypes.JSONB,
    partition_key: DataTypes.TEXT,
    scheduled_at: DataTypes.DATE,
  },
  { tableName: 'outbox', schema: 'public', timestamps: false },
)
await Order.sync() // and not OutboxEvent: walrelay init makes that table

const event = await sequelize.transaction(async (transaction) => {
  const order = await Order.create({ customer: 'customer-8' }, { transaction })
  return OutboxEvent.create(
    { event_type: 'order.placed', subject: 'sequelize', data: { order: order.id }, partition_key: 'customer-8' },
    { transaction },
  )
})

await sequelize
  .transaction(async (transaction) => {
    await Order.create({ customer: 'nobody' }, { transaction })
    await OutboxEvent.create({ event_type: 'order.never', subject: 'sequelize' }, { transaction })
    throw new Error('the order is not taken')
  })
  .catch(() => {})

await OutboxEvent.create({ event_type: 'order.reminder', subject: 'sequelize', scheduled_at: new Date(Date.now() + 1000) })

let state
for (let i = 0; i < 100 && state !== 'published'; i++) {
  await new Promise((resolve) => setTimeout(resolve, 100))
  const [rows] = await sequelize.query('SELECT state FROM walrelay.event_status(CAST(:id AS text))', { replacements: { id: event.id } })
  state = rows[0].state
}
console.log(event.id, state)
await sequelize.close()
