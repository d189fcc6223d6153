package inbox

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
)

// CloudEvent is a CloudEvents 1.0 event as a consumer gets it.
type CloudEvent struct {
	ID, Type, Source string
	Subject          string
	// Time is when it happened; zero if the event does not say.
	Time time.Time
	// ContentType is the payload's media type; "" if the event does not say.
	ContentType string
	DataSchema  string
	// Key is the partition key (the extension partitionkey).
	Key string
	// Extensions are the other extension attributes, in their canonical text.
	Extensions map[string]string
	// Data is the payload; nil for none.
	Data []byte
	// Position is where the event stands in the write-ahead log, as the message says: text
	// that sorts in commit order. "" if it says nothing.
	Position string
}

// ErrNoEvent says that a message is no CloudEvents event.
var ErrNoEvent = errors.New("the message is not a CloudEvents event")

// Message is a message of a stream, as jetstream.Msg is one.
type Message interface {
	Headers() nats.Header
	Data() []byte
}

// Decode returns the event of a message in binary or in structured mode (CloudEvents, "NATS
// Protocol Binding" 1.0.2, section 3). The error wraps [ErrNoEvent] and says what is wrong.
// The event's data are the message's.
func Decode(msg Message) (CloudEvent, error) { return DecodeParts(msg.Headers(), msg.Data()) }

// DecodeParts is [Decode] for the header and the data of a message, of a nats.Msg for
// instance.
func DecodeParts(header nats.Header, data []byte) (CloudEvent, error) {
	ev, err := decode(header, data)
	if stamp, _, _ := strings.Cut(first(header, event.PositionHeader), " "); stamp != "" {
		if _, err := event.ParsePosition(stamp); err == nil {
			ev.Position = stamp
		}
	}
	return ev, err
}

func decode(header nats.Header, data []byte) (CloudEvent, error) {
	if media, _, _ := strings.Cut(header.Get("Content-Type"), ";"); strings.HasPrefix(strings.ToLower(media), "application/cloudevents") {
		if !strings.EqualFold(strings.TrimSpace(media), "application/cloudevents+json") {
			return CloudEvent{}, fmt.Errorf("%w: it has the format %q, and only JSON is read", ErrNoEvent, event.Clip(media))
		}
		return decodeJSON(data)
	}
	return decodeBinary(header, data)
}

// Unmarshal reads the payload, which must be JSON, into a value.
func (e *CloudEvent) Unmarshal(into any) error {
	if !event.IsJSON(e.ContentType) && e.ContentType != "" {
		return fmt.Errorf("event %q: the payload is %s, not JSON", e.ID, event.Clip(e.ContentType))
	}
	if err := json.Unmarshal(e.Data, into); err != nil {
		return fmt.Errorf("event %q: reading the payload: %w", e.ID, err)
	}
	return nil
}

func decodeBinary(header nats.Header, data []byte) (CloudEvent, error) {
	ev := CloudEvent{}
	if len(data) > 0 {
		ev.Data = data
	}
	found := false
	for name, values := range header {
		// Clients may write the names of headers in another case.
		if len(name) <= len("ce-") || !strings.EqualFold(name[:len("ce-")], "ce-") || len(values) == 0 {
			continue
		}
		value, err := unescape(values[0])
		if err != nil {
			return ev, fmt.Errorf("%w: header %s: %w", ErrNoEvent, event.Clip(name), err)
		}
		name = strings.ToLower(name[len("ce-"):])
		if name == "specversion" {
			if found = value == event.SpecVersion; !found {
				return ev, fmt.Errorf("%w: it has the version %q, and only %s is read", ErrNoEvent, event.Clip(value), event.SpecVersion)
			}
			continue
		}
		if err := ev.set(name, value); err != nil {
			return ev, err
		}
	}
	if !found {
		return ev, fmt.Errorf("%w: it has no header ce-specversion", ErrNoEvent)
	}
	if ev.ContentType == "" {
		ev.ContentType = header.Get("Content-Type") // as others write it
	}
	return ev, ev.complete()
}

func decodeJSON(data []byte) (CloudEvent, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return CloudEvent{}, fmt.Errorf("%w: its data is no JSON object: %w", ErrNoEvent, err)
	}
	ev := CloudEvent{}
	for name, raw := range members {
		switch {
		case string(raw) == "null" && name != "data":
			continue
		case name == "data":
			if ev.Data == nil {
				ev.Data = raw
			}
			continue
		case name == "data_base64":
			var text string
			err := json.Unmarshal(raw, &text)
			if err == nil {
				ev.Data, err = base64.StdEncoding.DecodeString(text)
			}
			if err != nil {
				return ev, fmt.Errorf("%w: data_base64: %w", ErrNoEvent, err)
			}
			continue
		}
		var text string
		if raw[0] == '"' {
			if err := json.Unmarshal(raw, &text); err != nil {
				return ev, fmt.Errorf("%w: %s: %w", ErrNoEvent, event.Clip(name), err)
			}
		} else {
			text = string(raw) // a boolean or an integer, whose text is canonical
		}
		if name == "specversion" {
			if text != event.SpecVersion {
				return ev, fmt.Errorf("%w: it has the version %q, and only %s is read", ErrNoEvent, event.Clip(text), event.SpecVersion)
			}
			continue
		}
		if err := ev.set(name, text); err != nil {
			return ev, err
		}
	}
	if _, ok := members["specversion"]; !ok {
		return ev, fmt.Errorf("%w: it has no specversion", ErrNoEvent)
	}
	if data, ok := members["data"]; ok && ev.ContentType != "" && !event.IsJSON(ev.ContentType) {
		// A text stands as a JSON string ("JSON Event Format" 1.0.2, section 3.1.1).
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return ev, fmt.Errorf("%w: data: it is no JSON string, and the content type is %q", ErrNoEvent, event.Clip(ev.ContentType))
		}
		ev.Data = []byte(text)
	}
	return ev, ev.complete()
}

// set takes an attribute.
func (e *CloudEvent) set(name, value string) error {
	switch name {
	case "id":
		e.ID = value
	case "type":
		e.Type = value
	case "source":
		e.Source = value
	case "subject":
		e.Subject = value
	case "datacontenttype":
		e.ContentType = value
	case "dataschema":
		e.DataSchema = value
	case "partitionkey":
		e.Key = value
	case "time":
		at, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return fmt.Errorf("%w: time: %q is no RFC 3339 time", ErrNoEvent, event.Clip(value))
		}
		e.Time = at
	default:
		if e.Extensions == nil {
			e.Extensions = make(map[string]string)
		}
		e.Extensions[name] = value
	}
	return nil
}

func (e *CloudEvent) complete() error {
	for _, attribute := range [...]struct{ name, value string }{{"id", e.ID}, {"type", e.Type}, {"source", e.Source}} {
		if attribute.value == "" {
			return fmt.Errorf("%w: it has no %s", ErrNoEvent, attribute.name)
		}
	}
	return nil
}

var errNotUTF8 = errors.New("decoded, it is not UTF-8")

// unescape decodes a header's value (binding, section 3.1.3.2). A percent sign that is not
// followed by two hex digits stands for itself.
func unescape(value string) (string, error) {
	if !strings.Contains(value, "%") {
		if !utf8.ValidString(value) {
			return "", errNotUTF8
		}
		return value, nil
	}
	b := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '%' && i+2 < len(value) {
			if high, low := hexDigit(value[i+1]), hexDigit(value[i+2]); high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, value[i])
	}
	if !utf8.Valid(b) {
		return "", errNotUTF8
	}
	return string(b), nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
