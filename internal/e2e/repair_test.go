package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/testkit"
)

// recreateStream deletes the stream and makes it again, as init does.
func (e *env) recreateStream() {
	e.t.Helper()
	if err := e.jetstream().DeleteStream(e.t.Context(), "EVENTS"); err != nil {
		e.t.Fatal(err)
	}
	e.init()
}

// backup stops nats-server, copies its streams, and starts it again. restore
// puts the copy in their place.
func (e *env) backup() (restore func()) {
	e.t.Helper()
	dir := e.t.TempDir()
	copyStore := func(from, to string) {
		e.server.Stop()
		if err := os.RemoveAll(to); err != nil {
			e.t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			e.t.Fatal(err)
		}
		e.restartNATS()
		e.awaitMessages("EVENTS", 0)
	}
	copyStore(e.server.Dir(), filepath.Join(dir, "copy"))
	return func() { copyStore(filepath.Join(dir, "copy"), e.server.Dir()) }
}

// repair runs "walrelay repair", which must end with the code.
func (e *env) repair(code int, args ...string) string {
	e.t.Helper()
	out, got := e.walrelay(append([]string{"repair"}, args...)...)
	if got != code {
		e.t.Fatalf("walrelay repair %s ended with %d, want %d:\n%s", strings.Join(args, " "), got, code, out)
	}
	return out
}

// checkSame checks that messages are the same as before: but not the sequence
// that each was expected to follow.
func checkSame(t *testing.T, before, after []stored) {
	t.Helper()
	if len(before) == 0 {
		t.Fatal("there was no message; this test shows nothing")
	}
	byID := make(map[string]*stored, len(after))
	for i := range after {
		byID[after[i].id] = &after[i]
	}
	different := 0
	for _, b := range before {
		a := byID[b.id]
		if a == nil {
			continue // others tell
		}
		wantHeader, gotHeader := maps.Clone(b.header), maps.Clone(a.header)
		for _, h := range []map[string][]string{wantHeader, gotHeader} {
			delete(h, "Nats-Expected-Last-Sequence")
		}
		if a.subject != b.subject || !bytes.Equal(a.data, b.data) || !maps.EqualFunc(gotHeader, wantHeader, slices.Equal) {
			if different++; different < 4 {
				t.Logf("event %s was\n%s %v %s\nand is\n%s %v %s", b.id, b.subject, wantHeader, b.data, a.subject, gotHeader, a.data)
			}
		}
	}
	if different > 0 {
		t.Errorf("%d of %d messages are not as they were", different, len(before))
	}
}

func TestRepair_DeletedUnderLoad(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	w := startWriters(t, e.postgresURL, 4, 10*time.Millisecond)
	r := e.run()
	for n := range 3 {
		// What a relay that is killed has not written down, the next one does.
		e.awaitMessages("EVENTS", 200*(n+1))
		r.Kill()
		r = e.run()
	}
	e.awaitMessages("EVENTS", 800)
	e.awaitCaughtUp()
	before := readStream(t, e.nats(), "EVENTS")
	e.recreateStream()
	r.awaitLog("deleted and created again")
	r.Kill()
	w.end()
	// It says what is missing, and publishes nothing before that is there.
	again := e.start()
	if code := again.wait(30 * time.Second); code != 1 {
		t.Errorf("the relay ended with %d, want 1", code)
	}
	for _, want := range []string{"deleted and created again", " events, published since", "walrelay repair --dry-run"} {
		if !strings.Contains(again.logs.String(), want) {
			t.Errorf("the relay does not say %q:\n%s", want, again.logs.Tail(3))
		}
	}
	if n := e.messages("EVENTS"); n != 0 {
		t.Fatalf("the relay published %d events that hide the gap", n)
	}
	out := e.repair(0)
	restored := e.messages("EVENTS")
	if !strings.Contains(out, fmt.Sprintf("%d events brought back, 0 lost", restored)) {
		t.Errorf("repair brought %d events back and says\n%s", restored, out)
	}
	if !strings.Contains(again.logs.String(), fmt.Sprintf("%d events, published since", restored)) {
		t.Errorf("%d events were missing, and the relay had said\n%s", restored, again.logs.Tail(1))
	}
	e.run()
	e.awaitLedger()
	checkSame(t, before, readStream(t, e.nats(), "EVENTS"))
	e.walrelayRefusesRepair()
}

// A relay that has nothing to publish notices, too, and before it has.
func TestP7_IdleRelayNoticesAnotherStream(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.insert(3)
	r := e.run()
	e.awaitMessages("EVENTS", 3)
	e.awaitCaughtUp()
	e.recreateStream()
	if code := r.wait(60 * time.Second); code != 1 || !strings.Contains(r.logs.Tail(1), "deleted and created again") || !strings.Contains(r.logs.Tail(1), "3 events, published since") {
		t.Errorf("the relay ends with %d and says\n%s", code, r.logs.Tail(3))
	}
}

// walrelayRefusesRepair checks that nothing is repaired while a relay runs.
func (e *env) walrelayRefusesRepair() {
	e.t.Helper()
	if out := e.repair(1); !strings.Contains(out, "a relay is running") || !strings.Contains(out, "pid "+e.walsender()) {
		e.t.Errorf("while a relay runs, repair says\n%s", out)
	}
}

func TestRepair_RestoredBackup(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("outbox: {tables: [public.outbox, public.events, public.audit], mappings: [{table: public.events, preset: debezium}]}\n")
	// Whatever the database's settings, an event's bytes are the same.
	for _, setting := range []string{"datestyle = 'SQL, DMY'", "timezone = 'Asia/Tokyo'", "bytea_output = 'escape'", "intervalstyle = 'iso_8601'"} {
		testkit.Exec(t, e.postgresURL, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "+strings.ReplaceAll(setting, "'", "''")+"', current_database()); END $$")
	}
	testkit.Exec(t, e.postgresURL, `
		CREATE TABLE public.events (id varchar(40) PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb, upper text GENERATED ALWAYS AS (upper(type)) STORED);
		CREATE TABLE public.audit (LIKE public.events);
		DROP TABLE public.audit;
		CREATE TABLE public.audit (event_type text, source text, id bigint PRIMARY KEY, data_bytes bytea, created_at timestamptz DEFAULT now(), extensions jsonb)`)
	e.init()
	r := e.run()
	write := func(n int) {
		for i := range 20 {
			execScript(t, e.postgresURL, fmt.Sprintf(`BEGIN;
				INSERT INTO public.audit (id, event_type, source, data_bytes, extensions) VALUES (%[1]d, 'audit.done', '/e2e', '\x00ff%02[2]x', '{"traceparent": "ä %% \" b"}');
				INSERT INTO public.events VALUES ('odd "id" \ %[1]d', 'order', '%[1]d', 'order.paid', '{"b": 1.50, "a": "ü"}');
				INSERT INTO public.outbox (event_type, source, subject, data, created_at) VALUES ('order.created', '/e2e', 's %[1]d', '{"n": %[1]d}', '2020-02-29 12:00:00.123456+02');
				INSERT INTO public.audit (id, event_type, source) VALUES (-%[1]d, 'audit.done', '/e2e');
				COMMIT`, n+i, i))
		}
		testkit.Exec(t, e.postgresURL, "INSERT INTO public.outbox (event_type, source, scheduled_at) VALUES ('later', '/e2e', now() + interval '100ms')")
		e.awaitCaughtUp()
	}
	write(1)
	e.awaitMessages("EVENTS", 81)
	restore := e.backup()
	write(101)
	write(201)
	e.awaitMessages("EVENTS", 243)
	e.awaitCaughtUp()
	before := readStream(t, e.nats(), "EVENTS")
	r.Kill()
	restore()
	if n := e.messages("EVENTS"); n != 81 {
		t.Fatalf("the backup has %d messages, want 81; this test shows nothing", n)
	}
	if out := e.repair(0, "--dry-run"); strings.Count(out, " yes\n") != 162 || strings.Contains(out, "no:") || e.messages("EVENTS") != 81 {
		t.Errorf("a dry run says\n%s\nand leaves %d messages, want 162 that can be brought back, and 81", out, e.messages("EVENTS"))
	}
	if out := e.repair(0); !strings.Contains(out, "162 events brought back, 0 lost") {
		t.Errorf("repair says\n%s", out)
	}
	if out := e.repair(0); !strings.Contains(out, "nothing is missing") {
		t.Errorf("a second repair says\n%s", out)
	}
	e.run()
	testkit.Exec(t, e.postgresURL, "INSERT INTO public.outbox (event_type, source) VALUES ('new', '/e2e')")
	e.awaitCaughtUp()
	after := readStream(t, e.nats(), "EVENTS")
	if len(after) != len(before)+1 || after[len(after)-1].subject != "events.new" {
		t.Fatalf("the stream has %d messages, want the %d of before and a new one", len(after), len(before))
	}
	for i := range before {
		if after[i].id != before[i].id || after[i].position != before[i].position {
			t.Fatalf("message %d has event %s (%s), and had %s (%s)", i+1, after[i].id, after[i].position, before[i].id, before[i].position)
		}
	}
	checkSame(t, before, after)
}

func TestRepair_Killed(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	r := e.run()
	const events = 40_000
	e.insert(events)
	e.awaitMessages("EVENTS", events)
	e.awaitCaughtUp()
	r.Kill()
	e.recreateStream()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	for i := range 3 {
		cmd := e.command("repair")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		e.awaitMessages("EVENTS", 1+i*6000)
		if i == 2 {
			// A relay that is started meanwhile waits; and goes on only when the
			// repair has come to its end.
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			r = e.start()
			r.awaitLog("waiting as a standby")
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if n := e.messages("EVENTS"); n == events {
			t.Fatal("the repair was killed too late; this test shows nothing")
		}
	}
	if r.wait(20*time.Second) != 1 || !strings.Contains(r.logs.String(), "is not finished") {
		t.Errorf("between two repairs the relay says\n%s", r.logs.Tail(3))
	}
	e.repair(0)
	e.run()
	e.awaitCaughtUp()
	checkOnce(t, e, events)
}

// A repair of a replicated stream goes on, or says that it did not, when the
// stream's leader is killed; what is left to do, the next one does.
func TestRepair_LeaderChanges(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it is about NATS, not about a version of Postgres")
	}
	e := newEnv(t, clustered)
	e.init()
	r := e.run()
	const events = 20_000
	e.insert(events)
	e.awaitMessages("EVENTS", events)
	e.awaitCaughtUp()
	before := readStream(t, e.nats(), "EVENTS")
	r.Kill()
	e.recreateStream()
	cmd := e.command("repair")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e.awaitMessages("EVENTS", 1)
	e.killStreamLeader("EVENTS")
	if err := cmd.Wait(); err != nil {
		e.repair(0)
	}
	e.insert(100)
	e.run()
	e.awaitCaughtUp()
	checkOnce(t, e, events+100)
	checkSame(t, before, readStream(t, e.nats(), "EVENTS"))
}

func TestRepair_SaysWhatIsLost(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	insert := func(id int, rest string) string {
		return fmt.Sprintf("INSERT INTO outbox (id, event_type, source, data) VALUES ('00000000-0000-0000-0000-%012d', 'order.created', '/e2e', '{}')%s;", id, rest)
	}
	execScript(t, e.postgresURL, insert(1, "")+insert(2, "")+
		"BEGIN;"+insert(3, "")+"DELETE FROM outbox WHERE id::text LIKE '%03';"+insert(4, "")+"COMMIT;"+
		"SELECT walrelay.emit_event('order.emitted', '/e2e', '{}', slot => '"+e.slot+"');"+
		insert(5, "")+insert(6, ""))
	e.awaitMessages("EVENTS", 7)
	e.awaitCaughtUp()
	emitted := readStream(t, e.nats(), "EVENTS")[4].id
	r.Kill()
	testkit.Exec(t, e.postgresURL, "DELETE FROM outbox WHERE id::text LIKE '%02'; UPDATE outbox SET max_retries = -1 WHERE id::text LIKE '%05'")
	e.recreateStream()
	progress := func() string {
		return testkit.Query(t, e.postgresURL, "SELECT md5(string_agg(p::text || j::text, '' ORDER BY j.id)) FROM walrelay.progress AS p, walrelay.journal AS j WHERE p.slot = $1 AND j.slot = $1", e.slot)
	}
	was := progress()
	out := e.repair(1, "--dry-run")
	for _, want := range []string{
		"00000002                        public.outbox  no: its row is gone",
		"00000003                        public.outbox  no: its row is gone",
		emitted, "walrelay.emit_event", "no: it was emitted without a row",
		"no: column max_retries", "4 events cannot be brought back",
		"3 events can be brought back, 4 cannot; nothing was changed",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("a dry run does not say %q:\n%s", want, out)
		}
	}
	if n := e.messages("EVENTS"); n != 0 || progress() != was {
		t.Errorf("a dry run left %d messages and changed progress or journal", n)
	}
	if out := e.repair(1); strings.Count(out, "no: ") != 4 || e.messages("EVENTS") != 0 {
		t.Errorf("without being told to accept the loss, repair left %d messages and said\n%s", e.messages("EVENTS"), out)
	}
	// One of them is put back.
	testkit.Exec(t, e.postgresURL, insert(2, "")+"UPDATE outbox SET max_retries = NULL")
	out = e.repair(0, "--accept-loss", "--json")
	var lost []string
	restored := 0
	for line := range strings.Lines(out) {
		var said struct {
			Event struct {
				ID   string `json:"id"`
				Lost string `json:"lost"`
			} `json:"event"`
			Repair struct {
				Restored int  `json:"restored"`
				Done     bool `json:"done"`
			} `json:"repair"`
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if said.Event.ID != "" {
			lost = append(lost, said.Event.ID)
		}
		restored += said.Repair.Restored
	}
	if want := []string{"00000000-0000-0000-0000-000000000003", emitted}; !slices.Equal(lost, want) || restored != 5 {
		t.Errorf("repair brought %d back and lost %v; want 5, and to lose %v:\n%s", restored, lost, want, out)
	}
	e.run()
	testkit.Exec(t, e.postgresURL, insert(7, ""))
	e.awaitCaughtUp()
	var got []string
	for _, m := range readStream(t, e.nats(), "EVENTS") {
		got = append(got, m.id[len(m.id)-1:])
	}
	if want := []string{"1", "2", "4", "5", "6", "7"}; !slices.Equal(got, want) {
		t.Errorf("the stream has %v, want %v", got, want)
	}
}

// The last message that the stream still had cannot be read any more: only the
// sequences say how many are missing.
func TestRepair_LastMessageConsumed(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	e.insert(50)
	e.awaitCaughtUp()
	restore := e.backup()
	e.insert(20)
	e.awaitMessages("EVENTS", 70)
	e.awaitCaughtUp()
	before := readStream(t, e.nats(), "EVENTS")
	r.Kill()
	restore()
	stream, err := e.jetstream().Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := e.repair(0); !strings.Contains(out, "20 events brought back, 0 lost") {
		t.Errorf("repair says\n%s", out)
	}
	e.run()
	e.insert(5)
	e.awaitCaughtUp()
	after := readStream(t, e.nats(), "EVENTS")
	if len(after) != 25 {
		t.Fatalf("the stream has %d messages, want the 20 that it lost and 5 new ones", len(after))
	}
	for i := range 20 {
		if after[i].id != before[50+i].id {
			t.Fatalf("message %d is event %s, want %s", i+1, after[i].id, before[50+i].id)
		}
	}
}

// A transaction that was a batch comes back one by one, and says so.
func TestRepair_SplitsBatches(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("publish: {atomic: true}\n")
	e.init()
	r := e.run()
	e.insert(3)
	e.insert(1)
	e.awaitMessages("EVENTS", 4)
	e.awaitCaughtUp()
	r.Kill()
	e.recreateStream()
	e.repair(0)
	e.run()
	e.insert(2)
	e.awaitMessages("EVENTS", 6)
	var got []string
	for _, m := range readStream(t, e.nats(), "EVENTS") {
		got = append(got, m.header.Get("Walrelay-Split")+"/"+m.header.Get("Nats-Batch-Sequence"))
	}
	if want := []string{"repair/", "repair/", "repair/", "/", "/1", "/2"}; !slices.Equal(got, want) {
		t.Errorf("the messages have the split and batch headers %q, want %q", got, want)
	}
	checkOnce(t, e, 6)
}

// A dry run changes nothing, so it need not wait until the relay has stopped; and
// whatever others have put at the end of the stream, repair finds what it has.
func TestRepair_BehindMessagesOfOthers(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	e.insert(5)
	e.awaitMessages("EVENTS", 5)
	e.awaitCaughtUp()
	if out := e.repair(0, "--dry-run"); !strings.Contains(out, "nothing is missing") {
		t.Errorf("beside a relay that has lost nothing, a dry run says %s", out)
	}
	r.Kill()
	e.recreateStream()
	js := e.jetstream()
	for n := range 1500 {
		if _, err := js.PublishAsync("events.foreign", []byte{byte(n)}); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	if out := e.repair(0); !strings.Contains(out, "5 events brought back, 0 lost") {
		t.Errorf("repair says %s", out)
	}
	e.run().awaitReady()
	e.insert(1)
	e.awaitMessages("EVENTS", 1506)
}
