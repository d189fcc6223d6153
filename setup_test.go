package walrelay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/localnats/natstest"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/localpg/pgtest"
)

// bench is what tests of Setup and Check run against: a cluster and a
// nats-server, and for each system a database, a slot and a stream of its own.
type bench struct {
	cluster *localpg.Cluster
	natsURL string
	js      jetstream.JetStream
	systems atomic.Int64
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{cluster: pgtest.Start(t), natsURL: natstest.Start(t).URL()}
	nc, err := NATSConfig{URL: b.natsURL}.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if b.js, err = newJetStream(nc, ""); err != nil {
		t.Fatal(err)
	}
	return b
}

// system is a configuration for a database and a stream in which nothing
// exists, and a superuser's connection to the database.
type system struct {
	*bench
	cfg  Config
	conn *pgx.Conn
}

func (b *bench) system(t *testing.T) *system {
	t.Helper()
	n := b.systems.Add(1)
	s := &system{bench: b, cfg: Config{
		Postgres: PostgresConfig{URL: pgtest.NewDatabase(t, b.cluster)},
		NATS:     NATSConfig{URL: b.natsURL},
		Slot:     fmt.Sprintf("slot_%d", n),
		Streams:  []StreamConfig{{Name: fmt.Sprintf("STREAM_%d", n), Subjects: []string{fmt.Sprintf("s%d.>", n)}}},
		Publish:  PublishConfig{Subject: fmt.Sprintf("s%d.{type}", n)},
	}}
	conn, err := connectPostgres(t.Context(), s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	t.Cleanup(func() {
		// The server has few slots; the tests are many.
		_, _ = conn.Exec(context.Background(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot)
		closePostgres(conn)
	})
	return s
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
	config := streamConfig(s.cfg.WithDefaults().Streams[0])
	_ = s.js.DeleteStream(t.Context(), config.Name) // it may not exist
	change(&config)
	if _, err := s.js.CreateStream(t.Context(), config); err != nil {
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
	state, err := readPostgres(t.Context(), s.conn, s.cfg.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	return state.server.major()
}

func actions(r Report) string {
	var b strings.Builder
	for _, item := range r.Items {
		fmt.Fprintf(&b, "%s %s; ", item.Kind, item.Action)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestSetup(t *testing.T) {
	b := newBench(t)

	t.Run("a second init finds everything already there", func(t *testing.T) {
		s := b.system(t)
		if got, want := actions(s.setup(t)), "schema created; table created; publication created; slot created; stream created"; got != want {
			t.Errorf("first init: want %s; got %s", want, got)
		}
		if got, want := actions(s.setup(t)), "schema already there; table already there; publication already there; slot already there; stream already there"; got != want {
			t.Errorf("second init: want %s; got %s", want, got)
		}
		if err := Check(t.Context(), s.cfg); err != nil {
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
		config, err := parsePostgres(s.cfg.Postgres.URL)
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
		if err := Check(t.Context(), s.cfg); err != nil {
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

	t.Run("migrations may run again", func(t *testing.T) {
		s := b.system(t)
		s.setup(t)
		s.exec(t, "DELETE FROM walrelay.migrations")
		if got := actions(s.setup(t)); !strings.HasPrefix(got, "schema created; table already there") {
			t.Errorf("want all migrations applied again, got %s", got)
		}
	})

	t.Run("a slot survives a failover when it is to", func(t *testing.T) {
		s := b.system(t)
		s.since(t, 17)
		s.cfg.Failover = true
		s.setup(t)
		slot, err := readSlot(t.Context(), s.conn, s.cfg.Slot)
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
		state, err := readPostgres(t.Context(), s.conn, s.cfg.WithDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if state.schema.Present || state.slot != nil || state.tables[0].Kind != "" {
			t.Errorf("init failed, but created something: %+v", state)
		}
	})

	t.Run("a slot that waits for a writer is given up with the writer's name", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, "CREATE TABLE public.busy (n int); CREATE PUBLICATION walrelay")
		s.exec(t, "SET application_name = 'slow job'; BEGIN; INSERT INTO public.busy VALUES (1)")
		defer s.exec(t, "ROLLBACK")
		i, err := newInspector(t.Context(), s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer i.close()
		err = i.createSlot(t.Context(), nil, 200*time.Millisecond, &Report{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d of postgres slow job", s.conn.PgConn().PID())) {
			t.Errorf("want an error that names the writer, got %v", err)
		}
		if slot, err := readSlot(t.Context(), i.conn, s.cfg.Slot); err != nil || slot != nil {
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

func TestCheckAccepts(t *testing.T) {
	b := newBench(t)

	t.Run("a slot that is as it should be, whatever else is not", func(t *testing.T) {
		s := b.system(t)
		if err := CheckSlot(t.Context(), s.conn, s.cfg); err == nil || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("want a missing slot, got %v", err)
		}
		s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
		if err := CheckSlot(t.Context(), s.conn, s.cfg); err != nil {
			t.Errorf("the slot is as it should be, and nothing else counts: %v", err)
		}
	})

	t.Run("other writers of a shared stream", func(t *testing.T) {
		s := b.system(t)
		s.setup(t)
		s.cfg.Streams[0].Shared = true
		s.stream(t, func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = true })
		if err := Check(t.Context(), s.cfg); err != nil {
			t.Errorf("a shared stream keeps no fence that schedules could break, but: %v", err)
		}
	})

	t.Run("a partitioned outbox of another form", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, "CREATE TABLE public.mine (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb) PARTITION BY HASH (id); CREATE TABLE public.part PARTITION OF public.mine FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
		s.cfg.Outbox = OutboxConfig{Tables: []string{"public.mine"}, Mappings: []MappingConfig{{Table: "public.mine", Preset: "debezium"}}}
		s.setup(t)
		if err := Check(t.Context(), s.cfg); err != nil {
			t.Error(err)
		}
	})
}

func TestCheckSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	b := newBench(t)
	for _, tt := range []struct {
		name string
		harm func(*testing.T, *system)
		want []string // in one line of the error
	}{
		{"no schema", func(t *testing.T, s *system) { s.exec(t, "DROP SCHEMA walrelay CASCADE") }, []string{"schema walrelay does not exist", `run "walrelay init"`}},
		{"old schema", func(t *testing.T, s *system) { s.exec(t, "DELETE FROM walrelay.migrations") }, []string{"schema walrelay is at version 0"}},
		{"no rights", func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE stranger LOGIN REPLICATION")
			s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", "stranger@", 1)
		}, []string{`role "stranger" may not use`, "GRANT USAGE ON SCHEMA walrelay"}},
		{"no REPLICATION", func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE mute LOGIN; GRANT USAGE ON SCHEMA walrelay TO mute; GRANT ALL ON ALL TABLES IN SCHEMA walrelay TO mute")
			s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", "mute@", 1)
		}, []string{`role "mute" may not stream`, `ALTER ROLE "mute" REPLICATION`}},
		{"no such role", func(_ *testing.T, s *system) {
			s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", "nobody@", 1)
		}, []string{"Postgres refuses the connection", "nobody"}},
		{"no such database", func(_ *testing.T, s *system) {
			s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "/test_", "/missing_", 1)
		}, []string{"Postgres refuses the connection", "does not exist"}},
		{"no table", func(t *testing.T, s *system) { s.exec(t, "DROP TABLE public.outbox") }, []string{"outbox table public.outbox does not exist", `run "walrelay init"`}},
		{"no mapped table", func(_ *testing.T, s *system) {
			s.cfg.Outbox.Tables = []string{"public.outbox", "public.mine"}
			s.cfg.Outbox.Mappings = []MappingConfig{{Table: "public.mine", Preset: "debezium"}}
		}, []string{"outbox table public.mine does not exist", "create it"}},
		{"a view", func(t *testing.T, s *system) {
			s.exec(t, "CREATE VIEW public.seen AS SELECT 1")
			s.cfg.Outbox.Tables = append(s.cfg.Outbox.Tables, "public.outbox", "public.seen")
		}, []string{"public.seen is not a table"}},
		{"unlogged", func(t *testing.T, s *system) {
			s.exec(t, "CREATE UNLOGGED TABLE public.fast (LIKE public.outbox)")
			s.cfg.Outbox.Tables = append(s.cfg.Outbox.Tables, "public.outbox", "public.fast")
		}, []string{"public.fast is unlogged"}},
		{"a partition", func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.parts (LIKE public.outbox) PARTITION BY RANGE (created_at); CREATE TABLE public.part PARTITION OF public.parts DEFAULT")
			s.cfg.Outbox.Tables = append(s.cfg.Outbox.Tables, "public.outbox", "public.part")
		}, []string{"public.part is a partition"}},
		{"no publication", func(_ *testing.T, s *system) { s.cfg.Publication = "other" }, []string{`publication "other" does not exist, but replication slot`, "A publication was dropped"}},
		{"table not published", func(t *testing.T, s *system) { s.exec(t, "ALTER PUBLICATION walrelay DROP TABLE public.outbox") }, []string{`publication "walrelay" does not have outbox table public.outbox`}},
		{"all tables", func(t *testing.T, s *system) {
			s.exec(t, "DROP PUBLICATION walrelay; CREATE PUBLICATION walrelay FOR ALL TABLES WITH (publish_via_partition_root = true)")
		}, []string{"FOR ALL TABLES"}},
		{"own tables", func(t *testing.T, s *system) { s.exec(t, "ALTER PUBLICATION walrelay ADD TABLE walrelay.progress") }, []string{"has tables of the schema walrelay (progress)"}},
		{"no inserts", func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox REPLICA IDENTITY FULL; ALTER PUBLICATION walrelay SET (publish = 'update')")
		}, []string{"does not publish inserts", "SET (publish = 'insert')"}},
		{"leaf names", func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay SET (publish_via_partition_root = false)")
		}, []string{"names partitions", "publish_via_partition_root = true"}},
		{"row filter", func(t *testing.T, s *system) {
			s.since(t, 15)
			s.exec(t, "ALTER PUBLICATION walrelay SET TABLE public.outbox WHERE (source <> '/private')")
		}, []string{"has a row filter on public.outbox"}},
		{"column list", func(t *testing.T, s *system) {
			s.since(t, 15)
			s.exec(t, "ALTER PUBLICATION walrelay SET TABLE public.outbox (id, event_type, source)")
		}, []string{"has a column list on public.outbox"}},
		{"no slot", func(t *testing.T, s *system) { s.exec(t, "SELECT pg_drop_replication_slot('{slot}')") }, []string{"replication slot", "does not exist", `run "walrelay init"`}},
		{"physical slot", func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}'); SELECT pg_create_physical_replication_slot('{slot}')")
		}, []string{"is a physical one"}},
		{"other plugin", func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")
		}, []string{`has the output plugin "test_decoding"`}},
		{"temporary slot", func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', true)")
		}, []string{"is temporary"}},
		{"two-phase slot", func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)")
		}, []string{"two_phase"}},
		{"slot of another database", func(t *testing.T, s *system) {
			other := s.system(t)
			other.setup(t)
			s.cfg.Slot = other.cfg.Slot
		}, []string{"belongs to database"}},
		{"failover on an old server", func(t *testing.T, s *system) {
			s.until(t, 17)
			s.cfg.Failover = true
		}, []string{"failover is set, but Postgres is version"}},
		{"no stream", func(t *testing.T, s *system) {
			if err := s.js.DeleteStream(t.Context(), s.cfg.Streams[0].Name); err != nil {
				t.Fatal(err)
			}
		}, []string{"stream", "does not exist", `run "walrelay init"`}},
		{"memory", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage })
		}, []string{"is kept in memory", "file storage"}},
		{"no_ack", func(t *testing.T, s *system) { s.stream(t, func(c *jetstream.StreamConfig) { c.NoAck = true }) }, []string{"has no_ack"}},
		{"sealed", func(t *testing.T, s *system) {
			s.stream(t, func(*jetstream.StreamConfig) {})
			config := streamConfig(s.cfg.WithDefaults().Streams[0])
			config.Sealed = true
			if _, err := s.js.UpdateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
		}, []string{"is sealed"}},
		{"mirror", func(t *testing.T, s *system) {
			other := s.system(t)
			other.setup(t)
			s.stream(t, func(c *jetstream.StreamConfig) {
				c.Subjects, c.Mirror = nil, &jetstream.StreamSource{Name: other.cfg.Streams[0].Name}
			})
		}, []string{"is a mirror"}},
		{"sources", func(t *testing.T, s *system) {
			other := s.system(t)
			other.setup(t)
			s.stream(t, func(c *jetstream.StreamConfig) {
				c.Sources = []*jetstream.StreamSource{{Name: other.cfg.Streams[0].Name}}
			})
		}, []string{"has sources", "only walrelay may write"}},
		{"schedules", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = true })
		}, []string{"allows message schedules"}},
		{"delete markers", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) {
				c.AllowMsgTTL, c.AllowRollup, c.SubjectDeleteMarkerTTL = true, true, time.Minute
			})
		}, []string{"writes delete markers"}},
		{"persist mode", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode })
		}, []string{"persist_mode async"}},
		{"foreign subject", func(_ *testing.T, s *system) { s.cfg.Publish.Subject = "elsewhere.{type}" }, []string{"does not take the subjects of publish.subject (elsewhere.>)"}},
		{"foreign subject of a route", func(_ *testing.T, s *system) {
			s.cfg.Routes = []RouteConfig{{Type: "a.b", Subject: "elsewhere.{type}"}}
		}, []string{"does not take the subjects of routes[0].subject (elsewhere.a.b)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := b.system(t)
			s.setup(t)
			tt.harm(t, s)
			err := Check(t.Context(), s.cfg)
			if err == nil {
				t.Fatal("check finds nothing wrong")
			}
			lines := strings.Split(err.Error(), "\n")
			if !slices.ContainsFunc(lines, func(line string) bool {
				return !slices.ContainsFunc(tt.want, func(part string) bool { return !strings.Contains(line, part) })
			}) {
				t.Errorf("want a line with %q, got:\n%v", tt.want, err)
			}
			if !isConfiguration(err) {
				t.Errorf("a fault that no retry mends is not a SetupError: %v", err)
			}
		})
	}
}

func TestCheckWarnsOfWhatWorksAndMayNotBeWanted(t *testing.T) {
	b := newBench(t)
	for _, tt := range []struct {
		name string
		harm func(*testing.T, *system)
		want string
	}{
		{"endless WAL", func(*testing.T, *system) {}, "max_slot_wal_keep_size is not set"},
		{"updates", func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay SET (publish = 'insert, update')")
		}, "publishes more than inserts"},
		{"failover wanted", func(t *testing.T, s *system) {
			s.since(t, 17)
			s.cfg.Failover = true
		}, "was created without failover"},
		{"interest", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy })
		}, "has interest retention"},
		{"some subjects", func(_ *testing.T, s *system) { s.cfg.Publish.Subject = "{table}.{type}" }, "takes only some of the subjects of publish.subject"},
		{"more subjects wanted", func(_ *testing.T, s *system) {
			s.cfg.Streams[0].Subjects = append(s.cfg.Streams[0].Subjects, "more.x")
		}, `does not have the subject "more.x"`},
		{"more replicas wanted", func(_ *testing.T, s *system) { s.cfg.Streams[0].Replicas = 3 }, "has 1 replicas, and the configuration says 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := b.system(t)
			s.setup(t)
			tt.harm(t, s)
			warnings, err := Inspect(t.Context(), s.cfg)
			if err != nil {
				t.Fatalf("want a warning, got an error: %v", err)
			}
			if !strings.Contains(strings.Join(warnings, "\n"), tt.want) {
				t.Errorf("want a warning with %q, got %q", tt.want, warnings)
			}
		})
	}
}

func TestAServerThatIsAwayIsNoSetupError(t *testing.T) {
	cfg := Config{Postgres: PostgresConfig{URL: "postgres://postgres@127.0.0.1:1/x"}, NATS: NATSConfig{URL: "nats://127.0.0.1:1"}}
	err := Check(t.Context(), cfg)
	if err == nil || isConfiguration(err) {
		t.Fatalf("want an error that may go away by itself, got %v", err)
	}
	for _, want := range []string{"connecting to Postgres", "connecting to NATS at 127.0.0.1:1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}
