package walrelay

import (
	"strings"
	"sync"
	"time"

	"github.com/walrelay/walrelay/retry"
)

// blockedInterval is how often it is logged that somebody's locks keep the delay
// table waiting.
const blockedInterval = time.Minute

// tableObserver makes logs, metrics and readiness of what the delay table does.
// Safe for concurrent use.
type tableObserver struct {
	*metrics

	relay *Relay

	mu     sync.Mutex
	logged map[bool]time.Time // when it was last logged, by adding
}

// Blocked implements [retry.Observer].
func (o *tableObserver) Blocked(adding bool, since time.Duration, by []retry.Blocker) {
	names := make([]string, len(by))
	for i, b := range by {
		names[i] = b.String()
	}
	who := strings.Join(names, "; ")
	what := "emission"
	if adding {
		what = "publishing"
		reason := "an event cannot be written to walrelay.delayed, which somebody has locked"
		if who != "" {
			reason += ": " + who
		}
		o.relay.health.setTable(reason)
	}
	o.blocked.WithLabelValues(what).Set(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, ok := o.logged[adding]; ok && time.Since(last) < blockedInterval {
		return
	}
	o.logged[adding] = time.Now()
	o.relay.log.Warn().Str("waiting", what).Stringer("for", since.Round(time.Millisecond)).Strs("blockers", names).
		Msg("locks on the delay table keep the relay waiting")
}

// Unblocked implements [retry.Observer].
func (o *tableObserver) Unblocked(adding bool) {
	what := "emission"
	if adding {
		what = "publishing"
		o.relay.health.setTable("")
	}
	o.blocked.WithLabelValues(what).Set(0)
	o.mu.Lock()
	_, logged := o.logged[adding]
	delete(o.logged, adding)
	o.mu.Unlock()
	if logged {
		o.relay.log.Info().Str("waiting", what).Msg("the delay table is not locked any more")
	}
}
