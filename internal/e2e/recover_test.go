package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/testkit"
)

// recover runs walrelay recover.
func (e *env) recover(wantCode int, args ...string) string {
	e.t.Helper()
	out, code := e.walrelay(append([]string{"recover"}, args...)...)
	if code != wantCode {
		e.t.Fatalf("recover %s ended with %d, want %d:\n%s", strings.Join(args, " "), code, wantCode, out)
	}
	return out
}

// awaitSQL waits until a query returns want.
func (e *env) awaitSQL(what, query, want string) {
	e.t.Helper()
	testkit.Eventually(e.t, 30*time.Second, what, func() error {
		if got := testkit.Query(e.t, e.postgresURL, query); got != want {
			return fmt.Errorf("%s returns %s, want %s", query, got, want)
		}
		return nil
	})
}

const outboxTable = `CREATE TABLE outbox (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text NOT NULL, source text NOT NULL, subject text, data jsonb, data_bytes bytea,
	content_type text, data_schema text, extensions jsonb, partition_key text, scheduled_at timestamptz, max_retries integer,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp())`

// Rows from before the first init are published once somebody asks for it, beside what
// the relay publishes by itself, and are then like any other.
func TestRecover_RowsFromBeforeInit(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.environ = []string{"WALRELAY_OUTBOX_REPAIR_WINDOW=2s"}
	testkit.Exec(t, e.postgresURL, outboxTable)
	for n := range 20 {
		testkit.Exec(t, e.postgresURL, fmt.Sprintf("INSERT INTO outbox (id, event_type, source, data) VALUES ('00000000-0000-0000-0000-0000000000%02d', 'early', '/e2e', '{\"n\": %d}')", n+1, n))
	}
	testkit.Exec(t, e.postgresURL, `INSERT INTO outbox (event_type, source, data_bytes, extensions, scheduled_at)
		VALUES ('later', '/e2e', '\x00ff', '{"n": 1}', now() + interval '1 hour'), ('bad', '/e2e', NULL, '{"Bad": 1}', NULL)`)
	e.init()
	if out := e.recover(0, "--dry-run"); !strings.Contains(out, "public.outbox: 22 unsettled events, which the slot does not read, created from ") || !strings.Contains(out, "00000000-0000-0000-0000-000000000001") {
		t.Errorf("a dry run says %s", out)
	}
	if out := e.recover(2); !strings.Contains(out, "there is no terminal to ask on") {
		t.Errorf("without a terminal, recover says %s", out)
	}
	r := e.run()
	e.insert(5)
	if out := e.recover(0, "--yes"); !strings.Contains(out, "22 of 22 events emitted") {
		t.Errorf("recover says %s", out)
	}
	e.insert(5)
	e.awaitMessages("EVENTS", 30)
	e.awaitDelayed(map[string]int{"scheduled": 1, "failed": 1})
	e.awaitCaughtUp()
	e.awaitStatus("00000000-0000-0000-0000-000000000001", "published")
	if out := e.recover(0, "--yes"); !strings.Contains(out, "every row is settled") {
		t.Errorf("a second recovery says %s", out)
	}
	// They are cleaned away, like any other.
	e.awaitSQL("the published rows are gone", "SELECT count(*)::text FROM public.outbox", "2")
	if n := e.messages("EVENTS"); n != 30 {
		t.Errorf("the stream has %d messages, want 30", n)
	}
	r.awaitReady()
}

// A recovery that is killed goes on where it was: each row is published once.
func TestRecover_KilledInTheMiddle(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	testkit.Exec(t, e.postgresURL, outboxTable)
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source) SELECT 'early', '/e2e' FROM generate_series(1, 8000)")
	e.init()
	e.run()
	for n := range 3 {
		e.insert(10)
		cmd := e.command("recover", "--yes")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Each has come further than the one before.
		e.awaitMore("EVENTS", 500*(n+1))
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	}
	e.insert(10)
	if out := e.recover(0, "--yes"); !strings.Contains(out, "emitted") {
		t.Errorf("nothing was left for the last recovery; this test shows nothing: %s", out)
	}
	e.awaitMessages("EVENTS", 8040)
	e.awaitCaughtUp()
	checkOnce(t, e, 8040)
}
