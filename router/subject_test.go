package router

import (
	"errors"
	"strings"
	"testing"

	"github.com/walrelay/walrelay/event"
)

func subjectOf(t testing.TB, template string, ev *event.Event) (string, error) {
	t.Helper()
	parsed, err := ParseSubject(template)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := parsed.Append(nil, ev)
	return string(subject), err
}

func TestSubject_Append(t *testing.T) {
	t.Parallel()
	ev := &event.Event{
		Type: "order.created", Source: "/shop.eu", Subject: "a b", PartitionKey: "k*", Schema: "public", Table: "out.box",
		Extensions: []event.Attribute{{Name: "tenant", Value: "acme"}},
	}
	for template, want := range map[string]string{
		"events.{type}":      "events.order.created",
		"a.{type}":           "a.order.created",
		"a.{source}.{type}":  "a./shop%2Eeu.order.created",
		"s.{subject}":        "s.a%20b",
		"k.{partition_key}":  "k.k%2A",
		"a.{schema}.{table}": "a.public.out%2Ebox",
		"t.{tenant}.{type}":  "t.acme.order.created",
		"x.{missing}":        "x.%",
		"fixed.subject":      "fixed.subject",
		"k.{partitionkey}":   "k.k%2A",
		"e.{partition:7}.x":  "e.4.x",
	} {
		if got, err := subjectOf(t, template, ev); err != nil || got != want {
			t.Errorf("%s gives %q (%v), want %q", template, got, err, want)
		}
	}
}

// Rows must not reach the subjects of the server, of requests, or of others.
func TestParseSubject_FirstTokenIsLiteral(t *testing.T) {
	t.Parallel()
	for _, template := range []string{"{type}", "{source}.{type}", "t-{tenant}.{type}", "$JS.{type}", "_INBOX.{type}", "_INBOX", ".{type}", ""} {
		if _, err := ParseSubject(template); err == nil {
			t.Errorf("%s is accepted", template)
		}
	}
}

func TestSubject_EscapesTokens(t *testing.T) {
	t.Parallel()
	for typ, want := range map[string]string{
		".":         "e.%.%",
		"a..b":      "e.a.%.b",
		".a":        "e.%.a",
		"a.":        "e.a.%",
		"*":         "e.%2A",
		"a.>":       "e.a.%3E",
		"a b\tc":    "e.a%20b%09c",
		"100%":      "e.100%25",
		"größe":     "e.größe",
		"\xff\xfe":  "e.%FF%FE",
		"line\r\nx": "e.line%0D%0Ax",
	} {
		if got, err := subjectOf(t, "e.{type}", &event.Event{Type: typ}); err != nil || got != want {
			t.Errorf("type %q gives %q (%v), want %q", typ, got, err, want)
		}
	}
}

func TestSubject_TooLong(t *testing.T) {
	t.Parallel()
	_, err := subjectOf(t, "e.{type}", &event.Event{Type: strings.Repeat("x", 1023)})
	if tooLong, ok := errors.AsType[*SubjectError](err); !ok || tooLong.Length != 1025 {
		t.Errorf("a subject of 1025 bytes gives %v, want a SubjectError with its length", err)
	}
	if got := classify(err); got != Poison {
		t.Errorf("it is of class %s, want poison", got)
	}
}

func TestParseSubject_Refuses(t *testing.T) {
	t.Parallel()
	for _, template := range []string{
		"", "events.", ".events", "a..b", "events.*", "events.>", "a b", "$JS.API.{type}", "events.{type", "events.{}", "events.{Type}", "a%b", "a\tb", "a.{partition:0}", "a.p{partition:8}", "a.{partition:8}x", "a.{partition:8}{type}", "a.{partition:8}.{partition:8}", "a.{type}.{partition:8}",
	} {
		if _, err := ParseSubject(template); err == nil {
			t.Errorf("the template %q was taken", template)
		}
	}
}

func FuzzSubjects(f *testing.F) {
	for _, pair := range [][2]string{{"order.created", "order%2Ecreated"}, {"", "%"}, {"a b", "a%20b"}, {"..", "."}, {"ü", "\xc3"}, {"%", "%%"}} {
		f.Add(pair[0], pair[1])
	}
	typed, err := ParseSubject("e.{type}")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		one := string(event.AppendToken(nil, a))
		if back, err := event.UnescapeToken(one); err != nil || back != a {
			t.Fatalf("%q is written as %q, which reads as %q (%v)", a, one, back, err)
		}
		if strings.Contains(one, ".") {
			t.Fatalf("%q is written as %q, which is more than a token", a, one)
		}
		subjectA, errA := typed.Append(nil, &event.Event{Type: a})
		subjectB, errB := typed.Append(nil, &event.Event{Type: b})
		if errA != nil || errB != nil {
			return
		}
		if (a == b) != (string(subjectA) == string(subjectB)) {
			t.Fatalf("the types %q and %q have the subjects %q and %q", a, b, subjectA, subjectB)
		}
		for token := range strings.SplitSeq(string(subjectA), ".") {
			if token == "" || token == "*" || token == ">" || strings.ContainsAny(token, " \t\r\n\x00*>") {
				t.Fatalf("the type %q has the subject %q, which is none", a, subjectA)
			}
		}
	})
}

func TestUnescapeToken_Refuses(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"a%", "a%2", "%zz", "%2a"} {
		if got, err := event.UnescapeToken(token); err == nil {
			t.Errorf("%q reads as %q, want an error", token, got)
		}
	}
}
