package router

import (
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
)

// Encoder writes events as NATS messages (CloudEvents, "NATS Protocol
// Binding"): Encode, then Set for each further header, then Finish. It reuses
// its memory, and the header map as it is while messages have the same headers
// in the same order, as those of one kind of event do: a message is good until
// the next Encode. Not safe for concurrent use. The zero value is ready.
type Encoder struct {
	keys   []string // of the headers that are in the map, in order
	values []string // theirs; the map's slices are parts of this one
	used   int      // how many of them belong to the present message
	names  map[string]string
}

// Encode fills in the header and the data of msg, which must be the same one
// every time.
func (e *Encoder) Encode(msg *nats.Msg, ev *event.Event, mode Mode) {
	if msg.Header == nil {
		msg.Header = make(nats.Header)
	}
	e.used = 0
	if mode == Structured {
		e.structured(msg, ev)
		return
	}
	e.Set(msg, "ce-specversion", event.SpecVersion)
	for c := range event.NumColumns {
		if value := c.Field(ev); value != nil {
			e.attribute(msg, c.Header(), *value)
		}
	}
	for i := range ev.Extensions {
		e.attribute(msg, e.extensionHeader(ev.Extensions[i].Name), ev.Extensions[i].Value)
	}
	msg.Data = ev.Data
}

// Set adds a header to the message.
func (e *Encoder) Set(msg *nats.Msg, key, value string) {
	i := e.used
	e.used++
	if i < len(e.keys) && e.keys[i] == key {
		e.values[i] = value
		return
	}
	// Another header than in the message before: forget that one's from here.
	e.forget(msg, i)
	e.keys = append(e.keys, key)
	if len(e.values) == cap(e.values) {
		// The array moves, and with it what the map refers to.
		e.values = append(make([]string, 0, max(16, 2*cap(e.values))), e.values...)
		for j := range e.values {
			msg.Header[e.keys[j]] = e.values[j : j+1 : j+1]
		}
	}
	e.values = append(e.values, value)
	msg.Header[key] = e.values[i : i+1 : i+1]
}

// Finish ends the message: the headers that only the message before had go.
func (e *Encoder) Finish(msg *nats.Msg) { e.forget(msg, e.used) }

// forget removes the headers from the i-th on.
func (e *Encoder) forget(msg *nats.Msg, i int) {
	for _, key := range e.keys[i:] {
		delete(msg.Header, key)
	}
	e.keys, e.values = e.keys[:i], e.values[:i]
}

func (e *Encoder) attribute(msg *nats.Msg, key, value string) {
	if value != "" {
		e.Set(msg, key, event.EscapeHeader(value))
	}
}

// maxNames bounds how many names of extension attributes are remembered.
const maxNames = 1024

// extensionHeader is the header of an extension attribute.
func (e *Encoder) extensionHeader(name string) string {
	header, ok := e.names[name]
	if !ok {
		if e.names == nil || len(e.names) >= maxNames {
			e.names = make(map[string]string)
		}
		header = "ce-" + name
		e.names[header[len("ce-"):]] = header
	}
	return header
}

// textsBytes is how much is allocated at once for texts.
const textsBytes = 8 << 10

// texts makes strings of bytes, many in one allocation. The zero value is ready.
type texts struct{ builder strings.Builder }

func (t *texts) string(b []byte) string {
	if t.builder.Cap()-t.builder.Len() < len(b) {
		t.builder = strings.Builder{}
		t.builder.Grow(max(textsBytes, len(b)))
	}
	start := t.builder.Len()
	t.builder.Write(b)
	return t.builder.String()[start:]
}

// appendMessageID appends the Nats-Msg-Id of an event: source and id, by which
// CloudEvents identifies it, with a space between them that neither has; of a replayed
// event also the replay, since it is no duplicate of its original.
func appendMessageID(b []byte, ev *event.Event) []byte {
	b = event.AppendEscaped(b, ev.Source)
	b = append(b, ' ')
	b = event.AppendEscaped(b, ev.ID)
	if replay := ev.Replay(); replay != "" {
		b = append(b, ' ')
		b = event.AppendEscaped(b, replay)
	}
	return b
}

// structured writes the event as JSON.
func (e *Encoder) structured(msg *nats.Msg, ev *event.Event) {
	msg.Data = ev.AppendJSON(nil)
	e.Set(msg, "Content-Type", "application/cloudevents+json")
}
