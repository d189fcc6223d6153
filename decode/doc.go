// Package decode turns the bytes of the pgoutput plugin into changes, and the
// inserts of outbox tables into events.
//
// In come the messages of one replication connection, in order (protocol
// version 1, text format); out go the borders of transactions and the events
// between them. A row that cannot become an event gives a [RowError]; bytes
// that make no sense give a [ProtocolError]. Nothing panics, and nothing that
// is returned shares memory with the input.
//
// The package knows neither NATS nor the delay table, and does no I/O.
package decode
