// Package inbox handles events in a Go program: by type, in order for each key, and each
// once where the handler has a transaction of Postgres.
//
// Input: messages of a stream that walrelay publishes into, or any other message of
// the CloudEvents binding for NATS. Output: calls of registered handlers; what they cannot
// handle is parked, where a person sees it. Promises: each event takes effect once for a
// handler that [On], [OnBatch] or [OnSQL] registers, and at least once for others; events of one
// key are handled in the order of the relay, those of other keys meanwhile; the failure of an
// event is its handler's and its key's alone. It must not import the relay.
//
// A handler is one durable consumer. Of several processes one is active, pinned by the
// server, and the others stand by. A generation begins when the consumer is reset, and ends
// when a delivery is not the one after the last, or the pin is another's: then everything that
// is not acknowledged comes again, in order. Nothing is ever refused to the server: retries
// are the package's own. How far a handler has come is in its database, as the
// position of the last event of each bucket of keys; a transaction that handles an event moves it.
//
// [Decode] reads a message without all of this.
package inbox
