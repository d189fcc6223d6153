package walrelay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/testkit"
)

// Two relays run in one process, each with its own database, stream, metrics and
// state; neither opens a listener.
func TestRelay_TwoInOneProcess(t *testing.T) {
	cluster := testkit.Postgres(t)
	server := testkit.NATS(t)
	nc, js := testkit.JetStream(t, server.URL())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	relays := make([]*walrelay.Relay, 2)
	for i := range relays {
		cfg := walrelay.Config{
			Postgres: config.Postgres{URL: testkit.Database(t, cluster)},
			NATS:     config.NATS{URL: server.URL(), Service: i == 0},
			Slot:     fmt.Sprintf("relay_%d", i),
			Streams:  []config.Stream{{Name: fmt.Sprintf("EVENTS_%d", i), Subjects: []string{fmt.Sprintf("events%d.>", i)}}},
			Publish:  config.Publish{Subject: fmt.Sprintf("events%d.{type}", i)},
		}
		if _, err := walrelay.Setup(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if results, err := walrelay.Check(ctx, cfg); err != nil || len(results) < 10 {
			t.Errorf("%d results, %v", len(results), err)
		}
		var err error
		if relays[i], err = walrelay.New(cfg, walrelay.Options{Log: zerolog.New(zerolog.NewTestWriter(t))}); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- relays[i].Run(ctx) }()
		conn, err := pgx.Connect(ctx, cfg.Postgres.URL)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "INSERT INTO outbox (event_type, source) SELECT 'a', '/s' FROM generate_series(1, $1::int)", 10*(i+1)); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(ctx)
	}
	for i, relay := range relays {
		want := uint64(10 * (i + 1))
		deadline := time.Now().Add(30 * time.Second)
		for {
			stream, err := js.Stream(ctx, fmt.Sprintf("EVENTS_%d", i))
			if err == nil && stream.CachedInfo().State.Msgs == want && len(relay.Ready()) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("relay %d: %v, not ready: %v", i, err, relay.Ready())
			}
			time.Sleep(20 * time.Millisecond)
		}
		recorder := httptest.NewRecorder()
		relay.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, http.MethodGet, "/status", nil))
		var document struct {
			Version int             `json:"version"`
			Relay   walrelay.Status `json:"relay"`
			Slot    struct {
				Name string `json:"name"`
			} `json:"slot"`
		}
		if err := json.Unmarshal(recorder.Body.Bytes(), &document); err != nil || document.Version != 1 || document.Slot.Name != fmt.Sprintf("relay_%d", i) || document.Relay.Session == 0 {
			t.Errorf("relay %d says %s: %v", i, recorder.Body, err)
		}
		recorder = httptest.NewRecorder()
		relay.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
		if line := fmt.Sprintf("walrelay_events_total{outcome=\"published\"} %d\n", want); !strings.Contains(recorder.Body.String(), line) {
			t.Errorf("relay %d has no line %q", i, line)
		}
	}
	msg, err := nc.Request("walrelay.status.relay_0", nil, 10*time.Second)
	if err != nil || !strings.Contains(string(msg.Data), `"relay":{"slot":"relay_0","session":`) {
		t.Errorf("over NATS, the first one says %v, %v", msg, err)
	}
	if _, err := nc.Request("walrelay.status.relay_1", nil, 10*time.Second); err == nil {
		t.Error("the second one answers over NATS, and was not asked to")
	}
	cancel()
	for range relays {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
