// Package outboxtest asks in a test which events a transaction has published, without a
// relay and without NATS: also in a transaction that is rolled back at the end of the test.
//
//	events := outboxtest.Published(t, tx)
//	placed := outboxtest.One(t, tx, outboxtest.Type("order.placed"), outboxtest.Key("customer-8"))
//	outboxtest.None(t, tx, outboxtest.Type("order.cancelled"))
package outboxtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/walrelay/walrelay/outbox"
	"github.com/walrelay/walrelay/sql"
)

// Event is an event as it stands in the outbox table.
type Event struct {
	ID, Type, Source, Subject string
	ContentType, DataSchema   string
	// Data is the payload: JSON as Postgres writes it, or bytes.
	Data       []byte
	Extensions map[string]any
	Key        string
	// At is the time before which it is not published; zero for at once.
	At         time.Time
	MaxRetries *int
}

// Published returns the events of public.outbox, or of the table that is named, that the
// transaction has inserted so far, in order; those of its savepoints too, unless they were
// rolled back. The transaction must be one: what was committed is not its own any more.
func Published(t testing.TB, tx outbox.Tx, table ...string) []Event {
	t.Helper()
	name := outbox.DefaultTable
	if len(table) > 0 {
		name = table[0]
	}
	schema, relation, _ := strings.Cut(name, ".")
	query, err := sql.OutboxInserted(sql.Table{Schema: schema, Name: relation})
	if err != nil {
		t.Fatalf("asking which events are in %s: %v", name, err)
	}
	var text string
	if err := tx.QueryRow(t.Context(), query).Scan(&text); err != nil {
		t.Fatalf("asking which events are in %s: %v", name, err)
	}
	var rows []struct {
		ID          string          `json:"id"`
		Type        string          `json:"type"`
		Source      string          `json:"source"`
		Subject     string          `json:"subject"`
		Data        json.RawMessage `json:"data"`
		DataBytes   *string         `json:"data_bytes"`
		ContentType string          `json:"content_type"`
		DataSchema  string          `json:"data_schema"`
		Extensions  map[string]any  `json:"extensions"`
		Key         string          `json:"partition_key"`
		At          *time.Time      `json:"scheduled_at"`
		MaxRetries  *int            `json:"max_retries"`
	}
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		t.Fatalf("reading the events of %s: %v", name, err)
	}
	events := make([]Event, len(rows))
	for i, r := range rows {
		ev := Event{
			ID: r.ID, Type: r.Type, Source: r.Source, Subject: r.Subject, ContentType: r.ContentType, DataSchema: r.DataSchema,
			Extensions: r.Extensions, Key: r.Key, MaxRetries: r.MaxRetries,
		}
		if r.At != nil {
			ev.At = *r.At
		}
		if r.DataBytes != nil {
			if ev.Data, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(*r.DataBytes, "\n", "")); err != nil {
				t.Fatalf("reading the bytes of event %s: %v", r.ID, err)
			}
		} else if len(r.Data) > 0 && string(r.Data) != "null" {
			ev.Data = r.Data
		}
		events[i] = ev
	}
	return events
}

// Matcher says of an event whether it is meant, and what it looks for.
type Matcher struct {
	what  string
	match func(*Event) bool
}

// Type matches events of the type.
func Type(want string) Matcher {
	return Matcher{fmt.Sprintf("type %q", want), func(ev *Event) bool { return ev.Type == want }}
}

// Source matches events of the source.
func Source(want string) Matcher {
	return Matcher{fmt.Sprintf("source %q", want), func(ev *Event) bool { return ev.Source == want }}
}

// Subject matches events with the subject.
func Subject(want string) Matcher {
	return Matcher{fmt.Sprintf("subject %q", want), func(ev *Event) bool { return ev.Subject == want }}
}

// Key matches events with the partition key.
func Key(want string) Matcher {
	return Matcher{fmt.Sprintf("key %q", want), func(ev *Event) bool { return ev.Key == want }}
}

// Data matches events with the payload: bytes, or a value whose JSON means the same.
func Data(want any) Matcher {
	if content, ok := want.([]byte); ok {
		return Matcher{fmt.Sprintf("data %q", content), func(ev *Event) bool { return bytes.Equal(ev.Data, content) }}
	}
	content, err := json.Marshal(want)
	if err != nil {
		return Matcher{fmt.Sprintf("data that is no JSON (%v)", err), func(*Event) bool { return false }}
	}
	var value any
	_ = json.Unmarshal(content, &value) // it was written just now
	return Matcher{fmt.Sprintf("data %s", content), func(ev *Event) bool {
		var got any
		return json.Unmarshal(ev.Data, &got) == nil && reflect.DeepEqual(got, value)
	}}
}

// One returns the one event of the transaction that all matchers mean, and ends the test
// if there is none, or another.
func One(t testing.TB, tx outbox.Tx, matchers ...Matcher) Event {
	t.Helper()
	all := Published(t, tx)
	found := filter(all, matchers)
	if len(found) != 1 {
		t.Fatalf("the transaction has published %d events with %s, want 1; it has published\n%s", len(found), describe(matchers), list(all))
	}
	return found[0]
}

// None fails the test if the transaction has published an event that all matchers mean;
// without matchers, any event.
func None(t testing.TB, tx outbox.Tx, matchers ...Matcher) {
	t.Helper()
	if found := filter(Published(t, tx), matchers); len(found) > 0 {
		t.Errorf("the transaction has published %d events with %s, want none:\n%s", len(found), describe(matchers), list(found))
	}
}

func filter(events []Event, matchers []Matcher) (found []Event) {
	for i := range events {
		ok := true
		for _, m := range matchers {
			ok = ok && m.match(&events[i])
		}
		if ok {
			found = append(found, events[i])
		}
	}
	return found
}

func describe(matchers []Matcher) string {
	if len(matchers) == 0 {
		return "anything"
	}
	texts := make([]string, len(matchers))
	for i, m := range matchers {
		texts[i] = m.what
	}
	return strings.Join(texts, ", ")
}

func list(events []Event) string {
	if len(events) == 0 {
		return "  nothing"
	}
	var b strings.Builder
	for _, ev := range events {
		fmt.Fprintf(&b, "  %s type %q source %q subject %q key %q data %s\n", ev.ID, ev.Type, ev.Source, ev.Subject, ev.Key, ev.Data)
	}
	return b.String()
}
