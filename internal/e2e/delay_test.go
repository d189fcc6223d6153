package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
)

// quick makes retries that a test can wait for.
const quick = "retry: {initial: 100ms, max: 500ms, max_retries: 1000}\n"

// delayed counts the rows of the delay table by state; discarded ones do not
// count.
func (e *env) delayed() map[string]int {
	e.t.Helper()
	text := testkit.Query(e.t, e.postgresURL, `
		SELECT coalesce(jsonb_object_agg(state, n), '{}')::text
		FROM (SELECT state, count(*) AS n FROM walrelay.delayed WHERE state <> 'discarded' GROUP BY state) AS s`)
	states := map[string]int{}
	if err := json.Unmarshal([]byte(text), &states); err != nil {
		e.t.Fatal(err)
	}
	return states
}

func (e *env) awaitDelayed(want map[string]int) {
	e.t.Helper()
	testkit.Eventually(e.t, 30*time.Second, fmt.Sprintf("the delay table has %v", want), func() error {
		if got := e.delayed(); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}

// status is what walrelay.event_status says.
func (e *env) status(id string) string {
	e.t.Helper()
	return testkit.Query(e.t, e.postgresURL, "SELECT state FROM walrelay.event_status($1)", id)
}

func (e *env) awaitStatus(id, want string) {
	e.t.Helper()
	testkit.Eventually(e.t, 30*time.Second, fmt.Sprintf("the status of event %s is %s", id, want), func() error {
		if got := e.status(id); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// awaitError waits for a status with an error that says that, or with none if it
// is to say nothing. An event that is tried again at this moment has no error.
func (e *env) awaitError(id, status, says string) {
	e.t.Helper()
	testkit.Eventually(e.t, 30*time.Second, fmt.Sprintf("the status of event %s is %s, with an error about %q", id, status, says), func() error {
		got := testkit.Query(e.t, e.postgresURL, "SELECT state || ': ' || coalesce(last_error, '') FROM walrelay.event_status($1)", id)
		reason, ok := strings.CutPrefix(got, status+": ")
		if !ok || !strings.Contains(reason, says) || (says == "") != (reason == "") {
			return fmt.Errorf("it is %.300s", got)
		}
		return nil
	})
}

func TestDelay_ScheduledOnceAndNeverEarly(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	began := time.Now()
	testkit.Exec(t, e.postgresURL, `
		INSERT INTO outbox (event_type, source, subject, scheduled_at)
		SELECT 'later', '/e2e', extract(epoch FROM at)::text, at
		FROM (SELECT clock_timestamp() + n * interval '3 milliseconds' AS at FROM generate_series(1, 2000) AS n) AS s`)
	for time.Since(began) < 7*time.Second {
		time.Sleep(time.Duration(300+rand.IntN(500)) * time.Millisecond) // not for a condition: the fault comes at any moment
		r.Kill()
		r = e.run()
	}
	e.awaitDelayed(map[string]int{})
	e.awaitCaughtUp()
	checkOnce(t, e, 2000)
	checkNoneEarly(t, e, 2000)
}

// checkNoneEarly compares the time at which each message was stored with the
// one in its subject attribute.
func checkNoneEarly(t *testing.T, e *env, want int) {
	t.Helper()
	stream, err := e.jetstream().Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		due, err := strconv.ParseFloat(msg.Header.Get("ce-subject"), 64)
		if err != nil {
			continue
		}
		checked++
		if stored := float64(msg.Time.UnixMicro()) / 1e6; stored < due {
			t.Errorf("message %d was stored %.3f s early", seq, due-stored)
		}
	}
	if checked < want {
		t.Errorf("%d of %d messages have a time to compare with; this test shows nothing", checked, want)
	}
}

// schedule inserts n events that are due after an interval.
func (e *env) schedule(n int, after string) {
	e.t.Helper()
	testkit.Exec(e.t, e.postgresURL, fmt.Sprintf(
		"INSERT INTO outbox (event_type, source, scheduled_at) SELECT 'later', '/e2e', clock_timestamp() + interval '%s' FROM generate_series(1, %d)", after, n))
}

// An event that is due while the slot still stands before it stays in the table:
// otherwise a new run would read its row again, and find nothing that says that
// it is on its way.
func TestDelay_DueWaitsForTheCheckpoint(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	r := e.run()
	e.server.Stop()
	e.insert(1) // stands before the others, and is not settled
	e.schedule(10, "300 ms")
	e.awaitDelayed(map[string]int{"scheduled": 10})
	testkit.Eventually(t, 10*time.Second, "the events have been due for a second", func() error {
		if late := testkit.Query(t, e.postgresURL, "SELECT (count(*) FILTER (WHERE due_at < clock_timestamp() - interval '1 s'))::text FROM walrelay.delayed"); late != "10" {
			return fmt.Errorf("%s are", late)
		}
		return nil
	})
	r.Kill()
	e.restartNATS()
	e.run()
	e.awaitDelayed(map[string]int{})
	e.awaitCaughtUp()
	checkOnce(t, e, 11)
}

// A relay that was frozen reads what it had received when another has the slot
// already: it must not put that into the delay table.
func TestDelay_SupersededSessionWritesNothing(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	frozen := e.run()
	e.schedule(1, "100 ms")
	e.awaitMessages("EVENTS", 1) // it has its connection for the table
	frozen.Signal(syscall.SIGSTOP)
	// More than the relay reads before it writes them down.
	e.schedule(1500, "500 ms")
	written := testkit.Query(t, e.postgresURL, "SELECT pg_current_wal_insert_lsn()::text")
	testkit.Eventually(t, 10*time.Second, "the frozen relay has been sent the events", func() error {
		sent := testkit.Query(t, e.postgresURL, "SELECT sent_lsn::text FROM pg_stat_replication WHERE sent_lsn >= $1::text::pg_lsn AND pid = $2::text::int UNION ALL SELECT '' LIMIT 1", written, e.walsender())
		if sent == "" {
			return errors.New("it has not")
		}
		return nil
	})
	testkit.Exec(t, e.postgresURL, "SELECT pg_terminate_backend("+e.walsender()+")")
	e.run()
	e.awaitMessages("EVENTS", 1501)
	frozen.Signal(syscall.SIGCONT)
	frozen.awaitLog("trying again")
	e.insert(1)
	e.awaitMessages("EVENTS", 1502)
	e.awaitDelayed(map[string]int{})
	e.awaitCaughtUp()
	checkOnce(t, e, 1502)
}

func TestDelay_OnTime(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	testkit.Exec(t, e.postgresURL, `
		INSERT INTO outbox (event_type, source, scheduled_at)
		SELECT 'much.later', '/e2e', now() + interval '1 year' FROM generate_series(1, 20000)`)
	testkit.Exec(t, e.postgresURL, `
		INSERT INTO outbox (event_type, source, subject, scheduled_at)
		SELECT 'later', '/e2e', extract(epoch FROM at)::text, at
		FROM (SELECT clock_timestamp() + interval '1 second' + n * interval '10 milliseconds' AS at FROM generate_series(1, 100) AS n) AS s`)
	// One whose time has passed waits for nobody.
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, scheduled_at) VALUES ('past', '/e2e', '-infinity'), ('past', '/e2e', now() - interval '1 hour')")
	e.awaitMessages("EVENTS", 102)
	e.awaitDelayed(map[string]int{"scheduled": 20000})
	checkNoneEarly(t, e, 100)
	late, err := r.metric("walrelay_delay_lateness_seconds_sum")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("mean lateness %.1f ms", late*1000/100)
}

func TestDelay_CancelAndReschedule(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run()
	for i, typ := range []string{"cancelled", "moved", "kept"} {
		testkit.Exec(t, e.postgresURL, fmt.Sprintf("INSERT INTO outbox (id, event_type, source, scheduled_at) VALUES ('00000000-0000-0000-0000-%012d', '%s', '/e2e', now() + interval '1 hour')", i, typ))
	}
	e.awaitDelayed(map[string]int{"scheduled": 3})
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.cancel(id => '00000000-0000-0000-0000-000000000000')::text"); n != "1" {
		t.Errorf("cancel changed %s events, want 1", n)
	}
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.reschedule(now(), event_type => 'moved')::text"); n != "1" {
		t.Errorf("reschedule changed %s events, want 1", n)
	}
	e.awaitStatus("00000000-0000-0000-0000-000000000001", "published")
	if got := e.status("00000000-0000-0000-0000-000000000000"); got != "discarded" {
		t.Errorf("the status of the cancelled event is %s, want discarded", got)
	}
	if got := e.status("00000000-0000-0000-0000-000000000002"); got != "scheduled" {
		t.Errorf("the status of the third event is %s, want scheduled", got)
	}
	if n := e.messages("EVENTS"); n != 1 {
		t.Errorf("the stream has %d messages, want 1", n)
	}
}

// From the moment in which an event leaves the delay table until a stream has it,
// its row is old and it waits for nothing: still, it is not published.
func TestDelay_ReemittedIsPending(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own) // transactions of others would hold the status back
	e.writeConfig("outbox: {after_publish: mark}\n")
	e.init()
	r := e.run()
	const id = "00000000-0000-0000-0000-00000000beef"
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source, scheduled_at) VALUES ('"+id+"', 'later', '/e2e', now() + interval '1 hour')")
	e.insert(1)
	checkMarked := func(want string) {
		t.Helper()
		r.awaitCleanUps(2)
		if got := testkit.Query(t, e.postgresURL, "SELECT string_agg(event_type, ', ' ORDER BY event_type) FROM outbox WHERE published_at IS NOT NULL"); got != want {
			t.Errorf("these are marked as published: %s; want: %s", got, want)
		}
	}
	e.awaitStatus(id, "scheduled")
	e.awaitPublished()
	checkMarked("order.created")
	e.server.Stop()
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.reschedule(now(), id => '"+id+"')::text"); n != "1" {
		t.Fatalf("reschedule changed %s events, want 1", n)
	}
	e.awaitDelayed(map[string]int{})
	if got := e.status(id); got != "pending" {
		t.Errorf("the status of an event that no stream has is %s, want pending", got)
	}
	checkMarked("order.created")
	e.restartNATS()
	e.awaitStatus(id, "published")
	checkOnce(t, e, 2)
	checkMarked("later, order.created")
	testkit.Eventually(t, 30*time.Second, "the emitted row is removed", func() error {
		if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM walrelay.emitted"); n != "0" {
			return fmt.Errorf("%s rows are left", n)
		}
		return nil
	})
}

func TestP5_PoisonEvent(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("retry: {initial: 50ms, max_retries: 2}\n")
	e.init()
	r := e.run()
	const id = "00000000-0000-0000-0000-00000000beef"
	e.insert(100)
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source, data) VALUES ('"+id+"', 'big', '/e2e', to_jsonb(repeat('x', 3000000)))")
	e.insert(100)
	e.awaitCaughtUp()
	checkMissing(t, e, 200, id)
	e.awaitStatus(id, "failed")
	if got := testkit.Query(t, e.postgresURL, "SELECT attempts || ' ' || last_error FROM walrelay.event_status($1)", id); !strings.HasPrefix(got, "1 column data: the event is too large: it has 3000") {
		t.Errorf("the status says %q", got)
	}
	if got := testkit.Query(t, e.postgresURL, "SELECT jsonb_array_length(failures)::text FROM walrelay.delayed"); got != "1" {
		t.Errorf("%s failures are remembered, want 1", got)
	}
	if got := testkit.Query(t, e.postgresURL, "SELECT kind || ' ' || (length(content) < 100)::text FROM walrelay.delayed"); got != "reference true" {
		t.Errorf("what is kept of the event is %q, want a short reference", got)
	}
	r.awaitLog("event failed")
	// A line about an event says of which slot, and where it stands in the log of the database.
	for line := range strings.Lines(r.logs.String()) {
		if strings.Contains(line, "event failed") && !regexp.MustCompile(`"slot":"`+e.slot+`".*"id":".+".*"lsn":"[0-9A-F]+/[0-9A-F]+"`).MatchString(line) {
			t.Errorf("the log has %s", line)
		}
	}
	if status, body := r.get("/readyz"); status != 200 {
		t.Errorf("/readyz says %d %q although nothing holds the stream", status, body)
	}
	// The limit is raised, and the event redriven.
	e.server.Stop()
	e.server.Configure(func(o *server.Options) { o.MaxPayload = 8 << 20 })
	e.restartNATS()
	r.awaitReady()
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.redrive(error => 'too large')::text"); n != "1" {
		t.Errorf("redrive changed %s events, want 1", n)
	}
	e.awaitStatus(id, "published")
	checkOnce(t, e, 201)
}

// What is larger than an event may be costs its own size once, and nobody else anything.
func TestP4_LargeRows(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.plain = true
	e.init()
	r := e.run()
	e.insert(100)
	for range 3 {
		testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, data) VALUES ('big', '/e2e', to_jsonb(repeat('x', 200000000)))")
	}
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, data_bytes) VALUES ('big', '/e2e', convert_to(repeat('x', 60000000), 'UTF8'))")
	e.insert(100)
	e.awaitMessages("EVENTS", 200)
	e.awaitDelayed(map[string]int{"failed": 4})
	if peak := child.PeakMemory(r.PID()); peak > 512<<20 {
		t.Errorf("the relay took %d MB, want at most 512", peak>>20)
	} else {
		t.Logf("the relay took %d MB", peak>>20)
	}
}

// The content of an event that is too large is that of its row, when it is redriven.
func TestDelay_RedrivenReference(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("publish: {max_event_size: 100000}\n")
	e.init()
	e.run()
	const kept, gone = "00000000-0000-0000-0000-00000000beef", "00000000-0000-0000-0000-00000000dead"
	for _, id := range []string{kept, gone} {
		testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source, partition_key, data) VALUES ('"+id+"', 'big', '/e2e', 'k', to_jsonb(repeat('x', 200000)))")
	}
	e.awaitDelayed(map[string]int{"failed": 2})
	if got := testkit.Query(t, e.postgresURL, "SELECT string_agg(partition_key, ',') FROM walrelay.delayed"); got != "k,k" {
		t.Errorf("the keys are %q, want k,k", got)
	}
	testkit.Exec(t, e.postgresURL, "DELETE FROM outbox WHERE id = '"+gone+"'")
	testkit.Exec(t, e.postgresURL, "SELECT walrelay.redrive(everything => true)")
	e.awaitError(gone, "failed", "its row is gone; insert the event again")
	e.awaitError(kept, "failed", "too large")
	testkit.Exec(t, e.postgresURL, "UPDATE outbox SET data = '{\"n\": 1}'")
	testkit.Exec(t, e.postgresURL, "SELECT walrelay.redrive('"+kept+"')")
	e.awaitMessages("EVENTS", 1)
	if got := readStream(t, e.nats(), "EVENTS")[0]; got.id != kept || string(got.data) != `{"n": 1}` || got.header.Get("ce-partitionkey") != "k" {
		t.Errorf("the stream has %s with %s", got.id, got.data)
	}
	e.awaitStatus(kept, "published")
	if out, code := e.walrelay("delayed", "show", gone); code != 0 || !strings.Contains(out, "row_of") {
		t.Errorf("delayed show ends with %d and says:\n%s", code, out)
	}
}

// A slot that got another name leaves nothing behind.
func TestDelay_AdoptFromRenamedSlot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("retry: {failed_holds_key: true}\n")
	e.init()
	r := e.run()
	const scheduled, failed, held = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003"
	testkit.Exec(t, e.postgresURL, fmt.Sprintf(`INSERT INTO outbox (id, event_type, source, scheduled_at, max_retries, partition_key) VALUES
		('%s', 'a', '/e2e', '2100-01-01', NULL, NULL), ('%s', 'a', '/e2e', NULL, -1, 'k')`, scheduled, failed))
	testkit.Exec(t, e.postgresURL, fmt.Sprintf("INSERT INTO outbox (id, event_type, source, partition_key) VALUES ('%s', 'a', '/e2e', 'k')", held))
	e.awaitDelayed(map[string]int{"scheduled": 1, "failed": 1, "held": 1})
	old := e.slot
	e.slot = old + "_new"
	adopt := func(want int, says string) {
		t.Helper()
		if out, code := e.walrelay("delayed", "adopt", "--from", old); code != want || !strings.Contains(out, says) {
			t.Errorf("delayed adopt ended with %d and says %q, want %d and %q", code, out, want, says)
		}
	}
	adopt(1, "exists: its relay publishes its events")
	r.stop()
	testkit.Exec(t, e.postgresURL, "SELECT pg_drop_replication_slot('"+old+"')")
	// An event that was emitted and never read.
	testkit.Exec(t, e.postgresURL, fmt.Sprintf(`WITH gone AS (DELETE FROM walrelay.delayed WHERE id = '%s' RETURNING *)
		INSERT INTO walrelay.emitted (slot, kind, id, table_schema, table_name, origin, content)
		SELECT slot, kind, id, table_schema, table_name, origin, convert_from(content, 'UTF8') FROM gone`, scheduled))
	adopt(1, `replication slot "`+e.slot+`" does not exist in this database; Run "walrelay init" first`)
	if err := e.jetstream().DeleteStream(t.Context(), "EVENTS"); err != nil { // it belongs to the other slot
		t.Fatal(err)
	}
	if out, code := e.walrelay("init"); code != 0 || !strings.Contains(out, "walrelay delayed adopt --from "+old) {
		t.Errorf("init ends with %d and says nothing of the other slot:\n%s", code, out)
	}
	r = e.run()
	r.awaitLog("walrelay delayed adopt --from " + old)
	adopt(1, "a relay is running")
	r.stop()
	adopt(0, "3 events of slot")
	r = e.run()
	e.awaitMessages("EVENTS", 1)
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, partition_key) VALUES ('a', '/e2e', 'k')")
	e.awaitDelayed(map[string]int{"failed": 1, "held": 2})
	testkit.Exec(t, e.postgresURL, "SELECT walrelay.discard('"+failed+"')")
	e.awaitMessages("EVENTS", 3)
	e.awaitDelayed(map[string]int{})
	e.awaitCaughtUp()
	if out := e.recover(0, "--dry-run"); !strings.Contains(out, "every row is settled") {
		t.Errorf("recover would publish again what was taken over:\n%s", out)
	}
	if strings.Contains(r.logs.String(), "delayed adopt") {
		t.Error("the relay still speaks of the other slot")
	}
}

// checkMissing checks that the stream has all rows of the outbox but one.
func checkMissing(t *testing.T, e *env, want int, but string) {
	t.Helper()
	messages := readStream(t, e.nats(), "EVENTS")
	if len(messages) != want {
		t.Errorf("the stream has %d messages, want %d", len(messages), want)
	}
	for _, m := range messages {
		if m.id == but {
			t.Errorf("the stream has event %s", but)
		}
	}
}

func TestDelay_RetriedUntilAStreamTakesIt(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig(quick + "streams: [{name: EVENTS, subjects: [\"events.order.>\"]}]\n")
	e.init()
	e.run()
	e.insert(3)
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source) VALUES ('00000000-0000-0000-0000-00000000000e', 'user.created', '/e2e')")
	e.insert(3)
	e.awaitMessages("EVENTS", 6)
	e.awaitError("00000000-0000-0000-0000-00000000000e", "retrying", `no stream takes the subject "events.user.created"`)
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Subjects = append(cfg.Subjects, "events.user.>") })
	e.awaitDelayed(map[string]int{})
	e.awaitCaughtUp()
	checkOnce(t, e, 7)
}

// What cannot become an event is kept, and its neighbours pass.
func TestP5_BadInput(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run()
	execScript(t, e.postgresURL, "ALTER TABLE outbox DROP CONSTRAINT outbox_event_type_check; ALTER TABLE outbox DROP CONSTRAINT outbox_source_check")
	long := strings.Repeat("k", 10_000)
	for i, bad := range []struct{ columns, values, status, says string }{
		{"event_type, source, scheduled_at", "'a', '/e2e', now() + interval '1000 years'", "scheduled", ""},
		{"event_type, source, scheduled_at", "'a', '/e2e', 'infinity'", "failed", "infinity never comes"},
		{"event_type, source, scheduled_at", "'a', '/e2e', '-infinity'", "published", ""},
		{"event_type, source, max_retries", "'a', '/e2e', -1", "failed", "-1 is not a number of retries"},
		{"event_type, source, max_retries", "'a', '/e2e', 2147483647", "published", ""},
		{"event_type, source, extensions", "'a', '/e2e', '[1]'", "failed", "it is not a JSON object"},
		{"event_type, source, extensions", `'a', '/e2e', '{"Bad-Name": 1}'`, "failed", "lower-case letters and digits only"},
		{"event_type, source, data", "'a', '/e2e', to_jsonb(repeat('x', 3000000))", "failed", "the event is too large"},
		{"event_type, source", "'', '/e2e'", "failed", "null or empty"},
		{"event_type, source, data_bytes", `'a', '/e2e', '\xfffe00'`, "published", ""},
		{"event_type, source, data_bytes, content_type", `'a', '/e2e', '\xfffe00', 'application/json'`, "failed", "not valid JSON"},
		{"event_type, source, partition_key", "'a', '/e2e', '" + long + "'", "published", ""},
		{"event_type, source, data_schema", "'a', '/e2e', 'not an absolute URI'", "failed", "absolute URI"},
		{"event_type, source", "E'a\\nb', '/e2e'", "failed", "control character"},
		{"event_type, source", "repeat('x', 5000), '/e2e'", "retrying", "its subject would be"},
		{"event_type, source, subject", "'a', '/e2e', repeat('x', 70000)", "retrying", "header size exceeds maximum"},
	} {
		id := fmt.Sprintf("00000000-0000-0000-0000-%012d", i)
		testkit.Exec(t, e.postgresURL, fmt.Sprintf("INSERT INTO outbox (id, %s) VALUES ('%s', %s)", bad.columns, id, bad.values))
		neighbour := fmt.Sprintf("00000000-0000-0000-0001-%012d", i)
		testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source) VALUES ('"+neighbour+"', 'good', '/e2e')")
		e.awaitStatus(neighbour, "published")
		t.Logf("%s = %.60s", bad.columns, bad.values)
		e.awaitError(id, bad.status, bad.says)
	}
	// A redriven row that cannot become an event is looked at again, and fails again.
	failed := e.delayed()["failed"]
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.redrive(state => 'failed')::text"); n != strconv.Itoa(failed) {
		t.Errorf("redrive changed %s events, want %d", n, failed)
	}
	testkit.Eventually(t, 20*time.Second, "all redriven events have failed again", func() error {
		if got := e.delayed()["failed"]; got != failed {
			return fmt.Errorf("%d of %d have", got, failed)
		}
		return nil
	})
	if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.discard(everything => true)::text"); n == "0" {
		t.Error("discard changed nothing")
	}
	// One that is being tried again just then is not in the table.
	testkit.Eventually(t, 30*time.Second, "only the scheduled event is left", func() error {
		if got := e.delayed(); len(got) != 1 || got["scheduled"] != 1 {
			testkit.Exec(t, e.postgresURL, "SELECT walrelay.discard(everything => true)")
			return fmt.Errorf("there are %v", got)
		}
		return nil
	})
}

// deliveries are the events of each key in the stream's order, by the number in
// their subject attribute.
func deliveries(t *testing.T, e *env) map[string][]int {
	t.Helper()
	all := map[string][]int{}
	for _, m := range readStream(t, e.nats(), "EVENTS") {
		n, err := strconv.Atoi(m.header.Get("ce-subject"))
		if err != nil {
			continue
		}
		key := m.header.Get("ce-partitionkey")
		all[key] = append(all[key], n)
	}
	return all
}

func checkKeysInOrder(t *testing.T, e *env, keys, each int) {
	t.Helper()
	all := deliveries(t, e)
	if len(all) != keys {
		t.Errorf("there are events of %d keys, want %d", len(all), keys)
	}
	for key, numbers := range all {
		if len(numbers) != each {
			t.Errorf("key %s has %d events, want %d", key, len(numbers), each)
		}
		for i := 1; i < len(numbers); i++ {
			if numbers[i] <= numbers[i-1] {
				t.Errorf("key %s: event %d follows event %d", key, numbers[i], numbers[i-1])
				break
			}
		}
	}
}

func TestDelay_KeyWaitsBehindFailure(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig(quick)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = 2000 })
	r := e.run()
	const each = 300
	insert := func(from, to int) {
		testkit.Exec(t, e.postgresURL, fmt.Sprintf(`
			INSERT INTO outbox (event_type, source, subject, partition_key, data)
			SELECT 'a', '/e2e', n::text, 'k' || key, to_jsonb(repeat('x', CASE WHEN key < 2 AND n = 10 THEN 3000 ELSE 100 END))
			FROM generate_series(%d, %d) AS s (n), generate_series(0, 3) AS key
			ORDER BY s.n, key`, from, to))
	}
	insert(1, 100)
	e.awaitMessages("EVENTS", 218) // all of keys 2 and 3, and 9 each of 0 and 1
	testkit.Eventually(t, 20*time.Second, "the others are held", func() error {
		if got := e.delayed(); got["held"] != 180 {
			return fmt.Errorf("the delay table has %v", got)
		}
		return nil
	})
	if got := testkit.Query(t, e.postgresURL, "SELECT state FROM walrelay.event_status((SELECT id::text FROM outbox WHERE partition_key = 'k0' AND subject = '50'))"); got != "held" {
		t.Errorf("the status of a held event is %s", got)
	}
	r.Kill()
	insert(101, 200)
	r = e.run()
	insert(201, each)
	e.awaitCaughtUp()
	if all := deliveries(t, e); len(all["k0"]) != 9 || len(all["k3"]) != each {
		t.Errorf("after a restart key 0 has %d events and key 3 has %d, want 9 and %d", len(all["k0"]), len(all["k3"]), each)
	}
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = -1 })
	e.awaitDelayed(map[string]int{})
	e.awaitCaughtUp()
	checkKeysInOrder(t, e, 4, each)
	checkOnce(t, e, 4*each)
	testkit.Eventually(t, 10*time.Second, "no key is held any more", func() error {
		if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM walrelay.keys"); n != "0" {
			return fmt.Errorf("%s are", n)
		}
		return nil
	})
	// And the keys flow as any others.
	insert(each+1, each+1)
	e.awaitCaughtUp()
	if got := e.delayed(); len(got) != 0 {
		t.Errorf("after that the delay table has %v", got)
	}
	checkKeysInOrder(t, e, 4, each+1)
	_ = r
}

func TestDelay_FailedBlocksItsKey(t *testing.T) {
	t.Parallel()
	for holds, want := range map[bool]string{false: "[1 3 4]", true: "[1]"} {
		t.Run(strconv.FormatBool(holds), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, shared)
			e.writeConfig(fmt.Sprintf("retry: {initial: 50ms, max_retries: 1, failed_holds_key: %v}\n", holds))
			e.init()
			e.run()
			for n := 1; n <= 4; n++ {
				size := 10
				if n == 2 {
					size = 3_000_000
				}
				testkit.Exec(t, e.postgresURL, fmt.Sprintf("INSERT INTO outbox (event_type, source, subject, partition_key, data) VALUES ('a', '/e2e', '%d', 'k', to_jsonb(repeat('x', %d)))", n, size))
			}
			testkit.Eventually(t, 20*time.Second, "the event has failed", func() error {
				if got := e.delayed(); got["failed"] != 1 || !holds && got["held"] > 0 {
					return fmt.Errorf("the delay table has %v", got)
				}
				return nil
			})
			e.awaitCaughtUp()
			// What was held for the moment comes from the delay table.
			testkit.Eventually(t, 20*time.Second, "the stream has "+want, func() error {
				if got := fmt.Sprint(deliveries(t, e)["k"]); got != want {
					return fmt.Errorf("it has %s", got)
				}
				return nil
			})
			if holds {
				testkit.Exec(t, e.postgresURL, "SELECT walrelay.discard(state => 'failed')")
				e.awaitDelayed(map[string]int{})
				e.awaitCaughtUp()
				if got := fmt.Sprint(deliveries(t, e)["k"]); got != "[1 3 4]" {
					t.Errorf("after the event was discarded the stream has %s, want [1 3 4]", got)
				}
			}
		})
	}
}

func TestSQL_Publish(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run()
	execScript(t, e.postgresURL, fmt.Sprintf(`
		SELECT walrelay.publish_event('a.plain', '/e2e', '{"n": 1}', extensions => '{"traceparent": "00-1"}');
		SELECT walrelay.publish_cloud_event('{"specversion": "1.0", "type": "a.cloud", "source": "/e2e", "datacontenttype": "text/plain", "data": "hello", "x": 7}');
		SELECT walrelay.emit_event('a.message', '/e2e', '{"n": null}', slot => '%[1]s');
		SELECT walrelay.emit_event('a.bytes', '/e2e', data_bytes => '\x00ff', scheduled_at => now() + interval '200 milliseconds', slot => '%[1]s');
		BEGIN; SELECT walrelay.emit_event('a.ghost', '/e2e', slot => '%[1]s'); ROLLBACK;`, e.slot))
	e.awaitMessages("EVENTS", 4)
	e.awaitDelayed(map[string]int{})
	got := map[string]stored{}
	for _, m := range readStream(t, e.nats(), "EVENTS") {
		got[m.subject] = m
	}
	for subject, want := range map[string][2]string{
		"events.a.plain": {`{"n": 1}`, "application/json"}, "events.a.cloud": {"hello", "text/plain"},
		"events.a.message": {`{"n": null}`, "application/json"}, "events.a.bytes": {"\x00\xff", "application/octet-stream"},
	} {
		m := got[subject]
		if string(m.data) != want[0] || m.header.Get("ce-datacontenttype") != want[1] {
			t.Errorf("%s: the message has %q as %q, want %q as %q", subject, m.data, m.header.Get("ce-datacontenttype"), want[0], want[1])
		}
	}
	if h := got["events.a.plain"].header; h.Get("ce-traceparent") != "00-1" || got["events.a.cloud"].header.Get("ce-x") != "7" {
		t.Errorf("extension attributes are missing: %v", h)
	}
	e.insert(1)
	e.awaitMessages("EVENTS", 5)
}

// Random sizes, schedules and keys, while the limit on sizes comes and goes and
// everything crashes: at the end each event is published once and, those that
// were not scheduled, in the order of its key.
func TestDelay_SurvivesEverythingInOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("once is enough")
	}
	t.Parallel()
	e := newEnv(t, own)
	e.writeConfig(quick)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	const keys = 8
	ctx, stop := context.WithCancel(t.Context())
	written := make(chan int, keys)
	for key := range keys {
		go func() { written <- writeKey(ctx, e.postgresURL, key) }()
	}
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	limit := func(size int32) {
		js := e.jetstream()
		for range 50 {
			if stream, err := js.Stream(ctx, "EVENTS"); err == nil {
				cfg := stream.CachedInfo().Config
				cfg.MaxMsgSize = size
				if _, err := js.UpdateStream(ctx, cfg); err == nil {
					return
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	r := e.run()
	faults := map[string]int{}
	for began := time.Now(); time.Since(began) < 20*time.Second; {
		time.Sleep(time.Duration(100+random.IntN(600)) * time.Millisecond) // not for a condition: the fault comes at any moment
		switch random.IntN(8) {
		case 0, 1:
			limit(1000)
			faults["limit"]++
		case 2, 3:
			limit(-1)
		case 4, 5:
			r.Kill()
			r = e.start()
			faults["kill"]++
		case 6:
			e.server.Stop()
			e.restartNATS()
			faults["NATS"]++
		case 7:
			e.stopPostgres(localpg.Immediate)
			e.startPostgres()
			faults["Postgres"]++
		}
	}
	stop()
	ended := time.Now()
	total := 0
	for range keys {
		total += <-written
	}
	ctx = t.Context()
	limit(-1)
	r.awaitReady()
	var left []map[string]int // by second, to tell slow from stuck
	testkit.Eventually(t, 3*time.Minute, "the delay table is empty", func() error {
		now := e.delayed()
		if n := len(left); n == 0 || time.Since(ended) > time.Duration(n)*time.Second {
			left = append(left, now)
		}
		if len(now) > 0 {
			return fmt.Errorf("it had %v", left)
		}
		return nil
	})
	e.awaitCaughtUp()
	t.Logf("%d events, faults %v, left by second %v", total, faults, left)
	checkEachOnce(t, e, len(outboxIDs(t, e.postgresURL)))
	for key, numbers := range deliveries(t, e) {
		for i := 1; i < len(numbers); i++ {
			if numbers[i] <= numbers[i-1] {
				t.Errorf("key %s: event %d follows event %d", key, numbers[i], numbers[i-1])
				explainOrder(t, e, key, numbers[i])
			}
		}
	}
}

// explainOrder logs where the events of a key stand around one of them.
func explainOrder(t *testing.T, e *env, key string, number int) {
	t.Helper()
	for sequence, m := range readStream(t, e.nats(), "EVENTS") {
		n, err := strconv.Atoi(m.header.Get("ce-subject"))
		if err == nil && m.header.Get("ce-partitionkey") == key && n >= number-3 && n <= number+3 {
			t.Logf("event %d (%s): message %d, position %s, written %s, %d bytes",
				n, m.header.Get("ce-id"), sequence+1, m.header.Get("Walrelay-Position"), m.header.Get("ce-time"), len(m.data))
		}
	}
}

// writeKey writes events of one key until the context ends, and says how many.
// Those that are scheduled have no number.
func writeKey(ctx context.Context, url string, key int) int {
	var conn *pgx.Conn
	n := 0
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, url); err != nil {
				conn = nil
				time.Sleep(10 * time.Millisecond)
				continue
			}
		}
		// The number goes up whether the commit is known or not: only order
		// counts.
		n++
		subject, schedule := strconv.Itoa(n), "NULL"
		if rand.IntN(5) == 0 {
			subject, schedule = "scheduled", fmt.Sprintf("now() + interval '%d milliseconds'", rand.IntN(2000))
		}
		_, _ = conn.Exec(ctx, fmt.Sprintf(
			"INSERT INTO outbox (event_type, source, subject, partition_key, scheduled_at, data) VALUES ('a', '/e2e', '%s', 'k%d', %s, to_jsonb(repeat('x', %d)))",
			subject, key, schedule, 10+rand.IntN(1200)))
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
	return n
}

func TestDelayedCommands(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.environ = []string{"WALRELAY_POSTGRES_ROLE_PREFIX=" + e.slot}
	if out, code := e.walrelay("delayed", "list"); code != 1 || !strings.Contains(out, `run "walrelay init"`) {
		t.Errorf("before init, delayed list ends with %d and says %q", code, out)
	}
	e.init()
	e.run()
	testkit.Exec(t, e.postgresURL, `INSERT INTO outbox (id, event_type, source, scheduled_at, max_retries, partition_key) VALUES
		('00000000-0000-0000-0000-000000000001', 'a.later', '/e2e', '2100-01-02T03:04:05Z', NULL, 'k'),
		('00000000-0000-0000-0000-000000000002', 'a.bad', '/e2e', NULL, -1, NULL),
		('00000000-0000-0000-0000-000000000003', 'b.bad', '/e2e', NULL, -2, NULL)`)
	e.awaitDelayed(map[string]int{"failed": 2, "scheduled": 1})
	check := func(wantCode int, want []string, args ...string) {
		t.Helper()
		out, code := e.walrelay(append([]string{"delayed"}, args...)...)
		if code != wantCode {
			t.Errorf("delayed %s ended with %d, want %d:\n%s", strings.Join(args, " "), code, wantCode, out)
		}
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("delayed %s says nothing of %q:\n%s", strings.Join(args, " "), text, out)
			}
		}
	}
	check(0, []string{"000000000001  a.later  scheduled  2100-01-02T03:04:05Z  0         k", "000000000002  a.bad", "-2 is not a number of retries"}, "list")
	check(0, []string{"000000000003", "there are more; see them with --before "}, "list", "--state", "failed", "--limit", "1")
	out, _ := e.walrelay("delayed", "list", "--state", "failed", "--limit", "1")
	_, rest, _ := strings.Cut(out, "--before ")
	before, _, _ := strings.Cut(rest, " ")
	check(0, []string{"000000000002"}, "list", "--state", "failed", "--limit", "1", "--before", before)
	check(2, []string{"want what an earlier list says"}, "list", "--before", "2")
	check(2, []string{"no less than 0"}, "list", "--limit", "-1")
	check(0, []string{`"state":"failed"`, `"type":"b.bad"`}, "list", "--json", "--type", "b.bad")
	check(2, []string{`"lost" is not a state`}, "list", "--state", "lost")
	check(0, []string{"attempts  1", "failed    20", "column max_retries: -1 is not a number of retries", `["event_type",25,"a.bad"]`}, "show", "00000000-0000-0000-0000-000000000002")
	check(0, []string{`"content": [`}, "show", "--json", "00000000-0000-0000-0000-000000000002")
	check(1, []string{"no delayed event has the id"}, "show", "nothing")
	check(2, []string{"name an event by its id"}, "redrive")
	check(2, []string{"not both"}, "redrive", "--all", "--type", "a.bad")
	check(1, []string{"redrive: 2 events? [y/N]", "nothing was changed"}, "redrive", "--all")
	check(0, []string{"1 event discarded"}, "discard", "--yes", "00000000-0000-0000-0000-000000000002")
	check(0, []string{"1 event tried again"}, "redrive", "--yes", "--error", "NOT A NUMBER")
	check(1, []string{"no delayed event that this takes can be cancelled"}, "cancel", "--yes", "--state", "failed")
	check(2, []string{"--at"}, "reschedule", "--all")
	check(0, []string{"1 event moved"}, "reschedule", "--yes", "--key", "k", "--at", "0s")
	e.awaitStatus("00000000-0000-0000-0000-000000000001", "published")
	e.awaitDelayed(map[string]int{"failed": 1})

	// An application sees the status of its events, and nothing of others.
	execScript(t, e.postgresURL, fmt.Sprintf(`
		CREATE ROLE %[1]s_shop LOGIN; GRANT %[1]s_app TO %[1]s_shop;
		CREATE ROLE %[1]s_op LOGIN; GRANT %[1]s_operator TO %[1]s_op`, e.slot))
	as := func(role string) string { return strings.Replace(e.postgresURL, "postgres@", e.slot+role+"@", 1) }
	if got := testkit.Query(t, as("_shop"), "SELECT walrelay.publish_event('app.event', '/app')::text"); got == "" {
		t.Error("the application's role cannot publish")
	}
	if got := testkit.Query(t, as("_shop"), "INSERT INTO public.outbox (event_type, source) VALUES ('app.event', '/app') RETURNING id::text || created_at"); got == "" {
		t.Error("the application's role cannot insert and have the id returned")
	}
	if got := testkit.Query(t, as("_shop"), "SELECT state FROM walrelay.event_status('00000000-0000-0000-0000-000000000003')"); got != "failed" {
		t.Errorf("the application's role sees the status %q", got)
	}
	for _, forbidden := range []string{"SELECT count(*)::text FROM walrelay.delayed", "SELECT walrelay.discard(everything => true)::text", "DELETE FROM public.outbox"} {
		if err := tryQuery(as("_shop"), forbidden); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("the application's role may do %s: %v", forbidden, err)
		}
	}
	if got := testkit.Query(t, as("_op"), "SELECT walrelay.discard(everything => true)::text"); got != "1" {
		t.Errorf("the operator's role discards %s events, want 1", got)
	}
	e.environ = append(e.environ, "WALRELAY_POSTGRES_URL="+as("_shop"))
	check(1, []string{"may not see or change delayed events", "GRANT \"" + e.slot + "_operator\" TO"}, "list")
}

func tryQuery(url, query string) error {
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(context.Background(), query)
	return err
}
