package router

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"time"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
)

// Encoder writes events as NATS messages (CloudEvents, "NATS Protocol
// Binding"). It reuses its memory: a message is good until the next Encode.
// Not safe for concurrent use. The zero value is ready.
type Encoder struct {
	values []string // the values of the present message's headers
	used   int
}

// maxHeaders is how many headers a message usually has at most.
const maxHeaders = 32

// Encode fills in the header and the data of msg.
func (e *Encoder) Encode(msg *nats.Msg, ev *event.Event, mode Mode) error {
	if msg.Header == nil {
		msg.Header = make(nats.Header, maxHeaders)
	}
	clear(msg.Header)
	e.used = 0
	if mode == Structured {
		return e.structured(msg, ev)
	}
	e.attribute(msg, "ce-specversion", event.SpecVersion)
	e.attribute(msg, "ce-id", ev.ID)
	e.attribute(msg, "ce-source", ev.Source)
	e.attribute(msg, "ce-type", ev.Type)
	e.attribute(msg, "ce-subject", ev.Subject)
	e.attribute(msg, "ce-time", ev.Time)
	e.attribute(msg, "ce-datacontenttype", ev.DataContentType)
	e.attribute(msg, "ce-dataschema", ev.DataSchema)
	e.attribute(msg, "ce-partitionkey", ev.PartitionKey)
	for i := range ev.Extensions {
		e.attribute(msg, "ce-"+ev.Extensions[i].Name, ev.Extensions[i].Value)
	}
	msg.Data = ev.Data
	return nil
}

// Set adds a header to the message of the last Encode.
func (e *Encoder) Set(msg *nats.Msg, key, value string) {
	if e.used == len(e.values) {
		// The slices of earlier headers keep the old array.
		e.values = make([]string, max(maxHeaders, 2*len(e.values)))
		e.used = 0
	}
	e.values[e.used] = value
	msg.Header[key] = e.values[e.used : e.used+1 : e.used+1]
	e.used++
}

func (e *Encoder) attribute(msg *nats.Msg, key, value string) {
	if value != "" {
		e.Set(msg, key, escapeHeader(value))
	}
}

// escapeHeader percent-encodes what the binding says (section 3.1.3.2): space,
// quotes, percent signs, and everything outside of printable ASCII.
func escapeHeader(value string) string {
	const digits = "0123456789ABCDEF"
	plain := func(c byte) bool { return c > ' ' && c < 0x7F && c != '"' && c != '%' }
	first := 0
	for first < len(value) && plain(value[first]) {
		first++
	}
	if first == len(value) {
		return value
	}
	var b strings.Builder
	b.Grow(len(value) + 16)
	b.WriteString(value[:first])
	for i := first; i < len(value); i++ {
		c := value[i]
		if plain(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&0xF])
	}
	return b.String()
}

// structured writes the event as JSON, by the CloudEvents SDK.
func (e *Encoder) structured(msg *nats.Msg, ev *event.Event) error {
	out := ce.New()
	out.SetID(ev.ID)
	out.SetType(ev.Type)
	out.SetSource(ev.Source)
	if ev.Subject != "" {
		out.SetSubject(ev.Subject)
	}
	if ev.Time != "" {
		at, err := time.Parse(time.RFC3339Nano, ev.Time)
		if err != nil {
			return fmt.Errorf("writing the event as JSON: time: %w", err)
		}
		out.SetTime(at)
	}
	if ev.DataSchema != "" {
		out.SetDataSchema(ev.DataSchema)
	}
	if ev.PartitionKey != "" {
		out.SetExtension("partitionkey", ev.PartitionKey)
	}
	for i := range ev.Extensions {
		out.SetExtension(ev.Extensions[i].Name, ev.Extensions[i].Value)
	}
	if ev.DataContentType != "" {
		out.SetDataContentType(ev.DataContentType)
	}
	if ev.Data != nil {
		var data any = ev.Data
		if isJSON(ev.DataContentType) {
			data = json.RawMessage(ev.Data)
		}
		if err := out.SetData(ev.DataContentType, data); err != nil {
			return fmt.Errorf("writing the event as JSON: data: %w", err)
		}
	}
	body, err := out.MarshalJSON()
	if err != nil {
		return fmt.Errorf("writing the event as JSON: %w", err)
	}
	msg.Data = body
	e.Set(msg, "Content-Type", ce.ApplicationCloudEventsJSON)
	return nil
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json"))
}
