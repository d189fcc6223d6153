package decode

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/walrelay/walrelay/event"
)

// RawKind says what Raw is.
type RawKind string

// What can be kept of an event that cannot be decoded.
const (
	// RawRow is a row: a JSON array of [column, type OID, value as text].
	RawRow RawKind = "row"
	// RawMessage is what a logical message had in place of an event.
	RawMessage RawKind = "message"
)

// Raw is what an event that cannot be decoded was made of. Given back in a
// logical message, it is decoded again.
type Raw struct {
	Kind    RawKind
	Content []byte
}

// head is the first line of a logical message of walrelay: what is not part
// of the event, as a JSON object. The event follows, in the JSON format of
// CloudEvents, or what the kind says.
type head struct {
	// Marker, instead of an event, is handed on as it is.
	Marker string `json:"marker"`

	Kind        RawKind         `json:"kind"`
	Schema      string          `json:"schema"`
	Table       string          `json:"table"`
	ScheduledAt string          `json:"scheduled_at"` // as Postgres writes a timestamptz in ISO style
	MaxRetries  *int64          `json:"max_retries"`
	Origin      string          `json:"origin"`
	Attempts    int             `json:"attempts"`
	Failures    []event.Failure `json:"failures"`
	Released    bool            `json:"released"`
}

// message decodes a transactional logical message with our prefix; what else
// pg_logical_emit_message sends is not for us.
func (d *Decoder) message(r *reader) (Change, error) {
	const transactional = 1
	flags := r.byte()
	r.uint64() // LSN
	prefix := r.string()
	content := r.bytes(r.uint32())
	if !r.ended() {
		return Change{}, misfit("Message", r)
	}
	if flags&transactional == 0 || d.prefix == "" || prefix != d.prefix {
		return Change{}, nil
	}
	if !d.open {
		return Change{}, &ProtocolError{Message: "a transactional message outside of a transaction"}
	}
	position, err := d.position()
	if err != nil {
		return Change{}, err
	}
	first, rest, _ := bytes.Cut(content, []byte{'\n'})
	var h head
	if err := json.Unmarshal(first, &h); err != nil {
		h = head{Schema: "pg_catalog", Table: "pg_logical_emit_message"}
		return d.undecodable(position, &h, RawMessage, content,
			fmt.Errorf("the first line of a message with the prefix %q is no JSON object; use walrelay.emit_event", prefix))
	}
	if h.Marker != "" {
		return Change{Kind: Marker, Marker: h.Marker}, nil
	}
	if h.Schema == "" {
		h.Schema, h.Table = "walrelay", "emit_event"
	}
	if h.Kind == RawRow {
		return d.rawRow(position, &h, rest)
	}
	ev := &event.Event{MaxRetries: -1}
	if err := d.parse(ev, rest); err != nil {
		return d.undecodable(position, &h, RawMessage, rest, err)
	}
	if err := h.schedule(ev); err != nil {
		return d.undecodable(position, &h, RawMessage, rest, err)
	}
	d.dress(ev, position, &h)
	return Change{Kind: Insert, Event: ev}, nil
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

// dress sets what the message's head says.
func (d *Decoder) dress(ev *event.Event, position event.Position, h *head) {
	ev.Position, ev.CommittedAt = position, d.committedAt
	ev.Schema, ev.Table = h.Schema, h.Table
	if h.Origin == "" {
		return
	}
	ev.Delay = &event.Delay{Attempts: h.Attempts, Failures: h.Failures, Released: h.Released}
	if origin, err := event.ParsePosition(h.Origin); err == nil {
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
	d.dress(ev, position, h)
	return Change{Kind: Insert, Event: ev, Raw: &Raw{Kind: kind, Content: bytes.Clone(content)}},
		&RowError{Position: position, Schema: ev.Schema, Table: ev.Table, ID: ev.ID, Column: "message", Err: cause}
}

func (h *head) schedule(ev *event.Event) error {
	if h.ScheduledAt != "" {
		at, err := parseTimestamp([]byte(h.ScheduledAt))
		switch {
		case errors.Is(err, errTooEarly):
		case errors.Is(err, errTooLate):
			return fmt.Errorf("scheduled_at: %s never comes; write a time before the year 10000", clip(h.ScheduledAt))
		case err != nil:
			return fmt.Errorf("scheduled_at: %w", err)
		default:
			ev.ScheduledAt = at
		}
	}
	if h.MaxRetries != nil {
		if *h.MaxRetries < 0 || *h.MaxRetries > math.MaxInt32 {
			return fmt.Errorf("max_retries: %d is no number of retries; write an integer from 0 to 2147483647, or null for the default", *h.MaxRetries)
		}
		ev.MaxRetries = int(*h.MaxRetries)
	}
	return nil
}

// parse reads an event in the JSON format of CloudEvents (1.0.2).
func (d *Decoder) parse(ev *event.Event, content []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil {
		return errors.New("it is no JSON object")
	}
	texts := map[string]*string{
		"id": &ev.ID, "type": &ev.Type, "source": &ev.Source, "subject": &ev.Subject, "time": &ev.Time,
		"datacontenttype": &ev.DataContentType, "dataschema": &ev.DataSchema, "partitionkey": &ev.PartitionKey,
	}
	for name, to := range texts {
		raw, ok := members[name]
		delete(members, name)
		if !ok || string(raw) == "null" {
			continue
		}
		if err := json.Unmarshal(raw, to); err != nil {
			return fmt.Errorf("%s: it is no JSON string", name)
		}
		if err := checkText(*to); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, value := range map[string]string{"id": ev.ID, "type": ev.Type, "source": ev.Source} {
		if value == "" {
			return fmt.Errorf("%s: it is missing or empty; every event needs a value here", name)
		}
	}
	if version, ok := members["specversion"]; ok && string(version) != strconv.Quote(event.SpecVersion) {
		return fmt.Errorf("specversion: it is %s; only %q is known", clip(version), event.SpecVersion)
	}
	delete(members, "specversion")
	if ev.Time != "" {
		at, err := time.Parse(time.RFC3339Nano, ev.Time)
		if err != nil {
			return fmt.Errorf("time: %q is no time as RFC 3339 writes it", clip(ev.Time))
		}
		ev.Time = at.UTC().Format(time.RFC3339Nano)
	}
	if err := parseData(ev, members); err != nil {
		return err
	}
	if a, err := d.validator.check(ev); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	delete(members, "data")
	delete(members, "data_base64")
	return appendExtensions(ev, members)
}

func parseData(ev *event.Event, members map[string]json.RawMessage) error {
	data, hasData := members["data"]
	if encoded, ok := members["data_base64"]; ok && string(encoded) != "null" {
		var text string
		if err := json.Unmarshal(encoded, &text); err != nil || hasData {
			return errors.New("data_base64: it is no JSON string, or set together with data")
		}
		var err error
		if ev.Data, err = base64.StdEncoding.DecodeString(text); err != nil {
			return errors.New("data_base64: it is not base64")
		}
		return nil
	}
	if !hasData {
		return nil
	}
	if ev.DataContentType == "" {
		ev.DataContentType = contentTypeJSON
	}
	var text string
	if !event.IsJSON(ev.DataContentType) {
		if err := json.Unmarshal(data, &text); err != nil {
			return fmt.Errorf("data: it is no JSON string, but the content type is %s", clip(ev.DataContentType))
		}
		ev.Data = []byte(text)
		return nil
	}
	ev.Data = data
	return nil
}

// rawRow is a row of a relation as it was, given back.
type rawColumn struct {
	name  string
	oid   uint32
	value *string
}

func (c rawColumn) MarshalJSON() ([]byte, error) { return json.Marshal([]any{c.name, c.oid, c.value}) }

func (c *rawColumn) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&c.name, &c.oid, &c.value})
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
		columns = append(columns, c)
	}
	content, err := json.Marshal(columns)
	if err != nil {
		return &Raw{Kind: RawRow, Content: []byte("[]")} // strings and numbers always can
	}
	return &Raw{Kind: RawRow, Content: content}
}

// rawRow decodes a row that was given back, by the mapping of today.
func (d *Decoder) rawRow(position event.Position, h *head, content []byte) (Change, error) {
	mapping, ok := d.tables[tableName{h.Schema, h.Table}]
	if !ok {
		return d.undecodable(position, h, RawRow, content, fmt.Errorf("table %s.%s is no outbox table any more", h.Schema, h.Table))
	}
	var columns []rawColumn
	if err := json.Unmarshal(content, &columns); err != nil {
		return d.undecodable(position, h, RawRow, content, errors.New("the row that was kept cannot be read"))
	}
	rel := &relation{schema: h.Schema, name: h.Table}
	d.columns = d.columns[:0]
	for _, c := range columns {
		rel.columns = append(rel.columns, columnType{name: c.name, oid: c.oid})
		var value column
		if c.value != nil {
			value = column(*c.value)
			if value == nil {
				value = column{}
			}
		}
		d.columns = append(d.columns, value)
	}
	rel.compile(mapping)
	if rel.fault != nil {
		return d.undecodable(position, h, RawRow, content, rel.fault)
	}
	ev, rowErr := rel.event(d.columns, d.validator)
	d.dress(ev, position, h)
	if rowErr != nil {
		rowErr.Position = position
		return Change{Kind: Insert, Event: ev, Raw: &Raw{Kind: RawRow, Content: bytes.Clone(content)}}, rowErr
	}
	// Its time has come, or nobody would have given it back.
	ev.ScheduledAt = time.Time{}
	return Change{Kind: Insert, Event: ev}, nil
}
