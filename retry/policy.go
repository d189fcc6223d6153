package retry

import (
	"math"
	"math/rand/v2"
	"time"
)

// Policy says when an event that could not be published is tried again: after
// Initial, then each time Factor times as long, up to Max, less a random part
// of up to a fifth. With the defaults of the configuration (5 s, 2, 1 h, 15
// retries) the delays are 5 s, 10 s, 20 s, … 43 min, 1 h, and the last attempt
// is made about 6 hours after the first.
type Policy struct {
	Initial time.Duration
	Factor  float64
	Max     time.Duration
	// MaxRetries is how often an event is tried again before it counts as
	// failed, unless its row says otherwise.
	MaxRetries int
}

// jitter is the part of a delay that is random.
const jitter = 0.2

// Delay returns how long to wait after the given number of failed attempts,
// from 1 on.
func (p Policy) Delay(attempts int) time.Duration {
	delay := float64(p.Initial) * math.Pow(p.Factor, float64(max(0, attempts-1)))
	delay = min(delay, float64(p.Max))
	return time.Duration(delay * (1 - jitter*rand.Float64()))
}

// Exhausted reports whether an event with that many failed attempts is tried
// no more. A negative maxRetries means the policy's own.
func (p Policy) Exhausted(attempts, maxRetries int) bool {
	if maxRetries < 0 {
		maxRetries = p.MaxRetries
	}
	return attempts > maxRetries
}
