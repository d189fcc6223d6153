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
		"one replica":    {1, false, time.Hour, []string{"a power cut may take what was acknowledged in the 2 minutes before", "walrelay repair", "of the last 1h "}, "servers"},
		"three":          {3, false, 90 * time.Minute, []string{"3 servers, of which 2", "the loss of one server takes nothing", "a power cut of 2 or more", "of the last 1h30m "}, "one server, which"},
		"five":           {5, false, 10 * time.Second, []string{"5 servers, of which 3", "the loss of 2 servers takes nothing", "of the last 10s "}, ""},
		"shared by many": {1, true, time.Hour, []string{"what is lost is not noticed"}, "repair"},
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
