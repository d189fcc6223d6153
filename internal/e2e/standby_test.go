package e2e_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
)

// A slot with failover waits for the standbys of synchronized_standby_slots. That one is
// away is no reason to stop: the relay says so, and goes on when it is there, or is no
// longer asked for.
func TestStandby_OfSynchronizedSlotsIsAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	if version, err := strconv.Atoi(testkit.Query(t, e.postgresURL, "SHOW server_version_num")); err != nil || version < 170000 {
		t.Skip("Postgres before 17 has no synchronized_standby_slots")
	}
	e.environ = []string{"WALRELAY_FAILOVER=true"}
	e.init()
	r := e.run()
	e.insert(1)
	e.awaitMessages("EVENTS", 1)
	testkit.Exec(t, e.postgresURL, "SELECT pg_create_physical_replication_slot('standby', true)")
	testkit.AlterSystem(t, e.postgresURL, "SET synchronized_standby_slots = 'standby'")
	testkit.Eventually(t, 10*time.Second, "the setting is read", func() error {
		if testkit.Query(t, e.postgresURL, "SHOW synchronized_standby_slots") == "" {
			return errors.New("it is not")
		}
		return nil
	})
	e.insert(1)
	r.awaitLog(`standby\" specified in parameter`)
	r.awaitLog("Postgres warns")
	if out, code := e.walrelay("doctor"); code != 1 || !strings.Contains(out, "standby_slots") || !strings.Contains(out, ": standby\n") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
	testkit.AlterSystem(t, e.postgresURL, "RESET synchronized_standby_slots")
	e.awaitMessages("EVENTS", 2)
	r.awaitReady()
}

// The slot is on a standby: nothing is decoded, and no WAL kept, on the primary.
func TestStandby_HasTheSlot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	if e.cluster.Version() < 16 {
		t.Skip("Postgres before 16 does not decode on a standby")
	}
	standby := testkit.Standby(t, e.cluster)
	host := fmt.Sprintf("127.0.0.1:%d", standby.Port())
	e.environ = []string{"WALRELAY_POSTGRES_STANDBY=" + host}
	e.init()
	onPrimary := func() string {
		return testkit.Query(t, e.postgresURL, "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'")
	}
	if n := onPrimary(); n != "0" {
		t.Fatalf("the primary has %s logical slots", n)
	}
	if out, code := e.walrelay("init"); code != 0 || strings.Contains(out, "created") {
		t.Errorf("init ends with %d once more, and says\n%s", code, out)
	}
	r := e.run()
	e.insert(100)
	e.awaitMessages("EVENTS", 100)
	// What goes by the primary's own tables.
	execScript(t, e.postgresURL, `SELECT walrelay.emit_event('order.placed', '/test');
		INSERT INTO public.outbox (event_type, source, scheduled_at) VALUES ('order.placed', '/test', now() + interval '1 s')`)
	e.awaitMessages("EVENTS", 102)
	if out, code := e.walrelay("doctor"); code != 0 || !strings.Contains(out, " 0 fail") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
	pid := testkit.Query(t, standby.URL("postgres"), "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'walrelay'")
	if out, code := e.walrelay("status"); code != 0 || !strings.Contains(out, "(pid "+pid+")") {
		t.Errorf("status ends with %d and says\n%s", code, out)
	}

	// The relay is killed, and the standby away.
	r.Kill()
	e.insert(100)
	if err := standby.Stop(t.Context(), localpg.Immediate); err != nil {
		t.Fatal(err)
	}
	r = e.start()
	r.awaitLog("postgres.standby")
	e.insert(100)
	if err := standby.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.awaitReady()
	e.awaitMessages("EVENTS", 302)

	// What has no slot is published by recover, which waits for what the standby has.
	if out, code := e.walrelay("recover", "--yes"); code != 0 || !strings.Contains(out, "every row is settled") {
		t.Errorf("recover ends with %d and says\n%s", code, out)
	}
	if code := r.stop(); code != 0 {
		t.Errorf("the relay ends with %d", code)
	}
	e.recreateStream()
	e.repair(0, "--accept-loss")
	e.awaitMessages("EVENTS", 301)

	// The standby becomes the primary, and keeps the slot.
	r = e.run()
	e.insert(10)
	e.awaitMessages("EVENTS", 311)
	database := testkit.Query(t, e.postgresURL, "SELECT current_database()")
	r.Kill()
	await := testkit.Query(t, e.postgresURL, "SELECT pg_current_wal_lsn()")
	testkit.Eventually(t, 20*time.Second, "the standby has everything", func() error {
		if testkit.Query(t, standby.URL("postgres"), "SELECT (pg_last_wal_replay_lsn() >= '"+await+"')::text") != "true" {
			return errors.New("it has not")
		}
		return nil
	})
	if err := e.cluster.Stop(t.Context(), localpg.Immediate); err != nil {
		t.Fatal(err)
	}
	testkit.Query(t, standby.URL("postgres"), "SELECT pg_promote()::text")
	e.postgresURL = standby.URL(database)
	r = e.run()
	e.insert(10)
	e.awaitMessages("EVENTS", 321)
	if out, code := e.walrelay("doctor"); code != 0 || !strings.Contains(out, "standby_promoted") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
	e.environ = nil
	r.Kill()
	e.init()
	e.run()
	e.insert(10)
	e.awaitMessages("EVENTS", 331)
}

// What the timer emitted while the relay stopped is found on the standby, where the slot is.
func TestStandby_HandsOver(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	if e.cluster.Version() < 16 {
		t.Skip("Postgres before 16 does not decode on a standby")
	}
	standby := testkit.Standby(t, e.cluster)
	e.environ = []string{fmt.Sprintf("WALRELAY_POSTGRES_STANDBY=127.0.0.1:%d", standby.Port())}
	e.init()
	r := e.run()
	e.insert(10)
	e.schedule(5, "1 hour")
	e.awaitMessages("EVENTS", 10)
	closing := e.launch("handover", "close")
	closing.awaitLog("stop the relay now")
	if code := r.stop(); code != 0 {
		t.Errorf("the relay ends with %d", code)
	}
	if code := closing.wait(time.Minute); code != 0 || !strings.Contains(closing.logs.String(), "next: walrelay handover open") {
		t.Errorf("handover close ended with %d: %s", code, closing.logs.String())
	}
	if n := testkit.Query(t, standby.URL("postgres"), "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'"); n != "0" {
		t.Errorf("the standby has %s logical slots", n)
	}
}
