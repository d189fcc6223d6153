package decode

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"github.com/walrelay/walrelay/event"
)

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
}

type columnType struct {
	name string
	oid  uint32
}

// OIDs of types whose values are not plain text (pg_type.dat).
const (
	oidBytea = 17
	oidJSON  = 114
	oidJSONB = 3802
)

// compile finds the mapping's columns.
func (rel *relation) compile(m *Mapping) {
	rel.mapping = m
	for a := range attributes {
		rel.index[a] = -1
		src := m.sources[a]
		switch {
		case src.template != nil:
			compiled := &template{parts: append([]templatePart(nil), src.template.parts...)}
			for i := range compiled.parts {
				part := &compiled.parts[i]
				if part.column == "" {
					continue
				}
				if part.index = rel.find(part.column); part.index < 0 {
					rel.missing(part.column, a)
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

func (rel *relation) find(name string) int {
	for i := range rel.columns {
		if rel.columns[i].name == name {
			return i
		}
	}
	return -1
}

func (rel *relation) missing(column string, a attribute) {
	if rel.fault == nil {
		rel.fault = &TableError{Schema: rel.schema, Table: rel.name, Column: column, Attribute: a.String()}
	}
}

// texts are the attributes that are taken from their columns as they are.
func texts() [9]attribute {
	return [...]attribute{attrID, attrType, attrSource, attrSubject, attrDataContentType, attrDataSchema, attrPartitionKey, attrData, attrDataBytes}
}

// row is one row on its way to an event.
type row struct {
	rel     *relation
	columns []column
	buf     []byte // everything that the event keeps; it does not grow
	ev      *event.Event
	id      string
}

// event makes an event of a row.
func (rel *relation) event(columns []column, v *validator) (*event.Event, *RowError) {
	r := row{rel: rel, columns: columns}
	size := 0
	for _, a := range texts() {
		size += r.size(a)
	}
	// Everything that is kept, in one piece; a time is at most 35 bytes.
	r.buf = make([]byte, 0, size+35)
	ev := &event.Event{Schema: rel.schema, Table: rel.name, MaxRetries: -1}
	r.ev = ev
	for _, set := range [...]struct {
		a  attribute
		to *string
	}{
		{attrID, &ev.ID},
		{attrType, &ev.Type},
		{attrSource, &ev.Source},
		{attrSubject, &ev.Subject},
		{attrDataContentType, &ev.DataContentType},
		{attrDataSchema, &ev.DataSchema},
		{attrPartitionKey, &ev.PartitionKey},
	} {
		value, err := r.text(set.a)
		if err != nil {
			return nil, r.fail(set.a, err)
		}
		*set.to = view(value)
		if set.a == attrID {
			r.id = ev.ID
		}
		if len(value) == 0 && set.a.required() {
			return nil, r.fail(set.a, errors.New("it is empty, but every event has a value"))
		}
	}
	for _, step := range [...]struct {
		a    attribute
		take func(*row) error
	}{
		{attrTime, (*row).time},
		{attrData, (*row).payload},
		{attrExtensions, (*row).extensions},
		{attrScheduledAt, (*row).schedule},
		{attrMaxRetries, (*row).retries},
	} {
		if err := step.take(&r); err != nil {
			return nil, r.fail(step.a, err)
		}
	}
	if a, err := v.check(ev); err != nil {
		return nil, r.fail(a, err)
	}
	return ev, nil
}

// view is b as a string, without a copy. Nobody writes to b any more: it is a
// part of a row's buffer, of which each byte is written once.
func view(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // see above
}

func (r *row) fail(a attribute, err error) *RowError {
	if wrong, ok := errors.AsType[*attributeError](err); ok {
		a = wrong.attribute
	}
	column := r.rel.mapping.sources[a].column
	if column == "" {
		column = a.String()
	}
	return &RowError{Schema: r.rel.schema, Table: r.rel.name, ID: r.id, Column: column, Err: err}
}

// attributeError is an error of another attribute than the one being made.
type attributeError struct {
	attribute attribute
	err       error
}

func (f *attributeError) Error() string { return f.err.Error() }

// value returns the column of an attribute, nil for null or none.
func (r *row) value(a attribute) ([]byte, error) {
	return r.column(r.rel.index[a])
}

var (
	errUnchanged = errors.New("its value was not sent, as of an unchanged row")
	errBinary    = errors.New("its value came in binary format")
)

func (r *row) column(i int) ([]byte, error) {
	if i < 0 {
		return nil, nil
	}
	switch c := &r.columns[i]; c.kind {
	case 't':
		if c.data == nil {
			return []byte{}, nil
		}
		return c.data, nil
	case 'u':
		return nil, errUnchanged
	case 'b':
		return nil, errBinary
	}
	return nil, nil
}

// size is how many bytes an attribute may take.
func (r *row) size(a attribute) int {
	if t := r.rel.templates[a]; t != nil {
		n := 0
		for i := range t.parts {
			n += len(t.parts[i].text)
			if t.parts[i].column != "" {
				n += len(r.columns[t.parts[i].index].data)
			}
		}
		return n
	}
	if i := r.rel.index[a]; i >= 0 {
		return len(r.columns[i].data)
	}
	return 0
}

// text copies an attribute into the buffer.
func (r *row) text(a attribute) ([]byte, error) {
	start := len(r.buf)
	if t := r.rel.templates[a]; t != nil {
		for i := range t.parts {
			part := &t.parts[i]
			r.buf = append(r.buf, part.text...)
			if part.column == "" {
				continue
			}
			value, err := r.column(part.index)
			if err != nil {
				return nil, err
			}
			r.buf = append(r.buf, value...)
		}
		return r.buf[start:], nil
	}
	value, err := r.value(a)
	if err != nil {
		return nil, err
	}
	r.buf = append(r.buf, value...)
	return r.buf[start:], nil
}

// time makes RFC 3339 of created_at.
func (r *row) time() error {
	value, err := r.value(attrTime)
	if err != nil || len(value) == 0 {
		return err
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

// payload takes data or data_bytes, and the content type's default.
func (r *row) payload() error {
	data, err := r.value(attrData)
	if err != nil {
		return err
	}
	raw, err := r.value(attrDataBytes)
	if err != nil {
		return &attributeError{attrDataBytes, err}
	}
	a, value := attrData, data
	if raw != nil {
		if data != nil {
			return &attributeError{attrDataBytes, errors.New("it is set together with data; an event has one payload")}
		}
		a, value = attrDataBytes, raw
	}
	if value == nil {
		return nil
	}
	oid := r.rel.columns[r.rel.index[a]].oid
	isJSON := oid == oidJSON || oid == oidJSONB
	start := len(r.buf)
	if oid == oidBytea {
		if r.buf, err = appendBytea(r.buf, value); err != nil {
			return &attributeError{a, err}
		}
	} else {
		r.buf = append(r.buf, value...)
	}
	r.ev.Data = r.buf[start:len(r.buf):len(r.buf)]
	if r.ev.DataContentType == "" {
		r.ev.DataContentType = "application/json"
		if !isJSON && (a == attrDataBytes || oid == oidBytea) {
			r.ev.DataContentType = "application/octet-stream"
		}
	}
	if !isJSON && isJSONType(r.ev.DataContentType) && !json.Valid(r.ev.Data) {
		return &attributeError{a, fmt.Errorf("it is not valid JSON, but the content type is %q", r.ev.DataContentType)}
	}
	return nil
}

// appendBytea decodes the hex form of a bytea value.
func appendBytea(dst, value []byte) ([]byte, error) {
	digits, ok := bytes.CutPrefix(value, []byte(`\x`))
	if !ok {
		return dst, errors.New("it is not in the hex format of bytea")
	}
	dst, err := hex.AppendDecode(dst, digits)
	if err != nil {
		return dst, fmt.Errorf("it is not in the hex format of bytea: %w", err)
	}
	return dst, nil
}

func (r *row) schedule() error {
	value, err := r.value(attrScheduledAt)
	if err != nil || len(value) == 0 || string(value) == "-infinity" {
		return err
	}
	t, err := parseTimestamp(value)
	if err != nil {
		return err
	}
	r.ev.ScheduledAt = t
	return nil
}

func (r *row) retries() error {
	value, err := r.value(attrMaxRetries)
	if err != nil || len(value) == 0 {
		return err
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil || n < 0 {
		return fmt.Errorf("%s is not a number of retries from 0 to 2147483647", value)
	}
	r.ev.MaxRetries = int(n)
	return nil
}
