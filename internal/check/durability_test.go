package check

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestAckDurability(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		replicas int
		shared   bool
		window   time.Duration
		want     []string
		not      string
	}{
		"one replica":    {1, false, time.Hour, []string{"on 1 server", "the last sync_interval", "walrelay repair", "for 1h ("}, "servers"},
		"three":          {3, false, 90 * time.Minute, []string{"on 2 of 3 servers", "a power failure of 2 at once", "for 1h30m ("}, "on 1 server"},
		"five":           {5, false, 10 * time.Second, []string{"3 of 5 servers", "a power failure of 3 at once", "for 10s ("}, ""},
		"shared by many": {1, true, time.Hour, []string{"that is not noticed"}, "repair"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{Storage: jetstream.FileStorage, Replicas: c.replicas}}
			got := AckDurability(info, c.shared, c.window)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("it says %q, which does not say %q", got, want)
				}
			}
			if c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("it says %q, which says %q", got, c.not)
			}
		})
	}
}
