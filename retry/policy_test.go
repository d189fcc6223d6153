package retry_test

import (
	"testing"
	"time"

	"github.com/walrelay/walrelay/retry"
)

func TestPolicy_DelaysGrowUpToTheMaximum(t *testing.T) {
	p := retry.Policy{Initial: 5 * time.Second, Factor: 2, Max: time.Hour}
	for attempts, full := range map[int]time.Duration{
		0: 5 * time.Second, 1: 5 * time.Second, 2: 10 * time.Second, 3: 20 * time.Second,
		10: 2560 * time.Second, 11: time.Hour, 1000: time.Hour, 1 << 30: time.Hour,
	} {
		for range 20 {
			if d := p.Delay(attempts); d > full || d < full*8/10 {
				t.Errorf("after %d attempts the delay is %v, want between %v and %v", attempts, d, full*8/10, full)
			}
		}
	}
}

func TestPolicy_Exhausted(t *testing.T) {
	p := retry.Policy{MaxRetries: 3}
	for _, c := range []struct {
		attempts, maxRetries int
		want                 bool
	}{
		{1, -1, false},
		{3, -1, false},
		{4, -1, true},
		{1, 0, true},
		{1, 1, false},
		{2, 1, true},
		{4, 1 << 30, false},
	} {
		if got := p.Exhausted(c.attempts, c.maxRetries); got != c.want {
			t.Errorf("%d attempts, max_retries %d: exhausted is %v", c.attempts, c.maxRetries, got)
		}
	}
}
