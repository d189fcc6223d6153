package decode

import (
	"fmt"

	"github.com/walrelay/walrelay/event"
)

// Column is a column of an outbox table.
type Column struct {
	Name string
	// Type is the OID of its type.
	Type uint32
}

// Rows makes events of rows of one outbox table that were read from the table:
// the events that the inserts of these rows made.
type Rows struct {
	rel       *relation
	validator *validator
	limit     func() int64
	columns   []column // scratch
	slab      slab
}

// Rows returns what makes events of rows with these columns. A *TableError says
// that they lack what the mapping needs.
func (d *Decoder) Rows(schema, table string, columns []Column) (*Rows, error) {
	mapping, ok := d.tables[tableName{schema, table}]
	if !ok {
		return nil, fmt.Errorf("table %s.%s is not an outbox table", schema, table)
	}
	rel := &relation{schema: schema, name: table}
	for _, c := range columns {
		rel.columns = append(rel.columns, columnType{name: c.Name, oid: c.Type})
	}
	rel.compile(mapping)
	if rel.fault != nil {
		return nil, rel.fault
	}
	return &Rows{rel: rel, validator: d.validator, limit: d.limit}, nil
}

// Event makes the event of a row whose insert stands at the position. The values
// are texts as replication sends them, nil for null, and are read during the
// call only. With a *RowError comes what could be read of the event.
func (r *Rows) Event(position event.Position, values [][]byte) (*event.Event, error) {
	if len(values) != len(r.rel.columns) {
		return nil, fmt.Errorf("a row of %s.%s with %d columns, want %d", r.rel.schema, r.rel.name, len(values), len(r.rel.columns))
	}
	r.columns = r.columns[:0]
	for i, value := range values {
		if !r.rel.columns[i].needed {
			value = nil
		}
		r.columns = append(r.columns, value)
	}
	if ev, _, rowErr := r.rel.tooLarge(r.columns, r.limit); rowErr != nil {
		ev.Position, rowErr.Position = position, position
		return ev, rowErr
	}
	ev, rowErr := r.rel.event(r.columns, r.validator, &r.slab)
	ev.Position = position
	if rowErr != nil {
		rowErr.Position = position
		return ev, rowErr
	}
	return ev, nil
}
