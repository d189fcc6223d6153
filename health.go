package walrelay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health is what the relay knows of its own state. Safe for concurrent use.
type health struct {
	mu    sync.Mutex
	phase string            // why it does not stream; empty while it does
	nats  bool              // connected
	held  map[string]string // stream to reason
	table string            // why the delay table is waited for
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

func (h *health) setHeld(stream string, reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reason == nil {
		delete(h.held, stream)
		return
	}
	if h.held == nil {
		h.held = make(map[string]string)
	}
	h.held[stream] = reason.Error()
}

// setTable says why the delay table is waited for; nothing if it is not.
func (h *health) setTable(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.table = reason
}

// release forgets what held up a session that has ended.
func (h *health) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held, h.table = nil, ""
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
	for stream, reason := range h.held {
		reasons = append(reasons, fmt.Sprintf("stream %q is held: %s", stream, reason))
	}
	if h.table != "" {
		reasons = append(reasons, h.table)
	}
	slices.Sort(reasons)
	return reasons
}

// handler serves /healthz, /readyz and /metrics.
func (r *Relay) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		reasons := r.health.reasons()
		if len(reasons) == 0 {
			_, _ = fmt.Fprintln(w, "ok")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, strings.Join(reasons, "\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

// serve answers HTTP until the context ends.
func (r *Relay) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: r.handler(), ReadHeaderTimeout: 5 * time.Second}
	stopped := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			_ = server.Close()
		}
	})
	defer stopped()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP on %s: %w", listener.Addr(), err)
	}
	return nil
}
