package retry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/sql"
)

// progress is a frontier and what is saved of it.
type progress struct {
	mu       sync.Mutex
	settled  pglogrepl.LSN
	saved    pglogrepl.LSN
	changed  chan struct{}
	requests wait.Signal
}

func newProgress() *progress {
	return &progress{changed: make(chan struct{}), requests: wait.NewSignal()}
}

// reach says that everything below lsn is settled, and saved when that is so.
func (p *progress) reach(settled, saved pglogrepl.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled, p.saved = settled, saved
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *progress) LSN() pglogrepl.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settled
}

func (p *progress) Moved() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *progress) Saved() (pglogrepl.LSN, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saved, p.changed
}

func (p *progress) RequestSave() { p.requests.Send() }

// silent observes nothing.
type silent struct{}

func (silent) Emitted([]time.Duration)                     {}
func (silent) Counted(map[retry.State]int64, int, float64) {}
func (silent) Blocked(bool, time.Duration, []retry.Blocker) {
}
func (silent) Unblocked(bool) {}

// rig is a delay table, and a connection to look at it.
type rig struct {
	*progress
	t     *testing.T
	url   string
	conn  *pgx.Conn
	table *retry.Table
}

func newRig(t *testing.T, url string) *rig {
	t.Helper()
	r := &rig{progress: newProgress(), t: t, url: url, conn: dial(t, url)}
	migrations, err := sql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range migrations {
		r.exec(m.SQL)
	}
	r.exec("INSERT INTO walrelay.progress (slot, session, system_identifier, timeline, flush_lsn) VALUES ('s', 1, '1', 1, '0/0')")
	r.table = r.open(1)
	return r
}

func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := connect.Postgres(t.Context(), config.Postgres{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connect.ClosePostgres(conn) })
	return conn
}

// open opens the table for a session.
func (r *rig) open(session int64) *retry.Table {
	r.t.Helper()
	table, _, err := retry.Open(r.t.Context(), r.conn, retry.Config{
		Connect:  func(ctx context.Context) (*pgx.Conn, error) { return connect.Durable(ctx, config.Postgres{URL: r.url}) },
		Slot:     "s",
		Session:  session,
		Frontier: r, Checkpoint: r, Observe: silent{}, FailedBlocks: true,
	}, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := table.Close(context.Background()); err != nil {
			r.t.Error(err)
		}
	})
	return table
}

// run runs the table until the test ends.
func (r *rig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.table.Run(ctx) }()
	r.table.Keys().ReplayedThrough(1)
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

func (r *rig) exec(statement string) {
	r.t.Helper()
	if _, err := r.conn.Exec(r.t.Context(), statement); err != nil {
		r.t.Fatalf("%s: %v", statement, err)
	}
}

func (r *rig) text(query string) (text string) {
	r.t.Helper()
	if err := r.conn.QueryRow(r.t.Context(), query).Scan(&text); err != nil {
		r.t.Fatalf("%s: %v", query, err)
	}
	return text
}

// until polls until the query returns want.
func (r *rig) until(query, want string) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for got := r.text(query); got != want; got = r.text(query) {
		if err := r.table.Count(r.t.Context(), r.conn); err != nil { // as the clean-up does between its rounds
			r.t.Fatal(err)
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: got %s, want %s", query, got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// at is an event that stands at lsn.
func at(lsn uint64, id string) *event.Event {
	return &event.Event{
		Position: event.Position{CommitLSN: lsn}, ID: id, Type: "a.b", Source: "/s", Schema: "public", Table: "outbox",
		MaxRetries: -1, ScheduledAt: time.Now().Add(-time.Second), Data: []byte(`{"n":1}`), DataContentType: "application/json",
	}
}

// incompressible returns a text that TOAST cannot make short.
func incompressible(n int) string {
	random := rand.NewChaCha8([32]byte{})
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%x", random.Uint64())
	}
	return b.String()[:n]
}

func TestTable_TakesAnyEvent(t *testing.T) {
	cluster := testkit.Postgres(t)
	admin := dial(t, cluster.URL("postgres"))
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"); err != nil {
		t.Fatal(err)
	}
	for _, database := range []string{"postgres", "latin"} {
		t.Run(database, func(t *testing.T) {
			r := newRig(t, cluster.URL(database))
			far := at(30, "far")
			far.ScheduledAt = time.Date(400_000, 1, 1, 0, 0, 0, 0, time.UTC)
			foreign := at(40, "世界")
			foreign.PartitionKey = "世界"
			entries := []retry.Entry{
				retry.NewEntry(at(10, "first"), retry.Scheduled),
				retry.NewEntry(at(20, incompressible(6400)), retry.Scheduled),
				retry.NewEntry(far, retry.Scheduled),
				retry.NewEntry(foreign, retry.Scheduled),
				retry.NewFailure(at(50, "retried"), retry.Policy{MaxRetries: 3}, errors.New("no stream takes \u4e16 \x00 \xff "+strings.Repeat("é", 3000))),
				retry.NewEntry(at(60, "last"), retry.Scheduled),
			}
			if err := r.table.Add(t.Context(), entries); err != nil {
				t.Fatal(err)
			}
			latinFails := retry.Scheduled
			if database == "latin" {
				latinFails = retry.Failed
			}
			for i, want := range []retry.State{retry.Scheduled, retry.Scheduled, retry.Failed, latinFails, retry.Retrying, retry.Scheduled} {
				if entries[i].State != want {
					t.Errorf("entry %d is %s, want %s", i, entries[i].State, want)
				}
				row := fmt.Sprintf("SELECT state FROM walrelay.delayed WHERE position = '%s'", event.Position{CommitLSN: uint64(i+1) * 10})
				if got := r.text(row); got != string(want) {
					t.Errorf("row %d is %s, want %s", i, got, want)
				}
			}
			if got := r.text("SELECT convert_from(content, 'UTF8')::jsonb ->> 'id' FROM walrelay.delayed WHERE position = '" + far.Position.String() + "'"); got != "far" {
				t.Errorf("the content of a refused event has id %s", got)
			}
			if got := r.text("SELECT last_error FROM walrelay.delayed WHERE position = '" + far.Position.String() + "'"); !strings.Contains(got, "refuses the event as it is") {
				t.Errorf("a refused event says %q", got)
			}
			// Whatever form it has, its key is known by the whole key.
			if got := r.text("SELECT key_hash::text FROM walrelay.delayed WHERE position = '" + foreign.Position.String() + "'"); got != fmt.Sprint(retry.KeyHash("世界")) {
				t.Errorf("the key's hash is %s", got)
			}
		})
	}
}

func TestTable_EmitsWhatTheCheckpointHasPassed(t *testing.T) {
	r := newRig(t, testkit.Postgres(t).URL("postgres"))
	if err := r.table.Add(t.Context(), []retry.Entry{
		retry.NewEntry(at(100, "early"), retry.Scheduled), retry.NewEntry(at(200, "late"), retry.Scheduled),
	}); err != nil {
		t.Fatal(err)
	}
	const emitted = "SELECT coalesce(string_agg(id, ',' ORDER BY origin), '') FROM walrelay.emitted WHERE kind = 'event'"
	r.reach(1000, 150) // 200 is settled, and not saved
	r.run()
	r.until(emitted, "early")
	// Both looks are over when the table asks for a save.
	select {
	case <-r.requests:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody asks for a save although a due event waits for it")
	}
	if got := r.text(emitted); got != "early" {
		t.Errorf("emitted %s before the checkpoint has passed the second", got)
	}
	r.reach(1000, 300)
	r.until(emitted, "early,late")
	r.until("SELECT count(*)::text FROM walrelay.delayed", "0")
}

func TestTable_SupersededSessionWritesNothing(t *testing.T) {
	r := newRig(t, testkit.Postgres(t).URL("postgres"))
	r.exec("UPDATE walrelay.progress SET session = 2")
	if err := r.table.Add(t.Context(), []retry.Entry{retry.NewEntry(at(100, "x"), retry.Scheduled)}); !errors.Is(err, retry.ErrSuperseded) {
		t.Errorf("Add: %v", err)
	}
	if got := r.text("SELECT count(*)::text FROM walrelay.delayed"); got != "0" {
		t.Errorf("a superseded session has written %s rows", got)
	}
	next := r.open(2)
	if err := next.Add(t.Context(), []retry.Entry{retry.NewEntry(at(100, "x"), retry.Scheduled)}); err != nil {
		t.Error(err)
	}
	r.reach(1000, 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r.table.Keys().ReplayedThrough(1)
	if err := r.table.Run(ctx); !errors.Is(err, retry.ErrSuperseded) {
		t.Errorf("Run: %v", err)
	}
	if got := r.text("SELECT count(*)::text FROM walrelay.delayed"); got != "1" {
		t.Error("a superseded session has emitted an event")
	}
}

func TestTable_KeepsEmittedUntilEarlierSessionsAreSettled(t *testing.T) {
	r := newRig(t, testkit.Postgres(t).URL("postgres"))
	r.exec("INSERT INTO walrelay.emitted (slot, kind, id, content) VALUES ('s', 'event', 'of an earlier session', '{}')")
	if err := r.table.Add(t.Context(), []retry.Entry{retry.NewEntry(at(100, "x"), retry.Scheduled)}); err != nil {
		t.Fatal(err)
	}
	r.reach(1000, 1000) // below everything in the WAL
	r.run()
	const emitted = "SELECT string_agg(id, ',' ORDER BY id) FROM walrelay.emitted WHERE kind = 'event'"
	r.until(emitted, "of an earlier session,x")
	var end pglogrepl.LSN
	if err := end.Scan(r.text("SELECT pg_current_wal_insert_lsn()::text")); err != nil {
		t.Fatal(err)
	}
	r.reach(end, end)
	r.until("SELECT count(*)::text FROM walrelay.emitted", "0")
}
