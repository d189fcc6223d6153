package decode

import (
	"errors"
	"fmt"
	"strings"

	"github.com/walrelay/walrelay/event"
)

// ErrTooLarge says that an event is larger than [Config].MaxEventSize.
var ErrTooLarge = errors.New("the event is too large")

const (
	// small is the size up to which a row is not compared with the limit.
	small = 64 << 10
	// shortText is how long an attribute may be to be known of an event that is too
	// large.
	shortText = 8 << 10
)

// tooLarge returns, for a row larger than the limit, what is known of its event, a
// reference in place of its content, and the error; nil otherwise. Nothing of the size
// of the row is allocated.
func (rel *relation) tooLarge(columns []column, limit func() int64) (*event.Event, *Raw, *RowError) {
	if limit == nil {
		return nil, nil, nil
	}
	var size, largest, at int
	for i, value := range columns {
		n := len(value)
		if rel.columns[i].oid == oidBytea {
			n /= 2 // two hex digits are a byte
		}
		if size += n; n > largest {
			largest, at = n, i
		}
	}
	if size <= small {
		return nil, nil, nil
	}
	most := limit()
	if int64(size) <= most {
		return nil, nil, nil
	}
	r := row{rel: rel, columns: columns, ev: &event.Event{Schema: rel.schema, Table: rel.name, MaxRetries: -1}}
	for a := range event.NumColumns {
		// What identifies it, and what orders it.
		if (a.Required() || a == event.ColumnPartitionKey) && rel.fault == nil && r.length(a) <= shortText {
			if value := r.text(a); event.CheckText(value) == nil {
				*a.Field(r.ev) = strings.Clone(value)
			}
		}
	}
	return r.ev, reference(rel.schema, rel.name, size), &RowError{
		Schema: rel.schema, Table: rel.name, ID: r.ev.ID, Column: rel.columns[at].name,
		Err: fmt.Errorf("%w: it has %d bytes, and at most %d are published (publish.max_event_size, or max_payload of the NATS server); its content stays in its row; raise the limit and redrive it, or discard it",
			ErrTooLarge, size, most),
	}
}

// reference is what is kept of an event whose content stays in its row. It is for
// people: the row is found by table and id.
func reference(schema, table string, size int) *Raw {
	return &Raw{Kind: RawReference, Content: fmt.Appendf(nil, `{"row_of":%q,"bytes":%d}`, event.Clip(schema+"."+table), size)}
}

// length is how long an attribute's text is.
func (r *row) length(a event.Column) int {
	t := r.rel.templates[a]
	if t == nil {
		return len(r.value(a))
	}
	n := 0
	for i := range t.parts {
		n += len(t.parts[i].text)
		if t.parts[i].column != "" {
			n += len(r.columns[t.parts[i].index])
		}
	}
	return n
}
