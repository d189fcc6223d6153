package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// healthy is an examination in which nothing is wrong.
func healthy() Examination {
	now := time.Date(2026, 11, 27, 20, 0, 0, 0, time.UTC)
	timeout, off, none := int64(60_000), false, ""
	on := true
	return Examination{
		Server: ServerState{Clock: now, WALSenderTimeout: &timeout, IdleSlotTimeout: &off, StandbySlots: &none, Autovacuum: &on},
		Tables: []*TableState{{Live: 10, Dead: 10, MaySelect: true, MayDelete: true, MayUpdate: true}},
		NATS: &NATSState{
			Version: "2.12.1", MaxPayload: 1 << 20, Account: &jetstream.AccountInfo{}, Clock: now,
			Consumers: map[string][]*jetstream.ConsumerInfo{},
		},
		Before: now.Add(-time.Second), After: now.Add(time.Second),
	}
}

func TestExamine_PassesWhatIsWell(t *testing.T) {
	t.Parallel()
	facts, cfg := good()
	pid := int32(7)
	facts.Slot.ActivePID = &pid
	e := healthy()
	results := Examine(&facts, &e, cfg)
	if worst := results.Worst(); worst != Pass || len(results) < 14 {
		t.Errorf("%d results, the worst %v: %+v", len(results), worst, results.With(worst))
	}
}

func TestExamine_FindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	yes := true
	for name, test := range map[string]struct {
		breaks func(*Facts, *Examination, *config.Config)
		status Status
		id     string
		text   string
	}{
		"a pooler": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Replication = errors.New("unsupported startup parameter")
		}, Fail, "replication_connection", "PgBouncer"},
		"no relay":            {func(f *Facts, _ *Examination, _ *config.Config) { f.Slot.ActivePID = nil }, Warn, "relay_missing", "no relay reads"},
		"no timeout":          {func(_ *Facts, e *Examination, _ *config.Config) { *e.Server.WALSenderTimeout = 0 }, Warn, "wal_sender_timeout", "0 ms"},
		"a short timeout":     {func(_ *Facts, e *Examination, _ *config.Config) { *e.Server.WALSenderTimeout = 2000 }, Warn, "wal_sender_timeout", "2000 ms"},
		"idle slots are lost": {func(_ *Facts, e *Examination, _ *config.Config) { *e.Server.IdleSlotTimeout = true }, Warn, "idle_replication_slot_timeout", "is set"},
		"a standby is away": {func(f *Facts, e *Examination, _ *config.Config) {
			f.Slot.Failover = &yes
			*e.Server.StandbySlots = `there, "away"`
			e.Server.ActivePhysical = []string{"there"}
			e.Standbys = []Standby{{Host: "away", Present: true, Synced: true}}
		}, Fail, "standby_slots", ": away"},
		"a standby without the slot": {func(f *Facts, e *Examination, _ *config.Config) {
			f.Slot.Failover = &yes
			e.Standbys = []Standby{{Host: "b:5432", Present: true, Synced: true}, {Host: "c:5432", Present: true, Synced: true, Temporary: true}}
		}, Warn, "standby_slot_synced", "standby c:5432 has no copy"},
		"no standby is named": {func(f *Facts, _ *Examination, _ *config.Config) { f.Slot.Failover = &yes }, Skip, "standby_slot_synced", "names none"},
		"autovacuum is off":   {func(_ *Facts, e *Examination, _ *config.Config) { *e.Server.Autovacuum = false }, Warn, "autovacuum", "off"},
		"a long transaction": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Server.WriterPID, e.Server.WriterSeconds = 4711, 3600
		}, Warn, "long_transaction", "pg_terminate_backend(4711)"},
		"a prepared transaction": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Server.PreparedGID, e.Server.PreparedSeconds = "it's", 3600
		}, Warn, "prepared_transaction", "'it''s'"},
		"no rights to clean": {func(_ *Facts, e *Examination, _ *config.Config) { e.Tables[0].MayDelete = false }, Warn, "outbox_rights", "DELETE"},
		"no rights to mark": {func(_ *Facts, e *Examination, c *config.Config) {
			c.Outbox.AfterPublish, e.Tables[0].MayUpdate, e.Tables[0].MayDelete = "mark", false, false
		}, Warn, "outbox_rights", "UPDATE"},
		"dead rows":            {func(_ *Facts, e *Examination, _ *config.Config) { e.Tables[0].Dead = 1_000_000 }, Warn, "outbox_dead_rows", "1000000 dead rows"},
		"a table's autovacuum": {func(_ *Facts, e *Examination, _ *config.Config) { e.Tables[0].AutovacuumOff = true }, Warn, "outbox_autovacuum", "RESET"},
		"failed events": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Delayed.States = map[retry.State]int64{retry.Failed: 3}
		}, Warn, "delayed_failed", "3 events"},
		"overdue events":        {func(_ *Facts, e *Examination, _ *config.Config) { e.Delayed.OverdueSeconds = 90 }, Warn, "delayed_overdue", "90 s"},
		"the clock of Postgres": {func(_ *Facts, e *Examination, _ *config.Config) { e.Server.Clock = e.Server.Clock.Add(-time.Hour) }, Warn, "clock", "Postgres"},
		"the clock of NATS":     {func(_ *Facts, e *Examination, _ *config.Config) { e.NATS.Clock = e.NATS.Clock.Add(time.Hour) }, Warn, "clock", "NATS"},
		"an old nats-server":    {func(_ *Facts, e *Examination, _ *config.Config) { e.NATS.Version = "2.2.6" }, Warn, "nats_version", "2.2.6"},
		"a full account": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.NATS.Account.Store, e.NATS.Account.Limits.MaxStore = 90, 100
		}, Warn, "nats_account_limit", "90 of 100"},
		"no permission": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.NATS.Permission = &router.Permission{Allow: []string{"$JS.API.>"}}
		}, Fail, "nats_permission", "may not publish to the subjects of publish.subject (events.>)"},
		"a permission that is denied": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.NATS.Permission = &router.Permission{Deny: []string{"events.>"}}
		}, Fail, "nats_permission", "may not publish"},
		"some permission": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.NATS.Permission = &router.Permission{Allow: []string{"events.a.>"}}
		}, Warn, "nats_permission", "only some"},
		"some that is denied": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.NATS.Permission = &router.Permission{Allow: []string{">"}, Deny: []string{"events.secret"}}
		}, Warn, "nats_permission", "only some"},
		"small messages": {func(f *Facts, _ *Examination, _ *config.Config) { f.Streams[0].Config.MaxMsgSize = 1000 }, Warn, "stream_message_size", "1000"},
		"a full stream": {func(f *Facts, _ *Examination, _ *config.Config) {
			f.Streams[0].Config.Discard, f.Streams[0].Config.MaxMsgs, f.Streams[0].State.Msgs = jetstream.DiscardNew, 100, 95
		}, Warn, "stream_full", "nearly full"},
		"a short duplicate window": {func(f *Facts, _ *Examination, c *config.Config) {
			c.Streams = []config.Stream{{Name: "EVENTS", Shared: true}}
			f.Streams[0].Config.Duplicates = time.Second
		}, Warn, "stream_duplicates", "1s"},
		"a replica is behind": {func(f *Facts, _ *Examination, _ *config.Config) {
			f.Streams[0].Cluster = &jetstream.ClusterInfo{Leader: "a", Replicas: []*jetstream.PeerInfo{{Name: "b", Current: true}, {Name: "c"}}}
		}, Warn, "stream_cluster", "behind: c"},
		"a consumer is behind": {func(f *Facts, e *Examination, _ *config.Config) {
			f.Streams[0].State.FirstSeq = 100
			e.NATS.Consumers["EVENTS"] = []*jetstream.ConsumerInfo{{Name: "slow", Delivered: jetstream.SequenceInfo{Stream: 10}, AckFloor: jetstream.SequenceInfo{Stream: 10}}}
		}, Warn, "consumer_behind", "up to sequence 10"},
		"a stream that was created again": {func(f *Facts, e *Examination, _ *config.Config) {
			f.Streams[0].Created = e.Before
			e.Recorded = map[string]router.StreamState{"EVENTS": {Created: e.Before.Add(-time.Hour), LastSequence: 7}}
		}, Fail, "stream_lost_events", "up to sequence 7"},
		"a stream that went back": {func(f *Facts, e *Examination, _ *config.Config) {
			f.Streams[0].Created = e.Before
			e.Recorded = map[string]router.StreamState{"EVENTS": {Created: e.Before, LastSequence: 7}}
		}, Fail, "stream_lost_events", "is now at 0"},
		"a repair that was broken off": {func(f *Facts, e *Examination, _ *config.Config) {
			f.Streams[0].Created = e.Before
			e.Recorded = map[string]router.StreamState{"EVENTS": {Created: e.Before, Repairing: true}}
		}, Fail, "stream_lost_events", "not finished"},
		"another writer": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Recorded = map[string]router.StreamState{"EVENTS": {}}
			e.Foreign = map[string]uint64{"EVENTS": 9}
		}, Warn, "stream_other_writers", "message 9"},
		"another cluster": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Misfit = (&checkpoint.State{SystemID: "1"}).Fits("walrelay", checkpoint.System{ID: "2"}, 0)
		}, Fail, "system_changed", "this one is 2"},
		"a database that went back": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Misfit = (&checkpoint.State{SystemID: "1", FlushLSN: 9}).Fits("walrelay", checkpoint.System{ID: "1"}, 8)
		}, Fail, "database_went_back", "ends at 0/8"},
		"a database behind its stream": {func(f *Facts, e *Examination, c *config.Config) {
			e.Recorded = map[string]router.StreamState{"EVENTS": {Created: f.Streams[0].Created}}
			e.Cluster, e.WALEnd = "1", 8
			e.Positions = map[string]string{"EVENTS": "0000000000000009.00000000 1 1/" + c.Slot}
		}, Fail, "database_behind_stream", "ends at 0/8"},
		"a stream of another relay": {func(_ *Facts, e *Examination, _ *config.Config) {
			e.Cluster, e.WALEnd = "1", 8
			e.Positions = map[string]string{"EVENTS": "0000000000000001.00000000 1 2/other"}
		}, Fail, "stream_other_writer", `"2/other"`},
		"something was not asked": {func(_ *Facts, e *Examination, _ *config.Config) { e.Unknown = []string{"JetStream: timeout"} }, Skip, "not_asked", "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			facts, cfg := good()
			pid := int32(7)
			facts.Slot.ActivePID = &pid
			e := healthy()
			test.breaks(&facts, &e, &cfg)
			var bad Results
			for _, r := range Examine(&facts, &e, cfg) {
				if r.Status != Pass {
					bad = append(bad, r)
				}
			}
			if len(bad) != 1 || bad[0].ID != test.id || bad[0].Status != test.status || !strings.Contains(bad[0].Text(), test.text) {
				t.Errorf("want %s %s with %q, got %+v", test.status, test.id, test.text, bad)
			}
			if len(bad) == 1 && bad[0].Status != Skip && bad[0].Fix == "" {
				t.Error("it does not say what to do")
			}
		})
	}
}

// Real transactions, made older by an hour: each is named, and ended as doctor says.
func TestExamine_OldTransactionsAreEndedAsWritten(t *testing.T) {
	t.Parallel()
	cluster := testkit.Postgres(t, map[string]string{"max_prepared_transactions": "2"})
	url := testkit.Database(t, cluster)
	conn, open, prepared := testkit.Connect(t, cluster.URL("postgres")), testkit.Connect(t, url), testkit.Connect(t, url)
	for statement, conn := range map[string]*pgx.Conn{
		"BEGIN; CREATE TABLE a (); PREPARE TRANSACTION 'it''s'": prepared,
		"BEGIN; CREATE TABLE b ()":                              open,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() map[string]Result {
		t.Helper()
		state, err := readOne[ServerState](t.Context(), conn, sql.Doctor)
		if err != nil {
			t.Fatal(err)
		}
		if state.WriterPID != 0 {
			state.WriterSeconds += 3600
		}
		if state.PreparedGID != "" {
			state.PreparedSeconds += 3600
		}
		j := judge{}
		j.transactions(state)
		results := make(map[string]Result)
		for _, r := range j.results.With(Warn) {
			results[r.ID] = r
		}
		return results
	}
	found := ask()
	_, terminate, ok := strings.Cut(found["long_transaction"].Fix, "if nobody needs it: ")
	if !ok {
		t.Fatalf("the open transaction: %+v", found)
	}
	_, rollback, ok := strings.Cut(found["prepared_transaction"].Fix, ", or: ")
	if !ok || !strings.Contains(found["prepared_transaction"].What, testkit.Query(t, url, "SELECT current_database()")) {
		t.Fatalf("the prepared transaction: %+v", found)
	}
	testkit.Exec(t, cluster.URL("postgres"), terminate)
	testkit.Exec(t, url, rollback)
	testkit.Eventually(t, 10*time.Second, "both are gone", func() error {
		if left := ask(); len(left) > 0 {
			return fmt.Errorf("%+v", left)
		}
		return nil
	})
}

// Every check is broken in a test that does what the check says, or it is said here why not.
func TestRemedies_EachIsFollowed(t *testing.T) {
	t.Parallel()
	not := map[string]string{
		"server_version": "needs Postgres 13", "nats_version": "needs nats-server 2.8", "schema_newer": "needs a newer walrelay",
		"clock": "needs a machine with another clock", "relay_running": "is what a command says that needs the slot", "not_asked": "is skipped, and says what was not asked",
	}
	// read reads files of tests, or the others.
	read := func(tests bool, patterns ...string) string {
		var text strings.Builder
		for _, pattern := range patterns {
			paths, err := filepath.Glob(pattern)
			if err != nil || len(paths) == 0 {
				t.Fatalf("%s: %v, %v", pattern, paths, err)
			}
			for _, path := range paths {
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(path, "_test.go") == tests {
					text.Write(content)
				}
			}
		}
		return text.String()
	}
	tests, checks := read(true, "../*/remedy_test.go", "doctor_test.go"), read(false, "*.go", "../checkpoint/checkpoint.go")
	found := 0
	for _, match := range regexp.MustCompile(`(?:ID:\s+|missing\(|reached\()"([a-z_]+)"`).FindAllStringSubmatch(checks, -1) {
		id := match[1]
		found++
		followed := regexp.MustCompile(`id:\s+"` + id + `"|diagnosed\("` + id + `"\)|r\.ID == "` + id + `"|found\["` + id + `"\]`).MatchString(tests)
		if _, ok := not[id]; ok == followed {
			t.Errorf("%s: a test follows its remedy: %v; exempt: %v", id, followed, ok)
		}
	}
	if found < 80 {
		t.Errorf("only %d checks were found; this test shows nothing", found)
	}
}

// What is not known is not concluded.
func TestRemoved_OnlyWhereItCanBeTold(t *testing.T) {
	t.Parallel()
	stream := &jetstream.StreamInfo{State: jetstream.StreamState{FirstSeq: 100}}
	behind := func(change func(*jetstream.ConsumerInfo)) uint64 {
		info := &jetstream.ConsumerInfo{Delivered: jetstream.SequenceInfo{Stream: 10}, AckFloor: jetstream.SequenceInfo{Stream: 10}}
		info.Config.AckPolicy = jetstream.AckExplicitPolicy
		change(info)
		return Removed(stream, info)
	}
	for name, test := range map[string]struct {
		change func(*jetstream.ConsumerInfo)
		want   uint64
	}{
		"all subjects":          {func(*jetstream.ConsumerInfo) {}, 89},
		"some subjects":         {func(c *jetstream.ConsumerInfo) { c.Config.FilterSubject = "events.a" }, 0},
		"several subjects":      {func(c *jetstream.ConsumerInfo) { c.Config.FilterSubjects = []string{"events.a"} }, 0},
		"no acknowledgements":   {func(c *jetstream.ConsumerInfo) { c.Config.AckPolicy = jetstream.AckNonePolicy }, 0},
		"nothing delivered yet": {func(c *jetstream.ConsumerInfo) { c.Delivered.Stream = 0 }, 0},
		"not behind":            {func(c *jetstream.ConsumerInfo) { c.AckFloor.Stream = 99 }, 0},
	} {
		if got := behind(test.change); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// Against a standby: it has a copy of the slot, and loses it.
func TestDoctor_StandbySlot(t *testing.T) {
	t.Parallel()
	primary := testkit.Postgres(t)
	if primary.Version() < 17 {
		t.Skip("Postgres before 17 has no slots with failover")
	}
	server := testkit.NATS(t)
	url := testkit.Database(t, primary)
	testkit.Exec(t, url, `CREATE TABLE public.outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text, source text);
		CREATE PUBLICATION walrelay FOR TABLE public.outbox WITH (publish = 'insert', publish_via_partition_root = true)`)
	testkit.Exec(t, url, "SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput', false, false, true)")
	standby := testkit.Standby(t, primary)
	onStandby := standby.URL("postgres")
	whole := testkit.Query(t, onStandby, "SHOW primary_conninfo")
	testkit.AlterSystem(t, onStandby, "SET hot_standby_feedback = off", "SET primary_slot_name = ''",
		"SET primary_conninfo = '"+strings.Replace(whole, "dbname=postgres ", "", 1)+"'")
	host := fmt.Sprintf("127.0.0.1:%d", standby.Port())
	cfg := config.Config{NATS: config.NATS{URL: server.URL()}, Failover: true}
	both := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=%s target_session_attrs=read-write", standby.Port(), primary.Port(), testkit.Query(t, url, "SELECT current_database()"))
	var advanced time.Time
	await := func(ask string, want Status) (found Result) {
		t.Helper()
		cfg.Postgres.URL = ask
		testkit.Eventually(t, time.Minute, fmt.Sprintf("the standby's slot is %s", want), func() error {
			if want == Pass && time.Since(advanced) > 5*time.Second {
				// A slot is synchronised when it has advanced past what the standby began with,
				// and not past what the standby has.
				advanced = time.Now()
				testkit.Exec(t, url, "SELECT pg_log_standby_snapshot()")
				testkit.Exec(t, url, "SELECT pg_replication_slot_advance('walrelay', pg_current_wal_lsn())")
			}
			results, err := Doctor(t.Context(), cfg)
			if err != nil {
				return err
			}
			for _, r := range results {
				if r.ID == "standby_slot_synced" || r.Subject == host {
					if r.Status == want {
						found = r
						return nil
					}
					return fmt.Errorf("%s: %s", r.Status, r.Text())
				}
			}
			if want == Pass { // results that pass have no id of their own
				for _, r := range results {
					if strings.Contains(r.What, "standby "+host+" has a synchronised copy") {
						return nil
					}
				}
			}
			return errors.New("it was not asked for")
		})
		return found
	}
	await(url, Skip)
	// The slot came with the copy of the data: such a one is never synchronised.
	if fix := await(both, Warn).Fix; fix != "set sync_replication_slots and hot_standby_feedback to on, primary_slot_name, and a dbname in primary_conninfo there; and drop a slot of that name there that is a copy of another kind" {
		t.Errorf("this test does something else than %q", fix)
	}
	testkit.AlterSystem(t, onStandby, "SET sync_replication_slots = on", "SET hot_standby_feedback = on", "SET primary_slot_name = 'standby'",
		"SET primary_conninfo = '"+whole+"'")
	testkit.Exec(t, onStandby, "SELECT pg_drop_replication_slot('walrelay')")
	await(both, Pass)
	testkit.Exec(t, url, "SELECT pg_drop_replication_slot('walrelay')")
	testkit.Exec(t, url, "SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput', false, false, true)")
	if err := standby.Stop(t.Context(), localpg.Fast); err != nil {
		t.Fatal(err)
	}
	await(both, Skip)
}

// A server that is away is named, and the other one is asked; one that refuses is named as what
// it says.
func TestDoctor_WhatCannotBeAsked(t *testing.T) {
	t.Parallel()
	cluster := testkit.Postgres(t)
	server := testkit.NATS(t)
	url := testkit.Database(t, cluster)
	cfg := config.Config{Postgres: config.Postgres{URL: url}, NATS: config.NATS{URL: server.URL()}}
	doctor := func(cfg config.Config) Results {
		t.Helper()
		results, err := Doctor(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return results
	}
	// found says whether a check warns or fails.
	found := func(results Results, id string) bool {
		return slices.ContainsFunc(results, func(r Result) bool { return r.ID == id && r.Status >= Warn })
	}
	refused := cfg
	refused.Postgres.URL = strings.Replace(url, "postgres@", "nobody@", 1)
	if results := doctor(refused); !found(results, "postgres_refused") || found(results, "postgres_reachable") {
		t.Errorf("as nobody: %+v", results.With(Fail))
	}
	if results := doctor(cfg); found(results, "postgres_refused") {
		t.Errorf("as postgres: %+v", results.With(Fail))
	}
	lost := cfg
	lost.Postgres.Standby = "127.0.0.1:1"
	if results := doctor(lost); !found(results, "standby_reachable") || found(results, "slot_missing") || !found(results, "schema_missing") || strings.Count(fmt.Sprint(results), "refused") != 1 {
		t.Errorf("without the standby: %+v", results.With(Fail))
	}
	away := cfg
	away.NATS.URL = "nats://127.0.0.1:1"
	if results := doctor(away); !found(results, "nats_reachable") || !found(results, "slot_missing") {
		t.Errorf("without NATS: %+v", results.With(Fail))
	}
	away.Postgres.URL = "postgres://postgres:hunter2@127.0.0.1:1/postgres"
	if results := doctor(away); len(results) != 2 || !found(results, "postgres_reachable") || strings.Contains(results[0].Why, "hunter2") {
		t.Errorf("without both: %+v", results)
	}
	if _, err := Doctor(t.Context(), config.Config{}); err == nil {
		t.Error("a configuration that is not valid is taken")
	}
}
