package outbox

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/walrelay/walrelay/event"
)

// row is an event as the statement of sql.OutboxInsert reads it.
type row struct {
	ID           string          `json:"id"`
	Type         string          `json:"event_type"`
	Source       string          `json:"source"`
	Subject      *string         `json:"subject"`
	Data         *string         `json:"data"`       // JSON in a text, or null would be no payload
	DataBytes    *string         `json:"data_bytes"` // in base64
	ContentType  *string         `json:"content_type"`
	DataSchema   *string         `json:"data_schema"`
	Extensions   json.RawMessage `json:"extensions"`
	PartitionKey *string         `json:"partition_key"`
	ScheduledAt  *time.Time      `json:"scheduled_at"`
	MaxRetries   *int            `json:"max_retries"`
	CreatedAt    *time.Time      `json:"created_at"`
}

// row checks an event and makes a row of it. What is wrong with it is said of one
// attribute, as the relay would say it.
func (o Outbox) row(ctx context.Context, ev *Event) (row, error) {
	r := row{ID: ev.ID, Type: ev.Type, Source: ev.Source, MaxRetries: ev.MaxRetries}
	if r.Source == "" {
		r.Source = o.Source
	}
	if r.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return r, fmt.Errorf("making an id: %w", err)
		}
		r.ID = id.String()
	} else if _, err := uuid.Parse(r.ID); err != nil {
		return r, invalid(event.ColumnID, fmt.Errorf("%q is not a UUID; leave it out for a new one", event.Clip(r.ID)))
	}
	for _, text := range [...]struct {
		column event.Column
		value  string
		to     **string
	}{
		{event.ColumnType, r.Type, nil},
		{event.ColumnSource, r.Source, nil},
		{event.ColumnSubject, ev.Subject, &r.Subject},
		{event.ColumnDataContentType, ev.ContentType, &r.ContentType},
		{event.ColumnDataSchema, ev.DataSchema, &r.DataSchema},
		{event.ColumnPartitionKey, ev.Key, &r.PartitionKey},
	} {
		if err := checkText(text.column, text.value); err != nil {
			return r, invalid(text.column, err)
		}
		if text.to != nil && text.value != "" {
			*text.to = &text.value
		}
	}
	if err := r.payload(ev); err != nil {
		return r, invalid(event.ColumnData, err)
	}
	var err error
	if r.ScheduledAt, err = moment(ev.At); err != nil {
		return r, invalid(event.ColumnScheduledAt, err)
	}
	if r.CreatedAt, err = moment(ev.Time); err != nil {
		return r, invalid(event.ColumnTime, err)
	}
	if n := ev.MaxRetries; n != nil && (*n < 0 || *n > math.MaxInt32) {
		return r, invalid(event.ColumnMaxRetries, fmt.Errorf("%d is not a number of retries; write an integer from 0 to 2147483647, or leave it out for the default", *n))
	}
	if r.Extensions, err = extensions(ctx, ev); err != nil {
		return r, invalid(event.ColumnExtensions, err)
	}
	return r, nil
}

func invalid(column event.Column, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrInvalid, column, err)
}

func checkText(column event.Column, value string) error {
	switch {
	case value == "" && column.Required():
		return errors.New("it is empty; every event needs a value here")
	case value == "":
		return nil
	}
	if err := event.CheckText(value); err != nil {
		return err
	}
	if column != event.ColumnPartitionKey && strings.TrimSpace(value) == "" {
		return errors.New("it is nothing but white space; write a value, or leave it out if it is optional")
	}
	return event.CheckAttribute(column, value)
}

// moment takes a time; nil for the zero one.
func moment(t time.Time) (*time.Time, error) {
	switch {
	case t.IsZero():
		return nil, nil //nolint:nilnil // no time
	case t.UTC().Year() > 9999:
		return nil, fmt.Errorf("%s is after the year 9999, which RFC 3339 cannot say", event.Clip(t.String()))
	case t.UTC().Year() < 1:
		return nil, fmt.Errorf("%s is before the year 1, which RFC 3339 cannot say", event.Clip(t.String()))
	}
	t = t.UTC()
	return &t, nil
}

// payload takes the data.
func (r *row) payload(ev *Event) error {
	isJSON := ev.ContentType == "" || event.IsJSON(ev.ContentType)
	var content []byte
	switch data := ev.Data.(type) {
	case nil:
		return nil
	case json.RawMessage:
		if content = data; !isJSON {
			return fmt.Errorf("it is a json.RawMessage, and the content type is %q; give the bytes, or leave the content type out", event.Clip(ev.ContentType))
		}
	case []byte:
		if ev.ContentType == "" || !isJSON {
			r.DataBytes = new(base64.StdEncoding.EncodeToString(data))
			return nil
		}
		content = data
	case string:
		if !isJSON {
			r.DataBytes = new(base64.StdEncoding.EncodeToString([]byte(data)))
			return nil
		}
		return r.marshal(data)
	default:
		if !isJSON {
			return fmt.Errorf("it is a %T, and the content type is %q; give bytes or a string, or leave the content type out for JSON", data, event.Clip(ev.ContentType))
		}
		return r.marshal(data)
	}
	if !json.Valid(content) || !utf8.Valid(content) {
		return errors.New("it is not valid JSON in UTF-8; correct it, or give the right content type")
	}
	return r.json(content)
}

func (r *row) marshal(data any) error {
	content, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("writing it as JSON: %w", err)
	}
	return r.json(content)
}

func (r *row) json(content []byte) error {
	if hasNUL(content) {
		return errors.New(`it has the character \u0000, which the type jsonb does not take; remove it, or give bytes with a content type of their own`)
	}
	r.Data = new(string(content))
	return nil
}

// hasNUL reports whether valid JSON has an escaped NUL (Postgres manual, "JSON Types").
func hasNUL(content []byte) bool {
	escape := []byte(`\u0000`)
	for at := 0; ; {
		i := bytes.Index(content[at:], escape)
		if i < 0 {
			return false
		}
		at += i
		before := 0
		for at-before > 0 && content[at-before-1] == '\\' {
			before++
		}
		if before%2 == 0 {
			return true
		}
		at += len(escape)
	}
}

// extensions takes the extension attributes, and the context's span.
func extensions(ctx context.Context, ev *Event) (json.RawMessage, error) {
	all := make(map[string]json.RawMessage, len(ev.Extensions)+2)
	for _, name := range slices.Sorted(maps.Keys(ev.Extensions)) {
		value, err := json.Marshal(ev.Extensions[name])
		if err == nil {
			_, err = event.ExtensionOf(name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("extension %q: %w", event.Clip(name), err)
		}
		if name == "partitionkey" && ev.Key != "" && ev.Extensions[name] != ev.Key {
			return nil, fmt.Errorf("extension %q: the event has the key %q; give one of them", name, event.Clip(ev.Key))
		}
		all[name] = value
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		if _, ok := all["traceparent"]; !ok {
			// W3C Trace Context, "traceparent Header".
			all["traceparent"] = fmt.Appendf(nil, `"00-%s-%s-%s"`, span.TraceID(), span.SpanID(), span.TraceFlags())
			if state := span.TraceState().String(); state != "" {
				all["tracestate"], _ = json.Marshal(state) //nolint:errchkjson // a string
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}
