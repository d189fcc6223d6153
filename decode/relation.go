package decode

import "github.com/walrelay/walrelay/event"

// relation is a table as the stream has described it. Later descriptions of
// the same table, after an ALTER TABLE, replace it.
type relation struct {
	schema, name string
	columns      []columnType

	// mapping is nil for tables that are no outbox, and fault why an outbox
	// table makes no events.
	mapping *Mapping
	fault   error
	// index is the place of each attribute's column, -1 without one.
	index     [event.NumColumns]int
	templates [event.NumColumns]*template
	// renamed are attributes whose columns have got other names.
	renamed [event.NumColumns]bool
	// emitted is set for walrelay.emitted alone.
	emitted *emittedColumns
}

type columnType struct {
	name string
	oid  uint32
	// needed says that the column makes a part of events.
	needed bool
}

// OIDs of types whose values are not plain text (pg_type.dat), and the first
// one that is not built in (transam.h): of domains, for instance.
const (
	oidBytea     = 17
	oidJSON      = 114
	oidJSONB     = 3802
	firstUserOID = 16384
)

// compile finds the mapping's columns. A column that must be there and is not
// is a fault of the first row, not of the description: a table without rows
// stops nobody.
func (rel *relation) compile(m *Mapping) {
	rel.mapping = m
	for a := range event.NumColumns {
		rel.index[a] = -1
		src := m.sources[a]
		switch {
		case src.template != nil:
			compiled := &template{parts: append([]templatePart(nil), src.template.parts...)}
			for i := range compiled.parts {
				if part := &compiled.parts[i]; part.column != "" {
					if part.index = rel.find(part.column); part.index < 0 {
						rel.missing(part.column, a)
					}
				}
			}
			rel.templates[a] = compiled
		case src.column != "":
			rel.index[a] = rel.find(src.column)
			if rel.index[a] < 0 && (src.expected || a.Required()) {
				rel.missing(src.column, a)
			}
		case a.Required():
			rel.missing(a.String(), a)
		}
	}
	rel.keep()
}

// replace compares a table with its description before. Where an optional column was
// renamed, what it made would be left out of events silently. (A column that was dropped
// is left out on purpose.)
func (rel *relation) replace(before *relation) {
	if before == nil || before.mapping != rel.mapping || rel.mapping == nil {
		return
	}
	for a := range event.NumColumns {
		if rel.index[a] < 0 && (before.renamed[a] || rel.renames(before, before.index[a])) {
			rel.renamed[a] = true
			rel.missing(rel.mapping.sources[a].column, a)
		}
	}
	rel.keep()
}

// renames reports whether the i-th column has got another name: columns stand in the
// order of their numbers, which a new name leaves as it is.
func (rel *relation) renames(before *relation, i int) bool {
	if i < 0 || len(rel.columns) < len(before.columns) || rel.columns[i].oid != before.columns[i].oid {
		return false
	}
	for _, c := range before.columns {
		if c.name == rel.columns[i].name {
			return false
		}
	}
	return true
}

// keep has the decoder read the whole row where the table is at fault.
func (rel *relation) keep() {
	if rel.fault != nil {
		// Whatever the mapping is to be, a failed event has all of the row.
		for i := range rel.columns {
			rel.columns[i].needed = true
		}
	}
}

// find returns the place of a column that makes a part of events, -1 if the
// table has no such column.
func (rel *relation) find(name string) int {
	for i := range rel.columns {
		if rel.columns[i].name == name {
			rel.columns[i].needed = true
			return i
		}
	}
	return -1
}

// missing keeps the first fault.
func (rel *relation) missing(column string, a event.Column) {
	if rel.fault == nil {
		rel.fault = &TableError{Schema: rel.schema, Table: rel.name, Column: column, Attribute: a.String()}
	}
}
