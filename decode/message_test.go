package decode_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
)

const prefix = "walrelay.test"

// encodeMessage follows the Postgres manual, "Logical Replication Message
// Formats", Message.
func encodeMessage(flags byte, prefix, content string) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'M', flags}, 1)
	b = append(b, prefix+"\x00"...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	return append(b, content...)
}

// As walrelay gives an event back, it is the one that it was.
func TestAnEventThatIsGivenBackIsTheSame(t *testing.T) {
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
			d := newMessageDecoder(t)
			change := feed(t, d, encodeBegin(42), encodeMessage(1, prefix, `{"marker":"m"}`), encodeMessage(1, prefix, `{"schema":"public","table":"outbox"}`+"\n"+string(text)))
			want.MaxRetries, want.Schema, want.Table = -1, "public", "outbox"
			want.Position = event.Position{CommitLSN: 42, Index: 1}
			change.Event.CommittedAt = time.Time{}
			if diff := cmp.Diff(&want, change.Event); diff != "" {
				t.Errorf("%s\nbecame another event (-want +got):\n%s", text, diff)
			}
		})
	}
}

func newMessageDecoder(t testing.TB) *decode.Decoder {
	t.Helper()
	mapping, err := decode.Preset("")
	if err != nil {
		t.Fatal(err)
	}
	d, err := decode.New(decode.Config{
		Tables: []decode.Table{{Schema: "public", Name: "outbox", Mapping: mapping}}, Prefix: prefix,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheHeadOfAMessageIsTaken(t *testing.T) {
	t.Parallel()
	d := newMessageDecoder(t)
	const body = "\n" + `{"id":"1","type":"t","source":"/s"}`
	ev := feed(t, d, encodeBegin(42), encodeMessage(1, prefix,
		`{"origin":"0000000000000010.00000002","attempts":3,"released":true,"max_retries":7,"failures":[{"at":"2026-11-23T14:30:18Z","error":"no"}]}`+body)).Event
	if ev.Delay == nil || ev.Delay.Origin != (event.Position{CommitLSN: 16, Index: 2}) || ev.Delay.Attempts != 3 || !ev.Delay.Released ||
		len(ev.Delay.Failures) != 1 || ev.MaxRetries != 7 || ev.Origin() != ev.Delay.Origin {
		t.Errorf("got %+v, delay %+v", ev, ev.Delay)
	}
	ev = feed(t, d, encodeMessage(1, prefix, `{"scheduled_at":"2030-01-02 03:04:05+00"}`+body)).Event
	if want := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC); !ev.ScheduledAt.Equal(want) || ev.Delay != nil || ev.Table != "emit_event" {
		t.Errorf("want an event of emit_event for %v, got %+v", want, ev)
	}
	// As any reader of JSON does, the last of two members with one name counts.
	ev = feed(t, d, encodeMessage(1, prefix, `{}`+"\n"+`{"id":"1","type":"t","source":"/s","z":"1","x":"1","x":"2"}`)).Event
	if diff := cmp.Diff([]event.Attribute{{Name: "x", Value: "2"}, {Name: "z", Value: "1"}}, ev.Extensions); diff != "" {
		t.Errorf("the extensions are others (-want +got):\n%s", diff)
	}
	if change := feed(t, d, encodeMessage(1, prefix, `{"marker":"m"}`)); change.Kind != decode.Marker || change.Marker != "m" {
		t.Errorf("want a marker, got %+v", change)
	}
}

func TestMessagesOfOthersArePassedOver(t *testing.T) {
	t.Parallel()
	d := newMessageDecoder(t)
	for _, message := range [][]byte{
		encodeMessage(0, prefix, "{}\n{}"), encodeMessage(1, "other", "x"), encodeMessage(1, "walrelay", "x"), encodeMessage(0, "", ""),
	} {
		if change := feed(t, d, encodeBegin(1), message, encodeCommit(1, 2)); change.Event != nil {
			t.Errorf("%q gives %+v", message, change)
		}
	}
	if _, err := d.Decode(encodeMessage(1, prefix, "{}\n{}")); err == nil {
		t.Error("a transactional message outside of a transaction passes")
	}
}

func TestAMessageThatIsNoEventIsKept(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"hello":                             "no JSON object",
		"{}\n[]":                            "no JSON object",
		"{}\n" + `{"id":"1","source":"/s"}`: "type",
		"{}\n" + `{"id":"","type":"t","source":"/s"}`:                             "id",
		"{}\n" + `{"id":5,"type":"t","source":"/s"}`:                              "id",
		"{}\n" + `{"id":"1","type":"t","source":"/s","specversion":"0.3"}`:        "specversion",
		"{}\n" + `{"id":"1","type":"t","source":"%%"}`:                            "source",
		"{}\n" + `{"id":"1","type":"t","source":"/s","time":"soon"}`:              "time",
		"{}\n" + `{"id":"1","type":"t","source":"/s","Bad":"x"}`:                  "Bad",
		"{}\n" + `{"id":"1","type":"t","source":"/s","data_base64":"*"}`:          "data_base64",
		`{"max_retries":-1}` + "\n" + `{"id":"1","type":"t","source":"/s"}`:       "max_retries",
		`{"scheduled_at":"never"}` + "\n" + `{"id":"1","type":"t","source":"/s"}`: "scheduled_at",
	} {
		d := newMessageDecoder(t)
		feed(t, d, encodeBegin(1))
		change, err := d.Decode(encodeMessage(1, prefix, content))
		if rowErr := (*decode.RowError)(nil); !errors.As(err, &rowErr) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want a row error about %q, got %v", content, want, err)
			continue
		}
		if change.Raw == nil || change.Event == nil {
			t.Errorf("%q: nothing of it is kept", content)
		}
	}
}

// A row that is given back is decoded by the mapping of today.
func TestARowThatIsGivenBackIsDecodedAgain(t *testing.T) {
	t.Parallel()
	rows := order(column{name: "max_retries", oid: oidInt4, value: "-1"}, column{name: "data", oid: oidJSONB, value: `{"a": 1}`}, null("subject", oidText))
	d := newMessageDecoder(t)
	feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", rows))
	change, err := d.Decode(encodeInsert(7, rows))
	if err == nil || change.Raw == nil || change.Event.ID != orderID {
		t.Fatalf("want a row that is kept, got %+v, %v", change, err)
	}
	back := encodeMessage(1, prefix, `{"kind":"row","schema":"public","table":"outbox"}`+"\n"+string(change.Raw.Content))
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
	mended, err := decode.New(decode.Config{Tables: []decode.Table{{Schema: "public", Name: "outbox", Mapping: mapping}}, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	ev := feed(t, mended, encodeBegin(1), back).Event
	if ev.ID != orderID || string(ev.Data) != `{"a": 1}` || ev.DataContentType != "application/json" {
		t.Errorf("by a mapping without max_retries it is %+v", ev)
	}
}

func BenchmarkDecodeMessage(b *testing.B) {
	ev := event.Event{
		ID: "0190a5c8-7e0e-7c3f-8f43-0e8f2d3a9b11", Type: "order.created", Source: "/bench", Subject: "order/4711", Time: "2026-11-23T14:30:18.5Z",
		DataContentType: "application/json", Data: []byte(`{"order": 4711, "pad": "` + strings.Repeat("x", 270) + `"}`),
	}
	text := ev.AppendJSON(nil)
	d := newMessageDecoder(b)
	message := encodeMessage(1, prefix, `{"schema":"public","table":"outbox","origin":"0000000000000010.00000002"}`+"\n"+string(text))
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
