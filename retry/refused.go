package retry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/sqlstate"
)

// refuses reports whether the table refuses an entry for what it is: a value, a
// constraint or a limit (SQLSTATE classes 22, 23 and 54). Trying again does not help.
func refuses(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && sqlstate.OfData(pgErr.Code)
}

// plainForms are the forms in which an entry is tried that the table refuses, in this
// order. The content, from which the event is made again, stays as it is.
var plainForms = []func(*Entry, error){plainFailures, plainEntry} //nolint:gochecknoglobals // a constant

// plainFailures writes the texts of the failures in ASCII: a database that is not in
// UTF-8 may have no character for what they quote.
func plainFailures(e *Entry, _ error) {
	e.Failures = slices.Clone(e.Failures)
	for i := range e.Failures {
		e.Failures[i].Error = plain(e.Failures[i].Error)
	}
}

// plainEntry leaves nothing that can be refused, and makes the event a failed one: a
// person sees why, and its content is whole.
func plainEntry(e *Entry, refusal error) {
	original := e.Event
	if e.Kind == "" {
		e.Kind, e.Content = "event", original.AppendJSON(nil)
	}
	e.Event = &event.Event{
		Position: original.Position, Delay: original.Delay, MaxRetries: -1,
		ID: plain(original.ID), Type: plain(original.Type), Source: plain(original.Source), PartitionKey: original.PartitionKey,
		Schema: original.Schema, Table: original.Table,
	}
	e.plainKey = true
	e.State, e.Wait = Failed, 0
	reason := plain(fmt.Sprintf("walrelay.delayed refuses the event as it is: %v", refusal))
	failures := append(slices.Clip(e.Failures), event.Failure{At: now(), Error: reason})
	e.Failures = failures[max(0, len(failures)-maxFailures):]
}

// plain returns the text in printable ASCII, clipped.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	if len(text) > maxError {
		text = text[:maxError-3] + "..."
	}
	return text
}
