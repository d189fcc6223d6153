package provision

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/problem"
)

func TestCheck_Accepts(t *testing.T) {
	b := newServers(t)

	t.Run("other writers of a shared stream", func(t *testing.T) {
		s := b.system(t)
		s.setup(t)
		s.cfg.Streams[0].Shared = true
		s.stream(t, func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = true })
		if err := checked(t.Context(), s.cfg); err != nil {
			t.Errorf("a shared stream keeps no fence that schedules could break, but: %v", err)
		}
	})

	t.Run("a partitioned outbox of another form", func(t *testing.T) {
		s := b.system(t)
		s.exec(t, "CREATE TABLE public.mine (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb) PARTITION BY HASH (id); CREATE TABLE public.part PARTITION OF public.mine FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
		s.cfg.Outbox = config.Outbox{Tables: []string{"public.mine"}, Mappings: []config.Mapping{{Table: "public.mine", Preset: "debezium"}}}
		s.setup(t)
		if err := checked(t.Context(), s.cfg); err != nil {
			t.Error(err)
		}
	})
}

func TestCheck_Refuses(t *testing.T) {
	b := newServers(t)
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
		{"no rights to delayed events", func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE half LOGIN REPLICATION; GRANT USAGE ON SCHEMA walrelay TO half; GRANT ALL ON walrelay.migrations, walrelay.progress TO half; GRANT SELECT, INSERT, UPDATE ON walrelay.delayed, walrelay.keys TO half")
			s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", "half@", 1)
		}, []string{`role "half" may not use`, "SELECT, INSERT, UPDATE, DELETE"}},
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
			s.cfg.Outbox.Mappings = []config.Mapping{{Table: "public.mine", Preset: "debezium"}}
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
			sealed := streamConfig(s.cfg.WithDefaults().Streams[0], false)
			sealed.Sealed = true
			if _, err := s.js.UpdateStream(t.Context(), sealed); err != nil {
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
			s.cfg.Routes = []config.Route{{Type: "a.b", Subject: "elsewhere.{type}"}}
		}, []string{"does not take the subjects of routes[0].subject (elsewhere.a.b)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := b.system(t)
			s.setup(t)
			tt.harm(t, s)
			err := checked(t.Context(), s.cfg)
			if err == nil {
				t.Fatal("check finds nothing wrong")
			}
			lines := strings.Split(err.Error(), "\n")
			if !slices.ContainsFunc(lines, func(line string) bool {
				return !slices.ContainsFunc(tt.want, func(part string) bool { return !strings.Contains(line, part) })
			}) {
				t.Errorf("want a line with %q, got:\n%v", tt.want, err)
			}
			if !problem.Permanent(err) {
				t.Errorf("a fault that no retry mends is not a Problem: %v", err)
			}
		})
	}
}

func TestCheck_Warns(t *testing.T) {
	b := newServers(t)
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
		{"some subjects", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) {
				c.Subjects = []string{strings.Replace(c.Subjects[0], ".>", ".a.>", 1)}
			})
		}, "takes only some of the subjects of publish.subject"},
		{"more subjects wanted", func(_ *testing.T, s *system) {
			s.cfg.Streams[0].Subjects = append(s.cfg.Streams[0].Subjects, "more.x")
		}, `does not have the subject "more.x"`},
		{"more replicas wanted", func(_ *testing.T, s *system) { s.cfg.Streams[0].Replicas = 3 }, "has 1 replicas, and the configuration says 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := b.system(t)
			s.setup(t)
			tt.harm(t, s)
			results, _, err := check.Run(t.Context(), s.cfg)
			if err := errors.Join(results.Err(), err); err != nil {
				t.Fatalf("want a warning, got an error: %v", err)
			}
			var warnings []string
			for _, r := range results.With(check.Warn) {
				warnings = append(warnings, r.Text())
			}
			if !strings.Contains(strings.Join(warnings, "\n"), tt.want) {
				t.Errorf("want a warning with %q, got %q", tt.want, warnings)
			}
		})
	}
}
