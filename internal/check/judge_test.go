package check

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/sql"
)

const schemaVersion = 7

// good returns facts with which nothing is wrong, and the configuration.
func good() (Facts, config.Config) {
	cfg := config.Config{
		Postgres: config.Postgres{URL: "postgres://relay@localhost/app"},
		NATS:     config.NATS{URL: "nats://localhost"},
	}.WithDefaults()
	no := false
	return Facts{
		Scope: ScopeAll,
		Server: Server{
			Version: 170002, VersionText: "17.2", WALLevel: "logical", MaxSlots: 10, MaxWalsenders: 10, KeepSize: 1024,
			Role: "relay", Database: "app", MayReplicate: true, ApplicationName: "walrelay",
		},
		Schema:      Schema{Present: true, Readable: true, Writable: true, Version: schemaVersion},
		Tables:      []Table{{Kind: "r", Permanent: true, Published: true, Listed: true, HasID: true}},
		Publication: &Publication{Inserts: true, ViaRoot: true, Emitted: true},
		Slot: &Slot{
			Type: "logical", Plugin: "pgoutput", Database: "app", CurrentDatabase: "app", WALStatus: "reserved", Failover: &no, Ready: true,
		},
		Streams: []*jetstream.StreamInfo{{Config: jetstream.StreamConfig{
			Name: "EVENTS", Subjects: []string{"events.>"}, Storage: jetstream.FileStorage, Replicas: 1,
		}}},
	}, cfg
}

// onStandby has the slot on a standby.
func onStandby(f *Facts, c *config.Config) {
	c.Postgres.Standby = "replica:5432"
	standby := f.Server
	standby.Standby, standby.Feedback = true, true
	f.SlotServer = &standby
}

func TestJudge_SlotOnAStandby(t *testing.T) {
	facts, cfg := good()
	onStandby(&facts, &cfg)
	facts.Server.MaxSlots = 0 // there is none
	if results := Judge(&facts, cfg, schemaVersion); results.Worst() != Pass {
		t.Errorf("%v", results.With(results.Worst()))
	}
}

func TestJudge_PassesWhatIsAsItShouldBe(t *testing.T) {
	facts, cfg := good()
	results := Judge(&facts, cfg, schemaVersion)
	if worst := results.Worst(); worst != Pass {
		t.Errorf("worst is %v: %v", worst, results.With(worst))
	}
	if len(results) < 15 {
		t.Errorf("only %d results: doctor has nothing to show", len(results))
	}
	for _, r := range results {
		if r.ID == "" || r.What == "" {
			t.Errorf("a result without an ID or a text: %+v", r)
		}
	}
}

func TestJudge_FindsWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Facts, *config.Config)
		id     string
		status Status
		text   string
		// creatable: init makes it.
		creatable bool
	}{
		"old server":   {func(f *Facts, _ *config.Config) { f.Server.Version, f.Server.VersionText = 130012, "13.12" }, "server_version", Fail, "Postgres is version 13.12: walrelay needs 14 or newer; upgrade the server", false},
		"standby":      {func(f *Facts, _ *config.Config) { f.Server.Standby = true }, "server_standby", Fail, "the Postgres server is a standby", false},
		"wal_level":    {func(f *Facts, _ *config.Config) { f.Server.WALLevel = "replica" }, "wal_level", Fail, `wal_level is "replica": logical replication needs "logical"; set wal_level = logical`, false},
		"no slot free": {func(f *Facts, _ *config.Config) { f.Slot, f.Server.Slots = nil, 10 }, "replication_slots", Fail, "no replication slot is free (max_replication_slots = 10)", false},
		"no walsender": {func(f *Facts, _ *config.Config) { f.Slot, f.Server.Walsenders = nil, 10 }, "wal_senders", Fail, "no walsender is free (max_wal_senders = 10)", false},
		"synchronous":  {func(f *Facts, _ *config.Config) { f.Server.SynchronousNames = "*" }, "synchronous_standby_names", Fail, "synchronous_standby_names = '*' matches walrelay", false},
		"failover": {func(f *Facts, c *config.Config) {
			f.Server.Version, f.Server.VersionText, c.Failover = 160004, "16.4", true
		}, "failover_version", Fail, "failover is set, but Postgres is version 16.4", false},
		"another cluster": {func(f *Facts, c *config.Config) { onStandby(f, c); f.Foreign = true }, "standby_other", Fail, "belongs to another database cluster", false},
		"old standby": {func(f *Facts, c *config.Config) {
			onStandby(f, c)
			f.SlotServer.Version, f.SlotServer.VersionText = 150004, "15.4"
		}, "standby_version", Fail, "slots can be on a standby from 16 on", false},
		"promoted standby":    {func(f *Facts, c *config.Config) { onStandby(f, c); f.SlotServer.Standby = false }, "standby_promoted", Warn, "replica:5432 (postgres.standby) is no standby", false},
		"no feedback":         {func(f *Facts, c *config.Config) { onStandby(f, c); f.SlotServer.Feedback = false }, "standby_feedback", Warn, "hot_standby_feedback is off", false},
		"standby without WAL": {func(f *Facts, c *config.Config) { onStandby(f, c); f.SlotServer.WALLevel = "replica" }, "wal_level", Fail, `wal_level is "replica"`, false},
		"without failover":    {func(_ *Facts, c *config.Config) { c.Failover = true }, "slot_failover", Warn, "without failover", false},
		"no WAL limit":        {func(f *Facts, _ *config.Config) { f.Server.KeepSize = -1 }, "slot_wal_limit", Warn, "max_slot_wal_keep_size is not set", false},

		"NATS password in plain": {func(_ *Facts, c *config.Config) {
			c.NATS.URL, c.NATS.User, c.NATS.Password = "nats://127.0.0.1,nats://nats.example.org:4222", "u", "p"
		}, "nats_plain", Warn, "credentials go to NATS over a connection without TLS", false},
		"no schema":    {func(f *Facts, _ *config.Config) { f.Schema = Schema{} }, "schema_missing", Fail, "the schema walrelay does not exist", true},
		"no rights":    {func(f *Facts, _ *config.Config) { f.Schema.Writable = false }, "schema_rights", Fail, `role "relay" may not use the tables`, false},
		"old schema":   {func(f *Facts, _ *config.Config) { f.Schema.Version = 3 }, "schema_old", Fail, "is at version 3, and this walrelay needs 7", true},
		"newer schema": {func(f *Facts, _ *config.Config) { f.Schema.Version = 8 }, "schema_newer", Fail, "is at version 8, and this walrelay knows 7", false},

		"no table": {func(f *Facts, _ *config.Config) { f.Tables[0] = Table{} }, "outbox_missing", Fail, "outbox table public.outbox does not exist", true},
		"no mapped table": {func(f *Facts, c *config.Config) {
			f.Tables[0] = Table{}
			c.Outbox.Mappings = []config.Mapping{{Table: "public.outbox", Preset: "debezium"}}
		}, "outbox_missing", Fail, "init creates only tables of walrelay's own form", false},
		"view":        {func(f *Facts, _ *config.Config) { f.Tables[0].Kind = "v" }, "outbox_kind", Fail, "is not a table", false},
		"partition":   {func(f *Facts, _ *config.Config) { f.Tables[0].Partition = true }, "outbox_partition", Fail, "is a partition", false},
		"unlogged":    {func(f *Facts, _ *config.Config) { f.Tables[0].Permanent = false }, "outbox_unlogged", Fail, "is unlogged", false},
		"unpublished": {func(f *Facts, _ *config.Config) { f.Tables[0].Published, f.Tables[0].Listed = false, false }, "outbox_unpublished", Fail, "does not have outbox table", true},
		"mapped column missing": {func(f *Facts, c *config.Config) {
			c.Outbox.Mappings = []config.Mapping{{Table: "public.outbox", Preset: "debezium"}}
			f.Tables[0].Columns = []Column{{Name: "id", Type: "uuid"}, {Name: "type", Type: "text"}, {Name: "aggregatetype", Type: "text"}, {Name: "aggregateid", Type: "text"}}
		}, "outbox_column_missing", Fail, `column "payload" of outbox table public.outbox, which makes the data of events, does not exist`, false},
		"orphans": {func(f *Facts, _ *config.Config) { f.Orphans = []string{"old"} }, "delayed_orphans", Warn, `walrelay delayed adopt --from old`, false},
		"partitioned by the mark": {func(f *Facts, c *config.Config) {
			c.Outbox.AfterPublish = "mark"
			f.Tables[0].HasMark, f.Tables[0].MarkMoves = true, true
		}, "outbox_mark_partition", Fail, "is partitioned by published_at", false},
		"renamed key": {func(f *Facts, _ *config.Config) {
			f.Tables[0].Columns = []Column{{Name: "id", Type: "uuid"}, {Name: "event_type", Type: "text"}, {Name: "source", Type: "text"}, {Name: "pkey", Type: "text"}}
			f.Tables[0].Renamed = map[string]string{"partition_key": "pkey"}
		}, "outbox_column_renamed", Fail, `which makes the partition_key of events, is called "pkey" now`, false},
		"generated key": {func(f *Facts, _ *config.Config) {
			f.Tables[0].Columns = []Column{{Name: "id", Type: "uuid"}, {Name: "event_type", Type: "text"}, {Name: "source", Type: "text"}, {Name: "partition_key", Type: "text", Generated: true}}
		}, "outbox_column_generated", Fail, `column "partition_key" of outbox table public.outbox, which makes the partition_key of events, is generated, and not sent`, false},
		"schedule without a zone": {func(f *Facts, _ *config.Config) {
			f.Tables[0].Columns = []Column{{Name: "id", Type: "uuid"}, {Name: "event_type", Type: "text"}, {Name: "source", Type: "text"}, {Name: "scheduled_at", Type: "timestamp without time zone"}}
		}, "outbox_scheduled_at", Fail, "has type timestamp without time zone", false},
		"own table without a column": {func(f *Facts, _ *config.Config) {
			f.Tables[0].Columns = []Column{{Name: "id", Type: "uuid"}, {Name: "event_type", Type: "text"}, {Name: "source", Type: "text"}, {Name: "data", Type: "jsonb"}}
		}, "outbox_columns", Warn, "has no column subject, data_bytes,", false},
		"row filter":  {func(f *Facts, _ *config.Config) { f.Tables[0].Filtered = true }, "outbox_row_filter", Fail, "has a row filter on public.outbox", false},
		"column list": {func(f *Facts, _ *config.Config) { f.Tables[0].ColumnList = true }, "outbox_column_list", Fail, "has a column list on public.outbox", false},

		"inherited": {func(f *Facts, _ *config.Config) {
			f.Tables[0].Children = []sql.Table{{Schema: "public", Name: "child"}}
		}, "outbox_inherited", Warn, "rows inserted into these are not published", false},
		"no mark":     {func(_ *Facts, c *config.Config) { c.Outbox.AfterPublish = "mark" }, "outbox_published_at", Fail, "no column published_at", true},
		"no index":    {func(f *Facts, _ *config.Config) { f.Tables[0].HasID = false }, "outbox_id_index", Warn, "reads the whole table", false},
		"not emitted": {func(f *Facts, _ *config.Config) { f.Publication.Emitted = false }, "publication_emitted", Fail, "walrelay.emitted", true},

		"no publication":  {func(f *Facts, _ *config.Config) { f.Slot, f.Publication = nil, nil }, "publication_missing", Fail, `publication "walrelay" does not exist; run`, true},
		"slot without it": {func(f *Facts, _ *config.Config) { f.Publication = nil }, "publication_missing", Fail, `does not exist, but replication slot "walrelay" does`, false},
		"all tables":      {func(f *Facts, _ *config.Config) { f.Publication.AllTables = true }, "publication_all_tables", Fail, "FOR ALL TABLES", false},
		"own tables":      {func(f *Facts, _ *config.Config) { f.Publication.OwnTables = []string{"progress"} }, "publication_own_tables", Fail, "(progress)", false},
		"no inserts":      {func(f *Facts, _ *config.Config) { f.Publication.Inserts = false }, "publication_inserts", Fail, "does not publish inserts", false},
		"partition names": {func(f *Facts, _ *config.Config) { f.Publication.ViaRoot = false }, "publication_root", Fail, "names partitions", false},
		"updates":         {func(f *Facts, _ *config.Config) { f.Publication.Others = true }, "publication_other_operations", Warn, "publishes more than inserts", false},

		"no slot":           {func(f *Facts, _ *config.Config) { f.Slot = nil }, "slot_missing", Fail, `replication slot "walrelay" does not exist`, true},
		"slot elsewhere":    {func(f *Facts, _ *config.Config) { f.Slot.Database = "other" }, "slot_database", Fail, `belongs to database "other"`, false},
		"physical slot":     {func(f *Facts, _ *config.Config) { f.Slot.Type, f.Slot.Database = "physical", "" }, "slot_type", Fail, "is a physical one", false},
		"plugin":            {func(f *Facts, _ *config.Config) { f.Slot.Plugin = "wal2json" }, "slot_plugin", Fail, `has the output plugin "wal2json"`, false},
		"temporary":         {func(f *Facts, _ *config.Config) { f.Slot.Temporary = true }, "slot_temporary", Fail, "is temporary", false},
		"two-phase":         {func(f *Facts, _ *config.Config) { f.Slot.TwoPhase = true }, "slot_two_phase", Fail, "two_phase", false},
		"lost":              {func(f *Facts, _ *config.Config) { f.Slot.WALStatus = "lost" }, "slot_lost", Fail, "is lost (wal_removed)", false},
		"idle for too long": {func(f *Facts, _ *config.Config) { f.Slot.InvalidationReason = "idle_timeout" }, "slot_lost", Fail, "is lost (idle_timeout)", false},
		"conflicting":       {func(f *Facts, _ *config.Config) { f.Slot.Conflicting = true }, "slot_lost", Fail, "is lost (conflict with recovery)", false},
		"not ready":         {func(f *Facts, _ *config.Config) { f.Slot.Ready = false }, "slot_not_ready", Fail, "is not ready", false},
		"about to be lost":  {func(f *Facts, _ *config.Config) { f.Slot.WALStatus = "unreserved" }, "slot_wal_unreserved", Warn, "is about to be lost", false},
		"half of the WAL": {func(f *Facts, _ *config.Config) {
			f.Slot.RetainedBytes, f.Slot.SafeBytes = new(int64(600)), new(int64(400))
		}, "slot_wal_half", Warn, "600 of 1000 bytes", false},

		"no stream":         {func(f *Facts, _ *config.Config) { f.Streams[0] = nil }, "stream_missing", Fail, `stream "EVENTS" does not exist`, true},
		"no subjects":       {func(f *Facts, c *config.Config) { f.Streams[0], c.Streams[0].Subjects = nil, nil }, "stream_missing", Fail, "set streams[0].subjects", false},
		"memory":            {func(f *Facts, _ *config.Config) { f.Streams[0].Config.Storage = jetstream.MemoryStorage }, "stream_memory", Fail, "is kept in memory", false},
		"no_ack":            {func(f *Facts, _ *config.Config) { f.Streams[0].Config.NoAck = true }, "stream_no_ack", Fail, "has no_ack", false},
		"sealed":            {func(f *Facts, _ *config.Config) { f.Streams[0].Config.Sealed = true }, "stream_sealed", Fail, "is sealed", false},
		"mirror":            {func(f *Facts, _ *config.Config) { f.Streams[0].Config.Mirror = &jetstream.StreamSource{Name: "M"} }, "stream_mirror", Fail, "publish to the stream it mirrors (M)", false},
		"persisted late":    {func(f *Facts, _ *config.Config) { f.Streams[0].Config.PersistMode = jetstream.AsyncPersistMode }, "stream_async", Fail, "persist_mode async", false},
		"sources":           {func(f *Facts, _ *config.Config) { f.Streams[0].Config.Sources = []*jetstream.StreamSource{{}} }, "stream_sources", Fail, "has sources", false},
		"schedules":         {func(f *Facts, _ *config.Config) { f.Streams[0].Config.AllowMsgSchedules = true }, "stream_schedules", Fail, "message schedules", false},
		"delete markers":    {func(f *Facts, _ *config.Config) { f.Streams[0].Config.SubjectDeleteMarkerTTL = 1 }, "stream_delete_markers", Fail, "delete markers", false},
		"work queue":        {func(f *Facts, _ *config.Config) { f.Streams[0].Config.Retention = jetstream.WorkQueuePolicy }, "stream_retention", Warn, "retention", false},
		"fewer replicas":    {func(_ *Facts, c *config.Config) { c.Streams[0].Replicas = 3 }, "stream_replicas", Warn, "has 1 replicas, and the configuration says 3", false},
		"no atomic batches": {func(_ *Facts, c *config.Config) { c.Publish.Atomic = true }, "stream_atomic", Fail, "does not allow atomic batches", false},
		"other subjects":    {func(f *Facts, _ *config.Config) { f.Streams[0].Config.Subjects = []string{"orders.>"} }, "subject_coverage", Fail, "does not take the subjects of publish.subject", false},
		"fewer subjects":    {func(f *Facts, _ *config.Config) { f.Streams[0].Config.Subjects = []string{"events.a.>"} }, "subject_coverage", Warn, "takes only some of the subjects", false},
	} {
		t.Run(name, func(t *testing.T) {
			facts, cfg := good()
			test.change(&facts, &cfg)
			results := Judge(&facts, cfg, schemaVersion)
			var found *Result
			for i := range results {
				if results[i].ID == test.id && results[i].Status == test.status {
					found = &results[i]
				}
			}
			if found == nil {
				t.Fatalf("no result %s with %v among %v, %v", test.id, test.status, results.With(Fail), results.With(Warn))
			}
			if found.Fix == "" {
				t.Error("it does not say what to do")
			}
			if !strings.Contains(found.Text(), test.text) || found.Creatable != test.creatable {
				t.Errorf("want %q (creatable %v), got %q (%v)", test.text, test.creatable, found.Text(), found.Creatable)
			}
			if blocking := results.Blocking() != nil; blocking != (test.status == Fail && !test.creatable) {
				t.Errorf("blocks init: %v (%v)", blocking, results.Blocking())
			}
		})
	}
}

// What only counts for init must not count for one that has no such thing.
func TestJudge_SharedStreamTakesOtherWriters(t *testing.T) {
	facts, cfg := good()
	cfg.Streams[0].Shared = true
	facts.Streams[0].Config.AllowMsgSchedules = true
	if err := Judge(&facts, cfg, schemaVersion).Err(); err != nil {
		t.Error(err)
	}
}

func TestJudge_FullServerIsEnoughForSlotThatExists(t *testing.T) {
	facts, cfg := good()
	facts.Server.Slots, facts.Server.Walsenders = 10, 10
	if err := Judge(&facts, cfg, schemaVersion).Err(); err != nil {
		t.Error(err)
	}
}

func TestJudge_SlotAlone(t *testing.T) {
	facts, cfg := good()
	facts = Facts{Scope: ScopeSlot, Slot: facts.Slot}
	if err := Judge(&facts, cfg, schemaVersion).Err(); err != nil {
		t.Error(err)
	}
	facts.Slot = nil
	if err := Judge(&facts, cfg, schemaVersion).Err(); err == nil {
		t.Error("a slot that does not exist passes")
	}
}

func TestSynchronousMatch(t *testing.T) {
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
		if _, got := synchronousMatch(tt.setting, "walrelay"); got != tt.want {
			t.Errorf("synchronous_standby_names = '%s': want %v, got %v", tt.setting, tt.want, got)
		}
	}
}
