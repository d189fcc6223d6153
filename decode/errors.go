package decode

import (
	"fmt"

	"github.com/walrelay/walrelay/event"
)

// RowError says why a row cannot become an event. Other rows of the table may.
type RowError struct {
	Position      event.Position
	Schema, Table string
	// ID is the row's id as far as it has one.
	ID string
	// Column whose value is at fault; several, separated by commas, when a
	// text is made of them; the attribute's name when no column makes it.
	Column string
	// Err is what is wrong with the value, and what to write instead.
	Err error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("table %s.%s, id %q, column %s: %v", e.Schema, e.Table, event.Clip(e.ID), e.Column, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

// TableError says that a table lacks a column that its mapping needs.
type TableError struct {
	Schema, Table string
	// Column that is missing, and Attribute that it makes.
	Column, Attribute string
}

func (e *TableError) Error() string {
	if e.Attribute == "" {
		return fmt.Sprintf("table %s.%s has no column %q; run \"walrelay init\"", e.Schema, e.Table, e.Column)
	}
	return fmt.Sprintf("outbox table %s.%s has no column %q, which makes the event's %s; add the column, or map %s to another one in outbox.mappings",
		e.Schema, e.Table, e.Column, e.Attribute, e.Attribute)
}

// ProtocolError says that the stream cannot be understood.
type ProtocolError struct {
	Message string
}

func (e *ProtocolError) Error() string { return "pgoutput: " + e.Message }

// wrongLength says that a message is shorter or longer than its kind.
func wrongLength(what string, r *reader) error {
	if r.short {
		return &ProtocolError{Message: fmt.Sprintf("a message %s that ends after %d bytes, too early", what, len(r.data))}
	}
	return &ProtocolError{Message: fmt.Sprintf("a message %s with %d bytes too many", what, len(r.data)-r.at)}
}
