package walrelay

import (
	"fmt"
	"strings"

	"github.com/walrelay/walrelay/sql"
)

// postgres judges the state of the database.
func (f *findings) postgres(state postgresState, cfg Config) {
	if state.server.major() < oldestServer {
		f.fault(fmt.Sprintf("Postgres is version %s", state.server.VersionText),
			fmt.Sprintf("walrelay needs %d or newer", oldestServer), "upgrade the server")
		return
	}
	f.server(state.server, state.slot, cfg)
	f.schema(state.schema, state.server)
	for i, name := range cfg.Outbox.Tables {
		f.table(name, state.tables[i], state.publication, cfg)
	}
	f.publication(state.publication, cfg)
	switch {
	case state.slot != nil && state.publication == nil:
		f.fault(fmt.Sprintf("publication %q does not exist, but replication slot %q does", cfg.Publication, cfg.Slot),
			"the slot cannot read what was written before its publication existed",
			"see docs/operations.md, \"A publication was dropped\"")
	case state.slot != nil || !f.creating:
		f.slot(state.slot, cfg)
	}
	if state.slot != nil && cfg.Failover && state.slot.Failover != nil && !*state.slot.Failover {
		f.warn("replication slot %q was created without failover: it will not survive the loss of the primary", cfg.Slot)
	}
}

func (f *findings) server(s serverState, slot *slotState, cfg Config) {
	if s.Standby {
		f.fault("the Postgres server is a standby", "walrelay writes down its progress", "set postgres.url to the primary")
	}
	if s.WALLevel != "logical" {
		f.fault(fmt.Sprintf("wal_level is %q", s.WALLevel), `logical replication needs "logical"`,
			"set wal_level = logical (on Amazon RDS: rds.logical_replication = 1) and restart Postgres")
	}
	if !s.MayReplicate {
		f.fault(fmt.Sprintf("role %q may not stream", s.Role), "it lacks REPLICATION",
			fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION (on Amazon RDS: GRANT rds_replication TO %[1]s)", sql.Ident(s.Role)))
	}
	if slot == nil && s.Slots >= s.MaxSlots {
		f.fault(fmt.Sprintf("no replication slot is free (max_replication_slots = %d)", s.MaxSlots), "",
			"raise max_replication_slots and restart Postgres, or drop a slot that nobody uses")
	}
	if slot == nil && s.Walsenders >= s.MaxWalsenders {
		f.fault(fmt.Sprintf("no walsender is free (max_wal_senders = %d)", s.MaxWalsenders), "",
			"raise max_wal_senders and restart Postgres")
	}
	if name, ok := synchronousMatch(s.SynchronousNames, s.applicationName); ok {
		f.fault(fmt.Sprintf("synchronous_standby_names = '%s' matches walrelay (%s)", s.SynchronousNames, name),
			"every commit would wait until walrelay has published it, and stop while NATS is away",
			"list the real standbys there by name, or give walrelay another name with application_name in postgres.url")
	}
	if cfg.Failover && s.major() < 17 {
		f.fault(fmt.Sprintf("failover is set, but Postgres is version %s", s.VersionText),
			"slots can fail over from Postgres 17 on", "remove failover from the configuration or upgrade the server")
	}
	if s.KeepSize < 0 {
		f.warn("max_slot_wal_keep_size is not set: while walrelay is away, its slot keeps WAL until the disk is full")
	}
}

func (f *findings) schema(s schemaState, server serverState) {
	migrations, err := sql.Migrations()
	if err != nil {
		f.faults = append(f.faults, err)
		return
	}
	switch {
	case !s.Present:
		f.missing("the schema " + sql.OwnSchema + " does not exist")
	case !s.Readable || !s.Writable:
		f.fault(fmt.Sprintf("role %q may not use the tables of the schema %s", server.Role, sql.OwnSchema), "",
			fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %[1]s TO %[2]s",
				sql.OwnSchema, sql.Ident(server.Role)))
	case s.version < len(migrations):
		f.missing(fmt.Sprintf("the schema %s is at version %d, and this walrelay needs %d", sql.OwnSchema, s.version, len(migrations)))
	}
}

func (f *findings) table(name string, t tableState, p *publicationState, cfg Config) {
	what := "outbox table " + name
	switch {
	case t.Kind == "" && !cfg.OwnForm(name):
		f.fault(what+" does not exist", "init creates only tables of walrelay's own form", "create it, or correct outbox.tables")
		return
	case t.Kind == "":
		f.missing(what + " does not exist")
		return
	case t.Kind != "r" && t.Kind != "p":
		f.fault(what+" is not a table", "only inserts into tables are streamed", "correct outbox.tables")
		return
	case t.Partition:
		f.fault(what+" is a partition", "inserts are streamed under the name of the partitioned table", "name that one in outbox.tables")
		return
	case !t.Permanent:
		f.fault(what+" is unlogged or temporary", "its rows are not in the WAL", "ALTER TABLE … SET LOGGED")
		return
	}
	if p == nil || p.AllTables {
		return
	}
	if !t.Published && !t.Listed {
		f.missing(fmt.Sprintf("publication %q does not have outbox table %s", cfg.Publication, name))
	}
	alter := fmt.Sprintf("name all its tables anew, without any: ALTER PUBLICATION %s SET TABLE …", sql.Ident(cfg.Publication))
	if t.Filtered {
		f.fault(fmt.Sprintf("publication %q has a row filter on %s", cfg.Publication, name), "rows it leaves out would never be published", alter)
	}
	if t.ColumnList {
		f.fault(fmt.Sprintf("publication %q has a column list on %s", cfg.Publication, name), "columns it leaves out would be missing from events", alter)
	}
}

func (f *findings) publication(p *publicationState, cfg Config) {
	what := fmt.Sprintf("publication %q", cfg.Publication)
	set := "ALTER PUBLICATION " + sql.Ident(cfg.Publication) + " SET "
	if p == nil {
		f.missing(what + " does not exist")
		return
	}
	if p.AllTables {
		f.fault(what+" is FOR ALL TABLES", "it streams walrelay's own tables, and every other table of the database, too",
			"use a publication of the outbox tables only")
	} else if len(p.OwnTables) > 0 {
		f.fault(fmt.Sprintf("%s has tables of the schema %s (%s)", what, sql.OwnSchema, strings.Join(p.OwnTables, ", ")),
			"walrelay would stream its own writes", "take them out of it")
	}
	if !p.AllTables && !p.Emitted {
		f.missing(fmt.Sprintf("%s does not have table %s.emitted, by which delayed events come back", what, sql.OwnSchema))
	}
	if !p.Inserts {
		f.fault(what+" does not publish inserts", "", set+"(publish = 'insert')")
	}
	if !p.ViaRoot {
		f.fault(what+" names partitions instead of their table", "walrelay knows outbox tables by their own name",
			set+"(publish_via_partition_root = true)")
	}
	if p.Others {
		f.warn("%s publishes more than inserts, which only costs, and makes updates of tables without a replica identity fail: %s(publish = 'insert')", what, set)
	}
}

// slot judges the slot; nil is none.
func (f *findings) slot(s *slotState, cfg Config) {
	what := fmt.Sprintf("replication slot %q", cfg.Slot)
	if s == nil {
		f.fault(what+" does not exist", "",
			"run \"walrelay init\"; if it existed before, see docs/operations.md, \"A slot was lost\"")
		return
	}
	other := "correct slot in the configuration, or drop it with pg_drop_replication_slot and run \"walrelay init\""
	switch {
	case s.Type != "logical":
		f.fault(what+" is a physical one", "walrelay needs a logical one", other)
		return
	case s.Database != s.CurrentDatabase:
		f.fault(fmt.Sprintf("%s belongs to database %q", what, s.Database),
			fmt.Sprintf("postgres.url is for %q", s.CurrentDatabase), "correct postgres.url or slot")
	}
	if s.Plugin != "pgoutput" {
		f.fault(fmt.Sprintf("%s has the output plugin %q", what, s.Plugin), `walrelay reads "pgoutput"`, other)
	}
	if s.Temporary {
		f.fault(what+" is temporary", "it forgets its place when the connection ends", other)
	}
	if s.TwoPhase {
		f.fault(what+" decodes prepared transactions (two_phase)", "they would be published before they commit", other)
	}
	lost := s.InvalidationReason
	switch {
	case lost != "":
	case s.WALStatus == "lost":
		lost = "wal_removed"
	case s.Conflicting:
		lost = "conflict with recovery"
	}
	switch {
	case lost != "":
		f.fault(fmt.Sprintf("%s is lost (%s)", what, lost), "Postgres has removed what it had still to read",
			"see docs/operations.md, \"A slot was lost\"")
	case !s.Ready:
		f.fault(what+" is not ready", "its creation waits for transactions that were writing when it began",
			"end them, or wait, and run \"walrelay init\" again")
	case s.WALStatus == "unreserved":
		f.warn("%s is about to be lost: it holds more WAL than max_slot_wal_keep_size allows", what)
	}
}

// synchronousMatch returns the entry of synchronous_standby_names that matches
// an application_name, as the server compares them: * matches any, and case
// does not count.
func synchronousMatch(setting, applicationName string) (entry string, ok bool) {
	var quoted bool
	var b strings.Builder
	for _, r := range setting + "," {
		switch {
		case r == '"':
			quoted = !quoted
		case quoted || !strings.ContainsRune(" \t\r\n,()", r):
			b.WriteRune(r)
		case b.Len() > 0:
			if entry = b.String(); entry == "*" || strings.EqualFold(entry, applicationName) {
				return entry, true
			}
			b.Reset()
		}
	}
	return "", false
}
