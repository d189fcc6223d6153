package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/localnats"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/sql"
)

// servers is what tests of Setup and Check run against: a cluster and a
// nats-server, and for each system a database, a slot and a stream of its own.
type servers struct {
	cluster *localpg.Cluster
	nats    *localnats.Server
	nodes   *localnats.Cluster // in place of nats, where there are several
	natsURL string
	js      jetstream.JetStream
	systems atomic.Int64
}

func newServers(t *testing.T) *servers {
	t.Helper()
	b := &servers{cluster: testkit.Postgres(t), nats: testkit.NATS(t)}
	b.natsURL = b.nats.URL()
	_, b.js = testkit.JetStream(t, b.natsURL)
	return b
}

// checked is what is wrong.
func checked(ctx context.Context, cfg config.Config) error {
	results, _, err := check.Run(ctx, cfg)
	return errors.Join(results.Err(), err)
}

// system is a configuration for a database and a stream in which nothing
// exists, and a superuser's connection to the database.
type system struct {
	*servers
	cfg     config.Config
	url     string // of the database, at first
	conn    *pgx.Conn
	standby *localpg.Cluster
}

func (b *servers) system(t *testing.T) *system {
	t.Helper()
	n := b.systems.Add(1)
	s := &system{servers: b, cfg: config.Config{
		Postgres: config.Postgres{URL: testkit.Database(t, b.cluster)},
		NATS:     config.NATS{URL: b.natsURL},
		Slot:     fmt.Sprintf("slot_%d", n),
		Streams:  []config.Stream{{Name: fmt.Sprintf("STREAM_%d", n), Subjects: []string{fmt.Sprintf("s%d.>", n)}}},
		Publish:  config.Publish{Subject: fmt.Sprintf("s%d.{type}", n)},
	}}
	s.url = s.cfg.Postgres.URL
	s.connect(t)
	return s
}

// connect connects to the database until the test ends.
func (s *system) connect(t *testing.T) {
	t.Helper()
	conn, err := connect.Postgres(t.Context(), config.Postgres{URL: s.url})
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	t.Cleanup(func() {
		// The server has few slots; the tests are many.
		_, _ = conn.Exec(context.Background(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot)
		connect.ClosePostgres(conn)
	})
}

// exec runs statements; {slot} in them is the system's slot.
func (s *system) exec(t *testing.T, statements string) {
	t.Helper()
	if _, err := s.conn.Exec(t.Context(), strings.ReplaceAll(statements, "{slot}", s.cfg.Slot)); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

func (s *system) setup(t *testing.T) Report {
	t.Helper()
	report, err := Setup(t.Context(), s.cfg)
	if err != nil {
		t.Fatalf("setting up: %v", err)
	}
	return report
}

// stream changes the system's stream.
func (s *system) stream(t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	wanted := streamConfig(s.cfg.WithDefaults().Streams[0], false)
	_ = s.js.DeleteStream(t.Context(), wanted.Name) // it may not exist
	change(&wanted)
	if _, err := s.js.CreateStream(t.Context(), wanted); err != nil {
		t.Fatalf("creating the stream: %v", err)
	}
}

// since skips a test of what came with a version of Postgres; until, of what
// ended with it.
func (s *system) since(t *testing.T, major int) {
	t.Helper()
	if s.major(t) < major {
		t.Skipf("needs Postgres %d", major)
	}
}

func (s *system) until(t *testing.T, major int) {
	t.Helper()
	if s.major(t) >= major {
		t.Skipf("needs Postgres older than %d", major)
	}
}

func (s *system) major(t *testing.T) int {
	t.Helper()
	facts, err := check.Read(t.Context(), check.Sources{Postgres: s.conn}, s.cfg.WithDefaults(), check.ScopePostgres)
	if err != nil {
		t.Fatal(err)
	}
	return facts.Server.Major()
}

func actions(r Report) string {
	var b strings.Builder
	for _, item := range r.Items {
		fmt.Fprintf(&b, "%s %s; ", item.Kind, item.Action)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestSetup(t *testing.T) {
	b := newServers(t)

	t.Run("a second init finds everything already there", func(t *testing.T) {
		s := b.system(t)
		if got, want := actions(s.setup(t)), "schema created; table created; publication created; slot created; stream created"; got != want {
			t.Errorf("first init: want %s; got %s", want, got)
		}
		if got, want := actions(s.setup(t)), "schema already there; table already there; publication already there; slot already there; stream already there"; got != want {
			t.Errorf("second init: want %s; got %s", want, got)
		}
		if err := checked(t.Context(), s.cfg); err != nil {
			t.Errorf("run should accept what init made: %v", err)
		}
	})

	t.Run("a plain insert of two columns fits the outbox", func(t *testing.T) {
		s := b.system(t)
		s.setup(t)
		s.exec(t, "INSERT INTO public.outbox (event_type, source) VALUES ('order.created', '/orders')")
		for _, wrong := range []string{"('', '/orders', NULL, NULL)", "('t', '', NULL, NULL)", "('t', '/s', '1', 'x')"} {
			if _, err := s.conn.Exec(t.Context(), "INSERT INTO public.outbox (event_type, source, data, data_bytes) VALUES "+wrong); err == nil {
				t.Errorf("the outbox takes %s", wrong)
			}
		}
	})

	t.Run("several inits at a time do the work of one", func(t *testing.T) {
		s := b.system(t)
		var wg sync.WaitGroup
		errs := make([]error, 3)
		for i := range errs {
			wg.Go(func() { _, errs[i] = Setup(t.Context(), s.cfg) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				t.Errorf("one of three inits failed: %v", err)
			}
		}
	})

	t.Run("printed SQL makes what run accepts, for a role without more rights", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, `CREATE ROLE "re""lay" LOGIN REPLICATION; CREATE SCHEMA "od'd"`)
		config, err := config.ParsePostgres(s.cfg.Postgres.URL)
		if err != nil {
			t.Fatal(err)
		}
		s.cfg.Outbox.Tables = []string{"public.outbox", `od'd.a b\c`}
		s.cfg.Publication = `pub"l'ication`
		s.cfg.Postgres.URL = fmt.Sprintf("host=%s port=%d dbname=%s user='re\"lay'", config.Host, config.Port, config.Database)
		script, err := PrintSQL(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if results, err := s.conn.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
				t.Fatalf("running the script: %v\n%v\n%s", err, results, script)
			}
		}
		s.stream(t, func(*jetstream.StreamConfig) {})
		if err := checked(t.Context(), s.cfg); err != nil {
			t.Errorf("check after the script: %v", err)
		}
		if got := actions(s.setup(t)); strings.Contains(got, "created") || strings.Contains(got, "changed") {
			t.Errorf("init after the script still has something to do: %s", got)
		}
	})

	t.Run("a table is added to a publication that lacks it", func(t *testing.T) {
		s := b.system(t)
		s.setup(t)
		s.cfg.Outbox.Tables = []string{"public.outbox", "public.second"}
		if got, want := actions(s.setup(t)), "schema already there; table already there; table created; publication changed; slot already there; stream already there"; got != want {
			t.Errorf("want %s; got %s", want, got)
		}
	})

	t.Run("a table gets the columns that it lacks", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, "CREATE TABLE public.outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text NOT NULL, source text NOT NULL, data json, created_at timestamptz)")
		s.exec(t, "INSERT INTO public.outbox (event_type, source) VALUES ('a', '/a')")
		report := s.setup(t)
		if got, want := actions(report), "schema created; table changed; publication created"; !strings.HasPrefix(got, want) {
			t.Errorf("want %s; got %s", want, got)
		}
		const added = "added subject, data_bytes, content_type, data_schema, extensions, partition_key, scheduled_at, max_retries"
		if got := report.Items[1].Detail; got != added {
			t.Errorf("want %s; got %s", added, got)
		}
		s.exec(t, "INSERT INTO public.outbox (event_type, source, subject, data_bytes, content_type, data_schema, extensions, partition_key, scheduled_at, max_retries) VALUES ('a', '/a', 's', '', 't/t', 'a:b', '{}', 'k', now(), 1)")
	})

	t.Run("migrations may run again", func(t *testing.T) {
		s := b.system(t)
		s.setup(t)
		s.exec(t, "DELETE FROM walrelay.migrations")
		if got := actions(s.setup(t)); !strings.HasPrefix(got, "schema created; table already there") {
			t.Errorf("want all migrations applied again, got %s", got)
		}
	})

	t.Run("every earlier version becomes this one and keeps its data", func(t *testing.T) {
		migrations, err := sql.Migrations()
		if err != nil {
			t.Fatal(err)
		}
		for version := 1; version < len(migrations); version++ {
			s := b.system(t)
			for _, m := range migrations[:version] {
				s.exec(t, m.SQL)
				if _, err := s.conn.Exec(t.Context(), sql.RecordMigration, m.Version, m.Name); err != nil {
					t.Fatal(err)
				}
			}
			s.exec(t, "INSERT INTO walrelay.progress (slot, system_identifier, timeline, flush_lsn) VALUES ('old', '1', 1, '0/10')")
			if err := checked(t.Context(), s.cfg); err == nil ||
				!strings.Contains(err.Error(), fmt.Sprintf("schema walrelay is at version %d, and this walrelay needs %d", version, len(migrations))) {
				t.Errorf("version %d: want a word about the versions, got %v", version, err)
			}
			if got := actions(s.setup(t)); !strings.HasPrefix(got, "schema changed; ") {
				t.Errorf("version %d: want a changed schema, got %s", version, got)
			}
			var lsn string
			if err := s.conn.QueryRow(t.Context(), "SELECT flush_lsn::text FROM walrelay.progress WHERE slot = 'old' AND session = 0").Scan(&lsn); err != nil || lsn != "0/10" {
				t.Errorf("version %d: its progress is %q, %v", version, lsn, err)
			}
			if err := checked(t.Context(), s.cfg); err != nil {
				t.Errorf("version %d, upgraded: %v", version, err)
			}
		}
	})

	t.Run("a slot survives a failover when it is to", func(t *testing.T) {
		s := b.system(t)
		s.since(t, 17)
		s.cfg.Failover = true
		s.setup(t)
		slot, err := check.ReadSlot(t.Context(), s.conn, s.cfg.Slot)
		if err != nil || slot == nil || slot.Failover == nil || !*slot.Failover {
			t.Errorf("want a slot with failover, got %+v, %v", slot, err)
		}
	})

	t.Run("nothing is created while something that exists is wrong", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, "CREATE PUBLICATION walrelay FOR ALL TABLES")
		if _, err := Setup(t.Context(), s.cfg); err == nil || !strings.Contains(err.Error(), "FOR ALL TABLES") {
			t.Fatalf("want a word about FOR ALL TABLES, got %v", err)
		}
		state, err := check.Read(t.Context(), check.Sources{Postgres: s.conn}, s.cfg.WithDefaults(), check.ScopeDatabase)
		if err != nil {
			t.Fatal(err)
		}
		if state.Schema.Present || state.Slot != nil || state.Tables[0].Kind != "" {
			t.Errorf("init failed, but created something: %+v", state)
		}
	})

	t.Run("a slot that waits for a writer is given up with the writer's name", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, "CREATE TABLE public.busy (n int); CREATE PUBLICATION walrelay")
		s.exec(t, "SET application_name = 'slow job'; BEGIN; INSERT INTO public.busy VALUES (1)")
		defer s.exec(t, "ROLLBACK")
		conn, err := connect.Postgres(t.Context(), s.cfg.Postgres)
		if err != nil {
			t.Fatal(err)
		}
		defer connect.ClosePostgres(conn)
		m := &maker{cfg: s.cfg.WithDefaults(), conn: conn, report: &Report{}}
		err = m.createSlot(t.Context(), nil, 200*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d of postgres slow job", s.conn.PgConn().PID())) {
			t.Errorf("want an error that names the writer, got %v", err)
		}
		if slot, err := check.ReadSlot(t.Context(), conn, s.cfg.Slot); err != nil || slot != nil {
			t.Errorf("want no slot left behind, got %+v, %v", slot, err)
		}
	})

	t.Run("a role without rights is told whom to ask", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, "CREATE ROLE poor LOGIN REPLICATION")
		s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", "poor@", 1)
		if _, err := Setup(t.Context(), s.cfg); err == nil || !strings.Contains(err.Error(), "init --print-sql") {
			t.Errorf("want a hint at --print-sql, got %v", err)
		}
	})

	t.Run("a stream with a size refuses new events instead of dropping old ones", func(t *testing.T) {
		s := b.system(t)
		s.cfg.Streams[0].MaxBytes = 1 << 20
		s.setup(t)
		info, err := s.js.Stream(t.Context(), s.cfg.Streams[0].Name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.CachedInfo().Config; got.Discard != jetstream.DiscardNew || got.MaxBytes != 1<<20 || !got.AllowDirect {
			t.Errorf("want discard new at 1 MiB and direct gets, got %+v", got)
		}
	})
}

func TestSetup_UnreachableServerIsTransient(t *testing.T) {
	cfg := config.Config{Postgres: config.Postgres{URL: "postgres://postgres@127.0.0.1:1/x"}, NATS: config.NATS{URL: "nats://127.0.0.1:1"}}
	err := checked(t.Context(), cfg)
	if err == nil || problem.Permanent(err) {
		t.Fatalf("want an error that may go away by itself, got %v", err)
	}
	for _, want := range []string{"connecting to Postgres", "connecting to NATS at 127.0.0.1:1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}
