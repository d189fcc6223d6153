// Package replication owns the logical replication slot.
//
// In comes the connection string of a database, a slot and a publication that
// exist; out go the messages of the pgoutput plugin, in order, as bytes, and
// back come tickets that are settled. From these the [Frontier] computes
// how far the slot may advance, and the [Stream] reports it to the server, on
// time however slowly the messages are taken.
//
// The package never creates, drops or moves a slot. It knows neither events
// nor NATS.
package replication
