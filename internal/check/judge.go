package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/sql"
)

// oldestStandby is the oldest major version of Postgres that decodes on a standby.
const oldestStandby = 16

// Judge says what the facts mean for the configuration, which is valid and has
// its defaults. schemaVersion is that of the newest migration of this program.
func Judge(facts *Facts, cfg config.Config, schemaVersion int) Results {
	j := judge{cfg: cfg}
	for _, path := range facts.OpenFiles {
		j.warn(Result{
			ID: "secret_file", Subject: path, What: fmt.Sprintf("file %s has a secret, and other users of this machine may read it", path),
			Fix: "chmod o= " + problem.ShellWord(path),
		})
	}
	if facts.Scope.has(ScopePostgres) {
		if !j.version(&facts.Server) {
			return j.results
		}
		j.server(&facts.Server, facts.Slot)
		j.schema(&facts.Schema, &facts.Server, schemaVersion)
		for i, name := range cfg.Outbox.Tables {
			j.table(name, &facts.Tables[i], facts.Publication)
		}
		j.publication(facts.Publication)
		j.orphans(facts)
	}
	if facts.SlotServer != nil {
		j.standby(facts)
	}
	if facts.Scope.has(ScopeSlot) {
		j.slots(facts)
	}
	if facts.Scope.has(ScopeNATS) {
		if j.cfg.NATS.SecretsInPlain() {
			j.warn(Result{ID: "nats_plain", What: "credentials go to NATS over a connection without TLS", Why: "whoever is on the way can read them", Fix: "use tls:// in nats.url"})
		}
		j.streams(facts.Streams)
	}
	return j.results
}

// judge collects results.
type judge struct {
	cfg     config.Config
	role    string // of the connection; Examine only
	results Results
}

// check adds a failure if bad, and good, in words, otherwise.
func (j *judge) check(bad bool, r Result, good string) { j.found(Fail, bad, r, good) }

// found adds a result of a status if bad, and that it passes otherwise.
func (j *judge) found(status Status, bad bool, r Result, good string) {
	if !bad {
		status, r = Pass, Result{ID: r.ID, Subject: r.Subject, What: good}
	}
	j.add(status, r)
}

func (j *judge) add(status Status, r Result) {
	r.Status = status
	j.results = append(j.results, r)
}

// fail adds a failure.
func (j *judge) fail(r Result) { j.add(Fail, r) }

// missing adds a failure that init mends.
func (j *judge) missing(id, subject, what string) {
	j.fail(Result{ID: id, Subject: subject, What: what, Fix: `run "walrelay init"`, Creatable: true})
}

// warn adds a warning.
func (j *judge) warn(r Result) { j.add(Warn, r) }

func (j *judge) version(s *Server) bool {
	old := s.Major() < OldestServer
	j.check(old, Result{
		ID: "server_version", What: "Postgres is version " + s.VersionText,
		Why: fmt.Sprintf("walrelay needs %d or newer", OldestServer), Fix: "upgrade the server",
	}, "Postgres is version "+s.VersionText)
	return !old
}

func (j *judge) server(s *Server, slot *Slot) {
	j.check(s.Standby, Result{
		ID: "server_standby", What: "the Postgres server is a standby", Why: "walrelay writes its checkpoint",
		Fix: "set postgres.url to the primary",
	}, "the server is a primary")
	if j.cfg.Postgres.Standby == "" {
		j.decoding("", s, slot)
	}
	name, synchronous := synchronousMatch(s.SynchronousNames, s.ApplicationName)
	j.check(synchronous, Result{
		ID: "synchronous_standby_names", What: fmt.Sprintf("synchronous_standby_names = '%s' matches walrelay (%s)", s.SynchronousNames, name),
		Why: "every commit would wait until walrelay has published it, and stop while NATS is away",
		Fix: "list the real standbys there by name, or give walrelay another name with application_name in postgres.url",
	}, "no commit waits for walrelay")
	if j.cfg.Failover {
		j.check(s.Major() < 17, Result{
			ID: "failover_version", What: fmt.Sprintf("failover is set, but Postgres is version %s", s.VersionText),
			Why: "slots can fail over from Postgres 17 on", Fix: "remove failover from the configuration or upgrade the server",
		}, "the server's slots can fail over")
	}
}

// standby judges the standby that has the slot, or is to have it.
func (j *judge) standby(facts *Facts) {
	name, s := j.cfg.Postgres.Standby, facts.SlotServer
	if facts.Foreign {
		j.fail(Result{
			ID: "standby_other", Subject: name, What: name + " (postgres.standby) belongs to another database cluster than postgres.url",
			Why: "their system identifiers differ", Fix: "set postgres.standby to a standby of that primary",
		})
		return
	}
	if s.Major() < oldestStandby {
		j.fail(Result{
			ID: "standby_version", Subject: name, What: "Postgres on the standby is version " + s.VersionText,
			Why: fmt.Sprintf("slots can be on a standby from %d on", oldestStandby), Fix: "remove postgres.standby from the configuration or upgrade the servers",
		})
		return
	}
	j.decoding(name, s, facts.Slot)
	if !s.Standby {
		j.warn(Result{
			ID: "standby_promoted", Subject: name, What: name + " (postgres.standby) is no standby",
			Why: "if it was promoted, its slot and its tables are on one server again", Fix: "set postgres.url to it, and remove postgres.standby",
		})
		return
	}
	if !s.Feedback {
		j.warn(Result{
			ID: "standby_feedback", Subject: name, What: "hot_standby_feedback is off on the standby", Why: "when the primary removes rows that the slot still needs, the slot is lost",
			Fix: "on the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()",
		})
	}
}

// decoding judges a server that decodes, or is to; the subject says which.
func (j *judge) decoding(subject string, s *Server, slot *Slot) {
	j.check(s.WALLevel != "logical", Result{
		ID: "wal_level", Subject: subject, What: fmt.Sprintf("wal_level is %q", s.WALLevel), Why: `logical replication needs "logical"`,
		Fix: "set wal_level = logical (on Amazon RDS: rds.logical_replication = 1) and restart Postgres",
	}, "wal_level is logical")
	j.check(!s.MayReplicate, Result{
		ID: "role_replication", Subject: s.Role, What: fmt.Sprintf("role %q may not stream", s.Role), Why: "it lacks REPLICATION",
		Fix: fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION (on Amazon RDS: GRANT rds_replication TO %[1]s)", sql.Ident(s.Role)),
	}, fmt.Sprintf("role %q may stream", s.Role))
	// A slot that exists is among those that are counted, and so is its walsender.
	j.check(slot == nil && s.Slots >= s.MaxSlots, Result{
		ID: "replication_slots", Subject: subject, What: fmt.Sprintf("no replication slot is free (max_replication_slots = %d)", s.MaxSlots),
		Fix: "raise max_replication_slots and restart Postgres, or drop a slot that nobody uses",
	}, fmt.Sprintf("%d of %d replication slots are in use", s.Slots, s.MaxSlots))
	j.check(slot == nil && s.Walsenders >= s.MaxWalsenders, Result{
		ID: "wal_senders", Subject: subject, What: fmt.Sprintf("no walsender is free (max_wal_senders = %d)", s.MaxWalsenders),
		Fix: "raise max_wal_senders and restart Postgres",
	}, fmt.Sprintf("%d of %d walsenders are in use", s.Walsenders, s.MaxWalsenders))
	if s.KeepSize < 0 {
		j.warn(Result{
			ID: "slot_wal_limit", Subject: subject, What: "max_slot_wal_keep_size is not set", Why: "while walrelay is away, its slot keeps WAL until the disk is full",
			Fix: "set it to less than the disk has room for, for example: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()",
		})
	}
}

func (j *judge) schema(s *Schema, server *Server, version int) {
	const name = sql.OwnSchema
	switch {
	case !s.Present:
		j.missing("schema_missing", name, "the schema "+name+" does not exist")
	case !s.Readable || !s.Writable:
		j.fail(Result{
			ID: "schema_rights", Subject: name, What: fmt.Sprintf("role %q may not use the tables of the schema %s", server.Role, name),
			Fix: fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %[1]s TO %[2]s",
				name, sql.Ident(server.Role)),
		})
	case s.Version < version:
		j.missing("schema_old", name, fmt.Sprintf("the schema %s is at version %d, and this walrelay needs %d", name, s.Version, version))
	default:
		j.check(s.Version > version, Result{
			ID: "schema_newer", Subject: name, What: fmt.Sprintf("the schema %s is at version %d, and this walrelay knows %d", name, s.Version, version),
			Why: "an older program would not keep what a newer one has promised", Fix: "run the newer walrelay",
		}, fmt.Sprintf("the schema %s is at version %d", name, s.Version))
	}
}

func (j *judge) table(name string, t *Table, p *Publication) {
	what := "outbox table " + name
	switch {
	case t.Kind == "" && !j.cfg.OwnForm(name):
		j.fail(Result{
			ID: "outbox_missing", Subject: name, What: what + " does not exist", Why: "init creates only tables of walrelay's own form",
			Fix: "create it, or correct outbox.tables",
		})
		return
	case t.Kind == "":
		j.missing("outbox_missing", name, what+" does not exist")
		return
	case t.Kind != "r" && t.Kind != "p":
		j.fail(Result{
			ID: "outbox_kind", Subject: name, What: what + " is not a table", Why: "only inserts into tables are streamed",
			Fix: "correct outbox.tables",
		})
		return
	case t.Partition:
		j.fail(Result{
			ID: "outbox_partition", Subject: name, What: what + " is a partition",
			Why: "inserts are streamed under the name of the partitioned table", Fix: "name that one in outbox.tables",
		})
		return
	case !t.Permanent:
		j.fail(Result{
			ID: "outbox_unlogged", Subject: name, What: what + " is unlogged or temporary", Why: "its rows are not in the WAL",
			Fix: fmt.Sprintf("ALTER TABLE %s SET LOGGED", ident(name)),
		})
		return
	}
	if j.cfg.Outbox.AfterPublish == "mark" && t.MarkMoves {
		j.fail(Result{
			ID: "outbox_mark_partition", Subject: name, What: fmt.Sprintf("outbox table %s is partitioned by published_at, and outbox.after_publish is mark", name),
			Why: "a row that is marked would move to another partition, which arrives as an insert, and be published again",
			Fix: "partition it by another column, or set outbox.after_publish to delete",
		})
	}
	if others := j.inherited(t); len(others) > 0 {
		j.warn(Result{
			ID: "outbox_inherited", Subject: name, What: fmt.Sprintf("tables inherit from %s: %s", what, strings.Join(others, ", ")),
			Why: "rows inserted into these are not published", Fix: `name them in outbox.tables too, and run "walrelay init"`,
		})
	}
	if j.cfg.Outbox.AfterPublish == "mark" && !t.HasMark {
		if j.cfg.OwnForm(name) {
			j.missing("outbox_published_at", name, what+" has no column published_at, so published rows are not marked")
		} else {
			j.warn(Result{
				ID: "outbox_published_at", Subject: name, What: what + " has no column published_at", Why: "published rows are not marked",
				Fix: fmt.Sprintf("ALTER TABLE %s ADD COLUMN published_at timestamptz", ident(name)),
			})
		}
	}
	if j.cfg.Outbox.AfterPublish != "keep" && !t.HasID {
		id := event.ColumnID.Name()
		if mapping, err := j.cfg.Mapping(name); err == nil {
			id = mapping.Column(event.ColumnID)
		}
		create := "CREATE INDEX CONCURRENTLY ON"
		if t.Kind == Partitioned {
			create = "CREATE INDEX ON" // a partitioned table takes no other
		}
		j.warn(Result{
			ID: "outbox_id_index", Subject: name, What: fmt.Sprintf("no index of %s begins with the column of the id", what), Why: "each clean-up reads the whole table",
			Fix: fmt.Sprintf("%s %s (%s)", create, ident(name), sql.Ident(id)),
		})
	}
	j.columns(name, t)
	if p == nil || p.AllTables {
		return
	}
	if !t.Published && !t.Listed {
		j.fail(Result{
			ID: "outbox_unpublished", Subject: name, What: fmt.Sprintf("publication %q does not have outbox table %s", j.cfg.Publication, name), Creatable: true,
			Fix: `run "walrelay init"; "walrelay recover" publishes the rows that were written meanwhile`,
		})
		return
	}
	alter := fmt.Sprintf("BEGIN; ALTER PUBLICATION %s DROP TABLE %s; ALTER PUBLICATION %[1]s ADD TABLE %[2]s; COMMIT", sql.Ident(j.cfg.Publication), ident(name))
	j.check(t.Filtered, Result{
		ID: "outbox_row_filter", Subject: name, What: fmt.Sprintf("publication %q has a row filter on %s", j.cfg.Publication, name),
		Why: "rows it leaves out would never be published", Fix: alter,
	}, what+" is published with all its rows")
	j.check(t.ColumnList, Result{
		ID: "outbox_column_list", Subject: name, What: fmt.Sprintf("publication %q has a column list on %s", j.cfg.Publication, name),
		Why: "columns it leaves out would be missing from events", Fix: alter,
	}, what+" is published with all its columns")
}

// inherited are the tables that inherit from an outbox table and are none.
func (j *judge) inherited(t *Table) []string {
	outboxes, err := j.cfg.Outboxes()
	if err != nil || t.Kind == Partitioned {
		return nil
	}
	var names []string
	for _, child := range t.Children {
		if !slices.Contains(outboxes.Tables, child) {
			names = append(names, child.String())
		}
	}
	return names
}

// columns judges the columns that make events: what is mapped and not sent would be
// left out of every event.
func (j *judge) columns(name string, t *Table) {
	if len(t.Columns) == 0 {
		return
	}
	mapping, err := j.cfg.Mapping(name)
	if err != nil {
		return // the configuration is not valid, and that is said elsewhere
	}
	for _, mapped := range mapping.Columns() {
		what := fmt.Sprintf("column %q of outbox table %s, which makes the %s of events,", mapped.Name, name, mapped.Makes)
		column := t.column(mapped.Name)
		now, renamed := t.Renamed[mapped.Name]
		switch {
		case column == nil && renamed:
			j.fail(Result{
				ID: "outbox_column_renamed", Subject: name, What: fmt.Sprintf("%s is called %q now", what, now),
				Why: "events would go without it",
				Fix: fmt.Sprintf("map %s to the new name in outbox.mappings, or to \"\" if it is something else now; or rename it back", mapped.Makes),
			})
		case column == nil && mapped.Expected:
			j.fail(Result{
				ID: "outbox_column_missing", Subject: name, What: what + " does not exist",
				Fix: fmt.Sprintf("correct outbox.mappings, or map %s to \"\" if the table has none", mapped.Makes),
			})
		case column == nil:
		case column.Generated:
			j.fail(Result{
				ID: "outbox_column_generated", Subject: name, What: what + " is generated, and not sent",
				Why: "before Postgres 18, logical replication leaves generated columns out, and later unless the publication has publish_generated_columns = stored",
				Fix: "make it an ordinary column that the application or a trigger fills in, or map " + mapped.Makes.String() + " to another one",
			})
		case mapped.Makes == event.ColumnScheduledAt && (column.Type == "timestamp without time zone" || column.Type == "date"):
			j.fail(Result{
				ID: "outbox_scheduled_at", Subject: name, What: fmt.Sprintf("%s has type %s", what, column.Type),
				Why: "nobody knows in which time zone it is, so events would be published hours too early or too late",
				Fix: fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s TYPE timestamptz (what is there is read in the time zone of the session: SET timezone)", ident(name), sql.Ident(mapped.Name)),
			})
		}
	}
	if lacks := t.Lacks(); len(lacks) > 0 && j.cfg.OwnForm(name) {
		j.warn(Result{
			ID: "outbox_columns", Subject: name, What: fmt.Sprintf("outbox table %s has no column %s", name, strings.Join(lacks, ", ")),
			Fix: `run "walrelay init", which adds what is missing`,
		})
	}
}

// ident is the name of a table of the configuration, as SQL.
func ident(name string) string {
	table, err := config.ParseTable(name)
	if err != nil {
		return name // the configuration is not valid, and that is said elsewhere
	}
	return table.Ident()
}

// ownIdents are the names of walrelay's own tables, as SQL.
func (p *Publication) ownIdents() []string {
	var names []string
	for _, name := range p.OwnTables {
		names = append(names, sql.Table{Schema: sql.OwnSchema, Name: name}.Ident())
	}
	return names
}

func (j *judge) publication(p *Publication) {
	name := j.cfg.Publication
	what := fmt.Sprintf("publication %q", name)
	set := "ALTER PUBLICATION " + sql.Ident(name) + " SET "
	if p == nil {
		j.missing("publication_missing", name, what+" does not exist")
		return
	}
	j.check(p.AllTables, Result{
		ID: "publication_all_tables", Subject: name, What: what + " is FOR ALL TABLES",
		Why: "it streams walrelay's own tables, and every other table of the database, too", Fix: fmt.Sprintf(`set publication to another name, and run "walrelay init"; if slot %q exists, go by docs/operations.md, "A publication was dropped", instead`, j.cfg.Slot),
	}, what+" has the outbox tables only")
	if !p.AllTables {
		j.check(len(p.OwnTables) > 0, Result{
			ID: "publication_own_tables", Subject: name,
			What: fmt.Sprintf("%s has tables of the schema %s (%s)", what, sql.OwnSchema, strings.Join(p.OwnTables, ", ")),
			Why:  "walrelay would stream its own writes", Fix: "ALTER PUBLICATION " + sql.Ident(name) + " DROP TABLE " + strings.Join(p.ownIdents(), ", "),
		}, what+" has no table of walrelay's bookkeeping")
	}
	if !p.AllTables && !p.Emitted {
		j.missing("publication_emitted", name, what+" does not have table "+sql.OwnSchema+".emitted, by which delayed events come back")
	}
	j.check(!p.Inserts, Result{
		ID: "publication_inserts", Subject: name, What: what + " does not publish inserts", Fix: set + "(publish = 'insert')",
	}, what+" publishes inserts")
	j.check(!p.ViaRoot, Result{
		ID: "publication_root", Subject: name, What: what + " names partitions instead of their table",
		Why: "walrelay knows outbox tables by their own name", Fix: set + "(publish_via_partition_root = true)",
	}, what+" names partitioned tables by their own name")
	if p.Others {
		j.warn(Result{
			ID: "publication_other_operations", Subject: name, What: what + " publishes more than inserts",
			Why: "that only costs, and makes updates of tables without a replica identity fail", Fix: set + "(publish = 'insert')",
		})
	}
}

// orphans judges what is left of slots that do not exist any more, as after a change of
// their names.
func (j *judge) orphans(facts *Facts) {
	for _, slot := range facts.Orphans {
		j.warn(Result{
			ID: "delayed_orphans", Subject: slot, What: fmt.Sprintf("delayed events of slot %q wait for ever", slot), Why: "that slot does not exist",
			Fix: fmt.Sprintf("hand them over to slot %q: \"walrelay delayed adopt --from %s\"; or give them up: \"walrelay delayed cancel --of-slot %[2]s\" (scheduled ones), \"walrelay delayed discard --of-slot %[2]s\" (the others)", j.cfg.Slot, slot),
		})
	}
}

// slots judges the slot, together with the publication if that was read.
func (j *judge) slots(facts *Facts) {
	slot := facts.Slot
	whole := facts.Scope.has(ScopePostgres)
	if slot != nil && slot.Database != "" && slot.Database != slot.CurrentDatabase {
		// A slot of another database says nothing about the publication of this one.
		j.fail(Result{
			ID: "slot_database", Subject: j.cfg.Slot, What: fmt.Sprintf("replication slot %q belongs to database %q", j.cfg.Slot, slot.Database),
			Why: fmt.Sprintf("postgres.url is for %q", slot.CurrentDatabase), Fix: "set slot and publication to other names for this database, or correct postgres.url; leave that slot alone",
		})
		return
	}
	if slot != nil && whole && facts.Publication == nil {
		// The slot cannot read what was written before its publication existed, so
		// init does not make one.
		for i := range j.results {
			if j.results[i].ID == "publication_missing" {
				j.results[i].Creatable = false
				j.results[i].What = fmt.Sprintf("publication %q does not exist, but replication slot %q does", j.cfg.Publication, j.cfg.Slot)
				j.results[i].Why = "the slot cannot read what was written before its publication existed"
				j.results[i].Fix = `see docs/operations.md, "A publication was dropped"`
			}
		}
		return
	}
	if !facts.Closed.IsZero() {
		j.fail(resultOf(checkpoint.Closed(j.cfg.Slot, facts.Closed), j.cfg.Slot))
		return
	}
	j.slot(slot)
	if slot != nil && j.cfg.Failover && slot.Failover != nil && !*slot.Failover {
		j.warn(Result{
			ID: "slot_failover", Subject: j.cfg.Slot, What: fmt.Sprintf("replication slot %q was created without failover", j.cfg.Slot), Why: "it does not survive the loss of the primary",
			Fix: `stop the relay, its standbys too, and run "walrelay init"`,
		})
	}
}

// slot judges the slot; nil is none.
func (j *judge) slot(s *Slot) {
	name := j.cfg.Slot
	what := fmt.Sprintf("replication slot %q", name)
	if s == nil {
		j.fail(Result{
			ID: "slot_missing", Subject: name, What: what + " does not exist",
			Fix: `run "walrelay init"; if it existed before, see docs/operations.md, "A slot was lost"`, Creatable: true,
		})
		return
	}
	other := fmt.Sprintf("correct slot in the configuration, or drop it and run \"walrelay init\": SELECT pg_drop_replication_slot(%s)", sql.Literal(name))
	if s.Type != "logical" {
		j.fail(Result{ID: "slot_type", Subject: name, What: what + " is a physical one", Why: "walrelay needs a logical one", Fix: other})
		return
	}
	j.check(s.Plugin != "pgoutput", Result{
		ID: "slot_plugin", Subject: name, What: fmt.Sprintf("%s has the output plugin %q", what, s.Plugin), Why: `walrelay reads "pgoutput"`, Fix: other,
	}, what+" has the output plugin pgoutput")
	r := Result{ID: "slot_temporary", Subject: name, What: what + " is temporary", Why: "it is dropped when the connection ends", Fix: other}
	if s.ActivePID != nil { // nobody else may drop it
		r.Fix = fmt.Sprintf("correct slot in the configuration, or end the session that made it and run \"walrelay init\": SELECT pg_terminate_backend(%d)", *s.ActivePID)
	}
	j.check(s.Temporary, r, what+" is permanent")
	j.check(s.TwoPhase, Result{
		ID: "slot_two_phase", Subject: name, What: what + " decodes prepared transactions (two_phase)",
		Why: "they would be published before they commit", Fix: other,
	}, what+" decodes committed transactions only")
	lost := s.InvalidationReason
	switch {
	case lost != "":
	case s.WALStatus == "lost":
		lost = "wal_removed"
	case s.Conflicting:
		lost = "conflict with recovery"
	}
	j.check(lost != "", Result{
		ID: "slot_lost", Subject: name, What: fmt.Sprintf("%s is lost (%s)", what, lost), Why: "Postgres has removed WAL that it had still to read",
		Fix: `see docs/operations.md, "A slot was lost"`,
	}, what+" has all the WAL that it needs")
	if lost != "" {
		return
	}
	j.check(!s.Ready, Result{
		ID: "slot_not_ready", Subject: name, What: what + " is not ready",
		Why: "its creation waits for transactions that were writing when it began", Fix: `end them, or wait, and run "walrelay init" again`,
	}, what+" is ready")
	const catchUp = "let the relay catch up (\"walrelay status\" says what it waits for), or raise max_slot_wal_keep_size before the next checkpoint"
	switch {
	case s.WALStatus == "unreserved":
		j.warn(Result{ID: "slot_wal_unreserved", Subject: name, What: what + " is about to be lost", Why: "it holds back more WAL than max_slot_wal_keep_size allows", Fix: catchUp})
	case s.SafeBytes != nil && s.RetainedBytes != nil && *s.SafeBytes < *s.RetainedBytes:
		j.warn(Result{
			ID: "slot_wal_half", Subject: name,
			What: fmt.Sprintf("%s holds back more than half of the WAL that max_slot_wal_keep_size allows (%d of %d bytes)", what, *s.RetainedBytes, *s.RetainedBytes+*s.SafeBytes),
			Why:  "past the limit it is lost", Fix: catchUp,
		})
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
