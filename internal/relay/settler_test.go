package relay

import (
	"testing"
	"time"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/telemetry"
	"github.com/walrelay/walrelay/router"
)

// Until something is settled, the first event that waits says how late the relay is; a relay
// that was started while a stream is full is not on time.
func TestSettler_LagBeforeTheFirstIsSettled(t *testing.T) {
	t.Parallel()
	none := func() float64 { return 0 }
	s := &settler{frontier: dropped{}, metrics: telemetry.New(none, none, none)}
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	ev := func(n int) *event.Event { return &event.Event{CommittedAt: at(n)} }
	want := func(n int) {
		t.Helper()
		if got := s.lastCommit.Load(); got != at(n).UnixNano() {
			t.Errorf("the time is %v, want %v", time.Unix(0, got), at(n))
		}
	}
	s.read(ev(10))
	want(10)
	s.read(ev(20))
	want(10)
	s.Settled(1, router.Published, ev(10), "EVENTS", 0)
	s.Settled(2, router.Published, ev(20), "EVENTS", 0)
	want(20)
	s.read(ev(30))
	want(20)
}
