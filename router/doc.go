// Package router publishes events to JetStream.
//
// In come events in the order of their positions, each with a ticket; out go
// messages, and for each ticket, once, an [Outcome]. Rules decide the stream,
// the subject and the CloudEvents content mode. One writer per stream sends
// without waiting for acknowledgements, within a bounded window.
//
// # The stream is the ledger
//
// A stream that walrelay owns has one writer. Every message says which
// sequence it expects the stream to have reached (Nats-Expected-Last-Sequence),
// predicted from the messages sent before it. When one of them is refused or
// lost, the server refuses all that follow, so nothing overtakes. The writer
// then stops, waits for the answers under way, reads from the stream what it
// has, and goes on after it. The position in a header of the last message says
// which events of a replay the stream already has, however long ago it stored
// them.
//
// A stream that others write into too has no such fence: the server's duplicate
// window alone guards it against duplicates, and an event that is sent again
// may stand after later ones.
//
// The package knows nothing of Postgres.
package router
