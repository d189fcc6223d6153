package router

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
)

// encode encodes an event as the writer does.
func encodeEvent(t testing.TB, ev *event.Event, mode Mode) *nats.Msg {
	t.Helper()
	var e Encoder
	msg := &nats.Msg{}
	if err := e.Encode(msg, ev, mode); err != nil {
		t.Fatal(err)
	}
	e.Finish(msg)
	return msg
}

// readHeader decodes a header value as the NATS protocol binding says (section
// 3.1.3.2): percent-encoding, and quotes around the whole.
func readHeader(t testing.TB, value string) string {
	t.Helper()
	var b []byte
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c <= ' ' || c >= 0x7F || c == '"' {
			t.Fatalf("the header %q has 0x%02x, which must be encoded", value, c)
		}
		if c != '%' {
			b = append(b, c)
			continue
		}
		if i+2 >= len(value) {
			t.Fatalf("the header %q ends in the middle of an encoded byte", value)
		}
		n, err := strconv.ParseUint(value[i+1:i+3], 16, 8)
		if err != nil || value[i+1:i+3] != strings.ToUpper(value[i+1:i+3]) {
			t.Fatalf("the header %q has %q", value, value[i:i+3])
		}
		b = append(b, byte(n))
		i += 2
	}
	return string(b)
}

func FuzzBinaryModeHeaders(f *testing.F) {
	for _, s := range []string{"plain", "with space", `quote "x"`, "100%", "Grüße 世界 🎉", "%41", "a\u00a0b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || !utf8.ValidString(s) {
			return
		}
		ev := &event.Event{ID: s, Type: s, Source: s, Subject: s, PartitionKey: s, Extensions: []event.Attribute{{Name: "x", Value: s}}}
		msg := encodeEvent(t, ev, Binary)
		for _, name := range []string{"ce-id", "ce-type", "ce-source", "ce-subject", "ce-partitionkey", "ce-x"} {
			if got := readHeader(t, msg.Header.Get(name)); got != s {
				t.Fatalf("%s reads as %q, want %q", name, got, s)
			}
		}
	})
}

func TestBinaryModeHasWhatTheEventHas(t *testing.T) {
	t.Parallel()
	ev := &event.Event{
		ID: "1", Type: "order.created", Source: "/orders", Time: "2026-11-23T14:30:18Z", DataContentType: "application/json",
		Data: []byte(`{"a":  1.0}`), Extensions: []event.Attribute{{Name: "traceparent", Value: "00-x"}},
	}
	msg := encodeEvent(t, ev, Binary)
	want := map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-type": "order.created", "ce-source": "/orders", "ce-time": "2026-11-23T14:30:18Z",
		"ce-datacontenttype": "application/json", "ce-traceparent": "00-x",
	}
	if len(msg.Header) != len(want) {
		t.Errorf("the message has %d headers, want %d: %v", len(msg.Header), len(want), msg.Header)
	}
	for name, value := range want {
		if got := msg.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if string(msg.Data) != `{"a":  1.0}` {
		t.Errorf("the payload is %s, want it byte for byte", msg.Data)
	}
}

func TestStructuredModeIsReadByTheSDK(t *testing.T) {
	t.Parallel()
	for name, ev := range map[string]*event.Event{
		"JSON": {ID: "1", Type: "t", Source: "/s", DataContentType: "application/json", Data: []byte(`{"html":"<&>","big":12345678901234567890}`),
			Time: "2026-11-23T14:30:18.5Z", PartitionKey: "k", Extensions: []event.Attribute{{Name: "x", Value: `q " \ ü`}}},
		"bytes":   {ID: "1", Type: "t", Source: "/s", DataContentType: "application/octet-stream", Data: []byte{0, 255, 10}},
		"nothing": {ID: "1", Type: "t", Source: "/s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := encodeEvent(t, ev, Structured)
			if got := msg.Header.Get("Content-Type"); got != "application/cloudevents+json" || len(msg.Header) != 1 {
				t.Errorf("the headers are %v", msg.Header)
			}
			got := ce.New()
			if err := json.Unmarshal(msg.Data, &got); err != nil {
				t.Fatalf("the SDK does not read %s: %v", msg.Data, err)
			}
			if err := got.Validate(); err != nil {
				t.Errorf("the SDK says: %v", err)
			}
			if got.ID() != ev.ID || got.Type() != ev.Type || got.Source() != ev.Source || got.DataContentType() != ev.DataContentType {
				t.Errorf("the event reads as %v", got)
			}
			for _, x := range ev.Extensions {
				if fmt.Sprint(got.Extensions()[x.Name]) != x.Value {
					t.Errorf("extension %s is %v, want %q", x.Name, got.Extensions()[x.Name], x.Value)
				}
			}
			if event.IsJSON(ev.DataContentType) {
				var a, b any
				if json.Unmarshal(got.Data(), &a) != nil || json.Unmarshal(ev.Data, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) || !strings.Contains(string(msg.Data), `"data":{`) {
					t.Errorf("the payload reads as %s in %s", got.Data(), msg.Data)
				}
			} else if string(got.Data()) != string(ev.Data) {
				t.Errorf("the payload reads as %q, want %q", got.Data(), ev.Data)
			}
		})
	}
}

// The header map is reused; nothing of one message may stay in the next.
func TestMessagesLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	shapes := []*event.Event{
		{ID: "1", Type: "a", Source: "/s"},
		{ID: "2", Type: "b", Source: "/s", Subject: "x", DataSchema: "https://example.org", Extensions: []event.Attribute{{Name: "p", Value: "1"}, {Name: "q", Value: "2"}}},
		{ID: "3", Type: "c", Source: "/s", Extensions: []event.Attribute{{Name: "q", Value: "3"}}},
		{ID: "4", Type: "d", Source: "/s", PartitionKey: "k", Extensions: manyExtensions(60)},
		{ID: "5", Type: "e", Source: "/s", Subject: "y"},
	}
	var e Encoder
	msg := &nats.Msg{}
	for round := range 40 {
		ev := shapes[(round*round+round/3)%len(shapes)]
		mode := Mode(round / 7 % 2)
		if err := e.Encode(msg, ev, mode); err != nil {
			t.Fatal(err)
		}
		e.Set(msg, nats.MsgIdHdr, ev.ID)
		if round%3 == 0 {
			e.Set(msg, "Sometimes", strconv.Itoa(round))
		}
		e.Finish(msg)
		want := encodeEvent(t, ev, mode).Header
		want.Set(nats.MsgIdHdr, ev.ID)
		if round%3 == 0 {
			want.Set("Sometimes", strconv.Itoa(round))
		}
		if fmt.Sprint(msg.Header) != fmt.Sprint(want) {
			t.Fatalf("message %d has the headers\n%v, want\n%v", round, msg.Header, want)
		}
	}
}

func manyExtensions(n int) []event.Attribute {
	list := make([]event.Attribute, n)
	for i := range list {
		list[i] = event.Attribute{Name: "x" + strconv.Itoa(i), Value: strconv.Itoa(i)}
	}
	return list
}

func BenchmarkEncodeBinary(b *testing.B) {
	ev := at(100, 0)
	ev.Time, ev.Subject = "2026-11-23T14:30:18.123456Z", "order/4711"
	var e Encoder
	msg := &nats.Msg{}
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Encode(msg, ev, Binary); err != nil {
			b.Fatal(err)
		}
		e.Finish(msg)
	}
}
