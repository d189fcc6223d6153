package router

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
)

var update = flag.Bool("update", false, "write testdata/vectors") //nolint:gochecknoglobals // a flag

// vectors are events by the name of their file.
func vectors() map[string]*event.Event {
	base := func(change func(*event.Event)) *event.Event {
		ev := &event.Event{ID: "0b6c1fbe-5d5c-4a2b-8f6e-0c1f5d7b9a11", Type: "order.placed", Source: "/orders"}
		change(ev)
		return ev
	}
	return map[string]*event.Event{
		"minimal": base(func(*event.Event) {}),
		"all-attributes": base(func(ev *event.Event) {
			ev.Subject, ev.Time, ev.DataSchema, ev.PartitionKey = "Order #42", "2026-11-23T10:11:12.25Z", "https://example.org/order.json", "customer-8"
			ev.DataContentType, ev.Data = "application/json", []byte(`{"total": 9.90, "note": "<&>"}`)
			ev.Extensions = []event.Attribute{
				{Name: "attempt", Value: "3", Bare: true}, {Name: "late", Value: "true", Bare: true},
				{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			}
		}),
		"beyond-ascii": base(func(ev *event.Event) {
			ev.Type, ev.Subject, ev.PartitionKey = "größe.geändert", "100 % \"日本\" 🚲", "ключ"
			ev.DataContentType, ev.Data = "application/json", []byte(`"ü"`)
		}),
		"bytes": base(func(ev *event.Event) {
			ev.DataContentType, ev.Data = "application/octet-stream", []byte{0, 1, 0xFE, 0xFF}
		}),
		"text": base(func(ev *event.Event) {
			ev.DataContentType, ev.Data = "text/plain; charset=utf-8", []byte("line one\nline two")
		}),
		"other-json": base(func(ev *event.Event) {
			ev.DataContentType, ev.Data = "application/vnd.order+json", []byte(`[1, 2.50, null]`)
		}),
		"json-null": base(func(ev *event.Event) {
			ev.DataContentType, ev.Data = "application/json", []byte(`null`)
		}),
	}
}

type vectorMessage struct {
	Headers    map[string]string `json:"headers"`
	Body       *string           `json:"body,omitempty"`
	BodyBase64 []byte            `json:"body_base64,omitempty"`
}

// What walrelay writes for an event is what readers in other languages are tried with.
func TestVectors(t *testing.T) {
	dir := filepath.Join("..", "testdata", "vectors")
	all := vectors()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		ev := all[name]
		attributes := make(map[string]string)
		for c := range event.NumColumns {
			if value := c.Field(ev); value != nil && *value != "" {
				attributes[c.Attribute()] = *value
			}
		}
		for _, x := range ev.Extensions {
			attributes[x.Name] = x.Value
		}
		v := map[string]any{"event": map[string]any{"attributes": attributes}}
		if ev.Data != nil {
			key, value := "data", any(string(ev.Data))
			if !utf8.Valid(ev.Data) {
				key, value = "data_base64", ev.Data
			}
			v["event"].(map[string]any)[key] = value
		}
		for key, mode := range map[string]Mode{"binary": Binary, "structured": Structured} {
			var msg nats.Msg
			var encoder Encoder
			encoder.Encode(&msg, ev, mode)
			encoder.Finish(&msg)
			m := vectorMessage{Headers: make(map[string]string)}
			for name, values := range msg.Header {
				m.Headers[name] = values[0]
			}
			switch {
			case msg.Data == nil:
			case utf8.Valid(msg.Data):
				m.Body = new(string(msg.Data))
			default:
				m.BodyBase64 = msg.Data
			}
			v[key] = m
		}
		var content bytes.Buffer
		encoder := json.NewEncoder(&content)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(v); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name+".json")
		if *update {
			if err := os.WriteFile(file, content.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || !bytes.Equal(want, content.Bytes()) {
			t.Errorf("%s is not what is written for the event (%v); go test ./router -run TestVectors -update writes it:\n%s", file, err, content.String())
		}
	}
}
