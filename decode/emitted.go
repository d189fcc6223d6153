package decode

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/walrelay/walrelay/event"
)

// RawKind says what Raw is.
type RawKind string

// What can be kept of an event that cannot be decoded.
const (
	// RawRow is a row: a JSON array of [column, type OID, value as text], and for a
	// value that does not convert to UTF-8 the reason.
	RawRow RawKind = "row"
	// RawMessage is what a row of walrelay.emitted had in place of an event.
	RawMessage RawKind = "message"
	// RawReference stands for a row that is still in its outbox table.
	RawReference RawKind = "reference"
)

// Raw is what an event that cannot be decoded was made of. Re-emitted, it is
// decoded again.
type Raw struct {
	Kind    RawKind
	Content []byte
}

// head is what a row of walrelay.emitted says beside the event.
type head struct {
	slot, kind    string
	id            string // of a marker: its text
	schema, table string
	scheduledAt   string // as Postgres writes a timestamptz in ISO style
	maxRetries    *int64
	origin        string
	attempts      int64
	failures      []event.Failure
	released      bool
}

// The relation of the events that do not come from an outbox table.
const (
	emittedSchema = "walrelay"
	emittedTable  = "emitted"
)

// emittedColumns are the places of the columns of walrelay.emitted.
type emittedColumns struct {
	slot, kind, id, schema, table, origin, scheduledAt, maxRetries, attempts, failures, released, content, contentBytes int
}

// compileEmitted finds the columns by name; a later version may have more.
func (rel *relation) compileEmitted() {
	c := &emittedColumns{}
	for _, column := range []struct {
		name string
		to   *int
	}{
		{"slot", &c.slot}, {"kind", &c.kind}, {"id", &c.id}, {"table_schema", &c.schema}, {"table_name", &c.table},
		{"origin", &c.origin}, {"scheduled_at", &c.scheduledAt}, {"max_retries", &c.maxRetries}, {"attempts", &c.attempts},
		{"failures", &c.failures}, {"released", &c.released}, {"content", &c.content}, {"content_bytes", &c.contentBytes},
	} {
		if *column.to = rel.find(column.name); *column.to < 0 && rel.fault == nil {
			rel.fault = &TableError{Schema: rel.schema, Table: rel.name, Column: column.name}
		}
	}
	rel.emitted = c
}

// parse reads the row in the scratch, and returns what it has in place of an
// outbox table's columns.
func (h *head) parse(c *emittedColumns, columns []column) (content []byte, err error) {
	text := func(i int) string { return string(columns[i]) }
	number := func(i, bits int) (n int64) {
		if columns[i] != nil && err == nil {
			n, err = strconv.ParseInt(text(i), 10, bits)
		}
		return n
	}
	*h = head{
		slot: text(c.slot), kind: text(c.kind), id: text(c.id), schema: text(c.schema), table: text(c.table),
		origin: text(c.origin), scheduledAt: text(c.scheduledAt), attempts: number(c.attempts, 32), released: text(c.released) == "t",
	}
	if columns[c.maxRetries] != nil {
		h.maxRetries = new(number(c.maxRetries, 64))
	}
	if columns[c.failures] != nil && err == nil {
		if err = json.Unmarshal(columns[c.failures], &h.failures); err != nil {
			err = fmt.Errorf("failures: %w", err)
		}
	}
	content = columns[c.content]
	if encoded := columns[c.contentBytes]; encoded != nil && err == nil {
		if !bytes.HasPrefix(encoded, []byte(`\x`)) {
			return nil, errBytea
		}
		content, err = hex.AppendDecode(nil, encoded[2:])
	}
	return content, err
}

// emitted decodes the row in the scratch: an event that left the delay table or
// has no row of its own, or a marker. What cannot be read is the fault of that
// row.
func (d *Decoder) emitted(position event.Position, rel *relation) (Change, error) {
	var h head
	content, err := h.parse(rel.emitted, d.columns)
	if h.slot != d.slot {
		return Change{}, nil // of another relay
	}
	if h.schema == "" {
		h.schema, h.table = emittedSchema, "emit_event"
	}
	switch {
	case d.garbled.err != nil:
		change, err := d.undecodable(position, &h, RawMessage, content, d.garbled.err)
		// A JSON text is no event: re-emitted, it fails again.
		if text, err := json.Marshal(string(change.Raw.Content)); err == nil {
			change.Raw.Content = text
		}
		return change, err
	case err != nil:
		return d.undecodable(position, &h, RawMessage, content, err)
	case h.kind == "marker":
		return Change{Kind: Marker, Marker: h.id}, nil
	case h.kind == string(RawRow):
		return d.rawRow(position, &h, content)
	case h.kind == string(RawReference):
		return d.reference(position, &h, content)
	}
	return d.emittedEvent(position, &h, content)
}

func (d *Decoder) emittedEvent(position event.Position, h *head, content []byte) (Change, error) {
	ev := &event.Event{MaxRetries: -1}
	if err := d.parse(ev, content); err != nil {
		return d.undecodable(position, h, RawMessage, content, err)
	}
	if err := h.schedule(ev); err != nil {
		return d.undecodable(position, h, RawMessage, content, err)
	}
	d.applyEnvelope(ev, position, h)
	return Change{Kind: Insert, Event: ev}, nil
}

// reference is an event whose content is still in its row.
func (d *Decoder) reference(position event.Position, h *head, content []byte) (Change, error) {
	if _, ok := d.tables[tableName{h.schema, h.table}]; !ok {
		return d.undecodable(position, h, RawReference, content, fmt.Errorf("table %s.%s is not an outbox table any more", h.schema, h.table))
	}
	ev := &event.Event{ID: h.id, MaxRetries: -1}
	d.applyEnvelope(ev, position, h)
	return Change{Kind: Reference, Event: ev, Raw: &Raw{Kind: RawReference, Content: bytes.Clone(content)}}, nil
}

// Resolve makes of a Reference the Insert that it stands for. The event and the error
// are what [Rows.Event] made of the row, nil if there is none.
func Resolve(reference Change, ev *event.Event, rowErr *RowError) Change {
	change := Change{Kind: Insert, Event: reference.Event}
	if ev != nil {
		envelope := reference.Event
		ev.Position, ev.CommittedAt, ev.Delay, ev.ScheduledAt = envelope.Position, envelope.CommittedAt, envelope.Delay, time.Time{}
		change.Event = ev
	}
	if rowErr != nil {
		change.Raw = reference.Raw
	}
	return change
}

// position counts an event of the transaction.
func (d *Decoder) position() (event.Position, error) {
	if d.index == math.MaxUint32 {
		return event.Position{}, &ProtocolError{Message: "more events in a transaction than a position can count"}
	}
	position := event.Position{CommitLSN: d.commitLSN, Index: d.index}
	d.index++
	return position, nil
}

// applyEnvelope sets what the row says beside the event.
func (d *Decoder) applyEnvelope(ev *event.Event, position event.Position, h *head) {
	ev.Position, ev.CommittedAt = position, d.committedAt
	ev.Schema, ev.Table = h.schema, h.table
	if h.origin == "" {
		return
	}
	ev.Delay = &event.Delay{Attempts: int(h.attempts), Failures: h.failures, Released: h.released}
	if origin, err := event.ParsePosition(h.origin); err == nil {
		ev.Delay.Origin = origin
	}
}

// undecodable returns what is known of an event that cannot be decoded.
func (d *Decoder) undecodable(position event.Position, h *head, kind RawKind, content []byte, cause error) (Change, error) {
	ev := &event.Event{MaxRetries: -1}
	// As far as it can be read, so that a person recognises it.
	var names struct {
		ID     any `json:"id"`
		Type   any `json:"type"`
		Source any `json:"source"`
	}
	_ = json.Unmarshal(content, &names)
	ev.ID, _ = names.ID.(string)
	ev.Type, _ = names.Type.(string)
	ev.Source, _ = names.Source.(string)
	d.applyEnvelope(ev, position, h)
	return Change{Kind: Insert, Event: ev, Raw: &Raw{Kind: kind, Content: bytes.Clone(content)}},
		&RowError{Position: position, Schema: ev.Schema, Table: ev.Table, ID: ev.ID, Column: "message", Err: cause}
}

func (h *head) schedule(ev *event.Event) error {
	if h.scheduledAt != "" {
		at, err := parseTimestamp([]byte(h.scheduledAt))
		switch {
		case errors.Is(err, errTooEarly):
		case errors.Is(err, errTooLate):
			return fmt.Errorf("scheduled_at: %s never comes; write a time before the year 10000", event.Clip(h.scheduledAt))
		case err != nil:
			return fmt.Errorf("scheduled_at: %w", err)
		default:
			ev.ScheduledAt = at
		}
	}
	if h.maxRetries != nil {
		if *h.maxRetries < 0 || *h.maxRetries > math.MaxInt32 {
			return fmt.Errorf("max_retries: %d is not a number of retries; write an integer from 0 to 2147483647, or null for the default", *h.maxRetries)
		}
		ev.MaxRetries = int(*h.maxRetries)
	}
	return nil
}

// parse reads an event in the JSON format of CloudEvents (1.0.2).
func (d *Decoder) parse(ev *event.Event, content []byte) error {
	const version = `"` + event.SpecVersion + `"`
	var data, encoded gjson.Result
	var extensions map[string]json.RawMessage
	err := eachMember(content, func(name string, value gjson.Result) error {
		switch name {
		case "specversion":
			if value.Raw != version {
				return fmt.Errorf("specversion: it is %s; only %s is known", event.Clip(value.Raw), version)
			}
		case "data":
			data = value
		case "data_base64":
			encoded = value
		default:
			if a, ok := event.ColumnOfAttribute(name); ok {
				return takeText(a.Field(ev), name, value)
			}
			if extensions == nil {
				extensions = make(map[string]json.RawMessage)
			}
			extensions[name] = json.RawMessage(value.Raw)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for a := range event.NumColumns {
		text := a.Field(ev)
		switch {
		case text == nil:
			continue
		case *text == "" && a.Required():
			return fmt.Errorf("%s: it is missing or empty; every event needs a value here", a.Attribute())
		}
		if err := event.CheckText(*text); err != nil {
			return fmt.Errorf("%s: %w", a.Attribute(), err)
		}
	}
	if ev.Time != "" {
		at, err := time.Parse(time.RFC3339Nano, ev.Time)
		if err != nil {
			return fmt.Errorf("time: %q is not an RFC 3339 time", event.Clip(ev.Time))
		}
		ev.Time = at.UTC().Format(time.RFC3339Nano)
	}
	if err := parseData(ev, data, encoded); err != nil {
		return err
	}
	if a, err := d.validator.check(ev); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	return appendExtensions(ev, extensions)
}

func parseData(ev *event.Event, data, encoded gjson.Result) error {
	if encoded.Exists() {
		if encoded.Type != gjson.String || data.Exists() {
			return errors.New("data_base64: it is not a JSON string, or set together with data")
		}
		var err error
		if ev.Data, err = base64.StdEncoding.DecodeString(encoded.Str); err != nil {
			return errors.New("data_base64: it is not base64")
		}
		return nil
	}
	if !data.Exists() {
		return nil
	}
	if ev.DataContentType == "" {
		ev.DataContentType = contentTypeJSON
	}
	switch {
	case event.IsJSON(ev.DataContentType):
		ev.Data = []byte(data.Raw)
	case data.Type == gjson.String:
		ev.Data = []byte(data.Str)
	default:
		return fmt.Errorf("data: it is not a JSON string, but the content type is %s", event.Clip(ev.DataContentType))
	}
	return nil
}

// takeText takes the value of a member that is a text.
func takeText(to *string, name string, value gjson.Result) error {
	if value.Type != gjson.String {
		return fmt.Errorf("%s: it is not a JSON string", name)
	}
	*to = value.Str
	return nil
}

// eachMember calls take for each member of a JSON object that is not null,
// until it returns an error. What it gives is a copy.
func eachMember(content []byte, take func(name string, value gjson.Result) error) (err error) {
	if !valid(content) {
		return errNoObject
	}
	object := gjson.ParseBytes(content)
	if !object.IsObject() {
		return errNoObject
	}
	object.ForEach(func(name, value gjson.Result) bool {
		if value.Type != gjson.Null || name.Str == "data" {
			err = take(name.Str, value)
		}
		return err == nil
	})
	return err
}

// valid reports whether content is JSON. The fast way nests without bounds, and
// would end the process where it runs out of stack.
func valid(content []byte) bool {
	const nested = 1000
	if bytes.Count(content, []byte{'['})+bytes.Count(content, []byte{'{'}) > nested {
		return json.Valid(content)
	}
	return gjson.ValidBytes(content)
}

var errNoObject = errors.New("it is not a JSON object")

// rawColumn is a column of a row that was kept as it was.
type rawColumn struct {
	name  string
	oid   uint32
	value *string
	// fault says why the value is not what the row has.
	fault string
}

func (c rawColumn) MarshalJSON() ([]byte, error) {
	members := []any{c.name, c.oid, c.value}
	if c.fault != "" {
		members = append(members, c.fault)
	}
	return json.Marshal(members)
}

func (c *rawColumn) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&c.name, &c.oid, &c.value, &c.fault})
}

// raw is the row in the scratch, as far as it makes a part of events.
func (d *Decoder) raw(rel *relation) *Raw {
	var columns []rawColumn
	for i, value := range d.columns {
		if !rel.columns[i].needed {
			continue
		}
		c := rawColumn{name: rel.columns[i].name, oid: rel.columns[i].oid}
		if value != nil {
			text := string(value)
			c.value = &text
		}
		if d.garbled.err != nil && d.garbled.column == i {
			c.fault = d.garbled.err.Error()
		}
		columns = append(columns, c)
	}
	content, err := json.Marshal(columns)
	if err != nil {
		return &Raw{Kind: RawRow, Content: []byte("[]")} // strings and numbers always can
	}
	return &Raw{Kind: RawRow, Content: content}
}

// rawRow decodes a row that is re-emitted, by the mapping of today.
func (d *Decoder) rawRow(position event.Position, h *head, content []byte) (Change, error) {
	mapping, ok := d.tables[tableName{h.schema, h.table}]
	if !ok {
		return d.undecodable(position, h, RawRow, content, fmt.Errorf("table %s.%s is not an outbox table any more", h.schema, h.table))
	}
	var columns []rawColumn
	if err := json.Unmarshal(content, &columns); err != nil {
		return d.undecodable(position, h, RawRow, content, errors.New("the row that was kept cannot be read"))
	}
	rel := &relation{schema: h.schema, name: h.table}
	d.columns, d.garbled = d.columns[:0], garbled{}
	for i, c := range columns {
		rel.columns = append(rel.columns, columnType{name: c.name, oid: c.oid})
		var value column
		if c.value != nil {
			value = column(*c.value)
			if value == nil {
				value = column{}
			}
		}
		d.columns = append(d.columns, value)
		if c.fault != "" {
			d.garbled = garbled{column: i, err: errors.New(c.fault)}
		}
	}
	rel.compile(mapping)
	if rel.fault != nil {
		return d.undecodable(position, h, RawRow, content, rel.fault)
	}
	ev, rowErr := rel.event(d.columns, d.validator, &d.slab)
	d.applyEnvelope(ev, position, h)
	if d.garbled.err != nil {
		rowErr = d.garbledError(rel, ev)
	}
	if rowErr != nil {
		rowErr.Position = position
		return Change{Kind: Insert, Event: ev, Raw: &Raw{Kind: RawRow, Content: bytes.Clone(content)}}, rowErr
	}
	if h.origin != "" {
		// Its time has come, or it would not have left the delay table.
		ev.ScheduledAt = time.Time{}
	}
	return Change{Kind: Insert, Event: ev}, nil
}
