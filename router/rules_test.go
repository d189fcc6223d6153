package router

import (
	"strings"
	"testing"

	"github.com/walrelay/walrelay/event"
)

func TestRules_FirstMatchDecides(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]Rule{
		{Type: "order.debug", Drop: true},
		{Type: "order.*", Source: "/eu/*", Stream: "EU", Mode: "structured"},
		{Type: "order.*", Stream: "ORDERS", Subject: "orders.{type}"},
		{Table: "sales.outbox", Stream: "SALES"},
	}, Rule{Stream: "EVENTS", Subject: "events.{type}"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		ev      event.Event
		stream  string
		subject string
		mode    Mode
		drop    bool
	}{
		{event.Event{Type: "order.debug"}, "", "", Binary, true},
		{event.Event{Type: "order.created", Source: "/eu/shop"}, "EU", "events.order.created", Structured, false},
		{event.Event{Type: "order.created", Source: "/us/shop"}, "ORDERS", "orders.order.created", Binary, false},
		{event.Event{Type: "user.created", Schema: "sales", Table: "outbox"}, "SALES", "events.user.created", Binary, false},
		{event.Event{Type: "user.created", Schema: "public", Table: "outbox"}, "EVENTS", "events.user.created", Binary, false},
	} {
		target := rules.Match(&tc.ev)
		if target.Drop != tc.drop || !tc.drop && (target.Stream != tc.stream || target.Mode != tc.mode) {
			t.Errorf("%+v goes to %+v", tc.ev, target)
			continue
		}
		if tc.drop {
			continue
		}
		if got, err := target.Subject.Append(nil, &tc.ev); err != nil || string(got) != tc.subject {
			t.Errorf("%+v goes to %q (%v), want %q", tc.ev, got, err, tc.subject)
		}
	}
}

func TestRules_ReportsAllProblems(t *testing.T) {
	t.Parallel()
	_, err := NewRules([]Rule{
		{Subject: "a..b"}, {Mode: "yaml"}, {Table: "outbox"}, {Drop: true, Stream: "X"}, {Stream: "GOOD"},
	}, Rule{Stream: "EVENTS", Subject: "events.{type}"})
	if err == nil {
		t.Fatal("they were taken")
	}
	for _, part := range []string{"routes[0]", "routes[1]", "routes[2]", "routes[3]"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s is not reported in %q", part, err)
		}
	}
	if strings.Contains(err.Error(), "routes[4]") {
		t.Errorf("the good rule is reported in %q", err)
	}
}

func TestRules_Patterns(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"order.created", "order.created", true}, {"order.created", "order.create", false}, {"order.*", "order.", true},
		{"order.*", "order.created.v2", true}, {"order.*", "orders", false}, {"*", "", true}, {"*.created", "order.created", true},
		{"*.created", "order.created.v2", false}, {"a*b*c", "a-b-b-c", true}, {"a*b*c", "a-c-b", false}, {"**", "x", true}, {"", "", true}, {"", "x", false},
	} {
		if got := MatchPattern(tc.pattern, tc.s); got != tc.want {
			t.Errorf("pattern %q and %q: %v, want %v", tc.pattern, tc.s, got, tc.want)
		}
	}
}
