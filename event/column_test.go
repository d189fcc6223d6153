package event_test

import (
	"encoding/json"
	"testing"

	"github.com/walrelay/walrelay/event"
)

// A column whose row in the table is incomplete would be left out of events silently.
func TestColumns(t *testing.T) {
	names := make(map[string]bool)
	fields := make(map[*string]event.Column)
	var ev event.Event
	for c := range event.NumColumns {
		for _, name := range []string{"part " + c.String(), "column " + c.Name(), "attribute " + c.Attribute()} {
			if names[name] && name != "attribute " {
				t.Errorf("two columns have the %s", name)
			}
			names[name] = true
		}
		if c.String() == "" || c.Name() == "" || c.Definition() == "" || c.Comment() == "" {
			t.Errorf("column %d %s: an empty text", c, c)
		}
		if found, ok := event.ColumnOf(c.String()); !ok || found != c {
			t.Errorf("column %s is found as %v", c, found)
		}
		field := c.Field(&ev)
		if (field == nil) != (c.Attribute() == "") || (c.Header() == "") != (c.Attribute() == "") {
			t.Errorf("column %s: attribute, header and field do not go together", c)
		}
		if field == nil {
			continue
		}
		if other, ok := fields[field]; ok {
			t.Errorf("columns %s and %s have one field", c, other)
		}
		fields[field] = c
		if c.Header() != "ce-"+c.Attribute() {
			t.Errorf("column %s: header %s", c, c.Header())
		}
		if found, ok := event.ColumnOfAttribute(c.Attribute()); !ok || found != c {
			t.Errorf("attribute %s is of column %v", c.Attribute(), found)
		}
		*field = c.String() + " of the event"
	}
	var object map[string]string
	if err := json.Unmarshal(ev.AppendJSON(nil), &object); err != nil {
		t.Fatal(err)
	}
	for field, c := range fields {
		if object[c.Attribute()] != *field {
			t.Errorf("in JSON, %s is %q", c.Attribute(), object[c.Attribute()])
		}
	}
}
