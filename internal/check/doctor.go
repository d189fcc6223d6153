package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

// Examination is what doctor asks beside the [Facts]. What could not be asked is its zero
// value, and in Unknown.
type Examination struct {
	Server  ServerState
	Tables  []*TableState // as in the configuration; nil if missing
	Delayed retry.Counts
	// Replication is why a replication connection could not be made; nil if it could.
	Replication error

	NATS *NATSState
	// Recorded is what the checkpoint says of the streams; it was read before them.
	Recorded map[string]router.StreamState
	// Foreign are owned streams whose last message is not of walrelay, and Positions has the
	// header of the last message of the others.
	Foreign   map[string]uint64
	Positions map[string]string
	// Standbys are the standbys among the hosts of the connection string, if the slot has
	// failover.
	Standbys []Standby
	// Cluster is the system identifier of the database, and WALEnd the end of its WAL; empty
	// and zero where they are not known. Misfit says that the checkpoint is of another
	// cluster, or of a later time of it.
	Cluster string
	WALEnd  pglogrepl.LSN
	Misfit  error

	// Before and After are the times of this machine around the question to the servers.
	Before, After time.Time
	Unknown       []string
}

// ServerState is how the server does at the moment.
type ServerState struct {
	Clock             time.Time `db:"clock"`
	WALSenderTimeout  *int64    `db:"wal_sender_timeout"` // ms; 0 is none
	IdleSlotTimeout   *bool     `db:"idle_slot_timeout"`
	StandbySlots      *string   `db:"standby_slots"`
	ActivePhysical    []string  `db:"active_physical"`
	Autovacuum        *bool     `db:"autovacuum"`
	WriterPID         int32     `db:"writer_pid"`
	WriterRole        string    `db:"writer_role"`
	WriterApplication string    `db:"writer_application"`
	WriterDatabase    string    `db:"writer_database"`
	WriterSeconds     float64   `db:"writer_seconds"`
	PreparedGID       string    `db:"prepared_gid"`
	PreparedDatabase  string    `db:"prepared_database"`
	PreparedSeconds   float64   `db:"prepared_seconds"`
}

// Standby is what a standby has of the slot.
type Standby struct {
	Host               string `db:"-"`
	Err                error  `db:"-"` // why it could not be asked
	Standby            bool   `db:"standby"`
	Present            bool   `db:"present"`
	Synced             bool   `db:"synced"`
	Temporary          bool   `db:"temporary"`
	InvalidationReason string `db:"invalidation_reason"`
}

// ready reports whether the relay goes on from the slot after a failover to the standby.
func (s *Standby) ready() bool {
	return s.Present && s.Synced && !s.Temporary && s.InvalidationReason == ""
}

// TableState is how an outbox table does at the moment.
type TableState struct {
	Live          int64 `db:"live"`
	Dead          int64 `db:"dead"`
	Bytes         int64 `db:"bytes"`
	MaySelect     bool  `db:"may_select"`
	MayDelete     bool  `db:"may_delete"`
	MayUpdate     bool  `db:"may_update"`
	AutovacuumOff bool  `db:"autovacuum_off"`
}

// NATSState is how the server and the account of the connection do.
type NATSState struct {
	Version    string
	MaxPayload int64
	Account    *jetstream.AccountInfo
	// Clock is the server's time; zero if it has said none.
	Clock     time.Time
	Consumers map[string][]*jetstream.ConsumerInfo // by stream
	// Permission is where the user may publish; nil is everywhere, or not known.
	Permission *router.Permission
}

// Doctor reads and judges everything. The error says why nothing could be asked at all:
// *[config.Error] values, joined. A side that cannot be reached is a result. It blocks for
// 15 s at most.
func Doctor(ctx context.Context, cfg config.Config) (Results, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	version, err := sql.SchemaVersion()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	sources, postgresErr, natsErr := ConnectEach(ctx, cfg)
	defer func() { sources.Close() }()
	var results Results
	scope := Scope(0)
	reached := func(id, subject string, part Scope, err error) {
		if err == nil {
			scope |= part
			results = append(results, Result{ID: id, Subject: subject, Status: Pass, What: subject + " answers"})
			return
		}
		r := Result{ID: id, Subject: subject, Status: Fail, What: subject + " cannot be asked", Why: err.Error(), Fix: "start it, or correct the configuration"}
		if p, ok := problem.Find(err); ok { // it was reached, and said no
			r = resultOf(p, subject)
			r.Status = Fail
		}
		results = append(results, r)
	}
	reached("postgres_reachable", "Postgres", ScopeDatabase, postgresErr)
	if cfg.Postgres.Standby != "" && postgresErr == nil {
		err := AtSlot(ctx, sources.Postgres, cfg.Postgres, func(*pgx.Conn) error { return nil })
		if reached("standby_reachable", "the standby of postgres.standby", 0, err); err != nil {
			scope &^= ScopeSlot
		}
	}
	reached("nats_reachable", "NATS", ScopeNATS, natsErr)
	if scope == 0 {
		return results, nil
	}
	state, stateErr := readState(ctx, sources, cfg)
	facts, err := Read(ctx, sources, cfg, scope)
	results = append(results, Judge(&facts, cfg, version)...)
	e := examine(ctx, sources, cfg, &facts)
	if stateErr == nil && sources.Postgres != nil && !facts.Server.Standby {
		stateErr = e.fit(ctx, sources, cfg, state)
	}
	if stateErr != nil {
		e.Unknown = append(e.Unknown, "the checkpoint: "+stateErr.Error())
	}
	if err != nil {
		e.Unknown = append(e.Unknown, err.Error())
	}
	return append(results, Examine(&facts, &e, cfg)...), nil
}

const doctorPatience = 15 * time.Second

// permissionPatience is how long a server may take to answer what a relay need not ask: one who may not
// ask it gets no answer.
const permissionPatience = 2 * time.Second

// examine reads an examination.
func examine(ctx context.Context, from Sources, cfg config.Config, facts *Facts) Examination {
	e := Examination{Before: time.Now()}
	try := func(what string, err error) {
		if err == nil {
			return
		}
		for line := range strings.Lines(err.Error()) { // of joined errors
			e.Unknown = append(e.Unknown, what+": "+strings.TrimSpace(line))
		}
	}
	if facts.Scope.has(ScopePostgres) && facts.Server.Major() >= OldestServer {
		state, err := readOne[ServerState](ctx, from.Postgres, sql.Doctor)
		if err == nil && state != nil {
			e.Server = *state
		}
		e.After = time.Now()
		try("the server's state", err)
		try("the outbox tables", e.readTables(ctx, from, cfg))
		if facts.Schema.Readable {
			e.Delayed, err = retry.CountStates(ctx, from.Postgres, cfg.Slot)
			try("the delay table", err)
		}
		if hasFailover(facts) {
			try("the standbys", e.readStandbys(ctx, cfg))
		}
		url, password, err := connect.SlotSecrets(ctx, cfg.Postgres)
		if err == nil && facts.Scope.has(ScopeSlot) {
			_, err = replication.Identify(ctx, replication.Config{ConnString: url, Password: password, Slot: cfg.Slot, Publication: cfg.Publication})
		}
		e.Replication = err
	}
	if facts.Scope.has(ScopeNATS) {
		before := time.Now()
		try("JetStream", e.readNATS(ctx, from, cfg, facts))
		if e.After.IsZero() {
			e.Before, e.After = before, time.Now()
		}
	}
	return e
}

func hasFailover(facts *Facts) bool {
	return facts.Slot != nil && facts.Slot.Failover != nil && *facts.Slot.Failover
}

// readStandbys asks the hosts of the connection string.
func (e *Examination) readStandbys(ctx context.Context, cfg config.Config) error {
	return connect.EachHost(ctx, cfg.Postgres, func(host string, conn *pgx.Conn, err error) {
		state := &Standby{Standby: true}
		if err == nil {
			if found, readErr := readOne[Standby](ctx, conn, sql.DoctorStandby, cfg.Slot); readErr != nil {
				err = readErr
			} else {
				state = found
			}
		}
		if state.Host, state.Err = host, err; state.Standby {
			e.Standbys = append(e.Standbys, *state)
		}
	})
}

// readNATS asks for the server, and for the streams that exist. What a relay needs no permission for
// comes last: a server leaves a question unanswered that the user may not ask.
func (e *Examination) readNATS(ctx context.Context, from Sources, cfg config.Config, facts *Facts) error {
	e.NATS = &NATSState{Consumers: make(map[string][]*jetstream.ConsumerInfo)}
	e.Foreign, e.Positions = make(map[string]uint64), make(map[string]string)
	var errs []error
	for n, info := range facts.Streams {
		if info == nil {
			continue
		}
		e.NATS.Clock = info.TimeStamp
		if cfg.Streams[n].Shared || info.State.LastSeq == 0 {
			continue
		}
		header, found, err := from.NATS.Header(ctx, info.Config.Name, info.State.LastSeq)
		switch position := header.Get(event.PositionHeader); {
		case err != nil || !found:
		case position == "":
			e.Foreign[info.Config.Name] = info.State.LastSeq
		default:
			e.Positions[info.Config.Name] = position
		}
		errs = append(errs, err)
	}
	may := func(ask func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, permissionPatience)
		defer cancel()
		return ask(ctx)
	}
	_ = may(func(ctx context.Context) (err error) { // not known is permitted
		e.NATS.Permission, err = router.AskPermission(ctx, from.nats)
		return err
	})
	var state connect.State
	errs = append(errs, may(func(ctx context.Context) (err error) {
		state, err = from.NATS.State(ctx)
		return err
	}))
	e.NATS.Version, e.NATS.MaxPayload, e.NATS.Account = state.Version, state.MaxPayload, state.Account
	for _, info := range facts.Streams {
		if info == nil {
			continue
		}
		if err := may(func(ctx context.Context) (err error) {
			e.NATS.Consumers[info.Config.Name], err = from.NATS.ConsumerInfos(ctx, info.Config.Name, maxExamined)
			return err
		}); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

// readState reads the checkpoint; nil where there is none, or no right to read it.
func readState(ctx context.Context, from Sources, cfg config.Config) (*checkpoint.State, error) {
	if from.Postgres == nil {
		return nil, nil //nolint:nilnil // nothing is known
	}
	var readable bool
	if err := from.Postgres.QueryRow(ctx, sql.DoctorProgress).Scan(&readable); err != nil || !readable {
		return nil, err
	}
	return checkpoint.Load(ctx, from.Postgres, cfg.Slot)
}

// fit compares the checkpoint with the database that it is in.
func (e *Examination) fit(ctx context.Context, from Sources, cfg config.Config, state *checkpoint.State) error {
	system := checkpoint.System{}
	if err := from.Postgres.QueryRow(ctx, sql.HandoverSystem).Scan(&system.ID, &system.Timeline); err != nil {
		return err
	}
	end, err := checkpoint.WALEnd(ctx, from.Postgres)
	if err != nil {
		return err
	}
	e.Cluster, e.WALEnd = system.ID, end
	if state == nil {
		return nil
	}
	if e.Recorded = state.Streams; state.HandedOver == nil { // that is said
		e.Misfit = state.Fits(cfg.Slot, system, end)
	}
	return nil
}

// maxExamined is how many consumers of a stream are looked at.
const maxExamined = 1000

func (e *Examination) readTables(ctx context.Context, from Sources, cfg config.Config) error {
	outboxes, err := cfg.Outboxes()
	if err != nil {
		return err
	}
	for _, table := range outboxes.Tables {
		state, err := readOne[TableState](ctx, from.Postgres, sql.DoctorTable, table.Schema, table.Name)
		if err != nil {
			return err
		}
		e.Tables = append(e.Tables, state)
	}
	return nil
}

// Limits that Examine goes by.
const (
	longTransaction  = 10 * time.Minute
	shortTimeout     = 10 * time.Second
	clockSkew        = 5 * time.Second
	overdueEvents    = time.Minute
	manyDead         = 100_000
	accountFull      = 0.8
	streamFull       = 0.9
	oldestNATSServer = "2.9.0"
)

// Examine says what an examination means. It is pure.
func Examine(facts *Facts, e *Examination, cfg config.Config) Results {
	j := judge{cfg: cfg, role: facts.Server.Role}
	for _, why := range e.Unknown {
		j.add(Skip, Result{ID: "not_asked", What: "not everything could be asked", Why: why})
	}
	if facts.Scope.has(ScopePostgres) && facts.Server.Major() >= OldestServer {
		if facts.Scope.has(ScopeSlot) {
			j.replication(facts, e)
		}
		j.settings(facts, e)
		j.transactions(&e.Server)
		for i, name := range cfg.Outbox.Tables {
			if i < len(e.Tables) && e.Tables[i] != nil {
				j.tableState(name, e.Tables[i])
			}
		}
		if facts.Schema.Readable {
			j.delayed(&e.Delayed)
			j.fits(e)
		}
		if !e.Server.Clock.IsZero() {
			j.clock("Postgres", e.Server.Clock, e)
		}
	}
	if e.NATS != nil {
		j.natsState(facts, e)
	}
	return j.results
}

// warnFix adds a warning if bad, and good, in words, otherwise.
func (j *judge) warnFix(bad bool, r Result, good string) { j.found(Warn, bad, r, good) }

// replication judges the connection that the relay streams over, and who uses the slot.
func (j *judge) replication(facts *Facts, e *Examination) {
	r := Result{
		ID: "replication_connection", What: "Postgres refuses a replication connection", Why: fmt.Sprint(e.Replication),
		Fix: replication.ToTheServer + "; and let pg_hba.conf have a line for the role and this database",
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](e.Replication); ok {
		r.Why = pgErr.Error()
	}
	server := &facts.Server
	if facts.SlotServer != nil {
		server = facts.SlotServer
	}
	if e.Replication == nil || server.MayReplicate { // otherwise role_replication says it
		j.check(e.Replication != nil, r, "a replication connection is accepted")
	}
	if slot := facts.Slot; slot != nil {
		j.warnFix(slot.ActivePID == nil, Result{
			ID: "relay_missing", Subject: j.cfg.Slot, What: fmt.Sprintf("no relay reads slot %q", j.cfg.Slot), Why: "WAL piles up until one does", Fix: `start "walrelay run"`,
		}, fmt.Sprintf("a relay reads slot %q", j.cfg.Slot))
	}
}

// fits judges whether the checkpoint is of this database.
func (j *judge) fits(e *Examination) {
	r := Result{ID: "system_changed", Subject: j.cfg.Slot}
	if p, ok := problem.Find(e.Misfit); ok {
		r = resultOf(p, j.cfg.Slot)
	}
	j.check(e.Misfit != nil, r, "the checkpoint is of this database")
}

// settings judges settings of the server.
func (j *judge) settings(facts *Facts, e *Examination) {
	s := &e.Server
	if s.WALSenderTimeout != nil {
		ms := *s.WALSenderTimeout
		j.warnFix(ms == 0 || time.Duration(ms)*time.Millisecond < shortTimeout, Result{
			ID: "wal_sender_timeout", What: fmt.Sprintf("wal_sender_timeout is %d ms", ms),
			Why: "0 never ends the connection of a relay whose machine is gone, so no standby takes over; a very short one ends it when a machine is busy",
			Fix: fmt.Sprintf("set it to 60s (the default), for this role at least: ALTER ROLE %s SET wal_sender_timeout = '60s'", sql.Ident(facts.Server.Role)),
		}, fmt.Sprintf("wal_sender_timeout is %d ms", ms))
	}
	if s.IdleSlotTimeout != nil {
		j.warnFix(*s.IdleSlotTimeout, Result{
			ID: "idle_replication_slot_timeout", What: "idle_replication_slot_timeout is set",
			Why: "a slot that no relay reads for that long is lost", Fix: "set it to more than the longest time without a relay, or: ALTER SYSTEM RESET idle_replication_slot_timeout; SELECT pg_reload_conf()",
		}, "no slot is lost because it is idle")
	}
	if s.StandbySlots != nil && hasFailover(facts) {
		var away []string
		for name := range strings.SplitSeq(*s.StandbySlots, ",") {
			if name = strings.Trim(name, ` "`); name != "" && !slices.Contains(s.ActivePhysical, name) {
				away = append(away, name)
			}
		}
		j.check(len(away) > 0, Result{
			ID: "standby_slots", Subject: j.cfg.Slot, What: "standbys of synchronized_standby_slots are away: " + strings.Join(away, ", "),
			Why: "Postgres sends the slot nothing that these do not have", Fix: "start them, or take them out of synchronized_standby_slots",
		}, "no standby keeps the slot waiting")
	}
	if hasFailover(facts) {
		j.standbys(e)
	}
	if s.Autovacuum != nil {
		j.warnFix(!*s.Autovacuum, Result{
			ID: "autovacuum", What: "autovacuum is off", Why: "the outbox table grows without end, as published rows are deleted", Fix: "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()",
		}, "autovacuum is on")
	}
}

// standbys judges whether the slot outlives the primary.
func (j *judge) standbys(e *Examination) {
	if len(e.Standbys) == 0 {
		j.add(Skip, Result{
			ID: "standby_slot_synced", Subject: j.cfg.Slot, What: "no standby was asked for its copy of the slot", Why: "postgres.url names none",
			Fix: "name all hosts in postgres.url, with target_session_attrs=read-write",
		})
	}
	for i := range e.Standbys {
		s := &e.Standbys[i]
		if s.Err != nil {
			j.add(Skip, Result{ID: "standby_slot_synced", Subject: s.Host, What: s.Host + " could not be asked for its copy of the slot", Why: s.Err.Error()})
			continue
		}
		j.warnFix(!s.ready(), Result{
			ID: "standby_slot_synced", Subject: s.Host, What: fmt.Sprintf("standby %s has no copy of slot %q that is synchronised", s.Host, j.cfg.Slot),
			Why: "after a failover to it the slot is lost",
			Fix: "set sync_replication_slots and hot_standby_feedback to on, primary_slot_name, and a dbname in primary_conninfo there; and drop a slot of that name there that is a copy of another kind",
		}, fmt.Sprintf("standby %s has a synchronised copy of slot %q", s.Host, j.cfg.Slot))
	}
}

// transactions judges those that hold back the slot.
func (j *judge) transactions(s *ServerState) {
	r := Result{
		ID: "long_transaction", Subject: fmt.Sprint(s.WriterPID),
		What: fmt.Sprintf("a transaction has been open for %s: pid %d, role %q, application %q, database %q",
			duration((time.Duration(s.WriterSeconds) * time.Second).Round(time.Second)), s.WriterPID, s.WriterRole, s.WriterApplication, s.WriterDatabase),
		Why: "all WAL since it began is kept for every logical slot of the cluster", Fix: fmt.Sprintf("end it, if nobody needs it: SELECT pg_terminate_backend(%d)", s.WriterPID),
	}
	long := time.Duration(s.WriterSeconds*float64(time.Second)) > longTransaction
	if !long {
		r.Subject = ""
	}
	j.warnFix(long, r, "no writing transaction is older than "+duration(longTransaction))
	j.warnFix(time.Duration(s.PreparedSeconds*float64(time.Second)) > longTransaction, Result{
		ID: "prepared_transaction", Subject: s.PreparedGID, What: fmt.Sprintf("a prepared transaction of database %q has waited for %s", s.PreparedDatabase, duration((time.Duration(s.PreparedSeconds) * time.Second).Round(time.Second))),
		Why: "all WAL since it began is kept for every logical slot of the cluster", Fix: fmt.Sprintf("end it in that database: COMMIT PREPARED %s, or: ROLLBACK PREPARED %[1]s", sql.Literal(s.PreparedGID)),
	}, "no prepared transaction is older than "+duration(longTransaction))
}

// tableState judges one outbox table.
func (j *judge) tableState(name string, t *TableState) {
	what := "outbox table " + name
	var lacks []string
	if !t.MaySelect {
		lacks = append(lacks, "SELECT")
	}
	if j.cfg.Outbox.AfterPublish == "delete" && !t.MayDelete {
		lacks = append(lacks, "DELETE")
	}
	if j.cfg.Outbox.AfterPublish == "mark" && !t.MayUpdate {
		lacks = append(lacks, "UPDATE")
	}
	j.warnFix(len(lacks) > 0, Result{
		ID: "outbox_rights", Subject: name, What: fmt.Sprintf("the role may not %s rows of %s", strings.Join(lacks, ", "), what),
		Why: "published rows are not cleaned away, and what NATS loses cannot be brought back", Fix: fmt.Sprintf("GRANT %s ON %s TO %s", strings.Join(lacks, ", "), ident(name), sql.Ident(j.role)),
	}, "the role may read and clean "+what)
	j.warnFix(t.Dead > manyDead && t.Dead > t.Live, Result{
		ID: "outbox_dead_rows", Subject: name, What: fmt.Sprintf("%s has %d dead rows and %d live ones, in %d MB", what, t.Dead, t.Live, t.Bytes>>20),
		Why: "inserts and the clean-up get slower", Fix: fmt.Sprintf("look for transactions and slots that hold vacuum back; ALTER TABLE %s SET (autovacuum_vacuum_scale_factor = 0.01); VACUUM %[1]s", ident(name)),
	}, fmt.Sprintf("%s has %d dead rows", what, t.Dead))
	if t.AutovacuumOff {
		j.add(Warn, Result{
			ID: "outbox_autovacuum", Subject: name, What: "autovacuum is off for " + what, Why: "it grows without end, as published rows are deleted",
			Fix: fmt.Sprintf("ALTER TABLE %s RESET (autovacuum_enabled)", ident(name)),
		})
	}
}

// delayed judges what is in the delay table.
func (j *judge) delayed(d *retry.Counts) {
	failed := d.States[retry.Failed]
	j.warnFix(failed > 0, Result{
		ID: "delayed_failed", What: fmt.Sprintf("%d events have failed", failed), Why: "they are not published until somebody redrives them",
		Fix: `see "walrelay delayed list --state failed", mend the cause, and "walrelay delayed redrive --state failed"`,
	}, "no event has failed")
	j.warnFix(d.OverdueSeconds > overdueEvents.Seconds(), Result{
		ID: "delayed_overdue", What: fmt.Sprintf("the oldest delayed event is overdue by %.0f s", d.OverdueSeconds),
		Why: "no relay runs, its stream is paused, or it has more to do than it can", Fix: `see "walrelay status"`,
	}, "no delayed event is overdue")
}

// clock judges the clock of a server by that of this machine.
func (j *judge) clock(who string, clock time.Time, e *Examination) {
	skew := time.Duration(0)
	switch {
	case clock.Before(e.Before):
		skew = e.Before.Sub(clock)
	case clock.After(e.After):
		skew = clock.Sub(e.After)
	}
	j.warnFix(skew > clockSkew, Result{
		ID: "clock", Subject: who, What: fmt.Sprintf("the clock of %s and that of this machine differ by %s", who, skew.Round(time.Second)),
		Why: "scheduled events are due by the clock of Postgres; what logs say cannot be compared", Fix: "synchronise the clocks (NTP)",
	}, fmt.Sprintf("the clock of %s agrees with that of this machine", who))
}

// natsState judges the server and the account, and what the streams have room for.
func (j *judge) natsState(facts *Facts, e *Examination) {
	n := e.NATS
	j.warnFix(older(n.Version, oldestNATSServer), Result{
		ID: "nats_version", What: "nats-server is version " + n.Version, Why: "walrelay is tried with " + oldestNATSServer + " and newer", Fix: "upgrade it",
	}, "nats-server is version "+n.Version)
	if !n.Clock.IsZero() {
		j.clock("NATS", n.Clock, e)
	}
	if a := n.Account; a != nil {
		for _, limit := range []struct {
			name    string
			used    uint64
			allowed int64
		}{{"bytes of file storage", a.Store, a.Limits.MaxStore}, {"streams", uint64(a.Streams), int64(a.Limits.MaxStreams)}} {
			if limit.allowed <= 0 {
				continue
			}
			j.warnFix(float64(limit.used) > accountFull*float64(limit.allowed), Result{
				ID: "nats_account_limit", Subject: limit.name, What: fmt.Sprintf("the NATS account uses %d of %d %s", limit.used, limit.allowed, limit.name),
				Why: "at the limit, streams take no more events and are paused", Fix: "raise the limit of the account, or delete what nobody needs",
			}, fmt.Sprintf("the NATS account uses %d of %d %s", limit.used, limit.allowed, limit.name))
		}
	}
	if n.Permission != nil {
		for _, s := range j.subjects() {
			j.permission(s.key, s.pattern, n.Permission)
		}
	}
	for i, info := range facts.Streams {
		if info != nil {
			j.recorded(&j.cfg.Streams[i], info, e)
			j.streamState(&j.cfg.Streams[i], info, n)
		}
	}
}

// permission judges whether the user may publish to the subjects that a template can give.
func (j *judge) permission(key, pattern string, p *router.Permission) {
	r := Result{
		ID: "nats_permission", Subject: key, What: fmt.Sprintf("the NATS user may not publish to the subjects of %s (%s)", key, pattern),
		Why: "the stream is paused until it may, and WAL piles up", Fix: "give the NATS user this permission",
	}
	switch {
	case !p.Permits(pattern):
		j.fail(r)
	case !p.PermitsAll(pattern):
		r.What = fmt.Sprintf("the NATS user may publish to only some of the subjects of %s (%s)", key, pattern)
		r.Why = "other events go to the delay table, and fail"
		j.warn(r)
	default:
		j.check(false, r, fmt.Sprintf("the NATS user may publish to the subjects of %s (%s)", key, pattern))
	}
}

// recorded judges whether a stream has what the checkpoint says, and who wrote it.
func (j *judge) recorded(s *config.Stream, info *jetstream.StreamInfo, e *Examination) {
	was, ok := e.Recorded[s.Name]
	if s.Shared {
		return
	}
	if j.writer(s, &was, e); !ok {
		return
	}
	what := fmt.Sprintf("stream %q", s.Name)
	r := Result{ID: "stream_lost_events", Subject: s.Name, Fix: `see "walrelay repair --dry-run", and docs/operations.md, "A stream lost messages"`}
	loss := router.Loss{Stream: s.Name, Recorded: was, Created: info.Created, LastSequence: info.State.LastSeq}
	if loss.Recreated() || loss.LastSequence < was.LastSequence || was.Repairing {
		r.What = loss.Error()
	}
	j.check(r.What != "", r, what+" has everything that was acknowledged")
	sequence, foreign := e.Foreign[s.Name]
	j.warnFix(foreign, Result{
		ID: "stream_other_writers", Subject: s.Name, What: fmt.Sprintf("message %d, the last one of %s, was not written by walrelay", sequence, what),
		Why: "in a stream that walrelay owns it costs no event, but one that takes the place of another puts that out of order", Fix: "keep others out by permissions, or declare the stream shared",
	}, fmt.Sprintf("the last message of %s is walrelay's", what))
}

// writer judges who wrote the last message of a stream, and when.
func (j *judge) writer(s *config.Stream, was *router.StreamState, e *Examination) {
	what := fmt.Sprintf("stream %q", s.Name)
	fields := strings.Fields(e.Positions[s.Name])
	if len(fields) < 3 || e.Cluster == "" {
		return
	}
	writer := checkpoint.Writer(e.Cluster, j.cfg.Slot)
	// Whoever has written there before takes messages of others for what they are.
	other := fields[2] != writer && was.LastSequence == 0
	j.check(other, Result{
		ID: "stream_other_writer", Subject: s.Name, What: fmt.Sprintf("%s belongs to another relay: its last message was written by %q, and this relay is %q", what, fields[2], writer),
		Fix: "correct postgres.url, if the other one is meant; or give each relay a stream of its own; or see docs/handover.md",
	}, what+" is this relay's")
	position, err := event.ParsePosition(fields[0])
	j.check(err == nil && fields[2] == writer && position.CommitLSN > uint64(e.WALEnd), Result{
		ID: "database_behind_stream", Subject: s.Name,
		What: fmt.Sprintf("%s has an event from position %s of the write-ahead log, but the database ends at %s", what, position, e.WALEnd),
		Fix:  "the database went back in time: see docs/operations.md, \"A database was restored\"",
	}, what+" has nothing from after the end of the database")
}

// streamState judges the limits of one stream, and its consumers.
func (j *judge) streamState(s *config.Stream, info *jetstream.StreamInfo, n *NATSState) {
	what := fmt.Sprintf("stream %q", s.Name)
	c := &info.Config
	if largest := int64(j.cfg.Publish.MaxEventSize); c.MaxMsgSize > 0 {
		if largest == 0 {
			largest = n.MaxPayload
		}
		j.warnFix(int64(c.MaxMsgSize) < largest, Result{
			ID: "stream_message_size", Subject: s.Name, What: fmt.Sprintf("%s takes messages of %d bytes, and events may have %d", what, c.MaxMsgSize, largest),
			Why: "larger events fail after their retries", Fix: fmt.Sprintf("%s --max-msg-size %d, or set publish.max_event_size", editStream(s.Name), largest),
		}, what+" takes events of any size that is configured")
	}
	full := c.MaxMsgs > 0 && float64(info.State.Msgs) > streamFull*float64(c.MaxMsgs) || c.MaxBytes > 0 && float64(info.State.Bytes) > streamFull*float64(c.MaxBytes)
	if c.Discard == jetstream.DiscardNew {
		j.warnFix(full, Result{
			ID: "stream_full", Subject: s.Name, What: what + " is nearly full, and refuses new messages then (discard new)",
			Why: "the stream is paused until there is room, and WAL piles up", Fix: "raise its limits, or remove messages",
		}, what+" has room")
	}
	if s.Shared {
		j.warnFix(c.Duplicates < 2*j.cfg.Publish.AckTimeout, Result{
			ID: "stream_duplicates", Subject: s.Name, What: fmt.Sprintf("%s is shared, and has a duplicate window of %s", what, c.Duplicates),
			Why: "it is the only guard against duplicates there, after a restart or a lost acknowledgement", Fix: editStream(s.Name) + " --dupe-window 2m",
		}, fmt.Sprintf("%s has a duplicate window of %s", what, c.Duplicates))
	}
	if info.Cluster != nil {
		var behind []string
		for _, replica := range info.Cluster.Replicas {
			if !replica.Current || replica.Offline {
				behind = append(behind, replica.Name)
			}
		}
		j.warnFix(len(behind) > 0 || info.Cluster.Leader == "", Result{
			ID: "stream_cluster", Subject: s.Name, What: fmt.Sprintf("%s has leader %q, and replicas that are behind: %s", what, info.Cluster.Leader, strings.Join(behind, ", ")),
			Why: "it tolerates fewer failures than it should, or takes nothing", Fix: "start the servers, and see nats stream info",
		}, what+" has a leader, and its replicas are current")
	}
	for _, consumer := range n.Consumers[s.Name] {
		if removed := Removed(info, consumer); removed > 0 {
			j.add(Warn, Result{
				ID: "consumer_behind", Subject: s.Name + "/" + consumer.Name, What: fmt.Sprintf("consumer %q of %s has acknowledged up to sequence %d, and the stream begins at %d", consumer.Name, what, consumer.AckFloor.Stream, info.State.FirstSeq),
				Why: "the limits of the stream have removed messages before it had them", Fix: "make the consumer faster, or keep messages for longer",
			})
		}
	}
}

// Removed is how many messages the limits of a stream have removed before a consumer had
// them; 0 if that cannot be told, as of one that wants only some of them.
func Removed(stream *jetstream.StreamInfo, consumer *jetstream.ConsumerInfo) uint64 {
	c := &consumer.Config
	next := consumer.AckFloor.Stream + 1
	if stream.Config.Retention != jetstream.LimitsPolicy || c.FilterSubject != "" || len(c.FilterSubjects) > 0 ||
		c.AckPolicy == jetstream.AckNonePolicy || consumer.Delivered.Stream == 0 || stream.State.FirstSeq <= next {
		return 0
	}
	return stream.State.FirstSeq - next
}

// older compares versions such as 2.10.4; what cannot be read is not older.
func older(version, than string) bool {
	parse := func(text string) (parts [3]int, ok bool) {
		_, err := fmt.Sscanf(text, "%d.%d.%d", &parts[0], &parts[1], &parts[2])
		return parts, err == nil
	}
	a, okA := parse(version)
	b, okB := parse(than)
	return okA && okB && slices.Compare(a[:], b[:]) < 0
}
