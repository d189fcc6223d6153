package event_test

import (
	"testing"

	"github.com/walrelay/walrelay/event"
)

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		wide, narrow        string
		covers, overlapping bool
	}{
		{"events.>", "events.a", true, true},
		{"events.>", "events.>", true, true},
		{"events.>", "events", false, false},
		{"events.*", "events.>", false, true},
		{"events.*", "events.a.b", false, false},
		{"events.*", "events.*", true, true},
		{"events.a", "events.*", false, true},
		{"events.a.>", "events.>", false, true},
		{">", "a.b", true, true},
		{"*.x", "a.>", false, true},
		{"orders.>", "events.>", false, false},
	} {
		if got := event.PatternCovers(tt.wide, tt.narrow); got != tt.covers {
			t.Errorf("%s covers %s: want %v, got %v", tt.wide, tt.narrow, tt.covers, got)
		}
		if got := event.PatternsOverlap(tt.wide, tt.narrow); got != tt.overlapping {
			t.Errorf("%s overlaps %s: want %v, got %v", tt.wide, tt.narrow, tt.overlapping, got)
		}
	}
}
