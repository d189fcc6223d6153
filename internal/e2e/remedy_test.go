package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
)

// finding is a line of "walrelay doctor --json".
type finding struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	What   string `json:"what"`
	Fix    string `json:"fix"`
}

// says checks what the remedy says, as is, strings.HasPrefix and the like compare.
func (f *finding) says(t testing.TB, compare func(text, with string) bool, with string) {
	t.Helper()
	if !compare(f.Fix, with) {
		t.Errorf("the remedy is %q, want %q", f.Fix, with)
	}
}

func is(text, other string) bool { return text == other }

func (e *env) findings() map[string]finding {
	e.t.Helper()
	out, _ := e.walrelay("doctor", "--json")
	found := make(map[string]finding)
	for line := range strings.Lines(out) {
		var f finding
		if json.Unmarshal([]byte(line), &f) == nil && f.Status != "pass" {
			found[f.ID] = f
		}
	}
	return found
}

// diagnosed waits until doctor names a thing, and returns what it says.
func (e *env) diagnosed(id string) finding {
	e.t.Helper()
	var f finding
	testkit.Eventually(e.t, 20*time.Second, "doctor names "+id, func() error {
		found := e.findings()
		var ok bool
		if f, ok = found[id]; !ok {
			return fmt.Errorf("it finds %v", found)
		}
		return nil
	})
	return f
}

// awaitHealthy waits until doctor finds nothing that fails, and does not name a thing.
func (e *env) awaitHealthy(id string) {
	e.t.Helper()
	testkit.Eventually(e.t, time.Minute, "all is well", func() error {
		for name, f := range e.findings() {
			if name == id || f.Status == "fail" {
				return fmt.Errorf("%+v", f)
			}
		}
		return nil
	})
}

var (
	pageReference = regexp.MustCompile(`docs/operations.md, "([^"]+)"`)
	pageStep      = regexp.MustCompile(`^\d\. `)
	pageCode      = regexp.MustCompile("`([^`]+)`|[Ss]tart the relay")
)

// follow does what the section of docs/operations.md says that a remedy names, in the order in which
// it is said: statements, commands, changes of the configuration, and the start of the relay.
func (e *env) follow(fix string) {
	e.t.Helper()
	names := pageReference.FindStringSubmatch(fix)
	if names == nil {
		e.t.Fatalf("no section is named: %q", fix)
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		e.t.Fatal(err)
	}
	title := names[1]
	if title == "A publication was dropped" { // "The way back is that of a lost slot."
		title = "A slot was lost"
	}
	_, section, found := strings.Cut(string(page), "\n## "+title+"\n")
	if !found {
		e.t.Fatalf("docs/operations.md has no section %q", title)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	old := e.slot
	fenced, listed, steps := false, false, 0
	for line := range strings.Lines(section) {
		switch text := strings.TrimSpace(line); {
		case strings.HasPrefix(text, "```"):
			fenced = !fenced
		case fenced || text == "":
		case pageStep.MatchString(line):
			listed = true
			steps++
		case !strings.HasPrefix(line, "   "):
			listed = false
		}
		if fenced || !listed {
			continue
		}
		for _, code := range pageCode.FindAllStringSubmatch(line, -1) {
			e.step(old, code[0], code[1])
		}
	}
	if steps < 4 {
		e.t.Fatalf("section %q has %d steps", title, steps)
	}
}

// step does one thing of a page that speaks of slot walrelay.
func (e *env) step(old, whole, code string) {
	e.t.Helper()
	command, arguments, _ := strings.Cut(code, " ")
	switch {
	case code == "":
		e.run()
	case strings.HasPrefix(code, "SELECT "):
		conn := testkit.Connect(e.t, e.postgresURL)
		_, err := conn.Exec(e.t.Context(), strings.ReplaceAll(code, "'walrelay'", "'"+old+"'"), pgx.QueryExecModeSimpleProtocol)
		if err != nil && !strings.Contains(err.Error(), "does not exist") { // "if there is one"
			e.t.Fatalf("%s: %v", code, err)
		}
	case command == "walrelay":
		args := strings.Fields(arguments)
		if len(args) > 0 && args[len(args)-1] == "walrelay" {
			args[len(args)-1] = old
		}
		if args[0] == "recover" && len(args) == 1 {
			args = append(args, "--yes") // what a person answers
		}
		if out, code := e.walrelay(args...); code != 0 {
			e.t.Fatalf("walrelay %s ends with %d: %s", strings.Join(args, " "), code, out)
		}
	case code == "nats stream purge EVENTS":
		stream, err := e.jetstream().Stream(e.t.Context(), "EVENTS")
		if err == nil {
			err = stream.Purge(e.t.Context())
		}
		if err != nil {
			e.t.Fatal(err)
		}
	case code == "slot: walrelay_2":
		e.environ = append(e.environ, "WALRELAY_SLOT="+old+"_2")
	case code == "nats stream restore": // there is no backup
	default:
		e.t.Fatalf("the page says %q, which this test does not know", whole)
	}
}

// awaitEachOnce waits until the streams have each of the rows, and checks that they have it once.
func (e *env) awaitEachOnce(ids map[string]string, streams ...string) {
	e.t.Helper()
	times := func() map[string]int {
		times := make(map[string]int)
		for _, stream := range streams {
			for _, m := range readStream(e.t, e.nats(), stream) {
				times[m.id]++
			}
		}
		return times
	}
	testkit.Eventually(e.t, 30*time.Second, "each row is published", func() error {
		missing, got := 0, times()
		for id := range ids {
			if got[id] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing", missing, len(ids))
		}
		return nil
	})
	for id, n := range times() {
		if n != 1 {
			e.t.Errorf("event %s was published %d times", id, n)
		}
	}
}

// Each fault that ends the relay, as docs/faults.md lists them: doctor names it, what doctor says is done as it
// is written, and then every row is published once.
func TestDoctor_RemediesOfWhatEndsTheRelay(t *testing.T) {
	t.Parallel()
	sql := func(e *env, script string) {
		e.t.Helper()
		execScript(e.t, e.postgresURL, strings.ReplaceAll(script, "{slot}", e.slot))
	}
	page := func(e *env, f finding) { e.follow(f.Fix) }
	initialise := func(e *env, f finding) {
		e.t.Helper()
		f.says(e.t, strings.HasPrefix, `run "walrelay init"; "walrelay recover" publishes`)
		e.init()
		e.run()
		e.recover(0, "--yes")
	}
	for _, tt := range []struct {
		name, id string
		kind     kind
		harm     func(*env, *relay)
		mend     func(*env, finding)
		streams  []string // EVENTS, if not said
		purges   bool     // what had been published is not there any more
	}{
		{name: "slot-dropped", id: "slot_missing", harm: func(e *env, r *relay) {
			r.Kill()
			testkit.Eventually(e.t, 10*time.Second, "the slot is dropped", func() error {
				conn := testkit.Connect(e.t, e.postgresURL)
				_, err := conn.Exec(e.t.Context(), "SELECT pg_drop_replication_slot($1)", e.slot)
				return err
			})
			e.insert(7)
		}, mend: page},
		{name: "slot-lost", id: "slot_lost", kind: own, harm: func(e *env, r *relay) {
			r.Kill()
			testkit.AlterSystem(e.t, e.postgresURL, "SET max_slot_wal_keep_size = '16MB'", "SET max_wal_size = '32MB'")
			e.insert(7)
			testkit.Eventually(e.t, 60*time.Second, "the slot is lost", func() error {
				sql(e, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 8000000)); SELECT pg_switch_wal(); CHECKPOINT")
				if status := testkit.Query(e.t, e.postgresURL, "SELECT wal_status FROM pg_replication_slots"); status != "lost" {
					return errors.New("it is " + status)
				}
				return nil
			})
		}, mend: page},
		{name: "publication-dropped", id: "publication_missing", harm: func(e *env, r *relay) {
			sql(e, "DROP PUBLICATION {slot}")
			e.insert(7)
			r.wait(30 * time.Second)
		}, mend: page},
		{name: "publication of all tables", id: "publication_all_tables", harm: func(e *env, r *relay) {
			r.Kill()
			sql(e, "DROP PUBLICATION {slot}; CREATE PUBLICATION {slot} FOR ALL TABLES WITH (publish = 'insert', publish_via_partition_root = true)")
			e.insert(7)
		}, mend: func(e *env, f finding) {
			f.says(e.t, strings.HasPrefix, "set publication to another name")
			e.environ = append(e.environ, "WALRELAY_PUBLICATION="+e.slot+"_2")
			e.follow(f.Fix)
		}},
		{name: "table-left-publication", id: "outbox_unpublished", harm: func(e *env, r *relay) {
			r.Kill()
			sql(e, "ALTER PUBLICATION {slot} DROP TABLE public.outbox")
			e.insert(7)
		}, mend: initialise},
		{name: "table-replaced", id: "outbox_unpublished", harm: func(e *env, r *relay) {
			r.Kill()
			sql(e, "BEGIN; ALTER TABLE public.outbox RENAME TO outbox_before; CREATE TABLE public.outbox (LIKE public.outbox_before INCLUDING ALL); COMMIT")
			e.insert(7)
		}, mend: initialise},
		{name: "stream-sealed", id: "stream_sealed", harm: func(e *env, r *relay) {
			e.updateStream("EVENTS", func(c *jetstream.StreamConfig) { c.Sealed = true })
			e.insert(7)
			r.wait(60 * time.Second)
		}, mend: func(e *env, f finding) {
			f.says(e.t, is, "use another stream")
			e.writeConfig("streams: [{name: MORE, subjects: [\"more.>\"]}]\npublish: {subject: \"more.{type}\"}\n")
			e.init()
			e.run()
		}, streams: []string{"EVENTS", "MORE"}},
		{name: "synchronous-standby-names", id: "synchronous_standby_names", kind: own, harm: func(e *env, r *relay) {
			r.Kill()
			e.insert(7)
			testkit.AlterSystem(e.t, e.postgresURL, "SET synchronous_standby_names = '*'")
		}, mend: func(e *env, f finding) {
			f.says(e.t, strings.HasPrefix, "list the real standbys there by name")
			testkit.AlterSystem(e.t, e.postgresURL, "RESET synchronous_standby_names") // it has none
			e.run()
		}},
		{name: "another-database", id: "stream_other_writer", kind: own, harm: func(e *env, r *relay) {
			r.Kill()
			e.insert(7)
			e.postgresURL = testkit.Database(e.t, testkit.Shared(e.t))
		}, mend: func(e *env, f finding) {
			f.says(e.t, strings.HasPrefix, "correct postgres.url")
			e.run()
		}},
		{name: "stream-deleted", id: "stream_missing", harm: func(e *env, r *relay) {
			r.Kill()
			if err := e.jetstream().DeleteStream(e.t.Context(), "EVENTS"); err != nil {
				e.t.Fatal(err)
			}
			e.insert(7)
		}, mend: func(e *env, f finding) {
			f.says(e.t, is, `run "walrelay init"`)
			e.init()
			e.follow(e.diagnosed("stream_lost_events").Fix)
		}},
		{name: "stream-recreated", id: "stream_lost_events", harm: func(e *env, r *relay) {
			r.Kill()
			e.recreateStream()
			e.insert(7)
		}, mend: page},
		{name: "system_changed", id: "system_changed", harm: func(e *env, r *relay) {
			r.Kill()
			sql(e, "UPDATE walrelay.progress SET system_identifier = '1'")
			e.insert(7)
		}, mend: page, purges: true},
		{name: "database_went_back", id: "database_went_back", harm: func(e *env, r *relay) {
			r.Kill()
			sql(e, "UPDATE walrelay.progress SET flush_lsn = '7FFFFFFF/0'")
			e.insert(7)
		}, mend: page, purges: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, tt.kind)
			right := e.postgresURL
			e.init()
			r := e.run()
			e.insert(20)
			e.awaitMessages("EVENTS", 20)
			e.awaitCaughtUp()
			before := outboxIDs(t, e.postgresURL)
			tt.harm(e, r)
			r = e.start()
			if code := r.wait(60 * time.Second); code != 1 {
				t.Errorf("the relay ends with %d, want 1", code)
			}
			f := e.diagnosed(tt.id)
			e.postgresURL = right
			tt.mend(e, f)
			e.insert(5)
			ids := outboxIDs(t, right)
			if tt.purges {
				for id := range before {
					delete(ids, id)
				}
			}
			if len(ids) != 12 && len(ids) != 32 {
				t.Errorf("there are %d rows; this test shows nothing", len(ids))
			}
			if tt.streams == nil {
				tt.streams = []string{"EVENTS"}
			}
			e.awaitEachOnce(ids, tt.streams...)
			e.awaitHealthy(tt.id)
		})
	}
}

// quoted are the commands that a remedy names.
var quoted = regexp.MustCompile(`"walrelay ([^"]+)"`)

// do runs the commands that a remedy names, in order; those that ask are answered.
func (e *env) do(f finding, only ...int) {
	e.t.Helper()
	commands := quoted.FindAllStringSubmatch(f.Fix, -1)
	for n, command := range commands {
		args := strings.Fields(command[1])
		if len(only) > 0 && !slices.Contains(only, n) {
			continue
		}
		if args[0] == "run" {
			e.run()
			continue
		}
		if args[0] == "delayed" && args[1] != "list" && args[1] != "adopt" {
			args = append(args, "--yes")
		}
		if out, code := e.walrelay(args...); code != 0 {
			e.t.Fatalf("walrelay %s ends with %d: %s", command[1], code, out)
		}
	}
	if len(commands) == 0 {
		e.t.Fatalf("no command is named: %q", f.Fix)
	}
}

// What does not end a relay, but is not as it should be.
func TestDoctor_RemediesOfWhatGoesWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind kind
		do   func(*testing.T, *env)
	}{
		"delayed_failed": {do: func(t *testing.T, e *env) {
			e.writeConfig("streams: [{name: EVENTS, subjects: [\"events.order.>\"]}]\n")
			e.init()
			e.run()
			testkit.Exec(t, e.postgresURL, "INSERT INTO public.outbox (event_type, source, max_retries) VALUES ('user.created', '/e2e', 0)")
			f := e.diagnosed("delayed_failed")
			f.says(t, strings.Contains, "mend the cause")
			e.updateStream("EVENTS", func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "events.user.>") })
			e.do(f)
			e.awaitMessages("EVENTS", 1)
			e.awaitHealthy(f.ID)
		}},
		"delayed_overdue and relay_missing": {do: func(t *testing.T, e *env) {
			e.init()
			r := e.run()
			e.schedule(1, "1 hour")
			e.awaitDelayed(map[string]int{"scheduled": 1})
			r.Kill()
			testkit.Exec(t, e.postgresURL, "UPDATE walrelay.delayed SET due_at = now() - interval '2 min'")
			f := e.diagnosed("delayed_overdue")
			e.do(f)
			e.do(e.diagnosed("relay_missing"))
			e.awaitMessages("EVENTS", 1)
			e.awaitHealthy(f.ID)
			e.awaitHealthy("relay_missing")
		}},
		"delayed_orphans: adopted": {do: func(_ *testing.T, e *env) {
			e.orphan()
			f := e.diagnosed("delayed_orphans")
			e.do(f, 0)
			e.awaitHealthy(f.ID)
			e.awaitDelayed(map[string]int{"scheduled": 3, "failed": 1})
		}},
		"delayed_orphans: given up": {do: func(_ *testing.T, e *env) {
			e.orphan()
			f := e.diagnosed("delayed_orphans")
			e.do(f, 1, 2)
			e.awaitHealthy(f.ID)
			e.awaitDelayed(map[string]int{})
		}},
		"stream_other_writers": {do: func(t *testing.T, e *env) {
			e.init()
			e.run()
			e.insert(3)
			e.awaitMessages("EVENTS", 3)
			e.awaitCaughtUp()
			if _, err := e.jetstream().Publish(t.Context(), "events.foreign", nil); err != nil {
				t.Fatal(err)
			}
			f := e.diagnosed("stream_other_writers")
			f.says(t, strings.HasSuffix, "or declare the stream shared")
			e.writeConfig("streams: [{name: EVENTS, subjects: [\"events.>\"], shared: true}]\n")
			e.awaitHealthy(f.ID)
		}},
		"handed_over": {do: func(t *testing.T, e *env) {
			e.init()
			r := e.run()
			e.insert(3)
			e.awaitMessages("EVENTS", 3)
			closing := e.launch("handover", "close")
			closing.awaitLog("stop the relay now")
			r.stop()
			if code := closing.wait(time.Minute); code != 0 {
				t.Fatalf("handover close ends with %d", code)
			}
			f := e.diagnosed("handed_over")
			e.do(f)
			e.run()
			e.insert(1)
			e.awaitMessages("EVENTS", 4)
			e.awaitHealthy(f.ID)
		}},
		"slot_wal_half": {kind: own, do: func(t *testing.T, e *env) {
			testkit.AlterSystem(t, e.postgresURL, "SET max_slot_wal_keep_size = '64MB'")
			e.init()
			for range 45 {
				testkit.Exec(t, e.postgresURL, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 1000000))")
			}
			f := e.diagnosed("slot_wal_half")
			f.says(t, strings.HasPrefix, "let the relay catch up")
			e.do(f)
			e.run()
			e.insert(1)
			e.awaitCaughtUp()
			testkit.Exec(t, e.postgresURL, "CHECKPOINT") // the slot lets go of WAL at the next one, or within 15 s
			e.insert(1)
			e.awaitHealthy(f.ID)
		}},
		"permission-revoked": {do: func(t *testing.T, e *env) {
			permit := func(deny ...string) {
				t.Helper()
				e.server.Configure(func(o *server.Options) {
					o.Users = []*server.User{
						{Username: "admin", Password: "secret"},
						{Username: "relay", Password: "secret", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: deny}}},
					}
					o.NoAuthUser = "admin"
				})
				e.server.Stop()
				e.restartNATS()
			}
			permit()
			e.environ = []string{"WALRELAY_NATS_USER=relay", "WALRELAY_NATS_PASSWORD=secret"}
			e.init()
			r := e.run()
			e.insert(1)
			e.awaitMessages("EVENTS", 1)
			permit("events.>")
			e.insert(1)
			r.awaitLog("stream paused")
			f := e.diagnosed("nats_permission")
			f.says(t, is, "give the NATS user this permission")
			permit()
			e.awaitMessages("EVENTS", 2)
			e.awaitHealthy(f.ID)
		}},
		"stream-restored": {do: func(t *testing.T, e *env) {
			e.init()
			r := e.run()
			e.insert(10)
			e.awaitMessages("EVENTS", 10)
			restore := e.backup()
			e.insert(10)
			e.awaitMessages("EVENTS", 20)
			e.awaitCaughtUp()
			r.Kill()
			restore()
			f := e.diagnosed("stream_lost_events")
			e.follow(f.Fix)
			e.awaitEachOnce(outboxIDs(t, e.postgresURL), "EVENTS")
			e.awaitHealthy(f.ID)
		}},
		"database-restored": {kind: own, do: func(t *testing.T, e *env) {
			e.init()
			r := e.run()
			e.insert(10)
			e.schedule(1, "1 hour")
			e.awaitMessages("EVENTS", 10)
			e.awaitDelayed(map[string]int{"scheduled": 1})
			e.awaitCaughtUp()
			r.stop()
			e.insert(3) // in the backup, and not published
			e.stopPostgres(localpg.Fast)
			restored := testkit.Copy(t, e.cluster)
			e.startPostgres()
			r = e.run()
			e.insert(500)
			e.awaitMessages("EVENTS", 513)
			e.awaitCaughtUp()
			r.Kill()
			e.postgresURL = restored.URL(testkit.Query(t, e.postgresURL, "SELECT current_database()"))
			before := outboxIDs(t, e.postgresURL)
			r = e.start()
			if code := r.wait(60 * time.Second); code != 1 {
				t.Errorf("the relay ends with %d, want 1", code)
			}
			f := e.diagnosed("database_behind_stream")
			e.follow(f.Fix)
			e.insert(5)
			e.awaitMessages("EVENTS", 5)
			e.awaitHealthy(f.ID)
			e.awaitDelayed(map[string]int{"scheduled": 1})
			ids := outboxIDs(t, e.postgresURL)
			for id := range before { // three of these are published again, or refused as duplicates
				delete(ids, id)
			}
			e.awaitEachOnce(ids, "EVENTS")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.do(t, newEnv(t, tt.kind))
		})
	}
}

// pooler starts PgBouncer before the cluster of the test, and returns the URL of the database there.
func (e *env) pooler(settings string) string {
	e.t.Helper()
	if os.Getenv("WALRELAY_TEST_PGBOUNCER") == "" {
		e.t.Skip("WALRELAY_TEST_PGBOUNCER is not set")
	}
	dir, err := os.MkdirTemp("", "walrelay-pooler-") // another user must get there
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port, err := localpg.FreePort(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	path := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = session
%s
`, e.cluster.Port(), port, settings)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		e.t.Fatal(err)
	}
	args := []string{path}
	if os.Geteuid() == 0 { // it refuses root
		args = []string{"-u", "nobody", path}
	}
	log := &child.Log{}
	process, err := child.Start("pgbouncer", exec.Command("pgbouncer", args...), child.Options{Log: log})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		process.Kill()
		if e.t.Failed() {
			e.t.Logf("PgBouncer said:\n%s", log.Tail(20))
		}
	})
	return strings.Replace(e.postgresURL, fmt.Sprint(e.cluster.Port()), fmt.Sprint(port), 1)
}

// What a relay needs of its connections, PgBouncer before 1.23 does not pass, however it is configured; doctor
// names it, also where the relay's other connections work.
func TestDoctor_BehindAPooler(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{
		"as it comes": "",
		"as lenient as it can be": "ignore_startup_parameters = bytea_output, default_transaction_deferrable, default_transaction_isolation, default_transaction_read_only, " +
			"extra_float_digits, idle_in_transaction_session_timeout, idle_session_timeout, intervalstyle, lock_timeout, row_security, search_path, statement_timeout, transaction_timeout",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, shared)
			direct := e.postgresURL
			pooled := e.pooler(settings)
			e.init()
			e.postgresURL = pooled
			if code := e.start().wait(20 * time.Second); code != 1 {
				t.Errorf("the relay ends with %d, want 1", code)
			}
			f := e.diagnosed("replication_connection")
			f.says(t, strings.HasPrefix, "connect to the server itself")
			e.postgresURL = direct
			e.run()
			e.insert(1)
			e.awaitMessages("EVENTS", 1)
			e.awaitHealthy(f.ID)
		})
	}
}

// orphan leaves three scheduled events and one that has failed, of a slot that is gone.
func (e *env) orphan() {
	e.t.Helper()
	e.init()
	r := e.run()
	e.schedule(3, "1 hour")
	testkit.Exec(e.t, e.postgresURL, "INSERT INTO public.outbox (event_type, source, max_retries) VALUES ('bad', '/e2e', -1)")
	e.awaitDelayed(map[string]int{"scheduled": 3, "failed": 1})
	r.stop()
	testkit.Exec(e.t, e.postgresURL, "SELECT pg_drop_replication_slot('"+e.slot+"')")
	e.slot += "_new"
	e.init()
}
