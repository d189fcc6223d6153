package decode

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
	index     [attributes]int
	templates [attributes]*template
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
	for a := range attributes {
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
			if rel.index[a] < 0 && (src.explicit || a.required()) {
				rel.missing(src.column, a)
			}
		case a.required():
			rel.missing(a.String(), a)
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
func (rel *relation) missing(column string, a attribute) {
	if rel.fault == nil {
		rel.fault = &TableError{Schema: rel.schema, Table: rel.name, Column: column, Attribute: a.String()}
	}
}
