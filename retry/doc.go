// Package retry owns the delay table: events that are scheduled, that could not
// be published and are tried again, that are held behind an earlier event of
// their key, or that have failed for good.
//
// Input: events with the reason why they are not published now, and the LSN below
// which every event is settled. Output: rows of walrelay.delayed and, when they
// are due, rows of walrelay.emitted, which the relay reads on the one path that
// all events take: through the WAL. Promises: an event is in one of the two places
// whatever crashes, since it leaves the one in the transaction that writes the
// other; and it leaves only when the saved checkpoint has passed the position that
// put it there, so that no replay puts it there again.
//
// The package must not import pgoutput's decoder, the router or NATS.
package retry
