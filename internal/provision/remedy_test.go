package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
)

// remedies finds the statements in what a check says is to be done: all of a list, or the first
// of several ways.
var remedies = regexp.MustCompile(`(?:BEGIN; |ALTER |GRANT |SELECT pg_|CREATE INDEX |ROLLBACK PREPARED ).*?(?: \(what| \(on|$)`)

// broken is a thing that is broken, named by doctor, and mended by what doctor says, as it is
// written.
type broken struct {
	id   string
	harm func(*testing.T, *system)
	// words are what the remedy says is to be done, and do does it. Without them the remedy
	// has statements, or a "nats stream edit".
	words string
	do    func(*testing.T, *system, check.Result)
	// init says that "walrelay init" comes after that, or is all that is to be done.
	init bool
}

func TestDoctor_RemediesAsWritten(t *testing.T) {
	b := newServers(t)
	as := func(s *system, role string) {
		s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", role+"@", 1)
	}
	change := func(change func(*jetstream.StreamConfig)) func(*testing.T, *system) {
		return func(t *testing.T, s *system) {
			t.Helper()
			s.stream(t, change)
		}
	}
	// another has the configuration use another stream.
	another := func(_ *testing.T, s *system, _ check.Result) {
		stream := &s.cfg.Streams[0]
		stream.Name, stream.Subjects = stream.Name+"_B", []string{"b." + stream.Subjects[0]}
		s.cfg.Publish.Subject = "b." + s.cfg.Publish.Subject
	}
	mine := func(s *system, form string) {
		s.cfg.Outbox = config.Outbox{Tables: []string{"public.mine"}, Mappings: []config.Mapping{{Table: "public.mine", Preset: form}}}
	}
	for _, tt := range []broken{
		{id: "schema_missing", harm: func(t *testing.T, s *system) { s.exec(t, "DROP SCHEMA walrelay CASCADE") }, init: true},
		{id: "schema_old", harm: func(t *testing.T, s *system) { s.exec(t, "DELETE FROM walrelay.migrations WHERE version > 12") }, init: true},
		{id: "schema_rights", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE \"Odd one\" LOGIN REPLICATION")
			as(s, "Odd%20one")
		}},
		{id: "role_replication", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE dumb LOGIN; GRANT USAGE ON SCHEMA walrelay TO dumb; GRANT ALL ON ALL TABLES IN SCHEMA walrelay TO dumb")
			as(s, "dumb")
		}},
		{id: "outbox_rights", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE poor LOGIN REPLICATION; GRANT USAGE ON SCHEMA walrelay TO poor; GRANT ALL ON ALL TABLES IN SCHEMA walrelay TO poor")
			as(s, "poor")
		}},
		{id: "outbox_missing", harm: func(t *testing.T, s *system) { s.exec(t, "DROP TABLE public.outbox") }, init: true},
		{id: "outbox_unlogged", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay DROP TABLE public.outbox; ALTER TABLE public.outbox SET UNLOGGED")
		}},
		{id: "outbox_unpublished", harm: func(t *testing.T, s *system) { s.exec(t, "ALTER PUBLICATION walrelay DROP TABLE public.outbox") }, init: true},
		{id: "outbox_row_filter", harm: func(t *testing.T, s *system) {
			s.since(t, 15)
			s.exec(t, "ALTER PUBLICATION walrelay SET TABLE walrelay.emitted, public.outbox WHERE (source <> '/private')")
		}},
		{id: "outbox_column_list", harm: func(t *testing.T, s *system) {
			s.since(t, 15)
			s.exec(t, "ALTER PUBLICATION walrelay SET TABLE walrelay.emitted, public.outbox (id, event_type, source)")
		}},
		{id: "outbox_columns", harm: func(t *testing.T, s *system) { s.exec(t, "ALTER TABLE public.outbox DROP COLUMN data_schema") }, init: true},
		{id: "outbox_scheduled_at", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox ALTER COLUMN scheduled_at TYPE timestamp")
		}},
		{id: "outbox_id_index", harm: func(t *testing.T, s *system) { s.exec(t, "ALTER TABLE public.outbox DROP CONSTRAINT outbox_pkey") }},
		{id: "outbox_published_at", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.\"Mine\" (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb)")
			s.cfg.Outbox = config.Outbox{AfterPublish: "mark", Tables: []string{`public.Mine`}, Mappings: []config.Mapping{{Table: `public.Mine`, Preset: "debezium"}}}
			s.exec(t, "ALTER PUBLICATION walrelay ADD TABLE public.\"Mine\"")
		}},
		{id: "outbox_autovacuum", harm: func(t *testing.T, s *system) { s.exec(t, "ALTER TABLE public.outbox SET (autovacuum_enabled = off)") }},
		{id: "publication_own_tables", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay ADD TABLE walrelay.progress, walrelay.delayed")
		}},
		{id: "publication_emitted", harm: func(t *testing.T, s *system) { s.exec(t, "ALTER PUBLICATION walrelay DROP TABLE walrelay.emitted") }, init: true},
		{id: "publication_inserts", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox REPLICA IDENTITY FULL; ALTER PUBLICATION walrelay SET (publish = 'update')")
		}},
		{id: "publication_other_operations", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay SET (publish = 'insert, update')")
		}},
		{id: "publication_root", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay SET (publish_via_partition_root = false)")
		}},
		{id: "slot_missing", harm: func(t *testing.T, s *system) { s.exec(t, "SELECT pg_drop_replication_slot('{slot}')") }, init: true},
		{id: "slot_type", harm: func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}'); SELECT pg_create_physical_replication_slot('{slot}')")
		}, init: true},
		{id: "slot_plugin", harm: func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")
		}, init: true},
		{id: "slot_two_phase", harm: func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)")
		}, init: true},
		{id: "wal_sender_timeout", harm: func(t *testing.T, s *system) {
			testkit.AlterSystem(t, s.url, "SET wal_sender_timeout = 0")
		}},
		{id: "autovacuum", harm: func(t *testing.T, s *system) {
			testkit.AlterSystem(t, s.url, "SET autovacuum = off")
		}},
		{id: "idle_replication_slot_timeout", harm: func(t *testing.T, s *system) {
			s.since(t, 18)
			testkit.AlterSystem(t, s.url, "SET idle_replication_slot_timeout = '1d'")
		}},
		{id: "stream_missing", harm: func(t *testing.T, s *system) {
			if err := s.js.DeleteStream(t.Context(), s.cfg.Streams[0].Name); err != nil {
				t.Fatal(err)
			}
		}, init: true},
		{id: "stream_message_size", harm: func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
		}},
		{id: "stream_duplicates", harm: func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.Duplicates = time.Second })
			s.cfg.Streams[0].Shared = true
		}},
		{id: "secret_file", harm: func(t *testing.T, s *system) {
			s.cfg.Postgres.PasswordFile = filepath.Join(t.TempDir(), "the relay's $PASSWORD")
			if err := os.WriteFile(s.cfg.Postgres.PasswordFile, []byte("secret"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, words: "chmod o= '/", do: func(t *testing.T, _ *system, r check.Result) {
			if out, err := exec.CommandContext(t.Context(), "sh", "-c", r.Fix).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}},
		{id: "failover_version", harm: func(t *testing.T, s *system) {
			s.until(t, 17)
			s.cfg.Failover = true
		}, words: "remove failover from the configuration", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Failover = false }},
		{id: "slot_failover", harm: func(t *testing.T, s *system) {
			s.since(t, 17)
			s.cfg.Failover = true
		}, init: true},
		{id: "outbox_missing", harm: func(_ *testing.T, s *system) { mine(s, "debezium") },
			words: "create it", do: func(t *testing.T, s *system, _ check.Result) {
				s.exec(t, "CREATE TABLE public.mine (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb)")
			}},
		{id: "outbox_missing", harm: func(_ *testing.T, s *system) { s.cfg.Outbox.Tables = []string{"public.outbx"} },
			words: `run "walrelay init"`, do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Outbox.Tables = []string{"public.outbox"} }},
		{id: "outbox_kind", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE VIEW public.seen AS SELECT id, event_type, source FROM public.outbox")
			s.cfg.Outbox.Tables = []string{"public.seen"}
		}, words: "correct outbox.tables", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Outbox.Tables = []string{"public.outbox"} }},
		{id: "outbox_partition", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.parts (LIKE public.outbox) PARTITION BY RANGE (created_at); CREATE TABLE public.part PARTITION OF public.parts DEFAULT")
			s.cfg.Outbox.Tables = []string{"public.part"}
		}, words: "name that one in outbox.tables", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Outbox.Tables = []string{"public.parts"} }},
		{id: "outbox_mark_partition", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.parts (LIKE public.outbox, published_at timestamptz) PARTITION BY RANGE (published_at); CREATE TABLE public.part PARTITION OF public.parts DEFAULT")
			s.cfg.Outbox.Tables, s.cfg.Outbox.AfterPublish = []string{"public.parts"}, "mark"
		}, words: "set outbox.after_publish to delete", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Outbox.AfterPublish = "delete" }},
		{id: "outbox_inherited", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.\"Child\" (PRIMARY KEY (id)) INHERITS (public.outbox)")
		}, words: "name them in outbox.tables too", do: func(_ *testing.T, s *system, _ check.Result) {
			s.cfg.Outbox.Tables = []string{"public.outbox", "public.Child"}
		}, init: true},
		{id: "outbox_column_renamed", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox RENAME COLUMN partition_key TO key")
		}, words: "map partition_key to the new name in outbox.mappings", do: func(_ *testing.T, s *system, _ check.Result) {
			s.cfg.Outbox.Mappings = []config.Mapping{{Table: "public.outbox", Preset: "walrelay", Columns: map[string]string{"partition_key": "key"}}}
		}},
		{id: "outbox_column_renamed", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox RENAME COLUMN partition_key TO key")
		}, words: "or rename it back", do: func(t *testing.T, s *system, _ check.Result) {
			s.exec(t, "ALTER TABLE public.outbox RENAME COLUMN key TO partition_key")
		}},
		{id: "outbox_column_missing", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.mine (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text)")
			mine(s, "debezium")
		}, words: `map data to ""`, do: func(_ *testing.T, s *system, _ check.Result) {
			s.cfg.Outbox.Mappings[0].Columns = map[string]string{"data": ""}
		}},
		{id: "outbox_column_generated", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox DROP COLUMN partition_key; ALTER TABLE public.outbox ADD COLUMN partition_key text GENERATED ALWAYS AS (upper(subject)) STORED")
		}, words: "map partition_key to another one", do: func(_ *testing.T, s *system, _ check.Result) {
			s.cfg.Outbox.Mappings = []config.Mapping{{Table: "public.outbox", Preset: "walrelay", Columns: map[string]string{"partition_key": "subject"}}}
		}},
		{id: "outbox_published_at", harm: func(_ *testing.T, s *system) { s.cfg.Outbox.AfterPublish = "mark" }, init: true},
		{id: "outbox_id_index", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.parts (LIKE public.outbox) PARTITION BY RANGE (created_at); CREATE TABLE public.part PARTITION OF public.parts DEFAULT")
			s.cfg.Outbox.Tables = []string{"public.parts"}
		}},
		{id: "outbox_dead_rows", harm: func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox SET (autovacuum_enabled = off)")
			// Over a connection that ends, so that it is counted.
			testkit.Exec(t, s.url, "BEGIN; INSERT INTO public.outbox (event_type, source) SELECT 'a', '/b' FROM generate_series(1, 110000); ROLLBACK")
		}},
		{id: "publication_missing", harm: func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "DROP PUBLICATION walrelay")
		}, init: true},
		{id: "publication_all_tables", harm: func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "DROP PUBLICATION walrelay; CREATE PUBLICATION walrelay FOR ALL TABLES WITH (publish = 'insert', publish_via_partition_root = true)")
		}, words: "set publication to another name", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Publication = "other" }, init: true},
		{id: "slot_database", harm: func(t *testing.T, s *system) {
			other := s.system(t)
			other.setup(t)
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.cfg.Slot = other.cfg.Slot
		}, words: "set slot and publication to other names for this database", do: func(_ *testing.T, s *system, _ check.Result) {
			s.cfg.Slot, s.cfg.Publication = s.cfg.Slot+"_b", "other"
		}, init: true},
		{id: "slot_temporary", harm: func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			testkit.Query(t, s.cfg.Postgres.URL, "SELECT 1")
			other := testkit.Connect(t, s.cfg.Postgres.URL)
			if _, err := other.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput', true)", s.cfg.Slot); err != nil {
				t.Fatal(err)
			}
		}, init: true},
		{id: "slot_not_ready", harm: func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "BEGIN; INSERT INTO public.outbox (event_type, source) VALUES ('a', '/b')")
			other := testkit.Connect(t, s.cfg.Postgres.URL)
			done := make(chan struct{})
			t.Cleanup(func() { <-done })
			go func() {
				defer close(done)
				_, err := other.Exec(context.Background(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", s.cfg.Slot)
				if err != nil {
					t.Error(err)
				}
			}()
		}, words: "end them", do: func(t *testing.T, s *system, _ check.Result) {
			s.exec(t, "COMMIT")
			testkit.Eventually(t, 30*time.Second, "the slot is there", func() error {
				if testkit.Query(t, s.cfg.Postgres.URL, "SELECT (confirmed_flush_lsn IS NOT NULL)::text FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot) != "true" {
					return errors.New("it is not")
				}
				return nil
			})
		}, init: true},
		{id: "stream_missing", harm: func(t *testing.T, s *system) {
			if err := s.js.DeleteStream(t.Context(), s.cfg.Streams[0].Name); err != nil {
				t.Fatal(err)
			}
			s.cfg.Streams[0].Subjects = nil
		}, words: "set streams[0].subjects", do: func(_ *testing.T, s *system, _ check.Result) {
			s.cfg.Streams[0].Subjects = []string{strings.Replace(s.cfg.Publish.Subject, "{type}", ">", 1)}
		}, init: true},
		{id: "stream_memory", harm: change(func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }), words: "use a stream with file storage", do: another, init: true},
		{id: "stream_no_ack", harm: change(func(c *jetstream.StreamConfig) { c.NoAck = true })},
		{id: "stream_no_ack", harm: change(func(c *jetstream.StreamConfig) { c.NoAck = true }), words: "or use another stream", do: another, init: true},
		{id: "stream_sealed", harm: func(t *testing.T, s *system) {
			sealed := streamConfig(s.cfg.WithDefaults().Streams[0], false)
			sealed.Sealed = true
			if _, err := s.js.UpdateStream(t.Context(), sealed); err != nil {
				t.Fatal(err)
			}
		}, words: "use another stream", do: another, init: true},
		{id: "stream_mirror", harm: func(t *testing.T, s *system) {
			other := s.system(t)
			other.setup(t)
			s.stream(t, func(c *jetstream.StreamConfig) {
				c.Subjects, c.Mirror = nil, &jetstream.StreamSource{Name: other.cfg.Streams[0].Name}
			})
		}, words: "publish to the stream it mirrors (STREAM_", do: func(t *testing.T, s *system, r check.Result) {
			var name string
			if _, err := fmt.Sscanf(r.Fix, "publish to the stream it mirrors (%s", &name); err != nil {
				t.Fatal(err)
			}
			s.cfg.Streams[0] = config.Stream{Name: strings.TrimSuffix(name, ")")}
			s.cfg.Publish.Subject = "s" + strings.TrimPrefix(s.cfg.Streams[0].Name, "STREAM_") + ".{type}"
		}},
		{id: "stream_async", harm: change(func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }), words: "use a stream without it", do: another, init: true},
		{id: "stream_sources", harm: func(t *testing.T, s *system) {
			other := s.system(t)
			other.setup(t)
			s.stream(t, func(c *jetstream.StreamConfig) {
				c.Sources = []*jetstream.StreamSource{{Name: other.cfg.Streams[0].Name}}
			})
		}, words: "take its sources away", do: func(t *testing.T, s *system, _ check.Result) {
			s.edit(t, func(c *jetstream.StreamConfig) { c.Sources = nil })
		}},
		{id: "stream_schedules", harm: change(func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = true }), words: "use another stream", do: another, init: true},
		{id: "stream_delete_markers", harm: change(func(c *jetstream.StreamConfig) {
			c.AllowMsgTTL, c.AllowRollup, c.SubjectDeleteMarkerTTL = true, true, time.Minute
		}), words: "set subject_delete_marker_ttl to 0", do: func(t *testing.T, s *system, _ check.Result) {
			s.edit(t, func(c *jetstream.StreamConfig) { c.SubjectDeleteMarkerTTL = 0 })
		}},
		{id: "stream_atomic", harm: func(_ *testing.T, s *system) { s.cfg.Publish.Atomic = true }},
		{id: "stream_atomic", harm: func(_ *testing.T, s *system) { s.cfg.Publish.Atomic = true },
			words: "or set publish.atomic to false", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Publish.Atomic = false }},
		{id: "stream_retention", harm: change(func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }), words: "use a stream with limits retention", do: another, init: true},
		{id: "stream_replicas", harm: func(_ *testing.T, s *system) { s.cfg.Streams[0].Replicas = 3 },
			words: "or correct replicas of the stream in the configuration", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Streams[0].Replicas = 1 }},
		{id: "stream_subjects", harm: func(_ *testing.T, s *system) {
			s.cfg.Streams[0].Subjects = append(s.cfg.Streams[0].Subjects, "more."+s.cfg.Streams[0].Name)
		}},
		{id: "subject_coverage", harm: change(func(c *jetstream.StreamConfig) {
			c.Subjects = []string{strings.Replace(c.Subjects[0], ".>", ".a.>", 1)}
		}), words: "or the stream's subjects", do: func(t *testing.T, s *system, _ check.Result) {
			s.edit(t, func(c *jetstream.StreamConfig) { c.Subjects = s.cfg.Streams[0].Subjects })
		}},
		{id: "subject_coverage", harm: func(_ *testing.T, s *system) { s.cfg.Publish.Subject = "elsewhere.{type}" },
			words: "correct the subject", do: func(_ *testing.T, s *system, _ check.Result) {
				s.cfg.Publish.Subject = strings.Replace(s.cfg.Streams[0].Subjects[0], ">", "{type}", 1)
			}},
		{id: "stream_full", harm: func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardNew, 10 })
			s.publish(t, 10)
		}, words: "raise its limits", do: func(t *testing.T, s *system, _ check.Result) {
			s.edit(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 100 })
		}},
		{id: "stream_full", harm: func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardNew, 10 })
			s.publish(t, 10)
		}, words: "or remove messages", do: func(t *testing.T, s *system, _ check.Result) {
			stream, err := s.js.Stream(t.Context(), s.cfg.Streams[0].Name)
			if err == nil {
				err = stream.Purge(t.Context(), jetstream.WithPurgeKeep(5))
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{id: "stream_other_writer", harm: func(t *testing.T, s *system) {
			s.publish(t, 1, event.PositionHeader, "0000000000000001.00000000 1 2/other")
		}, words: "or give each relay a stream of its own", do: another, init: true},
		{id: "consumer_behind", harm: func(t *testing.T, s *system) {
			s.publish(t, 10)
			s.consume(t, 1)
			s.edit(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 2 })
		}, words: "make the consumer faster", do: func(t *testing.T, s *system, _ check.Result) { s.consume(t, 2) }},
		{id: "schema_rights", harm: func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE half LOGIN REPLICATION; GRANT USAGE ON SCHEMA walrelay TO half; GRANT ALL ON walrelay.migrations, walrelay.progress TO half; GRANT SELECT, INSERT, UPDATE ON walrelay.delayed, walrelay.keys TO half")
			as(s, "half")
		}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			t.Parallel()
			s := b.system(t)
			s.setup(t)
			tt.remedied(t, s)
		})
	}
}

// What is of the servers, each with its own.
func TestDoctor_RemediesOfServers(t *testing.T) {
	replicate := func(t *testing.T, s *system) *pgconn.PgConn {
		t.Helper()
		conn, err := pgconn.Connect(t.Context(), s.url+"&replication=database")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	standby := func(t *testing.T, s *system) {
		t.Helper()
		s.standby = testkit.Standby(t, s.cluster)
		s.connect(t) // the primary was restarted
		s.cfg.Postgres.Standby = fmt.Sprintf("127.0.0.1:%d", s.standby.Port())
	}
	synchronous := func(names string) func(*testing.T, *system) {
		return func(t *testing.T, s *system) {
			t.Helper()
			t.Cleanup(func() { testkit.AlterSystem(t, s.url, "RESET synchronous_standby_names") }) // or every commit waits
			testkit.AlterSystem(t, s.url, "SET synchronous_standby_names = '"+names+"'")
		}
	}
	full := func(t *testing.T, s *system) {
		t.Helper()
		s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
		s.restart(t, "max_replication_slots = 1")
		s.exec(t, "SELECT pg_create_physical_replication_slot('nobody')")
	}
	// write writes more WAL than half of the limit, or more than that.
	write := func(limit string, megabytes int) func(*testing.T, *system) {
		return func(t *testing.T, s *system) {
			t.Helper()
			testkit.AlterSystem(t, s.url, "SET max_slot_wal_keep_size = '"+limit+"'")
			for range megabytes {
				s.exec(t, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 1000000))")
			}
		}
	}
	raise := func(t *testing.T, s *system, _ check.Result) {
		t.Helper()
		testkit.AlterSystem(t, s.url, "SET max_slot_wal_keep_size = '10GB'")
	}
	authority := filepath.Join(t.TempDir(), "ca.pem")
	plainAndTLS := func(o *server.Options) {
		key := authority + ".key"
		testkit.Certificate(t, authority, key, "127.0.0.1", outside(t))
		pair, err := tls.LoadX509KeyPair(authority, key)
		if err != nil {
			t.Fatal(err)
		}
		o.Host, o.AllowNonTLS, o.TLSTimeout = "0.0.0.0", true, 5
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	type atServers struct {
		broken
		name         string
		from, before int // the versions of Postgres that it is of
		nats         func(*server.Options)
		nodes        int
		own          bool // with a cluster of its own
	}
	// Those of a group run one after the other, on one cluster.
	for group, cases := range map[string][]atServers{
		"Postgres": {
			{name: "a standby of the slot is away", from: 17, broken: broken{id: "standby_slots", harm: func(t *testing.T, s *system) {
				s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
				s.cfg.Failover = true
				s.setup(t)
				s.exec(t, "SELECT pg_create_physical_replication_slot('away')")
				t.Cleanup(func() { testkit.Exec(t, s.url, "SELECT pg_drop_replication_slot('away')") })
				testkit.AlterSystem(t, s.url, "SET synchronized_standby_slots = 'away'")
			}, words: "or take them out of synchronized_standby_slots", do: func(t *testing.T, s *system, _ check.Result) {
				testkit.AlterSystem(t, s.url, "RESET synchronized_standby_slots")
			}}},
			{name: "no limit for WAL", broken: broken{id: "slot_wal_limit", harm: func(*testing.T, *system) {}}},
			{
				name:   "half of the WAL",
				broken: broken{id: "slot_wal_half", harm: write("64MB", 45), words: "or raise max_slot_wal_keep_size before the next checkpoint", do: raise},
			},
			{
				name:   "more than the WAL",
				broken: broken{id: "slot_wal_unreserved", harm: write("16MB", 70), words: "or raise max_slot_wal_keep_size before the next checkpoint", do: raise},
			},
			{name: "wal_level", broken: broken{id: "wal_level", harm: func(t *testing.T, s *system) {
				s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
				s.restart(t, "wal_level = replica")
			}, words: "set wal_level = logical", do: func(t *testing.T, s *system, _ check.Result) { s.restart(t, "wal_level = logical") }, init: true}},
			{name: "no slot is free: drop one", broken: broken{id: "replication_slots", harm: full, words: "or drop a slot that nobody uses", do: func(t *testing.T, s *system, _ check.Result) {
				s.exec(t, "SELECT pg_drop_replication_slot('nobody')")
			}, init: true}},
			{name: "no slot is free: have more", broken: broken{id: "replication_slots", harm: full, words: "raise max_replication_slots and restart Postgres", do: func(t *testing.T, s *system, _ check.Result) {
				s.restart(t, "max_replication_slots = 2")
			}, init: true}},
			{name: "no walsender is free", broken: broken{id: "wal_senders", harm: func(t *testing.T, s *system) {
				s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
				s.restart(t, "max_wal_senders = 1")
				replicate(t, s)
			}, words: "raise max_wal_senders and restart Postgres", do: func(t *testing.T, s *system, _ check.Result) {
				s.restart(t, "max_wal_senders = 2")
				replicate(t, s)
			}, init: true}},
			{name: "commits wait: by other names", broken: broken{
				id: "synchronous_standby_names", harm: synchronous("*"),
				words: "list the real standbys there by name", do: func(t *testing.T, s *system, _ check.Result) {
					testkit.AlterSystem(t, s.url, "SET synchronous_standby_names = 'replica'")
				},
			}},
			{name: "commits wait: by another name of the relay", broken: broken{id: "synchronous_standby_names", harm: synchronous("FIRST 1 (replica, walrelay)"), words: "give walrelay another name with application_name in postgres.url", do: func(_ *testing.T, s *system, _ check.Result) {
				s.cfg.Postgres.URL += "&application_name=events"
			}}},
			{name: "Postgres is down", broken: broken{id: "postgres_reachable", harm: func(t *testing.T, s *system) {
				if err := s.cluster.Stop(t.Context(), localpg.Fast); err != nil {
					t.Fatal(err)
				}
			}, words: "start it", do: func(t *testing.T, s *system, _ check.Result) {
				if err := s.cluster.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.connect(t)
			}}},
			{name: "NATS is down", broken: broken{
				id: "nats_reachable", harm: func(_ *testing.T, s *system) { s.nats.Stop() },
				words: "start it", do: func(t *testing.T, s *system, _ check.Result) {
					if err := s.nats.Restart(); err != nil {
						t.Fatal(err)
					}
				},
			}},
		},
		"NATS": {
			{name: "a server of the stream is away", nodes: 3, broken: broken{id: "stream_cluster", harm: func(t *testing.T, s *system) {
				testkit.AwaitReplicas(t, s.js, s.cfg.Streams[0].Name)
				s.cfg.NATS.URL = s.nodes.URLs()[0]
				s.nodes.KillNode(2)
			}, words: "start the servers", do: func(t *testing.T, s *system, _ check.Result) {
				if err := s.nodes.RestartNode(2); err != nil {
					t.Fatal(err)
				}
			}}},
			{name: "too few replicas", nodes: 3, broken: broken{id: "stream_replicas", harm: func(t *testing.T, s *system) {
				testkit.AwaitReplicas(t, s.js, s.cfg.Streams[0].Name)
				s.edit(t, func(c *jetstream.StreamConfig) { c.Replicas = 1 })
			}}},
			{name: "an account that is full", nats: func(o *server.Options) { account(t, o, 1) }, broken: broken{
				id: "nats_account_limit", harm: func(*testing.T, *system) {},
				words: "raise the limit of the account", do: func(t *testing.T, s *system, _ check.Result) {
					s.nats.Stop()
					s.nats.Configure(func(o *server.Options) { account(t, o, 10) })
					if err := s.nats.Restart(); err != nil {
						t.Fatal(err)
					}
				},
			}},
			{name: "a password in plain", nats: plainAndTLS, broken: broken{id: "nats_plain", harm: func(t *testing.T, s *system) {
				s.cfg.NATS.URL = strings.Replace(s.natsURL, "127.0.0.1", outside(t), 1)
				s.cfg.NATS.User, s.cfg.NATS.Password = "relay", "secret"
			}, words: "use tls:// in nats.url", do: func(_ *testing.T, s *system, _ check.Result) {
				s.cfg.NATS.TLS.CAFile = authority // of a public one it would not be needed
				s.cfg.NATS.URL = strings.Replace(s.cfg.NATS.URL, "nats://", "tls://", 1)
			}}},
		},
		"standbys": {
			{own: true, name: "a standby", broken: broken{id: "server_standby", harm: func(t *testing.T, s *system) {
				standby(t, s)
				s.cfg.Postgres.URL = strings.Replace(s.url, fmt.Sprintf("127.0.0.1:%d", s.cluster.Port()), s.cfg.Postgres.Standby, 1)
				s.cfg.Postgres.Standby = ""
			}, words: "set postgres.url to the primary", do: func(_ *testing.T, s *system, _ check.Result) {
				s.cfg.Postgres.URL = s.url
			}}},
			{own: true, name: "the standby is down", from: 16, broken: broken{id: "standby_reachable", harm: func(t *testing.T, s *system) {
				standby(t, s)
				s.setup(t)
				if err := s.standby.Stop(t.Context(), localpg.Fast); err != nil {
					t.Fatal(err)
				}
			}, words: "start it", do: func(t *testing.T, s *system, _ check.Result) {
				if err := s.standby.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}}},
			{own: true, name: "the standby of another cluster", from: 16, broken: broken{
				id: "standby_other", harm: func(t *testing.T, s *system) {
					elsewhere := testkit.Postgres(t)
					testkit.Exec(t, elsewhere.URL("postgres"), "CREATE DATABASE "+testkit.Query(t, s.url, "SELECT current_database()"))
					s.cfg.Postgres.Standby = fmt.Sprintf("127.0.0.1:%d", elsewhere.Port())
				},
				words: "set postgres.standby to a standby of that primary", do: func(t *testing.T, s *system, _ check.Result) { standby(t, s) }, init: true,
			}},
			{own: true, name: "an old standby", before: 16, broken: broken{id: "standby_version", harm: func(t *testing.T, s *system) {
				standby(t, s)
			}, words: "remove postgres.standby from the configuration", do: func(_ *testing.T, s *system, _ check.Result) { s.cfg.Postgres.Standby = "" }}},
			{own: true, name: "a standby without feedback", from: 16, broken: broken{id: "standby_feedback", harm: func(t *testing.T, s *system) {
				standby(t, s)
				s.setup(t)
				testkit.AlterSystem(t, s.standby.URL("postgres"), "SET hot_standby_feedback = off")
			}, words: "on the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()", do: func(t *testing.T, s *system, _ check.Result) {
				testkit.AlterSystem(t, s.standby.URL("postgres"), "SET hot_standby_feedback = on")
			}}},
			{own: true, name: "a promoted standby", from: 16, broken: broken{id: "standby_promoted", harm: func(t *testing.T, s *system) {
				standby(t, s)
				s.setup(t)
				if testkit.Query(t, s.standby.URL("postgres"), "SELECT pg_promote()::text") != "true" {
					t.Fatal("the standby was not promoted")
				}
			}, words: "set postgres.url to it, and remove postgres.standby", do: func(_ *testing.T, s *system, _ check.Result) {
				s.cfg.Postgres.URL = strings.Replace(s.url, fmt.Sprintf("127.0.0.1:%d", s.cluster.Port()), s.cfg.Postgres.Standby, 1)
				s.cfg.Postgres.Standby = ""
			}}},
		},
	} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			cluster := testkit.Postgres(t)
			for _, tt := range cases {
				t.Run(tt.name, func(t *testing.T) {
					if v := cluster.Version(); v < tt.from || tt.before > 0 && v >= tt.before {
						t.Skipf("needs another version than %d", v)
					}
					b := &servers{cluster: cluster}
					if tt.own {
						b.cluster = testkit.Postgres(t)
					}
					if tt.nodes > 0 {
						b.nodes = testkit.NATSCluster(t, tt.nodes)
						b.natsURL = strings.Join(b.nodes.URLs(), ",")
					} else {
						b.nats = testkit.NATS(t, tt.nats)
						b.natsURL = b.nats.URL()
					}
					_, b.js = testkit.JetStream(t, b.natsURL)
					s := b.system(t)
					if tt.nodes > 0 {
						s.cfg.Streams[0].Replicas = tt.nodes
					}
					s.setup(t)
					tt.remedied(t, s)
				})
			}
		})
	}
}

// outside is an address of this machine that others may reach.
func outside(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has no address but its own")
	return ""
}

// account has all clients use an account with that many streams.
func account(t *testing.T, o *server.Options, streams int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf(`accounts { EVENTS { jetstream { max_streams: %d }, users [{user: relay, password: secret}] } }
no_auth_user: relay`, streams)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	parsed, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o.Accounts, o.Users, o.NoAuthUser = parsed.Accounts, parsed.Users, parsed.NoAuthUser
}

// restart restarts Postgres with a setting.
func (s *system) restart(t *testing.T, setting string) {
	t.Helper()
	s.exec(t, "ALTER SYSTEM SET "+setting)
	if err := errors.Join(s.cluster.Stop(t.Context(), localpg.Fast), s.cluster.Restart(t.Context())); err != nil {
		t.Fatal(err)
	}
	s.connect(t)
}

// remedied breaks the thing, and follows what doctor says.
func (b *broken) remedied(t *testing.T, s *system) {
	t.Helper()
	b.harm(t, s)
	var r check.Result
	testkit.Eventually(t, 20*time.Second, "it is named", func() error {
		results, err := check.Doctor(t.Context(), s.cfg)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(results, func(r check.Result) bool { return r.ID == b.id && r.Status >= check.Warn })
		if at < 0 {
			return errors.New("it is not")
		}
		r = results[at]
		for _, r := range results {
			if strings.HasPrefix(r.What, "not everything could be asked") {
				t.Errorf("besides, doctor says %s", r.Text())
			}
		}
		return nil
	})
	if err := b.follow(t, s, r); err != nil {
		t.Fatalf("%s: %v", r.Text(), err)
	}
	testkit.Eventually(t, 20*time.Second, "it is mended", func() error {
		results, err := check.Doctor(t.Context(), s.cfg)
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.ID != b.id && strings.HasPrefix(r.Fix, `run "walrelay init"`) { // what was in the way is gone, and this comes next
				_, err := Setup(t.Context(), s.cfg)
				return errors.Join(errors.New(r.Text()), err)
			}
			if r.ID == b.id && r.Status >= check.Warn || r.Status == check.Fail {
				return errors.New(r.Text())
			}
		}
		return nil
	})
}

// follow does what a check says: as a superuser with psql, with the nats command, in the
// configuration, with init.
func (b *broken) follow(t *testing.T, s *system, r check.Result) error {
	t.Helper()
	statements := remedies.FindString(r.Fix)
	for _, end := range []string{" (what", " (on"} {
		statements = strings.TrimSuffix(statements, end)
	}
	_, edit, edits := strings.Cut(r.Fix, "nats stream edit "+s.cfg.Streams[0].Name+" ")
	switch {
	case b.do != nil && !strings.Contains(r.Fix, b.words):
		return fmt.Errorf("it does not say %q", b.words)
	case b.do != nil:
		b.do(t, s, r)
	case statements != "":
		for statement := range strings.SplitSeq(statements, "; ") {
			if _, err := s.conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
	case edits:
		return s.natsStreamEdit(t, edit)
	case !b.init:
		return errors.New("it names no statement")
	}
	if !b.init {
		return nil
	}
	if b.do == nil && !strings.Contains(r.Fix, `"walrelay init"`) {
		return errors.New(`it does not name "walrelay init"`)
	}
	_, err := Setup(t.Context(), s.cfg)
	return err
}

// natsStreamEdit does what that command does by the options before the first comma.
func (s *system) natsStreamEdit(t *testing.T, options string) error {
	t.Helper()
	var err error
	s.edit(t, func(c *jetstream.StreamConfig) {
		name, value, _ := strings.Cut(options, " ")
		value, _, _ = strings.Cut(value, ", or ")
		switch name, _, _ = strings.Cut(name, ","); name {
		case "--max-msg-size":
			_, err = fmt.Sscan(value, &c.MaxMsgSize)
		case "--dupe-window":
			c.Duplicates, err = time.ParseDuration(value)
		case "--subjects":
			c.Subjects = strings.Split(strings.Trim(value, "'"), ",")
		case "--allow-batch":
			c.AllowAtomicPublish = true
		case "--replicas":
			_, err = fmt.Sscan(value, &c.Replicas)
		case "--ack":
			c.NoAck = false
		default:
			err = fmt.Errorf("nats stream edit %s: not known to this test", options)
		}
	})
	return err
}

// edit changes the stream that is there.
func (s *system) edit(t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	testkit.UpdateStream(t, s.js, s.cfg.Streams[0].Name, change)
}

// publish publishes messages of somebody, with headers.
func (s *system) publish(t *testing.T, n int, headers ...string) {
	t.Helper()
	msg := nats.NewMsg(strings.Replace(s.cfg.Publish.Subject, "{type}", "a", 1))
	for i := 0; i < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	for range n {
		if _, err := s.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
}

// consume acknowledges the next messages.
func (s *system) consume(t *testing.T, n int) {
	t.Helper()
	consumer, err := s.js.CreateOrUpdateConsumer(t.Context(), s.cfg.Streams[0].Name, jetstream.ConsumerConfig{Durable: "slow", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		msg, err := consumer.Next()
		if err == nil {
			err = msg.DoubleAck(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
