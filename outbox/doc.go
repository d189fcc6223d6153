// Package outbox publishes events from a Go program in the transaction that makes them
// true: if it commits, the relay publishes them, once and in commit order; if it rolls
// back, they never happened.
//
// Input: events, and a transaction of pgx or of database/sql. Output: rows of an outbox
// table of walrelay's own form. Promises: an event that the relay could not publish for what
// it is, is refused at the call, with the relay's words; many events are one statement;
// nothing is sent to NATS, and the package needs no client of it. It must not import the
// relay.
//
// A handle is a value, made once:
//
//	var orders = outbox.Outbox{Source: "/orders"}
//
//	id, err := orders.Publish(ctx, tx, outbox.Event{Type: "order.placed", Data: order, Key: order.Customer})
//
// tx is a [pgx.Tx], or anything else with its methods: a pgx.Conn, a pgxpool.Pool. A
// transaction of database/sql, or of what hands one out (bun, GORM, sqlx), is wrapped by
// [SQL]. Without a transaction an event is published at once.
//
// Package outboxtest asks, in a test and without a relay, which events a transaction has
// published.
package outbox
