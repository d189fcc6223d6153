// Package retry owns the delay table: events that are scheduled, that could not
// be published and are tried again, that are held behind an earlier event of
// their key, or that have failed for good.
//
// In come events with the reason why they are not published now, and the LSN
// below which every event has an outcome; out go rows of walrelay.delayed, and,
// when they are due, logical messages in the write-ahead log, by which the
// relay reads them again on the one path that all events take. A row leaves the
// table in the transaction that writes its message, so that an event is in one
// of the two places whatever crashes; and only when the frontier has passed the
// position that put it there, so that no replay can put it there again.
//
// The package knows neither pgoutput nor NATS.
package retry
