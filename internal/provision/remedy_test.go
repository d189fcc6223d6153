package provision

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/testkit"
)

// remedies finds the statements in what a check says is to be done: all of a list, or the first
// of several ways.
var remedies = regexp.MustCompile(`(?:BEGIN; |ALTER |GRANT |SELECT pg_|CREATE INDEX |ROLLBACK PREPARED ).*?(?: \(what| \(on|$)`)

// Each thing is broken, named, and mended by the statements that doctor prints, as they are.
func TestDoctor_RemediesAsWritten(t *testing.T) {
	b := newServers(t)
	as := func(s *system, role string) {
		s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", role+"@", 1)
	}
	for _, tt := range []struct {
		id   string
		harm func(*testing.T, *system)
		// init says that "walrelay init" comes after the statements, or is all that is to be done.
		init bool
	}{
		{"schema_missing", func(t *testing.T, s *system) { s.exec(t, "DROP SCHEMA walrelay CASCADE") }, true},
		{"schema_old", func(t *testing.T, s *system) { s.exec(t, "DELETE FROM walrelay.migrations WHERE version > 12") }, true},
		{"schema_rights", func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE \"Odd one\" LOGIN REPLICATION")
			as(s, "Odd%20one")
		}, false},
		{"role_replication", func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE dumb LOGIN; GRANT USAGE ON SCHEMA walrelay TO dumb; GRANT ALL ON ALL TABLES IN SCHEMA walrelay TO dumb")
			as(s, "dumb")
		}, false},
		{"outbox_rights", func(t *testing.T, s *system) {
			s.exec(t, "CREATE ROLE poor LOGIN REPLICATION; GRANT USAGE ON SCHEMA walrelay TO poor; GRANT ALL ON ALL TABLES IN SCHEMA walrelay TO poor")
			as(s, "poor")
		}, false},
		{"outbox_missing", func(t *testing.T, s *system) { s.exec(t, "DROP TABLE public.outbox") }, true},
		{"outbox_unlogged", func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay DROP TABLE public.outbox; ALTER TABLE public.outbox SET UNLOGGED")
		}, false},
		{"outbox_unpublished", func(t *testing.T, s *system) { s.exec(t, "ALTER PUBLICATION walrelay DROP TABLE public.outbox") }, true},
		{"outbox_row_filter", func(t *testing.T, s *system) {
			s.since(t, 15)
			s.exec(t, "ALTER PUBLICATION walrelay SET TABLE walrelay.emitted, public.outbox WHERE (source <> '/private')")
		}, false},
		{"outbox_column_list", func(t *testing.T, s *system) {
			s.since(t, 15)
			s.exec(t, "ALTER PUBLICATION walrelay SET TABLE walrelay.emitted, public.outbox (id, event_type, source)")
		}, false},
		{"outbox_columns", func(t *testing.T, s *system) { s.exec(t, "ALTER TABLE public.outbox DROP COLUMN data_schema") }, true},
		{"outbox_scheduled_at", func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox ALTER COLUMN scheduled_at TYPE timestamp")
		}, false},
		{"outbox_id_index", func(t *testing.T, s *system) { s.exec(t, "ALTER TABLE public.outbox DROP CONSTRAINT outbox_pkey") }, false},
		{"outbox_published_at", func(t *testing.T, s *system) {
			s.exec(t, "CREATE TABLE public.\"Mine\" (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb)")
			s.cfg.Outbox = config.Outbox{AfterPublish: "mark", Tables: []string{`public.Mine`}, Mappings: []config.Mapping{{Table: `public.Mine`, Preset: "debezium"}}}
			s.exec(t, "ALTER PUBLICATION walrelay ADD TABLE public.\"Mine\"")
		}, false},
		{"outbox_autovacuum", func(t *testing.T, s *system) { s.exec(t, "ALTER TABLE public.outbox SET (autovacuum_enabled = off)") }, false},
		{"publication_own_tables", func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay ADD TABLE walrelay.progress, walrelay.delayed")
		}, false},
		{"publication_emitted", func(t *testing.T, s *system) { s.exec(t, "ALTER PUBLICATION walrelay DROP TABLE walrelay.emitted") }, true},
		{"publication_inserts", func(t *testing.T, s *system) {
			s.exec(t, "ALTER TABLE public.outbox REPLICA IDENTITY FULL; ALTER PUBLICATION walrelay SET (publish = 'update')")
		}, false},
		{"publication_other_operations", func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay SET (publish = 'insert, update')")
		}, false},
		{"publication_root", func(t *testing.T, s *system) {
			s.exec(t, "ALTER PUBLICATION walrelay SET (publish_via_partition_root = false)")
		}, false},
		{"slot_missing", func(t *testing.T, s *system) { s.exec(t, "SELECT pg_drop_replication_slot('{slot}')") }, true},
		{"slot_type", func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}'); SELECT pg_create_physical_replication_slot('{slot}')")
		}, true},
		{"slot_plugin", func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")
		}, true},
		{"slot_two_phase", func(t *testing.T, s *system) {
			s.exec(t, "SELECT pg_drop_replication_slot('{slot}')")
			s.exec(t, "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)")
		}, true},
		{"wal_sender_timeout", func(t *testing.T, s *system) {
			s.exec(t, "ALTER SYSTEM SET wal_sender_timeout = 0")
			s.exec(t, "SELECT pg_reload_conf()")
		}, false},
		{"autovacuum", func(t *testing.T, s *system) {
			s.exec(t, "ALTER SYSTEM SET autovacuum = off")
			s.exec(t, "SELECT pg_reload_conf()")
		}, false},
		{"idle_replication_slot_timeout", func(t *testing.T, s *system) {
			s.since(t, 18)
			s.exec(t, "ALTER SYSTEM SET idle_replication_slot_timeout = '1d'")
			s.exec(t, "SELECT pg_reload_conf()")
		}, false},
		{"stream_missing", func(t *testing.T, s *system) {
			if err := s.js.DeleteStream(t.Context(), s.cfg.Streams[0].Name); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"stream_message_size", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
		}, false},
		{"stream_duplicates", func(t *testing.T, s *system) {
			s.stream(t, func(c *jetstream.StreamConfig) { c.Duplicates = time.Second })
			s.cfg.Streams[0].Shared = true
		}, false},
	} {
		t.Run(tt.id, func(t *testing.T) {
			t.Parallel()
			s := b.system(t)
			s.setup(t)
			s.exec(t, "SELECT 1")
			harmed := *s
			tt.harm(t, &harmed)
			named := func() (r check.Result, found bool) {
				results, err := check.Doctor(t.Context(), harmed.cfg)
				if err != nil {
					t.Fatal(err)
				}
				at := slices.IndexFunc(results, func(r check.Result) bool { return r.ID == tt.id && r.Status >= check.Warn })
				if at < 0 {
					return r, false
				}
				return results[at], true
			}
			var r check.Result
			testkit.Eventually(t, 10*time.Second, "it is named", func() (err error) {
				var found bool
				if r, found = named(); !found {
					err = errors.New("it is not")
				}
				return err
			})
			if err := harmed.follow(t, r.Text(), tt.init); err != nil {
				t.Fatalf("%s: %v", r.Text(), err)
			}
			testkit.Eventually(t, 10*time.Second, "it is mended", func() error {
				if r, found := named(); found {
					return errors.New(r.Text())
				}
				return nil
			})
		})
	}
}

// follow does what a check says: as a superuser with psql, with the nats command, with init.
func (s *system) follow(t *testing.T, text string, init bool) error {
	t.Helper()
	statements := remedies.FindString(text)
	for _, end := range []string{" (what", " (on"} {
		statements = strings.TrimSuffix(statements, end)
	}
	var stream string
	var size int32
	switch {
	case statements != "":
		for statement := range strings.SplitSeq(statements, "; ") {
			if _, err := s.conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
	case strings.Contains(text, "nats stream edit"):
		stream = s.cfg.Streams[0].Name
		info, err := s.js.Stream(t.Context(), stream)
		if err != nil {
			return err
		}
		cfg := info.CachedInfo().Config
		_, command, _ := strings.Cut(text, "nats stream edit "+stream+" ")
		if _, err := fmt.Sscanf(command, "--max-msg-size %d", &size); err == nil {
			cfg.MaxMsgSize = size
		} else if strings.HasPrefix(command, "--dupe-window 2m") {
			cfg.Duplicates = 2 * time.Minute
		} else {
			return fmt.Errorf("nats stream edit %s: not known to this test", command)
		}
		if _, err := s.js.UpdateStream(t.Context(), cfg); err != nil {
			return err
		}
	case !init:
		return errors.New("it names no statement")
	}
	if !init {
		return nil
	}
	if !strings.Contains(text, `"walrelay init"`) {
		return errors.New(`it does not name "walrelay init"`)
	}
	_, err := Setup(t.Context(), s.cfg)
	return err
}
