package deliver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/walrelay/walrelay/inbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLoad_TellsAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("secret", "whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n")
	write("short", "whsec_c2hvcnQ=")
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"none":    {"", []string{"it has no handlers"}},
		"unknown": {"handlers: [{name: a, url: 'http://h', typos: [x]}]", []string{"typos"}},
		"several": {
			"handlers: [{url: 'ftp://h'}, {name: b}, {name: c, url: 'http://h', secret_file: short}, {name: d, url: 'http://h', secret_file: nowhere, headers: {Ce-Id: x}}]",
			[]string{"handler 1 (\"\"): it has no name", "want http:// or https://", "handler 2 (\"b\"): it has no url", "whsec_ and the base64", "nowhere", "Ce-Id is the event's"},
		},
	} {
		_, err := Load(write("handlers.yaml", test.text))
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is missing in %v", name, want, err)
			}
		}
		if strings.Contains(err.Error(), "c2hvcnQ") {
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
	handlers, err := Load(write("handlers.yaml", "handlers:\n- {name: a, types: [order.*], url: 'https://h/x', timeout: 5s, secret_file: secret, max_retries: 0}\n"))
	if err != nil || len(handlers) != 1 || handlers[0].Timeout != 5*time.Second || handlers[0].Concurrency != DefaultConcurrency || *handlers[0].MaxRetries != 0 || len(handlers[0].secret) != 32 {
		t.Errorf("a good file gives %+v, %v", handlers, err)
	}
}

func TestPost_AnEventIsReadAndItsSignatureHolds(t *testing.T) {
	t.Parallel()
	secret := []byte("0123456789abcdef0123456789abcdef")
	var header http.Header
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	client := Client(1)
	defer client.CloseIdleConnections()
	h := Handler{Name: "billing", URL: server.URL + "/events?token=x", secret: secret, Headers: map[string]string{"Authorization": "Bearer y"}}
	ev := inbox.CloudEvent{
		ID: "1 \"ä\" 100%", Type: "order.placed", Source: "/s", Subject: "Order #42", Key: "k", ContentType: "application/json; charset=utf-8",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), DataSchema: "https://example.com/s", Position: "0000000000000064.00000001",
		Extensions: map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, Data: []byte(`{"n": 1}`),
	}
	if err := h.post(t.Context(), client, &ev, 3); err != nil {
		t.Fatal(err)
	}
	if string(body) != `{"n": 1}` {
		t.Errorf("the body is %q", body)
	}
	for name, want := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Type": ev.Type, "Ce-Source": "/s", "Content-Type": ev.ContentType, "Ce-Time": "2026-01-02T03:04:05.000006Z", "Ce-Dataschema": ev.DataSchema,
		"Ce-Partitionkey": "k", "Ce-Traceparent": ev.Extensions["traceparent"],
		"Ce-Id": "1%20%22%C3%A4%22%20100%25", "Ce-Subject": "Order%20#42", "Idempotency-Key": ev.Position, "Walrelay-Attempt": "3", "Walrelay-Handler": "billing",
		"Traceparent": ev.Extensions["traceparent"], "Authorization": "Bearer y",
	} {
		if header.Get(name) != want {
			t.Errorf("header %s is %q, want %q", name, header.Get(name), want)
		}
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(header.Get("Webhook-Id") + "." + header.Get("Webhook-Timestamp") + "." + string(body)))
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); header.Get("Webhook-Signature") != want || strings.Contains(header.Get("Webhook-Id"), ".") {
		t.Errorf("the signature is %q, want %q", header.Get("Webhook-Signature"), want)
	}
}

func TestPost_TheAnswerDecides(t *testing.T) {
	t.Parallel()
	const (
		done    = "done"
		again   = "again"
		later   = "later"
		parked  = "parked"
		waiting = "waiting"
	)
	kind := func(err error) string {
		_, isPark := errors.AsType[*inbox.ParkError](err)
		_, isRetry := errors.AsType[*inbox.RetryError](err)
		_, isPause := errors.AsType[*inbox.PauseError](err)
		switch {
		case err == nil:
			return done
		case isPark:
			return parked
		case isRetry:
			return later
		case isPause:
			return waiting
		}
		return again
	}
	for name, test := range map[string]struct {
		status int
		header http.Header
		want   string
	}{
		"200": {200, nil, done}, "204": {204, nil, done}, "301": {301, http.Header{"Location": {"http://elsewhere.example"}}, again},
		"400": {400, nil, parked}, "404": {404, nil, parked}, "410": {410, nil, parked}, "408": {408, nil, again}, "425": {425, nil, again},
		"429 with seconds": {429, http.Header{"Retry-After": {"7"}}, later}, "429 with nonsense": {429, http.Header{"Retry-After": {"soon"}}, again},
		"503 with a date": {503, http.Header{"Retry-After": {time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)}}, later}, "500": {500, nil, again},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				maps.Copy(w.Header(), test.header)
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, "because\x00"+strings.Repeat("x", 100_000))
			}))
			defer server.Close()
			client := Client(1)
			defer client.CloseIdleConnections()
			h := Handler{URL: server.URL + "?token=secret"}
			err := h.post(t.Context(), client, &inbox.CloudEvent{ID: "1", Type: "t", Source: "/s"}, 1)
			if got := kind(err); got != test.want {
				t.Errorf("it is %s (%v), want %s", got, err, test.want)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\x00")) {
				t.Errorf("the error is %q", err)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		h := Handler{URL: server.URL}
		client := Client(1)
		defer client.CloseIdleConnections()
		if got := kind(h.post(t.Context(), client, &inbox.CloudEvent{ID: "1", Type: "t", Source: "/s"}, 1)); got != waiting {
			t.Errorf("it is %s", got)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		defer server.Close()
		defer close(release)
		h := Handler{URL: server.URL}
		client := Client(1)
		defer client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if got := kind(h.post(ctx, client, &inbox.CloudEvent{ID: "1", Type: "t", Source: "/s"}, 1)); got != again {
			t.Errorf("it is %s", got)
		}
	})
}

func TestRetryAfter_IsBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0": 0, "90": 90 * time.Second, "99999999": maxWait, "Thu, 01 Jan 2026 00:00:30 GMT": 30 * time.Second, "Thu, 01 Jan 2015 00:00:30 GMT": 0,
	} {
		if got, ok := retryAfter(value, now); !ok || got != want {
			t.Errorf("%q is %v, %v; want %v", value, got, ok, want)
		}
	}
	for _, value := range []string{"", "-1", "soon"} {
		if got, ok := retryAfter(value, now); ok {
			t.Errorf("%q is %v", value, got)
		}
	}
}
