package relay

import (
	"fmt"
	"sync"
	"time"
)

// hangAfter is how long nothing may move that only the relay itself can move.
const hangAfter = time.Minute

// pulse tells a relay that hangs from one that works, or waits for a server: only the first is
// mended by another process. Safe for concurrent use.
type pulse struct {
	mu sync.Mutex
	// beat is when the reporter last went round.
	beat time.Time
	// settled is how many events were settled when hung last looked, and moved since when.
	settled uint64
	moved   time.Time
}

// begin is called when a session begins to stream.
func (p *pulse) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat, p.moved = now, now
}

func (p *pulse) tick(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat = now
}

// hung says what does not move; nothing if all does. Waiting says that a server is waited for.
func (p *pulse) hung(now time.Time, settled uint64, inFlight int, waiting bool) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if settled != p.settled || inFlight == 0 || waiting {
		p.settled, p.moved = settled, now
	}
	switch {
	case now.Sub(p.beat) > hangAfter:
		return fmt.Sprintf("the checkpoint has not been looked after for %s", now.Sub(p.beat).Round(time.Second))
	case now.Sub(p.moved) > hangAfter:
		return fmt.Sprintf("%d events are in flight, and none has been settled for %s", inFlight, now.Sub(p.moved).Round(time.Second))
	}
	return ""
}

// Hung says what hangs in the relay, so that only another process goes on; nothing if nothing
// does: it streams, or waits for a server, or as a standby. It does not block, and is safe for concurrent
// use; ask it every few seconds.
func (r *Relay) Hung() string {
	s := r.current.Load()
	if s == nil {
		return ""
	}
	return r.pulse.hung(time.Now(), s.settler.settled.Load(), s.router.InFlight(), len(r.Ready()) > 0)
}
