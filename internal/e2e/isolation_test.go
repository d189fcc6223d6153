package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/testkit"
)

// begin opens a transaction that runs the statements and stays open until the
// function that it returns is called.
func (e *env) begin(statements ...string) (end func()) {
	e.t.Helper()
	conn, err := pgx.Connect(e.t.Context(), e.postgresURL)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, statement := range append([]string{"SET application_name = 'psql of an operator'", "BEGIN"}, statements...) {
		if _, err := conn.Exec(e.t.Context(), statement); err != nil {
			e.t.Fatalf("%s: %v", statement, err)
		}
	}
	return func() {
		if err := conn.Close(context.Background()); err != nil {
			e.t.Error(err)
		}
	}
}

// A person's open transaction keeps only what it touches from going on.
func TestLocks_OperatorsTransactionStopsNothingElse(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"discard of a held event":  "SELECT walrelay.discard(state => 'held')",
		"lock of all delayed rows": "SELECT FROM walrelay.delayed FOR UPDATE",
		"lock of all keys":         "SELECT FROM walrelay.keys FOR UPDATE",
		"lock of all outbox rows":  "SELECT FROM outbox FOR UPDATE",
		"lock of the checkpoint":   "SELECT FROM walrelay.progress FOR KEY SHARE",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, own)
			// The bad event fails for good while the transaction is open; then the held
			// ones may go on.
			e.writeConfig("retry: {initial: 3s, max_retries: 1}\nstreams: [{name: EVENTS, subjects: [events.good.>]}]\n")
			e.init()
			r := e.run()
			insert := func(typ, key string) {
				testkit.Exec(t, e.postgresURL, fmt.Sprintf("INSERT INTO outbox (event_type, source, partition_key) VALUES ('%s', '/e2e', %s)", typ, key))
			}
			insert("bad", "'k'")
			insert("good.a", "'k'")
			insert("good.a", "'k'")
			testkit.Eventually(t, 20*time.Second, "two events are held", func() error {
				if got := e.delayed(); got["held"] != 2 {
					return fmt.Errorf("the delay table has %v", got)
				}
				return nil
			})
			end := e.begin(statement)
			defer end()
			for n := range 3 {
				insert("good.b", "NULL")
				insert("good.b", "'k'")
				e.awaitMessages("EVENTS", 1+n)
				e.awaitCaughtUp()
			}
			if saved := testkit.Query(t, e.postgresURL, "SELECT (updated_at > now() - interval '10 seconds')::text FROM walrelay.progress"); saved != "true" {
				t.Error("the checkpoint is not saved any more")
			}
			if name == "discard of a held event" {
				r.awaitLog("locks on the delay table keep the relay waiting")
				if !strings.Contains(r.logs.String(), "psql of an operator") {
					t.Error("the log does not say who holds the locks")
				}
			}
			end()
			testkit.Eventually(t, 20*time.Second, "everything goes on when the transaction has ended", func() error {
				testkit.Exec(t, e.postgresURL, "SELECT walrelay.discard(event_type => 'bad')")
				if got := e.delayed(); len(got) > 0 {
					return fmt.Errorf("the delay table has %v", got)
				}
				return nil
			})
			e.awaitMessages("EVENTS", 8)
		})
	}
}

// A lock on the whole table is waited for only by an event that must be written
// there, and that is said.
func TestLocks_WholeDelayTable(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.writeConfig("retry: {initial: 1s, max: 1s, max_retries: 1000}\n")
	e.init()
	r := e.run()
	e.insert(1)
	e.awaitMessages("EVENTS", 1)
	end := e.begin("LOCK TABLE walrelay.delayed")
	defer end()
	for n := range 3 {
		e.insert(10)
		e.awaitMessages("EVENTS", 1+10*(n+1))
		e.awaitCaughtUp()
	}
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, scheduled_at) VALUES ('later', '/e2e', now() + interval '1 hour')")
	testkit.Eventually(t, 20*time.Second, "readiness says who has locked the table", func() error {
		status, body := r.get("/readyz")
		if status != http.StatusServiceUnavailable || !strings.Contains(body, "walrelay.delayed") || !strings.Contains(body, "psql of an operator") {
			return fmt.Errorf("it is %d: %s", status, body)
		}
		return nil
	})
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, `walrelay_delay_table_blocked{waiting="publishing"} 1`) {
		t.Error("the metric does not say that publishing waits")
	}
	r.awaitLog("locks on the delay table keep the relay waiting")
	end()
	e.insert(1)
	e.awaitMessages("EVENTS", 32)
	testkit.Eventually(t, 20*time.Second, "the relay is ready again", func() error {
		if status, body := r.get("/readyz"); status != http.StatusOK {
			return fmt.Errorf("it is %d: %s", status, body)
		}
		return nil
	})
	e.awaitDelayed(map[string]int{"scheduled": 1})
}

// What anybody who can log in may write into the WAL is nothing to the relay.
func TestIsolation_LogicalMessagesOfStrangers(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	r := e.run()
	testkit.Exec(t, e.postgresURL, "CREATE ROLE stranger LOGIN")
	conn, err := pgx.Connect(t.Context(), strings.Replace(e.postgresURL, "postgres@", "stranger@", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, content := range []string{
		`{}` + "\n" + `{"id":"forged","type":"forged","source":"/s"}`, `{"marker":"session 1"}`, `{"marker":"session 1"}`, `{}`, "nonsense",
		`{"failures":[{"error":"\u0000"}]}` + "\n" + `{"id":"a\u0000b","type":"t","source":"/s"}`,
	} {
		if _, err := conn.Exec(t.Context(), "SELECT pg_logical_emit_message(true, $1, $2::text)", "walrelay."+e.slot, content); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(t.Context(), "SELECT pg_logical_emit_message(true, $1, repeat('x', 200000000))", "walrelay."+e.slot); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"INSERT INTO walrelay.emitted (slot, kind, id) VALUES ('walrelay', 'marker', 'session 1')",
		"SELECT walrelay.emit_event('a', '/s', slot => '" + e.slot + "')",
		"TRUNCATE walrelay.emitted", "SELECT * FROM walrelay.progress", "SELECT walrelay.discard(everything => true)",
	} {
		if _, err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("a stranger may: %s", statement)
		}
	}
	e.insert(5)
	e.awaitMessages("EVENTS", 5)
	e.awaitCaughtUp()
	if n := e.messages("EVENTS"); n != 5 {
		t.Errorf("the stream has %d messages, want 5", n)
	}
	if got := e.delayed(); len(got) > 0 {
		t.Errorf("the delay table has %v", got)
	}
	if peak := child.PeakMemory(r.PID()); peak > 150<<20 {
		t.Errorf("the relay took %d MiB", peak>>20)
	}
}

func TestEmitEvent_NeedsTheSlot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	conn := testkit.Connect(t, e.postgresURL)
	_, err := conn.Exec(t.Context(), "SELECT walrelay.emit_event('a', '/e2e', slot => 'nobody')")
	if err == nil || !strings.Contains(err.Error(), `replication slot "nobody" does not exist`) {
		t.Errorf("want an error about the slot, got %v", err)
	}
}

// Whoever may publish into the stream can write whatever headers: it costs no
// event, brings none twice, and ends no relay.
func TestIsolation_ForgedPositions(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	r := e.run()
	e.insert(5)
	e.awaitMessages("EVENTS", 5)
	e.awaitCaughtUp()
	genuine := readStream(t, e.nats(), "EVENTS")
	system := testkit.Query(t, e.postgresURL, "SELECT system_identifier FROM walrelay.progress")
	writer := " 1 " + system + "/" + e.slot
	forged := []nats.Header{
		{"Walrelay-Position": {"FFFFFFFFFFFFFFFF.FFFFFFFF" + writer}},
		{"Walrelay-Position": {"00000000F0000000.00000000" + writer}},
		{"Walrelay-Position": {"0000000000000000.00000000" + writer}},
		{"Walrelay-Position": {"00000000F0000000.00000000" + writer}, "Walrelay-Digest": {"AAAAAAAAAAAAAAAAAAAAAA"}},
		{"Walrelay-Position": {"00000000F0000000.00000000 1 " + system + "/another"}},
		{"Walrelay-Position": {"00000000F0000000.00000000 7" + writer[2:]}},
		{"Walrelay-Position": {"nonsense"}},
		{"Walrelay-Position": genuine[0].header["Walrelay-Position"], "Walrelay-Digest": genuine[0].header["Walrelay-Digest"]},
	}
	want := 5
	for i, header := range forged {
		r.Kill()
		if _, err := e.jetstream().PublishMsg(t.Context(), &nats.Msg{Subject: "events.forged", Header: header}); err != nil {
			t.Fatal(err)
		}
		e.insert(3)
		r = e.run()
		want += 4
		e.awaitMessages("EVENTS", want)
		e.awaitCaughtUp()
		if got := e.messages("EVENTS"); got != want {
			t.Fatalf("after forged message %d (%v) the stream has %d messages, want %d", i, header, got, want)
		}
		// While it runs, too.
		if _, err := e.jetstream().PublishMsg(t.Context(), &nats.Msg{Subject: "events.forged", Header: header}); err != nil {
			t.Fatal(err)
		}
		e.insert(3)
		want += 4
		e.awaitMessages("EVENTS", want)
		e.awaitCaughtUp()
	}
	events := newTally()
	for _, m := range readStream(t, e.nats(), "EVENTS") {
		if m.subject != "events.forged" {
			events.add(m.header.Get("ce-id"))
		}
	}
	if events.distinct() != 5+6*len(forged) || events.doubled() > 0 {
		t.Errorf("%d events, %d of them twice; want %d", events.distinct(), events.doubled(), 5+6*len(forged))
	}
}

// A standard error that nobody reads stops nothing.
func TestRun_BlockedStandardError(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	cmd := e.command("run", "--http-addr", "off")
	cmd.Stderr = writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close() // the process has its own
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, max_retries) SELECT 'bad', '/e2e', -1 FROM generate_series(1, 5000)")
	e.insert(10)
	e.awaitMessages("EVENTS", 10)
	e.awaitCaughtUp()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the relay ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the relay does not end")
		_ = cmd.Process.Kill()
		<-ended
	}
}

// A relay needs these permissions of NATS, and no others.
func TestIsolation_PermissionsOfNATS(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	user := func(name string, publish *server.SubjectPermission) *server.User {
		return &server.User{Username: name, Password: "secret", Permissions: &server.Permissions{
			Publish: publish, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}
	}
	run := []string{"events.>", "$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.MSG.GET.EVENTS", "$JS.API.STREAM.NAMES"}
	init := append([]string{"$JS.API.STREAM.CREATE.EVENTS"}, run...)
	e.server.Configure(func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "secret"},
			user("init", &server.SubjectPermission{Allow: init}),
			user("relay", &server.SubjectPermission{Allow: run, Deny: []string{"events.secret"}}),
		}
		o.NoAuthUser = "admin"
	})
	e.server.Stop()
	if err := e.server.Restart(); err != nil {
		t.Fatal(err)
	}
	e.environ = []string{"WALRELAY_NATS_USER=init", "WALRELAY_NATS_PASSWORD=secret"}
	e.init()
	e.environ = []string{"WALRELAY_NATS_USER=relay", "WALRELAY_NATS_PASSWORD=secret"}
	r := e.run()
	e.insert(3)
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source) VALUES ('00000000-0000-0000-0000-00000000beef', 'secret', '/e2e')")
	e.insert(3)
	e.awaitMessages("EVENTS", 6)
	e.awaitError("00000000-0000-0000-0000-00000000beef", "retrying", `permits this user no message on subject "events.secret"`)
	r.awaitReady()
	// What doctor may not ask, it says; the rest it finds.
	if out, code := e.walrelay("doctor"); code != 0 || strings.Count(out, "not_asked") != 2 || strings.Contains("\n"+out, "\nnats: ") || !strings.Contains(out, "asking NATS for the account") {
		t.Errorf("doctor ends with %d and says\n%s", code, out)
	}
	r.Kill()
	if out := e.repair(0); !strings.Contains(out, "nothing is missing") {
		t.Errorf("repair says %s", out)
	}
}
