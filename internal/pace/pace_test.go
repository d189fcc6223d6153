package pace_test

import (
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/pace"
)

// reads reads messages that come one every so often, for so long, and returns
// how many it found at once on average. Taking one takes a microsecond.
func reads(p *pace.Pace, now *time.Time, every, length time.Duration) float64 {
	end := now.Add(length)
	messages, n := 0, 0
	for next := *now; now.Before(end); n++ {
		*now = now.Add(p.Next(*now))
		if now.Before(next) {
			*now = next // the read blocks
		}
		found := 0
		for ; !next.After(*now); next = next.Add(every) {
			found++
		}
		p.Count(found)
		messages += found
		*now = now.Add(time.Duration(found) * time.Microsecond)
	}
	return float64(messages) / float64(n)
}

func TestPace_WaitsOnlyUnderLoad(t *testing.T) {
	t.Parallel()
	p := &pace.Pace{Much: 80}
	now := time.Unix(1, 0)
	few, many := time.Millisecond/4, time.Millisecond/20
	for _, round := range []string{"at first", "again"} {
		if got := reads(p, &now, few, time.Second); got > 1.1 {
			t.Errorf("%s, with 4 messages a millisecond each read found %.1f, want one: it must wait for nothing", round, got)
		}
		if got := reads(p, &now, many, time.Second); got < 20 {
			t.Errorf("%s, with 20 messages a millisecond each read found %.1f, want those of nearly %v", round, got, pace.Pause)
		}
		now = now.Add(time.Minute) // nothing comes
	}
}

func TestPace_BusyReaderDoesNotWait(t *testing.T) {
	t.Parallel()
	p := &pace.Pace{Much: 80}
	now := time.Unix(1, 0)
	for i := range 100 {
		if wait := p.Next(now); i > 0 && wait > 0 {
			t.Fatalf("a reader that comes back after %v waits %v more, want nothing", pace.Pause, wait)
		}
		p.Count(1000)
		now = now.Add(pace.Pause)
	}
}

func TestPace_LateReaderWaits(t *testing.T) {
	t.Parallel()
	p := &pace.Pace{Much: 80, Late: true}
	now := time.Unix(1, 0)
	if got := reads(p, &now, time.Millisecond/4, time.Second); got < 7 {
		t.Errorf("of old messages, 4 a millisecond, each read found %.1f, want those of %v", got, pace.Pause)
	}
}
