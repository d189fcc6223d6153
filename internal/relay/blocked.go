package relay

import (
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/internal/telemetry"
	"github.com/walrelay/walrelay/retry"
)

// blockedInterval is how often it is logged that somebody's locks keep the delay
// table waiting.
const blockedInterval = time.Minute

// tableObserver makes logs, metrics and readiness of what the delay table does.
// Safe for concurrent use.
type tableObserver struct {
	*telemetry.Metrics

	health *health
	log    zerolog.Logger

	mu     sync.Mutex
	logged map[bool]time.Time // when it was last logged, by adding
}

func newTableObserver(metrics *telemetry.Metrics, health *health, log zerolog.Logger) *tableObserver {
	return &tableObserver{Metrics: metrics, health: health, log: log, logged: make(map[bool]time.Time)}
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
		o.health.setTable(reason)
	}
	o.TableBlocked.WithLabelValues(what).Set(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, ok := o.logged[adding]; ok && time.Since(last) < blockedInterval {
		return
	}
	o.logged[adding] = time.Now()
	o.log.Warn().Str("waiting", what).Stringer("for", since.Round(time.Millisecond)).Strs("blockers", names).
		Msg("locks on the delay table keep the relay waiting")
}

// Unblocked implements [retry.Observer].
func (o *tableObserver) Unblocked(adding bool) {
	what := "emission"
	if adding {
		what = "publishing"
		o.health.setTable("")
	}
	o.TableBlocked.WithLabelValues(what).Set(0)
	o.mu.Lock()
	_, logged := o.logged[adding]
	delete(o.logged, adding)
	o.mu.Unlock()
	if logged {
		o.log.Info().Str("waiting", what).Msg("the delay table is not locked any more")
	}
}
