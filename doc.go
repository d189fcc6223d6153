// Package walrelay is the relay: it streams the committed rows of outbox
// tables, as CloudEvents, to NATS JetStream in commit order.
//
// It composes the parts, which do not know each other: replication reads the
// slot, decode turns its bytes into events, router publishes them and says
// what became of each, and the frontier of the slot follows. A [Relay] is what
// the command "walrelay run" runs, and what a program embeds.
//
// The package knows neither flags nor files.
package walrelay
