// Package event has the one value that every part of walrelay hands on: an
// [Event], a CloudEvents 1.0 event read from a committed outbox row, and its
// [Position] in the write-ahead log.
//
// It knows neither pgoutput nor NATS, does no I/O and starts no goroutine.
package event

import (
	"fmt"
	"strconv"
	"time"
)

// SpecVersion is the CloudEvents version of every event.
const SpecVersion = "1.0"

// Event is one outbox row as a CloudEvents 1.0 event. Its strings and Data are
// never changed after decoding, so an Event may be read from several
// goroutines at once.
//
// An empty string means that an optional attribute is absent: CloudEvents
// allows no empty attribute (spec 1.0.2, "Type System" and "Context
// Attributes").
type Event struct {
	Position Position

	// Required context attributes.
	ID     string
	Type   string
	Source string

	// Optional context attributes. Time is RFC 3339 in UTC.
	Subject         string
	Time            string
	DataContentType string
	DataSchema      string

	// PartitionKey is the row's partition_key and is published as the
	// CloudEvents extension attribute partitionkey.
	PartitionKey string
	// Extensions are the other extension attributes, sorted by name, with
	// names that CloudEvents allows.
	Extensions []Attribute

	// Data is the payload, byte for byte as Postgres stores it. Nil means that
	// the event has no payload.
	Data []byte

	// Schema and Table name the relation that the row was inserted into (the
	// root of a partitioned table).
	Schema string
	Table  string

	// CommittedAt is when the row's transaction committed, by the database's
	// clock.
	CommittedAt time.Time
	// ScheduledAt is the time before which the event must not be published;
	// zero means at once.
	ScheduledAt time.Time
	// MaxRetries overrides the configured number of retries when it is not
	// negative.
	MaxRetries int

	// Delay is what the delay table knew of an event that it gave back; nil for
	// any other.
	Delay *Delay
}

// Delay is an event's past in the delay table.
type Delay struct {
	// Origin is where the event first stood in the write-ahead log: the order
	// of the events of one key.
	Origin Position
	// Attempts is how often publishing has failed, and Failures how, the last
	// one at the end.
	Attempts int
	Failures []Failure
	// Released says that the event's key was held for it, so that it passes
	// although the key is held.
	Released bool
}

// Failure is an attempt to publish an event.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Origin returns where the event first stood in the write-ahead log.
func (e *Event) Origin() Position {
	if e.Delay != nil && !e.Delay.Origin.IsZero() {
		return e.Delay.Origin
	}
	return e.Position
}

// Size is the number of bytes that the event keeps alive, near enough to bound
// memory by it.
func (e *Event) Size() int {
	n := len(e.Data)
	for c := range NumColumns {
		if value := c.Field(e); value != nil {
			n += len(*value)
		}
	}
	for i := range e.Extensions {
		n += len(e.Extensions[i].Name) + len(e.Extensions[i].Value)
	}
	return n
}

// Position says where an event stands in the write-ahead log: the LSN of its
// transaction's commit record, and the event's index among the inserts of that
// transaction, from 0. Positions of one slot are totally ordered, and the
// order is commit order. (The LSN of a row is no position: rows of one COPY
// share it, and those of concurrent transactions interleave.)
//
// The zero Position is before every event.
type Position struct {
	CommitLSN uint64
	Index     uint32
}

// positionLength is the length of a position in text: 16 hex digits, a dot,
// eight hex digits.
const positionLength = 16 + 1 + 8

// Compare returns -1, 0 or +1 as p is before, at or after q.
func (p Position) Compare(q Position) int {
	switch {
	case p.CommitLSN < q.CommitLSN:
		return -1
	case p.CommitLSN > q.CommitLSN:
		return +1
	case p.Index < q.Index:
		return -1
	case p.Index > q.Index:
		return +1
	}
	return 0
}

// IsZero reports whether p is before every event.
func (p Position) IsZero() bool { return p == Position{} }

// String returns the position as fixed-width text, so that texts sort as
// positions do.
func (p Position) String() string { return string(p.Append(make([]byte, 0, positionLength))) }

// LSN is the commit LSN as Postgres writes it (PostgreSQL manual, "pg_lsn Type").
func (p Position) LSN() string { return fmt.Sprintf("%X/%X", p.CommitLSN>>32, uint32(p.CommitLSN)) }

// AppendLSN appends the commit LSN as 16 hex digits, with which the text of the position begins.
func (p Position) AppendLSN(b []byte) []byte {
	const digits = "0123456789ABCDEF"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[p.CommitLSN>>shift&0xF])
	}
	return b
}

// Append appends the text of the position to b.
func (p Position) Append(b []byte) []byte {
	const digits = "0123456789ABCDEF"
	b = p.AppendLSN(b)
	b = append(b, '.')
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[p.Index>>shift&0xF])
	}
	return b
}

// ParsePosition reads what [Position.String] wrote.
func ParsePosition(s string) (Position, error) {
	if len(s) != positionLength || s[16] != '.' {
		return Position{}, fmt.Errorf("position %q: want 16 hex digits, a dot and 8 hex digits", s)
	}
	lsn, err := strconv.ParseUint(s[:16], 16, 64)
	if err != nil {
		return Position{}, fmt.Errorf("position %q: commit LSN: %w", s, err)
	}
	index, err := strconv.ParseUint(s[17:], 16, 32)
	if err != nil {
		return Position{}, fmt.Errorf("position %q: index: %w", s, err)
	}
	return Position{CommitLSN: lsn, Index: uint32(index)}, nil
}
