package provision

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
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

// What a check says of each thing: TestDoctor_RemediesAsWritten.
func TestCheck_Refuses(t *testing.T) {
	b := newServers(t)
	for _, tt := range []struct {
		name string
		harm func(*testing.T, *system)
		want []string // in one line of the error
	}{
		{"no such role", func(_ *testing.T, s *system) {
			s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "postgres@", "nobody@", 1)
		}, []string{"Postgres refuses the connection", "nobody"}},
		{"no such database", func(_ *testing.T, s *system) {
			s.cfg.Postgres.URL = strings.Replace(s.cfg.Postgres.URL, "/test_", "/missing_", 1)
		}, []string{"Postgres refuses the connection", "does not exist"}},
		{"no mapped table", func(_ *testing.T, s *system) {
			s.cfg.Outbox.Tables = []string{"public.outbox", "public.mine"}
			s.cfg.Outbox.Mappings = []config.Mapping{{Table: "public.mine", Preset: "debezium"}}
		}, []string{"outbox table public.mine does not exist", "create it"}},
		{"no publication", func(_ *testing.T, s *system) { s.cfg.Publication = "other" }, []string{`publication "other" does not exist, but replication slot`, "A publication was dropped"}},
		{"no slot", func(t *testing.T, s *system) { s.exec(t, "SELECT pg_drop_replication_slot('{slot}')") }, []string{"replication slot", "does not exist", `run "walrelay init"`}},
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
