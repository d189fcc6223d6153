package web

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func source(reasons ...string) Source {
	return Source{
		Reasons: func() []string { return reasons },
		Status:  func(context.Context) any { return map[string]int{"in_flight": 7} },
		Metrics: prometheus.NewRegistry(),
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	hung := source()
	hung.Hung = func() string { return "nothing moves" }
	for name, test := range map[string]struct {
		source Source
		method string
		path   string
		code   int
		body   string
	}{
		"alive":          {source("away"), http.MethodGet, "/healthz", http.StatusOK, "ok\n"},
		"hung":           {hung, http.MethodGet, "/healthz", http.StatusServiceUnavailable, "nothing moves\n"},
		"ready":          {source(), http.MethodGet, "/readyz", http.StatusOK, "ok\n"},
		"a standby":      {source("standby: another has the slot"), http.MethodGet, "/readyz", http.StatusServiceUnavailable, "standby: another has the slot\n"},
		"it may be one":  {source("standby: another has the slot"), http.MethodGet, "/readyz?standby=ok", http.StatusOK, "standby: another has the slot\n"},
		"without NATS":   {source("not connected to NATS", "standby: another has the slot"), http.MethodGet, "/readyz?standby=ok", http.StatusServiceUnavailable, "not connected to NATS\nstandby: another has the slot\n"},
		"not ready":      {source("a", "b"), http.MethodGet, "/readyz", http.StatusServiceUnavailable, "a\nb\n"},
		"status":         {source(), http.MethodGet, "/status", http.StatusOK, "{\n  \"in_flight\": 7\n}\n"},
		"metrics":        {source(), http.MethodGet, "/metrics", http.StatusOK, ""},
		"another path":   {source(), http.MethodGet, "/", http.StatusNotFound, "404 page not found\n"},
		"another method": {source(), http.MethodPost, "/readyz", http.StatusMethodNotAllowed, "Method Not Allowed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recorder := httptest.NewRecorder()
			Handler(test.source).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), test.method, test.path, nil))
			if recorder.Code != test.code || recorder.Body.String() != test.body {
				t.Errorf("it answers %d %q, want %d %q", recorder.Code, recorder.Body, test.code, test.body)
			}
		})
	}
}

// Clients that connect and say nothing keep nobody from being answered, and the
// server ends with its context.
func TestServe_IdleConnectionsUseUpNothing(t *testing.T) {
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, Handler(source())) }()
	var dialer net.Dialer
	for range 2 * maxConnections {
		conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	client := http.Client{Timeout: 4 * readTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("after %v: %v", time.Since(started), err)
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if !strings.Contains(string(body), "ok") {
		t.Errorf("it answers %q", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
