// Package web serves what a relay says of itself over HTTP.
//
// Input: a relay's state and metrics. Output: an http.Handler with /healthz, /readyz,
// /status and /metrics, and the console that it is given; and a server for it that no client
// can exhaust. It opens no listener of its own, and must not import what runs a relay.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

const (
	// maxConnections is how many clients are served at once; more wait. Idle ones
	// must not use up the process's file descriptors.
	maxConnections = 64
	// Timeouts of a request, of its answer, and of a connection without one.
	readTimeout  = 2 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = 30 * time.Second
	// maxHeader bounds the header of a request.
	maxHeader = 16 << 10
	// shutdownGrace is how long answers may take at the end.
	shutdownGrace = time.Second
)

// StandbyReason begins the reason of a relay that waits as a standby.
const StandbyReason = "standby: "

// Source is what is served. Its functions are safe for concurrent use.
type Source struct {
	// Hung says what hangs, so that the process is to be restarted; nothing if nothing does, nil
	// if that is not known. It must not block.
	Hung func() string
	// Reasons say why the relay is not ready; none when it is. It must not block.
	Reasons func() []string
	// Status is written as JSON. It may block while it asks others, for less than 10 s.
	Status  func(ctx context.Context) any
	Metrics prometheus.Gatherer
	// Console serves everything below ConsoleRoot; nil for none.
	Console http.Handler
}

// ConsoleRoot is where the console is.
const ConsoleRoot = "/console/"

// Handler serves a source. Safe for concurrent use.
func Handler(source Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if source.Hung != nil {
			if hung := source.Hung(); hung != "" {
				w.WriteHeader(http.StatusServiceUnavailable)
				write(w, hung)
				return
			}
		}
		write(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		reasons := source.Reasons()
		if len(reasons) == 0 {
			write(w, "ok")
			return
		}
		// A standby does what it is there for.
		if req.URL.Query().Get("standby") == "ok" && len(reasons) == 1 && strings.HasPrefix(reasons[0], StandbyReason) {
			write(w, reasons[0])
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		write(w, strings.Join(reasons, "\n"))
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(source.Status(req.Context())) // nothing can be done about a client that is gone
	})
	if source.Console != nil {
		mux.Handle(ConsoleRoot, source.Console)
		mux.Handle("GET /{$}", http.RedirectHandler(ConsoleRoot, http.StatusFound))
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(source.Metrics, promhttp.HandlerOpts{}))
	return mux
}

// write answers with a line.
func write(w http.ResponseWriter, line string) {
	_, _ = fmt.Fprintln(w, line) // nothing can be done about a client that is gone
}

// Serve answers on a listener until the context ends, and closes the listener.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			_ = server.Close() // the answers have had their time
		}
	})
	err := server.Serve(netutil.LimitListener(listener, maxConnections))
	if stop() {
		return fmt.Errorf("serving HTTP on %s: %w", listener.Addr(), err)
	}
	<-stopped
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP on %s: %w", listener.Addr(), err)
	}
	return nil
}
