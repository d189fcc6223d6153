package decode_test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
)

const slot, prefix = "test", "walrelay.test"

// emittedColumns are those of walrelay.emitted.
func emittedColumns() []column {
	var columns []column
	for _, name := range []string{
		"slot", "kind", "id", "table_schema", "table_name", "origin", "scheduled_at", "max_retries", "attempts", "failures", "released", "content", "content_bytes",
	} {
		columns = append(columns, null(name, oidText))
	}
	return columns
}

const emittedOID = 9

// encodeEmitted is a row of walrelay.emitted: columns as a JSON object, and the
// content.
func encodeEmitted(head, content string) []byte {
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(head), &values); err != nil {
		panic(err)
	}
	columns := emittedColumns()
	for i := range columns {
		c := &columns[i]
		raw, ok := values[c.name]
		switch {
		case c.name == "content":
			c.kind, c.value = 't', content
		case c.name == "slot" && !ok:
			c.kind, c.value = 't', slot
		case c.name == "kind" && !ok:
			c.kind, c.value = 't', "event"
		case !ok:
		case string(raw) == "true":
			c.kind, c.value = 't', "t"
		case raw[0] == '"':
			c.kind = 't'
			_ = json.Unmarshal(raw, &c.value)
		default:
			c.kind, c.value = 't', string(raw)
		}
	}
	return encodeInsert(emittedOID, columns)
}

// encodeMessage follows the Postgres manual, "Logical Replication Message
// Formats", Message.
func encodeMessage(flags byte, prefix, content string) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'M', flags}, 1)
	b = append(b, prefix+"\x00"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	return append(b, content...)
}

// An event that is re-emitted is the one that it was.
func TestDecode_ReemittedEventIsTheSame(t *testing.T) {
	t.Parallel()
	events := map[string]event.Event{
		"smallest": {ID: "1", Type: "t", Source: "/s"},
		"everything": {
			ID: "1", Type: "t", Source: "/s", Subject: "a \"b\"", Time: "2026-11-23T14:30:18.5Z", DataSchema: "https://example.org/x",
			PartitionKey: "Grüße", Extensions: []event.Attribute{{Name: "traceparent", Value: "00-1"}, {Name: "x", Value: "true"}},
		},
		"JSON":          {ID: "1", Type: "t", Source: "/s", DataContentType: "application/json", Data: []byte(`{"a":  1.0, "b": "\u00e4"}`)},
		"JSON null":     {ID: "1", Type: "t", Source: "/s", DataContentType: "application/json", Data: []byte(`null`)},
		"JSON in space": {ID: "1", Type: "t", Source: "/s", DataContentType: "application/json", Data: []byte("\n[1]\n")},
		"bytes":         {ID: "1", Type: "t", Source: "/s", DataContentType: "image/png", Data: []byte("\x00\xff\n\"")},
		"no bytes":      {ID: "1", Type: "t", Source: "/s", DataContentType: "image/png", Data: []byte{}},
		"broken JSON":   {ID: "1", Type: "t", Source: "/s", DataContentType: "application/x+json", Data: []byte(`{`)},
	}
	for name, want := range events {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := want.AppendJSON(nil)
			d := newEmittedDecoder(t)
			change := feed(t, d, encodeBegin(42), encodeEmitted(`{"kind":"marker","id":"m"}`, ""), encodeEmitted(`{"table_schema":"public","table_name":"outbox"}`, string(text)))
			want.MaxRetries, want.Schema, want.Table = -1, "public", "outbox"
			want.Position = event.Position{CommitLSN: 42, Index: 1}
			change.Event.CommittedAt = time.Time{}
			if diff := cmp.Diff(&want, change.Event); diff != "" {
				t.Errorf("%s\nbecame another event (-want +got):\n%s", text, diff)
			}
		})
	}
}

func newEmittedDecoder(t testing.TB) *decode.Decoder {
	t.Helper()
	mapping, err := decode.Preset("")
	if err != nil {
		t.Fatal(err)
	}
	d, err := decode.New(decode.Config{
		Tables: []decode.Table{{Schema: "public", Name: "outbox", Mapping: mapping}}, Slot: slot,
	})
	if err != nil {
		t.Fatal(err)
	}
	feed(t, d, encodeRelation(emittedOID, "walrelay", "emitted", emittedColumns()))
	return d
}

func TestDecode_EmittedColumnsAreTaken(t *testing.T) {
	t.Parallel()
	d := newEmittedDecoder(t)
	const body = `{"id":"1","type":"t","source":"/s"}`
	ev := feed(t, d, encodeBegin(42), encodeEmitted(
		`{"origin":"0000000000000010.00000002","attempts":3,"released":true,"max_retries":7,"failures":[{"at":"2026-11-23T14:30:18Z","error":"no"}]}`, body)).Event
	if ev.Delay == nil || ev.Delay.Origin != (event.Position{CommitLSN: 16, Index: 2}) || ev.Delay.Attempts != 3 || !ev.Delay.Released ||
		len(ev.Delay.Failures) != 1 || ev.MaxRetries != 7 || ev.Origin() != ev.Delay.Origin {
		t.Errorf("got %+v, delay %+v", ev, ev.Delay)
	}
	ev = feed(t, d, encodeEmitted(`{"scheduled_at":"2030-01-02 03:04:05+00"}`, body)).Event
	if want := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC); !ev.ScheduledAt.Equal(want) || ev.Delay != nil || ev.Table != "emit_event" {
		t.Errorf("want an event of emit_event for %v, got %+v", want, ev)
	}
	// As any reader of JSON does, the last of two members with one name counts.
	ev = feed(t, d, encodeEmitted(`{}`, `{"id":"1","type":"t","source":"/s","z":"1","x":"1","x":"2"}`)).Event
	if diff := cmp.Diff([]event.Attribute{{Name: "x", Value: "2"}, {Name: "z", Value: "1"}}, ev.Extensions); diff != "" {
		t.Errorf("the extensions are others (-want +got):\n%s", diff)
	}
	if change := feed(t, d, encodeEmitted(`{"kind":"marker","id":"m"}`, "")); change.Kind != decode.Marker || change.Marker != "m" {
		t.Errorf("want a marker, got %+v", change)
	}
}

// Anybody who can log in can write logical messages; those that walrelay wrote
// before the schema was migrated are read to their end.
func TestDecode_LogicalMessages(t *testing.T) {
	t.Parallel()
	const good = `{"schema":"public","table":"outbox","origin":"0000000000000010.00000002"}` + "\n" + `{"id":"1","type":"t","source":"/s"}`
	for name, test := range map[string]struct {
		until   uint64
		message []byte
		want    bool
	}{
		"today":                {0, encodeMessage(1, prefix, good), false},
		"before the migration": {43, encodeMessage(1, prefix, good), true},
		"after the migration":  {42, encodeMessage(1, prefix, good), false},
		"not transactional":    {43, encodeMessage(0, prefix, good), false},
		"another prefix":       {43, encodeMessage(1, "walrelay.other", good), false},
		"without a prefix":     {43, encodeMessage(1, "", good), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := decode.New(decode.Config{Slot: slot, MessagesUntil: test.until})
			if err != nil {
				t.Fatal(err)
			}
			change := feed(t, d, encodeBegin(42), test.message)
			if got := change.Event != nil; got != test.want {
				t.Errorf("it gives %+v", change)
			}
			if change.Event != nil && (change.Event.Table != "outbox" || change.Event.Delay == nil) {
				t.Errorf("it gives %+v", change.Event)
			}
		})
	}
	d, err := decode.New(decode.Config{Slot: slot, MessagesUntil: 43})
	if err != nil {
		t.Fatal(err)
	}
	if change := feed(t, d, encodeBegin(42), encodeMessage(1, prefix, `{"marker":"m"}`)); change.Kind != decode.Marker || change.Marker != "m" {
		t.Errorf("want a marker, got %+v", change)
	}
}

func TestDecode_EmittedRowsOfOtherSlotsCountOnlyForPositions(t *testing.T) {
	t.Parallel()
	d := newEmittedDecoder(t)
	const body = `{"id":"1","type":"t","source":"/s"}`
	if change := feed(t, d, encodeBegin(42), encodeEmitted(`{"slot":"another"}`, body)); change.Kind != decode.Other {
		t.Errorf("a row of another slot gives %+v", change)
	}
	if change := feed(t, d, encodeEmitted(`{}`, body)); change.Event == nil || change.Event.Position.Index != 1 {
		t.Errorf("the next row gives %+v", change)
	}
}

func TestDecode_EmittedBytes(t *testing.T) {
	t.Parallel()
	d := newEmittedDecoder(t)
	columns := emittedColumns()
	for i := range columns {
		switch columns[i].name {
		case "slot":
			columns[i] = column{name: "slot", value: slot}
		case "kind":
			columns[i] = column{name: "kind", value: "event"}
		case "content_bytes":
			columns[i] = column{name: "content_bytes", value: `\x` + hex.EncodeToString([]byte(`{"id":"ä","type":"t","source":"/s"}`))}
		}
	}
	if change := feed(t, d, encodeBegin(42), encodeInsert(emittedOID, columns)); change.Event == nil || change.Event.ID != "ä" {
		t.Errorf("it gives %+v", change)
	}
}

func TestDecode_EmittedRowThatIsNoEventIsKept(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ head, content, want string }{
		{`{}`, "hello", "not a JSON object"},
		{`{}`, "[]", "not a JSON object"},
		{`{}`, "", "not a JSON object"},
		{`{}`, `{"id":"1","source":"/s"}`, "type"},
		{`{}`, `{"id":"","type":"t","source":"/s"}`, "id"},
		{`{}`, `{"id":5,"type":"t","source":"/s"}`, "id"},
		{`{}`, `{"id":"a\u0000b","type":"t","source":"/s"}`, "id"},
		{`{}`, `{"id":"1","type":"t","source":"/s","specversion":"0.3"}`, "specversion"},
		{`{}`, `{"id":"1","type":"t","source":"%%"}`, "source"},
		{`{}`, `{"id":"1","type":"t","source":"/s","time":"soon"}`, "time"},
		{`{}`, `{"id":"1","type":"t","source":"/s","Bad":"x"}`, "Bad"},
		{`{}`, `{"id":"1","type":"t","source":"/s","data_base64":"*"}`, "data_base64"},
		{`{"max_retries":-1}`, `{"id":"1","type":"t","source":"/s"}`, "max_retries"},
		{`{"max_retries":"x"}`, `{"id":"1","type":"t","source":"/s"}`, "invalid syntax"},
		{`{"failures":"x"}`, `{"id":"1","type":"t","source":"/s"}`, "failures"},
		{`{"scheduled_at":"never"}`, `{"id":"1","type":"t","source":"/s"}`, "scheduled_at"},
		{`{"content_bytes":"x"}`, `{"id":"1","type":"t","source":"/s"}`, "bytea"},
		{`{"kind":"row","table_schema":"public","table_name":"gone"}`, "[]", "not an outbox table"},
		{`{"kind":"row","table_schema":"public","table_name":"outbox"}`, "{", "cannot be read"},
	} {
		d := newEmittedDecoder(t)
		feed(t, d, encodeBegin(1))
		change, err := d.Decode(encodeEmitted(test.head, test.content))
		if rowErr := (*decode.RowError)(nil); !errors.As(err, &rowErr) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %q: want a row error about %q, got %v", test.head, test.content, test.want, err)
			continue
		}
		if change.Raw == nil || change.Event == nil {
			t.Errorf("%s %q: nothing of it is kept", test.head, test.content)
		}
	}
}

// A row that is re-emitted is decoded by the mapping of today.
func TestDecode_ReemittedRowIsDecodedAgain(t *testing.T) {
	t.Parallel()
	rows := order(column{name: "max_retries", oid: oidInt4, value: "-1"}, column{name: "data", oid: oidJSONB, value: `{"a": 1}`}, null("subject", oidText))
	d := newEmittedDecoder(t)
	feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", rows))
	change, err := d.Decode(encodeInsert(7, rows))
	if err == nil || change.Raw == nil || change.Event.ID != orderID {
		t.Fatalf("want a row that is kept, got %+v, %v", change, err)
	}
	back := encodeEmitted(`{"kind":"row","table_schema":"public","table_name":"outbox"}`, string(change.Raw.Content))
	again, err := d.Decode(back)
	if err == nil || again.Raw == nil || string(again.Raw.Content) != string(change.Raw.Content) {
		t.Errorf("want the same row kept again, got %+v, %v", again, err)
	}
	mapping, err := decode.Preset("")
	if err != nil {
		t.Fatal(err)
	}
	if mapping, err = mapping.With(map[string]string{"max_retries": ""}, nil); err != nil {
		t.Fatal(err)
	}
	mended, err := decode.New(decode.Config{Tables: []decode.Table{{Schema: "public", Name: "outbox", Mapping: mapping}}, Slot: slot})
	if err != nil {
		t.Fatal(err)
	}
	ev := feed(t, mended, encodeRelation(emittedOID, "walrelay", "emitted", emittedColumns()), encodeBegin(1), back).Event
	if ev.ID != orderID || string(ev.Data) != `{"a": 1}` || ev.DataContentType != "application/json" {
		t.Errorf("by a mapping without max_retries it is %+v", ev)
	}
}

func BenchmarkDecodeEmitted(b *testing.B) {
	ev := event.Event{
		ID: "0190a5c8-7e0e-7c3f-8f43-0e8f2d3a9b11", Type: "order.created", Source: "/bench", Subject: "order/4711", Time: "2026-11-23T14:30:18.5Z",
		DataContentType: "application/json", Data: []byte(`{"order": 4711, "pad": "` + strings.Repeat("x", 270) + `"}`),
	}
	text := ev.AppendJSON(nil)
	d := newEmittedDecoder(b)
	message := encodeEmitted(`{"table_schema":"public","table_name":"outbox","origin":"0000000000000010.00000002"}`, string(text))
	feed(b, d, encodeBegin(42))
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%1_000_000 == 999_999 { // a transaction has an end
			feed(b, d, encodeCommit(42, 43), encodeBegin(42))
		}
		if _, err := d.Decode(message); err != nil {
			b.Fatal(err)
		}
	}
}
