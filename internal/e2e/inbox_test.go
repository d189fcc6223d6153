package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/testkit"
)

// Handlers, with no more rights than init gives them, know the relay's positions: a stream that
// was repaired repeats nothing; and the commands mend what was parked.
func TestInbox_OnceAcrossARepairAndParkedEventsAreMended(t *testing.T) {
	t.Parallel()
	for name, subject := range map[string]string{"one consumer": "events.{type}", "partitions": "events.{partition:4}.{type}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testInbox(t, subject)
		})
	}
}

func testInbox(t *testing.T, subject string) {
	e := newEnv(t, shared)
	e.writeConfig(fmt.Sprintf("publish: {subject: %q}\n", subject))
	e.init()
	role := "handler_" + e.slot
	testkit.Exec(t, e.postgresURL, "CREATE ROLE "+role+" LOGIN")
	for range 2 { // it may be run again
		if out, code := e.walrelay("init", "--inbox", "--handler-role", role); code != 0 {
			t.Fatalf("init --inbox ended with %d: %s", code, out)
		}
	}
	testkit.Exec(t, e.postgresURL, "CREATE TABLE effects (id text, key text); GRANT INSERT ON effects TO "+role)
	r := e.run()

	cfg, err := pgxpool.ParseConfig(e.postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.User = role
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var mended atomic.Bool
	var handlers inbox.Registry
	inbox.On(&handlers, "billing", inbox.Types("order.*"), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[struct{ N int }]) error {
		if ev.Data.N == 3 && !mended.Load() {
			return inbox.Park(errors.New("no \x1b[31mcustomer"))
		}
		_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", ev.ID, ev.Key)
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- inbox.Run(ctx, inbox.Config{NATS: e.nats(), Pool: pool, Subject: subject, Log: slog.New(slog.DiscardHandler)}, &handlers)
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	publish := func(from, to int) {
		testkit.Exec(t, e.postgresURL, fmt.Sprintf(`INSERT INTO outbox (event_type, source, data, partition_key)
			SELECT 'order.placed', '/e2e', jsonb_build_object('N', n), 'k' || n %% 5 FROM generate_series(%d, %d) AS n`, from, to))
	}
	publish(1, 20)
	e.awaitSQL("events with effects, and parked ones", "SELECT (SELECT count(*) FROM effects) || ' ' || (SELECT count(*) FROM walrelay.parked)", "16 4")
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*) FROM walrelay.handled"); n != "0" {
		t.Errorf("%s events are remembered by id: the positions are not taken for authentic", n)
	}

	// The stream is made anew, and repaired.
	r.stop()
	e.recreateStream()
	e.repair(0)
	e.run()
	publish(21, 25)
	e.awaitSQL("events with effects, and parked ones", "SELECT (SELECT count(*) FROM effects) || ' ' || (SELECT count(*) FROM walrelay.parked)", "20 5")
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*) - count(DISTINCT id) FROM effects"); n != "0" {
		t.Errorf("%s events took effect twice", n)
	}

	out, _ := e.walrelay("parked", "list", "--state", "failed", "--json")
	var failed inbox.Parked
	if err := json.Unmarshal([]byte(out), &failed); err != nil || failed.Handler != "billing" || failed.Key != "k3" {
		t.Fatalf("parked list says %s (%v)", out, err)
	}
	out, _ = e.walrelay("parked", "show", failed.ID)
	for _, want := range []string{"billing", `no \x1b[31mcustomer`, `{"N": 3}`, "header ce-id", "failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("parked show lacks %q:\n%s", want, out)
		}
	}
	e.awaitHandlers("1", "5")
	if out, code := e.walrelay("handlers", "remove", "billing", "--yes"); code != 1 || !strings.Contains(out, "runs") {
		t.Errorf("removing a handler that runs ended with %d: %s", code, out)
	}
	if out, code := e.walrelay("parked", "redrive"); code != 2 {
		t.Errorf("redrive without a filter ended with %d: %s", code, out)
	}
	mended.Store(true)
	if out, code := e.walrelay("parked", "redrive", failed.ID, "--yes"); code != 0 || !strings.Contains(out, "1 event redriven") {
		t.Errorf("redrive ended with %d: %s", code, out)
	}
	e.awaitSQL("events with effects, and parked ones", "SELECT (SELECT count(DISTINCT id) FROM effects) || ' ' || (SELECT count(*) FROM walrelay.parked)", "25 0")
	cancel()
	testkit.Eventually(t, 30*time.Second, "the handler is renamed", func() error {
		if out, code := e.walrelay("handlers", "rename", "billing", "invoices"); code != 0 {
			return errors.New(out)
		}
		return nil
	})
	// Under its new name it goes on where it was.
	publish(26, 30)
	var renamed inbox.Registry
	inbox.On(&renamed, "invoices", inbox.Types("order.*"), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[struct{ N int }]) error {
		_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1, $2)", ev.ID, ev.Key)
		return err
	})
	again, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- inbox.Run(again, inbox.Config{NATS: e.nats(), Pool: pool, Subject: subject, Log: slog.New(slog.DiscardHandler)}, &renamed)
	}()
	e.awaitSQL("effects", "SELECT count(*) || ' ' || count(DISTINCT id) FROM effects", "30 30")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, 30*time.Second, "the handler is removed", func() error {
		if out, code := e.walrelay("handlers", "remove", "invoices", "--yes"); code != 0 {
			return errors.New(out)
		}
		return nil
	})
	e.awaitSQL("marks", "SELECT count(*) FROM walrelay.marks", "0")
}

// awaitHandlers waits for what handlers list says.
func (e *env) awaitHandlers(blockedKeys, parked string) {
	e.t.Helper()
	testkit.Eventually(e.t, 30*time.Second, "handlers list", func() error {
		out, code := e.walrelay("handlers", "list", "--json")
		var h inbox.HandlerState
		if err := json.Unmarshal([]byte(out), &h); err != nil || code != 0 {
			return fmt.Errorf("it ended with %d: %s", code, out)
		}
		if fmt.Sprint(h.BlockedKeys) != blockedKeys || fmt.Sprint(h.Parked) != parked || h.Process == "" {
			return fmt.Errorf("it says %s", out)
		}
		return nil
	})
}
