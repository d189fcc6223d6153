package walrelay

import (
	"errors"
	"strings"
	"testing"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/connect"
)

// minimal is the smallest configuration that is valid.
func minimal() Config {
	return Config{Postgres: config.Postgres{URL: "postgres://localhost/app"}, NATS: config.NATS{URL: "nats://localhost"}}
}

// goodServer is a server with nothing wrong.
func goodServer() serverState {
	return serverState{
		Version: 170002, VersionText: "17.2", WALLevel: "logical", MaxSlots: 10, MaxWalsenders: 10, KeepSize: 1024,
		Role: "relay", Database: "app", MayReplicate: true, applicationName: connect.ApplicationName,
	}
}

// What a server is like can be changed only for a whole cluster, and some of it
// only by a restart; hence states written by hand.
func TestServerFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*serverState, *Config)
		want   string // "" for no fault
	}{
		{"nothing", func(*serverState, *Config) {}, ""},
		{"too old", func(s *serverState, _ *Config) { s.Version, s.VersionText = 130012, "13.12" }, "Postgres is version 13.12: walrelay needs 14 or newer; upgrade the server"},
		{"standby", func(s *serverState, _ *Config) { s.Standby = true }, "the Postgres server is a standby"},
		{"wal_level", func(s *serverState, _ *Config) { s.WALLevel = "replica" }, `wal_level is "replica": logical replication needs "logical"; set wal_level = logical`},
		{"no slot free", func(s *serverState, _ *Config) { s.Slots = 10 }, "no replication slot is free (max_replication_slots = 10)"},
		{"no walsender free", func(s *serverState, _ *Config) { s.Walsenders = 10 }, "no walsender is free (max_wal_senders = 10)"},
		{"synchronous", func(s *serverState, _ *Config) { s.SynchronousNames = "*" }, "synchronous_standby_names = '*' matches walrelay"},
		{"synchronous to another name", func(s *serverState, _ *Config) {
			s.SynchronousNames, s.applicationName = "walrelay", "events"
		}, ""},
		{"failover", func(s *serverState, c *Config) { s.Version, s.VersionText, c.Failover = 160004, "16.4", true }, "failover is set, but Postgres is version 16.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, server := minimal().WithDefaults(), goodServer()
			tt.change(&server, &cfg)
			f := findings{creating: true}
			f.postgres(postgresState{server: server, tables: make([]tableState, 1)}, cfg)
			got := ""
			if err := errors.Join(f.faults...); err != nil {
				got = err.Error()
			}
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("want %q, got %q", tt.want, got)
			}
		})
	}
}

func TestAFullServerIsEnoughForASlotThatExists(t *testing.T) {
	server := goodServer()
	server.Slots, server.Walsenders = 10, 10
	f := findings{}
	f.server(server, &slotState{}, minimal())
	if len(f.faults) > 0 {
		t.Errorf("the slot is among those that exist, but: %v", f.faults)
	}
}

func TestALostSlotIsNamedWithItsReason(t *testing.T) {
	for _, tt := range []struct {
		change func(*slotState)
		want   string
	}{
		{func(s *slotState) { s.WALStatus = "lost" }, "is lost (wal_removed)"},
		// Postgres 18 invalidates idle slots, whose WAL may still be there.
		{func(s *slotState) { s.InvalidationReason = "idle_timeout" }, "is lost (idle_timeout)"},
		{func(s *slotState) { s.Conflicting = true }, "is lost (conflict with recovery)"},
		{func(s *slotState) { s.Ready = false }, "is not ready"},
	} {
		slot := slotState{Type: "logical", Plugin: "pgoutput", WALStatus: "reserved", Ready: true}
		tt.change(&slot)
		f := findings{}
		f.slot(&slot, minimal().WithDefaults())
		if len(f.faults) != 1 || !strings.Contains(f.faults[0].Error(), tt.want) {
			t.Errorf("want one fault with %q, got %v", tt.want, f.faults)
		}
	}
}

func TestRowFiltersAndColumnListsAreFaults(t *testing.T) {
	cfg := minimal().WithDefaults()
	f := findings{}
	f.table("public.outbox", tableState{Kind: "r", Permanent: true, Published: true, Filtered: true, ColumnList: true}, &publicationState{}, cfg)
	got := errors.Join(f.faults...)
	if got == nil || !strings.Contains(got.Error(), "row filter") || !strings.Contains(got.Error(), "column list") {
		t.Errorf("want both, got %v", got)
	}
}

func TestSynchronousStandbyNamesThatMatch(t *testing.T) {
	for _, tt := range []struct {
		setting string
		want    bool
	}{
		{"", false},
		{"*", true},
		{"standby1, standby2", false},
		{"standby1, WalRelay", true},
		{`ANY 1 (standby1, "walrelay")`, true},
		{"FIRST 2 (a,*)", true},
		{"2 (a, b, walrelay2)", false},
		{`"not walrelay"`, false},
	} {
		if _, got := synchronousMatch(tt.setting, connect.ApplicationName); got != tt.want {
			t.Errorf("synchronous_standby_names = '%s': want %v, got %v", tt.setting, tt.want, got)
		}
	}
}
