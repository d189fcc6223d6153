package walrelay

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestWhatAnAcknowledgementIsWorth(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		replicas int
		shared   bool
		window   time.Duration
		want     []string
		not      string
	}{
		"one replica":    {1, false, time.Hour, []string{"one server has written", "within its sync_interval", "walrelay repair", "for 1h after"}, "servers"},
		"three":          {3, false, 90 * time.Minute, []string{"2 of 3 servers", "a power cut of 2 at once", "within their", "for 1h30m after"}, "one server"},
		"five":           {5, false, 10 * time.Second, []string{"3 of 5 servers", "a power cut of 3 at once", "for 10s after"}, ""},
		"shared by many": {1, true, time.Hour, []string{"that is not noticed"}, "repair"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{Storage: jetstream.FileStorage, Replicas: c.replicas}}
			got := worth(info, c.shared, c.window)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("it is worth %q, which does not say %q", got, want)
				}
			}
			if c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("it is worth %q, which says %q", got, c.not)
			}
		})
	}
}
