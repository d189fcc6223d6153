package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/sql"
)

func TestCleanUp_PublishedRows(t *testing.T) {
	t.Parallel()
	for mode, check := range map[string]func(t *testing.T, e *env){
		"delete": func(t *testing.T, e *env) {
			t.Helper()
			testkit.Eventually(t, 30*time.Second, "only the row of the failed event is left", func() error {
				if left := testkit.Query(t, e.postgresURL, "SELECT count(*) || ' ' || coalesce(min(event_type), 'rows') FROM outbox"); left != "1 bad" {
					return fmt.Errorf("left: %s", left)
				}
				if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM walrelay.journal"); n != "0" {
					return fmt.Errorf("the journal has %s pages", n)
				}
				return nil
			})
		},
		"mark": func(t *testing.T, e *env) {
			t.Helper()
			testkit.Eventually(t, 30*time.Second, "all rows but that of the failed event are marked", func() error {
				if n := testkit.Query(t, e.postgresURL, "SELECT count(*) || ', ' || count(*) FILTER (WHERE event_type = 'bad') || ' of them bad' FROM outbox WHERE published_at IS NOT NULL"); n != "2003, 0 of them bad" {
					return fmt.Errorf("%s, are", n)
				}
				return nil
			})
			// Events stand in it again where a relay was killed.
			if has := testkit.Query(t, e.postgresURL, "SELECT (sum(events) >= 2003)::text FROM walrelay.journal"); has != "true" {
				t.Error("within the repair window, the journal does not have all 2003 events")
			}
		},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, own) // transactions of others would hold the clean-up back
			window := "1ms"
			if mode == "mark" {
				window = "1h"
			}
			e.writeConfig("outbox: {after_publish: " + mode + ", repair_window: " + window + "}\n")
			e.init()
			r := e.run()
			// A transaction that is open for longer than all of this.
			open := testkit.Connect(t, e.postgresURL)
			for _, statement := range []string{"BEGIN", "INSERT INTO outbox (event_type, source) VALUES ('open', '/e2e')"} {
				if _, err := open.Exec(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			// One that is prepared for as long, and one with a subtransaction that
			// commits before it is on disk.
			execScript(t, e.postgresURL, "BEGIN;INSERT INTO outbox (event_type, source) VALUES ('prepared', '/e2e');PREPARE TRANSACTION 'p'")
			execScript(t, e.postgresURL, "SET synchronous_commit = off;BEGIN;"+
				"SAVEPOINT a;INSERT INTO outbox (event_type, source) VALUES ('sub', '/e2e');RELEASE a;COMMIT")
			e.insert(1000)
			testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, max_retries) VALUES ('bad', '/e2e', -1)")
			e.awaitMessages("EVENTS", 1001)
			r.Kill()
			e.insert(1000)
			e.run()
			e.awaitMessages("EVENTS", 2001)
			if _, err := open.Exec(t.Context(), "COMMIT"); err != nil {
				t.Fatal(err)
			}
			testkit.Exec(t, e.postgresURL, "COMMIT PREPARED 'p'")
			check(t, e)
			e.awaitCaughtUp()
			if n := e.messages("EVENTS"); n != 2003 {
				t.Errorf("the stream has %d messages, want 2003", n)
			}
			if got := e.delayed(); got["failed"] != 1 {
				t.Errorf("the delay table has %v, want the failed event", got)
			}
		})
	}
}

// A row that was written long ago and is published late, after an outage, is
// kept for as long as any other: what the stream loses then is brought back.
func TestCleanUp_WindowStartsWhenPublished(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, created_at) SELECT 'late', '/e2e', now() - interval '2 hours' FROM generate_series(1, 10)")
	r := e.run()
	e.awaitCaughtUp()
	e.awaitPublished()
	r.awaitCleanUps(1)
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM outbox"); n != "10" {
		t.Errorf("of 10 rows that were published seconds ago, %s are left", n)
	}
}

// The row of an event that waits stays, however long that takes; many of them
// keep no other row from being deleted.
func TestCleanUp_WaitingEventsStay(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.writeConfig("outbox: {repair_window: 1s}\n")
	e.init()
	r := e.run()
	testkit.Exec(t, e.postgresURL, `
		INSERT INTO outbox (event_type, source, scheduled_at, created_at)
		SELECT 'later', '/e2e', now() + interval '1 hour', now() - interval '1 day' FROM generate_series(1, 12000)`)
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, max_retries) VALUES ('failed', '/e2e', -1)")
	e.awaitDelayed(map[string]int{"scheduled": 12000, "failed": 1})
	e.insert(10)
	rows := func(want string) {
		t.Helper()
		testkit.Eventually(t, 60*time.Second, "only the rows of events that wait are left", func() error {
			if got := testkit.Query(t, e.postgresURL, "SELECT count(*) || ' ' || coalesce(string_agg(DISTINCT event_type, ', '), 'rows') FROM outbox"); got != want {
				return fmt.Errorf("left: %s; want: %s", got, want)
			}
			return nil
		})
	}
	rows("12001 failed, later")
	r.awaitCleanUps(5)
	rows("12001 failed, later")
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.reschedule(now(), everything => true) || ' ' || walrelay.discard(everything => true)"); n != "12000 1" {
		t.Fatalf("%s events are rescheduled and discarded", n)
	}
	e.awaitMessages("EVENTS", 12010)
	rows("0 rows")
}

// The window of a scheduled event begins at its time.
func TestCleanUp_ScheduledEvent(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	r := e.run()
	// As if it had waited for two hours.
	const id = "00000000-0000-0000-0000-00000000beef"
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source, created_at, scheduled_at) VALUES ('"+id+"', 'later', '/e2e', now() - interval '2 hours', clock_timestamp() + interval '1 second')")
	e.awaitStatus(id, "published")
	r.awaitCleanUps(2)
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM outbox"); n != "1" {
		t.Error("the row of an event that was due and published a moment ago is gone; it should stay for an hour")
	}
}

// Rows of a relay that cannot publish must stay.
func TestCleanUp_UnsettledStay(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.writeConfig("outbox: {repair_window: 1ms}\n")
	e.init()
	r := e.run()
	e.insert(10)
	testkit.Eventually(t, 30*time.Second, "published rows are deleted", func() error {
		if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM outbox"); n != "0" {
			return fmt.Errorf("%s are left", n)
		}
		return nil
	})
	e.server.Stop()
	e.insert(10)
	r.awaitCleanUps(2)
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM outbox"); n != "10" {
		t.Errorf("%s of 10 rows are left although none is published", n)
	}
	e.restartNATS()
	r.awaitReady()
	e.awaitMessages("EVENTS", 20)
}

// With partitions by day, old ones are dropped in place of deleting rows: also
// while events of their rows are yet to be published.
func TestCleanUp_DroppedPartition(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("outbox: {after_publish: keep}\n")
	testkit.Exec(t, e.postgresURL, `
		CREATE TABLE outbox (
			id uuid NOT NULL DEFAULT gen_random_uuid(), event_type text NOT NULL, source text NOT NULL, subject text, data jsonb,
			scheduled_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
			PRIMARY KEY (id, created_at)
		) PARTITION BY RANGE (created_at);
		CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES FROM ('2026-11-01') TO ('2026-11-02');
		CREATE TABLE outbox_2 PARTITION OF outbox FOR VALUES FROM ('2026-11-02') TO ('2026-11-03')`)
	e.init()
	r := e.run()
	insert := func(from, to int, day, scheduled string) {
		testkit.Exec(t, e.postgresURL, fmt.Sprintf(`
			INSERT INTO outbox (event_type, source, subject, created_at, scheduled_at)
			SELECT 'order.created', '/e2e', n::text, '2026-11-%s', %s FROM generate_series(%d, %d) AS n`, day, scheduled, from, to))
	}
	insert(1, 100, "01", "NULL")
	insert(101, 110, "01", "clock_timestamp() + interval '1 hour'")
	e.awaitMessages("EVENTS", 100)
	e.awaitDelayed(map[string]int{"scheduled": 10})
	id := testkit.Query(t, e.postgresURL, "SELECT id::text FROM outbox WHERE subject = '1'")
	e.awaitStatus(id, "published")
	r.Kill()
	insert(111, 210, "01", "NULL")
	testkit.Exec(t, e.postgresURL, "ALTER TABLE outbox DETACH PARTITION outbox_1; DROP TABLE outbox_1")
	insert(211, 310, "02", "NULL")
	testkit.Exec(t, e.postgresURL, "SELECT walrelay.reschedule(now(), everything => true)")
	e.run()
	e.awaitMessages("EVENTS", 310)
	e.awaitCaughtUp()
	got := newTally()
	for _, subject := range subjectsOf(readStream(t, e.nats(), "EVENTS")) {
		got.add(subject)
	}
	if got.distinct() != 310 || got.doubled() != 0 {
		t.Errorf("%d events arrived, %d of them more than once, want 310 once", got.distinct(), got.doubled())
	}
	if state := e.status(id); state != "unknown" {
		t.Errorf("an event whose row is gone is %s", state)
	}
}

// What a database of version 1 has is published by today's relay, once init has
// been run.
func TestUpgrade_FromVersionOne(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	migrations, err := sql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	outbox, err := sql.Outbox(sql.Table{Schema: "public", Name: "outbox"})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Exec(t, e.postgresURL, migrations[0].SQL)
	testkit.Exec(t, e.postgresURL, outbox+`; ALTER TABLE outbox ADD COLUMN xact_id xid8 NOT NULL DEFAULT pg_current_xact_id();
		COMMENT ON COLUMN outbox.xact_id IS 'The inserting transaction; not published. Leave it to its default.';
		CREATE INDEX outbox_xact_id_idx ON outbox (xact_id)`)
	testkit.Exec(t, e.postgresURL, "INSERT INTO walrelay.migrations (version, name) VALUES (1, 'init')")
	testkit.Exec(t, e.postgresURL, "CREATE PUBLICATION "+e.slot+" FOR TABLE outbox WITH (publish = 'insert', publish_via_partition_root = true)")
	testkit.Exec(t, e.postgresURL, "SELECT pg_create_logical_replication_slot('"+e.slot+"', 'pgoutput')")
	e.insert(100)
	if out, code := e.walrelay("run"); code == 0 || !strings.Contains(out, fmt.Sprintf("is at version 1, and this walrelay needs %d", len(migrations))) || !strings.Contains(out, `run "walrelay init"`) {
		t.Errorf("run ends with %d and says %q", code, out)
	}
	if out, code := e.walrelay("init"); code != 0 || !strings.Contains(out, fmt.Sprintf("changed  version %d", len(migrations))) {
		t.Errorf("init ends with %d and says %q", code, out)
	}
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'outbox'"); n != "13" {
		t.Errorf("the outbox has %s columns, want 13", n)
	}
	e.run()
	e.awaitMessages("EVENTS", 100)
	testkit.Exec(t, e.postgresURL, "SELECT walrelay.publish_event('order.created', '/e2e', scheduled_at => clock_timestamp() + interval '1 s')")
	e.awaitMessages("EVENTS", 101)
}
