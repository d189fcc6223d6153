package router

import (
	"encoding/json"
	"fmt"
	"net/url"
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
	e.Encode(msg, ev, mode)
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

func TestMessage_BinaryMode(t *testing.T) {
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

func TestMessage_StructuredModeIsReadByTheSDK(t *testing.T) {
	t.Parallel()
	for name, ev := range map[string]*event.Event{
		"JSON": {ID: "1", Type: "t", Source: "/s", DataContentType: "application/json", Data: []byte(`{"html":"<&>","big":12345678901234567890}`),
			Time: "2026-11-23T14:30:18.5Z", PartitionKey: "k", Extensions: []event.Attribute{{Name: "x", Value: `q " \ ü`}}},
		"bytes":   {ID: "1", Type: "t", Source: "/s", DataContentType: "application/octet-stream", Data: []byte{0, 255, 10}},
		"nothing": {ID: "1", Type: "t", Source: "/s"},
		"typed extensions": {ID: "1", Type: "t", Source: "/s", Extensions: []event.Attribute{
			{Name: "flag", Value: "true", Bare: true}, {Name: "n", Value: "-3", Bare: true}, {Name: "text", Value: "3"},
		}},
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
				if _, isText := got.Extensions()[x.Name].(string); isText == x.Bare {
					t.Errorf("extension %s is a %T in %s", x.Name, got.Extensions()[x.Name], msg.Data)
				}
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
func TestMessage_BuffersAreReused(t *testing.T) {
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
		e.Encode(msg, ev, mode)
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
		e.Encode(msg, ev, Binary)
		e.Finish(msg)
	}
}

// What counts as JSON stands in the event as JSON ("JSON Event Format" 1.0.2, section
// 3.1). (The SDK reads it for application/json in just these letters, and expects a
// string otherwise.)
func TestMessage_StructuredModeKeepsJSON(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"application/json", "Application/JSON", "image/json", "application/vnd.x+json; charset=utf-8", "a/B+JSON"} {
		msg := encodeEvent(t, &event.Event{ID: "1", Type: "t", Source: "/s", DataContentType: contentType, Data: []byte(`{"a":  1.0}`)}, Structured)
		want := `{"specversion":"1.0","id":"1","type":"t","source":"/s","datacontenttype":"` + contentType + `","data":{"a":  1.0}}`
		if string(msg.Data) != want {
			t.Errorf("%s: got %s, want %s", contentType, msg.Data, want)
		}
	}
}

// JSON that the SDK cannot read is no reason to fail: it is in base64 then.
func TestMessage_StructuredModeOfAnyDepth(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	msg := encodeEvent(t, &event.Event{ID: "1", Type: "t", Source: "/s", DataContentType: "application/json", Data: []byte(deep)}, Structured)
	got := ce.New()
	if err := json.Unmarshal(msg.Data, &got); err != nil {
		t.Fatalf("the SDK does not read it: %v", err)
	}
	if string(got.Data()) != deep {
		t.Errorf("the payload reads as %.100s…", got.Data())
	}
}

// What the SDK reads is the event, whatever is in it.
func FuzzStructured(f *testing.F) {
	f.Add("1", "order.created", "/orders", "subject", "application/json", "key", "x", "value", []byte(`{"a": 1}`))
	f.Add("1", "t", "/s", "", "text/plain", "", "n", "3", []byte("text"))
	f.Add("\u2028", "t", "/s", "<&>", "Application/JSON", "\\", "q", `"`, []byte("\xff"))
	f.Fuzz(func(t *testing.T, id, typ, source, subject, contentType, key, name, value string, data []byte) {
		want := &event.Event{ID: id, Type: typ, Source: source, Subject: subject, DataContentType: contentType, PartitionKey: key, Data: data}
		if name != "" && value != "" {
			want.Extensions = []event.Attribute{{Name: name, Value: value, Bare: value == "true" || value == "3"}}
		}
		reference := ce.New()
		reference.SetID(id)
		reference.SetType(typ)
		reference.SetSource(source)
		if subject != "" {
			reference.SetSubject(subject)
		}
		if contentType != "" {
			reference.SetDataContentType(contentType)
		}
		if key != "" {
			reference.SetExtension("partitionkey", key)
		}
		for _, x := range want.Extensions {
			reference.SetExtension(x.Name, x.Value)
		}
		for _, text := range []string{id, typ, source, subject, contentType, key, value} {
			if !utf8.ValidString(text) {
				t.Skip("the decoder refuses it")
			}
		}
		if uri, err := url.Parse(source); err != nil || uri.String() != source {
			t.Skip("the SDK writes it otherwise")
		}
		if reference.Validate() != nil || reference.Extensions()[name] != nil && reference.Extensions()[name] != value {
			t.Skip("the decoder refuses it")
		}
		if event.IsJSON(contentType) && contentType != "application/json" {
			contentType, want.DataContentType = "application/json", "application/json"
		}
		var msg nats.Msg
		var encoder Encoder
		encoder.Encode(&msg, want, Structured)
		got := ce.New()
		if err := json.Unmarshal(msg.Data, &got); err != nil {
			t.Fatalf("the SDK does not read %q: %v", msg.Data, err)
		}
		if got.ID() != id || got.Type() != typ || got.Source() != source || got.Subject() != subject || got.DataContentType() != contentType {
			t.Errorf("the event reads as %v, want %v", got, want)
		}
		if text, _ := got.Extensions()["partitionkey"].(string); text != key && name != "partitionkey" {
			t.Errorf("the key reads as %q, want %q", text, key)
		}
		if len(data) > 0 && !event.IsJSON(contentType) && string(got.Data()) != string(data) {
			t.Errorf("the payload reads as %q, want %q", got.Data(), data)
		}
	})
}
