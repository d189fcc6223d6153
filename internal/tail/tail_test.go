package tail

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/inbox"
)

func TestParseFrom(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]From{
		"": {}, "now": {}, "start": {Start: true}, "17": {Sequence: 17}, "10m": {Time: now.Add(-10 * time.Minute)},
		"2026-11-27T10:00:00Z": {Time: now.Add(-2 * time.Hour)},
	} {
		if got, err := ParseFrom(text, now); err != nil || got != want {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"0", "-5", "-10m", "yesterday", "2026-11-27"} {
		if got, err := ParseFrom(text, now); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

// message is what is formatted.
type message struct {
	jetstream.Msg

	subject string
	header  nats.Header
	data    []byte
}

func (m message) Subject() string      { return m.subject }
func (m message) Headers() nats.Header { return m.header }
func (m message) Data() []byte         { return m.data }

func formatted(o Options, m message) string {
	meta := &jetstream.MsgMetadata{Timestamp: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)}
	meta.Sequence.Stream = 7
	ev, err := inbox.Decode(m)
	return string(o.format(m, meta, &ev, err))
}

func TestFormat(t *testing.T) {
	t.Parallel()
	header := func(more ...string) nats.Header {
		h := nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-type": {"order.placed"}, "ce-source": {"/s"}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = []string{more[i+1]}
		}
		return h
	}
	for _, c := range []struct {
		name string
		o    Options
		m    message
		want string
	}{
		{"a line", Options{}, message{header: header("ce-partitionkey", "k", "ce-subject", "a%20b"), data: []byte("{\"a\":\n 1}")}, "12:00:00.000         7  order.placed  1  /s  a b  key=k  {\"a\":1}\n"},
		{"colours", Options{Color: true}, message{header: header("ce-partitionkey", "k")}, "\x1b[2m12:00:00.000\x1b[0m  \x1b[2m       7\x1b[0m  \x1b[1morder.placed\x1b[0m  1  /s  \x1b[36mkey=k\x1b[0m  \n"},
		{"no event", Options{}, message{subject: "events.x", data: []byte("hi")}, "12:00:00.000         7  events.x  the message is not a CloudEvents event: it has no header ce-specversion\n"},
		{"bytes", Options{}, message{header: header("ce-datacontenttype", "image/png"), data: []byte{0xFF, 1}}, "12:00:00.000         7  order.placed  1  /s  (2 bytes, image/png)\n"},
		{"JSON", Options{JSON: true}, message{subject: "events.order.placed", header: header("ce-tenant", "t1", "ce-datacontenttype", "application/json"), data: []byte(`{"a": 1}`)},
			`{"sequence":7,"stored_at":"2026-11-27T12:00:00Z","subject":"events.order.placed","event":{"specversion":"1.0","id":"1","type":"order.placed","source":"/s","datacontenttype":"application/json","tenant":"t1","data":{"a":1}}}` + "\n"},
		{"JSON that is none", Options{JSON: true}, message{subject: "events.x", header: header("ce-datacontenttype", "application/json"), data: []byte(`{"a": `)}, ""},
		{"JSON of no event", Options{JSON: true}, message{subject: "events.x", data: []byte("hi")}, `{"sequence":7,"stored_at":"2026-11-27T12:00:00Z","subject":"events.x","problem":"the message is not a CloudEvents event: it has no header ce-specversion","data":"aGk="}` + "\n"},
		{"whole", Options{Whole: true, Stream: "EVENTS"}, message{subject: "events.order.placed", header: header("ce-tenant", "t1"), data: []byte(`{"a": 1}`)}, `message 7 of EVENTS 2026-11-27T12:00:00Z
  NATS subject    events.order.placed
  id              1
  type            order.placed
  source          /s
  tenant          t1

  {
    "a": 1
  }

`},
	} {
		got := formatted(c.o, c.m)
		if c.want == "" {
			if !strings.HasSuffix(got, "}\n") || strings.Count(got, "\n") != 1 {
				t.Errorf("%s: %q", c.name, got)
			}
			continue
		}
		if got != c.want {
			t.Errorf("%s:\n%q\nwant\n%q", c.name, got, c.want)
		}
	}
}

// Whatever an event has in its texts, a terminal prints it and does nothing else, and a line is one.
func FuzzFormat(f *testing.F) {
	f.Add("1", "order.placed", "k\x1b[2J", "application/json", []byte("{\"a\": \"\x1b]0;x\x07\"}"))
	f.Add("\u202e", "a\tb", "\x9b1m", "text/plain", []byte("line\nbreak\xff"))
	f.Add("%0A", "x", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, id, typ, key, contentType string, data []byte) {
		m := message{subject: "events." + typ, data: data, header: nats.Header{
			"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-type": {typ}, "ce-source": {"/s"}, "ce-partitionkey": {key}, "ce-datacontenttype": {contentType},
		}}
		for _, o := range []Options{{}, {Whole: true}, {JSON: true}} {
			out := formatted(o, m)
			for _, r := range strings.TrimSuffix(out, "\n") {
				if r == '\n' && o.Whole || o.JSON && r >= ' ' {
					continue
				}
				if !unicode.IsPrint(r) {
					t.Fatalf("it shows %q", out)
				}
			}
		}
	})
}
