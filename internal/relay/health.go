package relay

import (
	"fmt"
	"slices"
	"sync"
)

// health is what the relay knows of its own state. Safe for concurrent use.
type health struct {
	mu     sync.Mutex
	phase  string            // why it does not stream; empty while it does
	nats   bool              // connected
	paused map[string]string // stream to reason
	table  string            // why the delay table is waited for
}

func (h *health) setPhase(phase string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = phase
}

func (h *health) setNATS(connected bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nats = connected
}

func (h *health) setPaused(stream string, reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reason == nil {
		delete(h.paused, stream)
		return
	}
	if h.paused == nil {
		h.paused = make(map[string]string)
	}
	h.paused[stream] = reason.Error()
}

// setTable says why the delay table is waited for; nothing if it is not.
func (h *health) setTable(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.table = reason
}

// release forgets what kept up a session that has ended.
func (h *health) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paused, h.table = nil, ""
}

// reasons says why the relay is not ready; none when it is.
func (h *health) reasons() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var reasons []string
	if h.phase != "" {
		reasons = append(reasons, h.phase)
	}
	if !h.nats {
		reasons = append(reasons, "not connected to NATS")
	}
	for stream, reason := range h.paused {
		reasons = append(reasons, fmt.Sprintf("stream %q is paused: %s", stream, reason))
	}
	if h.table != "" {
		reasons = append(reasons, h.table)
	}
	slices.Sort(reasons)
	return reasons
}
