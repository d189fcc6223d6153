package decode

import (
	"fmt"

	"github.com/walrelay/walrelay/event"
)

// RowError says why a row cannot become an event.
type RowError struct {
	Position      event.Position
	Schema, Table string
	// ID is the row's id as far as it has one.
	ID string
	// Column whose value is at fault.
	Column string
	Err    error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("table %s.%s, id %q, column %s: %v", e.Schema, e.Table, e.ID, e.Column, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

// ProtocolError says that the stream cannot be understood.
type ProtocolError struct {
	Message string
}

func (e *ProtocolError) Error() string { return "the replication stream has " + e.Message }

func truncated(what string, r *reader) error {
	return &ProtocolError{Message: fmt.Sprintf("a message %s that ends after %d bytes, too early", what, len(r.data))}
}

// TableError says that a table lacks a column that its mapping needs.
type TableError struct {
	Schema, Table string
	// Column that is missing, and Attribute that it makes.
	Column, Attribute string
}

func (e *TableError) Error() string {
	return fmt.Sprintf("outbox table %s.%s has no column %q, which makes the event's %s; add the column, or map %s to another one in outbox.mappings",
		e.Schema, e.Table, e.Column, e.Attribute, e.Attribute)
}
