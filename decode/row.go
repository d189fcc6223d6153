package decode

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/walrelay/walrelay/event"
)

// row is one row on its way to an event.
type row struct {
	rel     *relation
	columns []column
	// buf takes everything that the event keeps, in one piece. It has its
	// capacity from the start, so what was appended never moves.
	buf []byte
	ev  *event.Event
}

// maxTime is the length of the longest time, 2006-01-02T15:04:05.999999999Z.
const maxTime = 30

// event makes an event of a row; with an error, as much of it as is good.
func (rel *relation) event(columns []column, v *validator, s *slab) (*event.Event, *RowError) {
	r := row{rel: rel, columns: columns}
	r.ev, r.buf = s.take(r.size())
	r.ev.Schema, r.ev.Table, r.ev.MaxRetries = rel.schema, rel.name, -1
	if fault, ok := errors.AsType[*TableError](rel.fault); ok {
		return r.ev, r.unmapped(fault)
	}
	if a, err := r.fill(v); err != nil {
		return r.ev, &RowError{
			Schema: rel.schema, Table: rel.name,
			// A copy: the error must not keep a large row alive.
			ID:     strings.Clone(r.ev.ID),
			Column: rel.mapping.sources[a].columns(a), Err: err,
		}
	}
	return r.ev, nil
}

// unmapped is the error of a row whose table lacks a column. The event gets what people
// know it by.
func (r *row) unmapped(fault *TableError) *RowError {
	for a := range event.NumColumns {
		if value := r.value(a); a.Required() && event.CheckText(view(value)) == nil {
			*a.Field(r.ev) = string(value)
		}
	}
	return &RowError{
		Schema: r.rel.schema, Table: r.rel.name, ID: strings.Clone(r.ev.ID), Column: fault.Column,
		Err: fmt.Errorf("the table does not have it, or does not send it, and it makes the event's %s; add it, or map %[1]s in outbox.mappings", fault.Attribute),
	}
}

// fill sets the parts of the event one by one. With an error comes the
// attribute at fault.
func (r *row) fill(v *validator) (event.Column, error) {
	ev := r.ev
	for a := range event.NumColumns {
		to := a.Field(ev)
		if to == nil || a == event.ColumnTime {
			continue
		}
		value := r.text(a)
		if err := event.CheckText(value); err != nil {
			return a, err
		}
		*to = value
		switch {
		case value == "":
			if a.Required() {
				return a, errors.New("it is null or empty; every event needs a value here")
			}
		case a != event.ColumnPartitionKey && strings.TrimSpace(value) == "":
			return a, errors.New("it is nothing but white space; write a value, or null if it is optional")
		}
	}
	if a, err := v.check(ev); err != nil {
		return a, err
	}
	if a, err := r.payload(); err != nil {
		return a, err
	}
	if err := r.time(); err != nil {
		return event.ColumnTime, err
	}
	if err := r.schedule(); err != nil {
		return event.ColumnScheduledAt, err
	}
	if err := r.retries(); err != nil {
		return event.ColumnMaxRetries, err
	}
	return event.ColumnExtensions, r.extensions()
}

// view is b as a string, without a copy. Nobody writes to b any more: it is a
// part of a row's buffer, whose bytes do not change once they were viewed.
func view(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // see above
}

// value returns the value of an attribute's column, nil for null or no column.
func (r *row) value(a event.Column) []byte {
	if i := r.rel.index[a]; i >= 0 {
		return r.columns[i]
	}
	return nil
}

// size is how many bytes the buffer takes at most.
func (r *row) size() int {
	n := 0
	for a := range event.NumColumns {
		t := r.rel.templates[a]
		if r.rel.fault != nil {
			return 0
		}
		if t != nil {
			for i := range t.parts {
				n += len(t.parts[i].text)
				if t.parts[i].column != "" {
					n += len(r.columns[t.parts[i].index])
				}
			}
			continue
		}
		value := r.value(a)
		switch a {
		case event.ColumnData, event.ColumnDataBytes:
			if r.isBytea(a) {
				n += len(value) / 2 // two hex digits are a byte
				continue
			}
			n += len(value)
		case event.ColumnTime:
			if len(value) > 0 {
				n += maxTime
			}
		case event.ColumnExtensions, event.ColumnScheduledAt, event.ColumnMaxRetries:
		default:
			n += len(value)
		}
	}
	return n
}

// text copies an attribute into the buffer. A text with columns in it is
// absent when one of them is null or empty: half of it would be another value.
func (r *row) text(a event.Column) string {
	start := len(r.buf)
	t := r.rel.templates[a]
	if t == nil {
		r.buf = append(r.buf, r.value(a)...)
		return view(r.buf[start:])
	}
	for i := range t.parts {
		part := &t.parts[i]
		if part.column == "" {
			r.buf = append(r.buf, part.text...)
			continue
		}
		value := r.columns[part.index]
		if len(value) == 0 {
			r.buf = r.buf[:start]
			return ""
		}
		r.buf = append(r.buf, value...)
	}
	return view(r.buf[start:])
}

// isBytea reports whether an attribute's column has bytes in hex. A domain has
// an OID of its own, so data_bytes counts as bytea unless its type is another
// built-in one.
func (r *row) isBytea(a event.Column) bool {
	i := r.rel.index[a]
	if i < 0 {
		return false
	}
	oid := r.rel.columns[i].oid
	return oid == oidBytea || a == event.ColumnDataBytes && oid >= firstUserOID
}

// payload takes data or data_bytes, and the content type's default.
func (r *row) payload() (event.Column, error) {
	a, value := event.ColumnData, r.value(event.ColumnData)
	if len(value) == 0 {
		// No type but text has an empty value: a blank that means nothing.
		value = nil
	}
	if raw := r.value(event.ColumnDataBytes); raw != nil {
		if value != nil {
			return event.ColumnDataBytes, errors.New("it is set together with the column of data; an event has one payload, so one of them must be null")
		}
		a, value = event.ColumnDataBytes, raw
	}
	if value == nil {
		return 0, nil
	}
	start := len(r.buf)
	isBytea := r.isBytea(a)
	if isBytea {
		if len(value) < 2 || value[0] != '\\' || value[1] != 'x' {
			return a, errBytea
		}
		var err error
		if r.buf, err = hex.AppendDecode(r.buf, value[2:]); err != nil {
			return a, errBytea
		}
	} else {
		r.buf = append(r.buf, value...)
	}
	r.ev.Data = r.buf[start:len(r.buf):len(r.buf)]

	oid := r.rel.columns[r.rel.index[a]].oid
	if oid == oidJSON || oid == oidJSONB {
		// Postgres has checked it.
		if r.ev.DataContentType == "" {
			r.ev.DataContentType = contentTypeJSON
		}
		return 0, nil
	}
	if r.ev.DataContentType == "" {
		r.ev.DataContentType = contentTypeJSON
		if isBytea || a == event.ColumnDataBytes {
			r.ev.DataContentType = contentTypeBytes
		}
	}
	if event.IsJSON(r.ev.DataContentType) && !json.Valid(r.ev.Data) {
		return a, fmt.Errorf("it is not valid JSON, but the content type is %s (the default, unless the row says otherwise); correct it, or give the row the right datacontenttype",
			event.Clip(r.ev.DataContentType))
	}
	return 0, nil
}

var errBytea = errors.New("it is not in the hex format of bytea, which the replication session asks for; make the column a bytea, or map it to data")

// time makes RFC 3339 of created_at.
func (r *row) time() error {
	value := r.value(event.ColumnTime)
	if len(value) == 0 {
		return nil
	}
	start := len(r.buf)
	if r.buf = appendUTC(r.buf, value); len(r.buf) == start {
		t, err := parseTimestamp(value)
		if err != nil {
			return err
		}
		r.buf = t.AppendFormat(r.buf, time.RFC3339Nano)
	}
	r.ev.Time = view(r.buf[start:])
	return nil
}

// schedule takes scheduled_at. What is before all years is at once.
func (r *row) schedule() error {
	value := r.value(event.ColumnScheduledAt)
	if len(value) == 0 {
		return nil
	}
	t, err := parseTimestamp(value)
	switch {
	case errors.Is(err, errTooEarly):
		return nil
	case err == nil && !hasOffset(value):
		return fmt.Errorf("%s has no time zone, so that nobody knows when it is; make the column a timestamptz", event.Clip(value))
	case errors.Is(err, errTooLate):
		return fmt.Errorf("%s never comes; write a time before the year 10000", event.Clip(value))
	case err != nil:
		return err
	}
	r.ev.ScheduledAt = t
	return nil
}

func (r *row) retries() error {
	value := r.value(event.ColumnMaxRetries)
	if len(value) == 0 {
		return nil
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil || n < 0 {
		return fmt.Errorf("%s is not a number of retries; write an integer from 0 to 2147483647, or null for the default", event.Clip(value))
	}
	r.ev.MaxRetries = int(n)
	return nil
}
