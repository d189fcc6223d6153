package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var system = checkpoint.System{ID: "42", Timeline: 1} //nolint:gochecknoglobals // a constant

func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := connect.Postgres(t.Context(), config.Postgres{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connect.ClosePostgres(conn) })
	return conn
}

// database starts one with the schema walrelay, and returns its URL.
func database(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	url := testkit.Postgres(t).URL("postgres")
	conn := dial(t, url)
	migrations, err := sql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range migrations {
		exec(t, conn, m.SQL)
	}
	return url, conn
}

func exec(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func begin(t *testing.T, conn *pgx.Conn) *checkpoint.Checkpoint {
	t.Helper()
	c, _, err := checkpoint.Begin(t.Context(), conn, "s", system)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// save saves lsn with a page of one event.
func save(t *testing.T, c *checkpoint.Checkpoint, conn checkpoint.Execer, lsn pglogrepl.LSN) error {
	t.Helper()
	state := c.State()
	state.FlushLSN = lsn
	state.Streams = map[string]router.StreamState{"EVENTS": {LastSequence: uint64(lsn), Position: "p"}}
	buffer := journal.NewBuffer("EVENTS", func() {})
	buffer.Add(&event.Event{Position: event.Position{CommitLSN: uint64(lsn)}, Schema: "public", Table: "outbox", ID: "x"})
	return c.Save(t.Context(), conn, state, buffer.Pages())
}

func TestCheckpoint_NextSessionGoesOnWhereTheLastSaved(t *testing.T) {
	_, conn := database(t)
	first := begin(t, conn)
	if n := first.State().Session; n != 1 {
		t.Errorf("the first session is %d", n)
	}
	if err := save(t, first, conn, 0x100); err != nil {
		t.Fatal(err)
	}
	if err := first.SaveKey(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	second := begin(t, conn)
	state := second.State()
	if state.Session != 2 || state.FlushLSN != 0x100 || state.Streams["EVENTS"].LastSequence != 0x100 {
		t.Errorf("the second session begins with %+v", state)
	}
	if state.Fresh || !bytes.Equal(state.Key, first.State().Key) {
		t.Error("the second session has another key")
	}
	// The first does not know yet that it is superseded.
	if err := save(t, first, conn, 0x200); !errors.Is(err, retry.ErrSuperseded) {
		t.Errorf("a superseded session saves: %v", err)
	}
	if loaded, err := checkpoint.Load(t.Context(), conn, "s"); err != nil || loaded.FlushLSN != 0x100 {
		t.Errorf("saved is %+v, %v", loaded, err)
	}
	var pages int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM walrelay.journal").Scan(&pages); err != nil || pages != 1 {
		t.Errorf("the journal has %d pages, %v", pages, err)
	}
}

func TestCheckpoint_SavedIsToldOnceItIsCommitted(t *testing.T) {
	_, conn := database(t)
	c := begin(t, conn)
	_, changed := c.Saved()
	if err := save(t, c, conn, 0x100); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told of the save")
	}
	lsn, changed := c.Saved()
	if lsn != 0x100 {
		t.Errorf("saved is %s", lsn)
	}
	exec(t, conn, "UPDATE walrelay.progress SET session = session + 1")
	if err := save(t, c, conn, 0x200); !errors.Is(err, retry.ErrSuperseded) {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("a save that failed is told as one")
	default:
	}
}

func TestCheckpoint_BeginWaitsForWhatAnEarlierSessionWrites(t *testing.T) {
	url, conn := database(t)
	first := begin(t, conn)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := save(t, first, tx, 0x100); err != nil {
		t.Fatal(err)
	}
	other, watch := dial(t, url), dial(t, url)
	begun := make(chan *checkpoint.Checkpoint, 1)
	go func() {
		defer close(begun)
		if c, _, err := checkpoint.Begin(context.Background(), other, "s", system); err == nil {
			begun <- c
		}
	}()
	deadline := time.Now().Add(20 * time.Second)
	for waiting := 0; waiting == 0; {
		if err := watch.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("a session begins while an earlier one is writing")
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := <-begun; c == nil || c.State().FlushLSN != 0x100 || c.State().Session != 2 {
		t.Error("the next session does not begin with what the earlier one wrote")
	}
}

func TestCheckpoint_LocksOfTheDelayTableStopNoSave(t *testing.T) {
	url, conn := database(t)
	c := begin(t, conn)
	exec(t, conn, `INSERT INTO walrelay.delayed (slot, position, origin, state, id, event_type, source, table_schema, table_name, content)
		VALUES ('s', 'p', 'p', 'held', 'x', 't', '/s', 'public', 'outbox', '')`)
	tx, err := dial(t, url).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "LOCK TABLE walrelay.delayed, walrelay.keys, walrelay.emitted IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "SET lock_timeout = '5s'")
	if err := save(t, c, conn, 0x100); err != nil {
		t.Error(err)
	}
}

func TestCheckpoint_OfAnotherClusterOrALaterTimeIsRefused(t *testing.T) {
	_, conn := database(t)
	c := begin(t, conn)
	for want, change := range map[string]func() error{
		"system_changed": func() error { return nil },
		"database_went_back": func() error {
			return save(t, c, conn, 0xFFFF_0000_0000)
		},
	} {
		other := system
		if want == "system_changed" {
			other.ID = "43"
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		_, _, err := checkpoint.Begin(t.Context(), conn, "s", other)
		if found, ok := problem.Find(err); !ok || found.ID != want {
			t.Errorf("want problem %s, got %v", want, err)
		}
		state, err := checkpoint.Load(t.Context(), conn, "s")
		if err != nil || state.Session != 1 {
			t.Errorf("a refused session changes what is saved: %+v, %v", state, err)
		}
		exec(t, conn, "UPDATE walrelay.progress SET flush_lsn = '0/100'")
	}
}
