package relay

import (
	"strings"
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	t.Parallel()
	start := time.Now()
	type look struct {
		after    time.Duration
		tick     bool
		settled  uint64
		inFlight int
		waiting  bool
		want     string
	}
	for name, looks := range map[string][]look{
		"idle":                {{after: 59 * time.Second, tick: true}, {after: time.Hour, tick: true}},
		"busy":                {{after: 30 * time.Second, tick: true, settled: 1, inFlight: 9}, {after: 80 * time.Second, tick: true, settled: 2, inFlight: 9}, {after: 130 * time.Second, tick: true, settled: 3, inFlight: 9}},
		"an outage":           {{after: time.Hour, tick: true, inFlight: 9, waiting: true}, {after: time.Hour + 50*time.Second, tick: true, inFlight: 9}},
		"nothing is reported": {{after: 61 * time.Second, want: "has not been looked after for 1m1s"}},
		"nothing is settled":  {{after: 30 * time.Second, tick: true, settled: 5, inFlight: 9}, {after: 91 * time.Second, tick: true, settled: 5, inFlight: 9, want: "9 events are in flight, and none has been settled for 1m1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p pulse
			p.begin(start)
			for _, l := range looks {
				now := start.Add(l.after)
				if l.tick {
					p.tick(now)
				}
				if got := p.hung(now, l.settled, l.inFlight, l.waiting); (got == "") != (l.want == "") || !strings.Contains(got, l.want) {
					t.Errorf("after %s it says %q, want %q", l.after, got, l.want)
				}
			}
		})
	}
}
