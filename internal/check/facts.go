package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/wait"
	"github.com/walrelay/walrelay/sql"
)

// OldestServer is the oldest major version of Postgres that has what the outbox
// and pgoutput need.
const OldestServer = 14

// Facts are what both sides have of the things that a relay needs.
type Facts struct {
	Scope Scope

	Server      Server
	Schema      Schema
	Tables      []Table      // as in the configuration
	Publication *Publication // nil if there is none
	Slot        *Slot        // nil if there is none
	// SlotServer is the standby that has the slot, or is to have it; nil for a slot on the
	// server itself.
	SlotServer *Server
	// Foreign says that it is no standby of the server: its system identifier is another one.
	Foreign bool
	// Closed is the time at which the slot was closed, and its streams handed over.
	Closed time.Time
	// OpenFiles are files with secrets that other users of this machine may read.
	OpenFiles []string
	// Orphans are slots that have delayed events and do not exist.
	Orphans []string

	Streams []*jetstream.StreamInfo // as in the configuration; nil if missing
}

// Server is the server of the connection, and the role of it.
type Server struct {
	Version          int    `db:"version"` // such as 150018
	VersionText      string `db:"version_text"`
	WALLevel         string `db:"wal_level"`
	Standby          bool   `db:"standby"`
	MaxSlots         int    `db:"max_slots"`
	Slots            int    `db:"slots"`
	MaxWalsenders    int    `db:"max_walsenders"`
	Walsenders       int    `db:"walsenders"`
	SynchronousNames string `db:"synchronous_standby_names"`
	KeepSize         int64  `db:"max_slot_wal_keep_size"` // MB; -1 without a limit
	Role             string `db:"role"`
	Database         string `db:"database"`
	MayReplicate     bool   `db:"may_replicate"`
	Feedback         bool   `db:"feedback"` // hot_standby_feedback

	// ApplicationName is that of the connection.
	ApplicationName string `db:"-"`
}

// Major returns the major version.
func (s *Server) Major() int { return s.Version / 10000 }

// Schema is the schema walrelay.
type Schema struct {
	Present  bool `db:"present"`
	Readable bool `db:"readable"`
	Writable bool `db:"writable"`
	// Version is that of the newest migration that was applied.
	Version int `db:"-"`
}

// Partitioned is the kind of a partitioned table (pg_class.relkind).
const Partitioned = "p"

// Table is a table of the configuration.
type Table struct {
	Kind       string `db:"kind"` // pg_class.relkind; "" if there is no such table
	Partition  bool   `db:"partition"`
	Permanent  bool   `db:"permanent"`
	Published  bool   `db:"published"`
	Listed     bool   `db:"listed"`
	Filtered   bool   `db:"filtered"`
	ColumnList bool   `db:"column_list"`
	// HasXact says that it has the column xact_id of earlier versions, HasMark that
	// it has a column published_at.
	HasXact bool `db:"has_xact"`
	HasMark bool `db:"has_mark"`
	// MarkMoves says that it is partitioned by published_at.
	MarkMoves bool `db:"mark_moves"`
	// Children are the tables that inherit from it, or its partitions.
	Children []sql.Table `db:"children"`
	// HasID says that an index begins with the column of the id.
	HasID bool `db:"has_id"`
	// Columns are all of its columns; empty if that was not read.
	Columns []Column `db:"columns"`
	// Renamed has, by the name that a column had when init ran, the one that it has now.
	Renamed map[string]string `db:"-"`
}

// Column is a column of a table.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"` // as format_type says it, without a modifier
	// Generated says that it is computed, and that the publication does not send it.
	Generated bool `json:"generated"`
}

// Lacks returns those of the optional columns of walrelay's own form that the table
// does not have.
func (t *Table) Lacks() []string {
	var names []string
	for c := range event.NumColumns {
		if len(t.Columns) > 0 && !c.Required() && t.column(c.Name()) == nil {
			names = append(names, c.Name())
		}
	}
	return names
}

func (t *Table) column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// Publication is the publication of the configuration.
type Publication struct {
	AllTables bool     `db:"all_tables"`
	Inserts   bool     `db:"inserts"`
	Others    bool     `db:"others"`
	ViaRoot   bool     `db:"via_root"`
	OwnTables []string `db:"own_tables"`
	// Emitted says that it has walrelay.emitted.
	Emitted bool `db:"emitted"`
}

// Slot is the replication slot of the configuration.
type Slot struct {
	Type               string `db:"type"`
	Plugin             string `db:"plugin"`
	Database           string `db:"database"`
	CurrentDatabase    string `db:"current_database"`
	Temporary          bool   `db:"temporary"`
	TwoPhase           bool   `db:"two_phase"`
	WALStatus          string `db:"wal_status"`
	InvalidationReason string `db:"invalidation_reason"`
	Conflicting        bool   `db:"conflicting"`
	Failover           *bool  `db:"failover"` // nil before Postgres 17
	Ready              bool   `db:"ready"`
	// ActivePID is the walsender's that streams from it; nil if none does.
	ActivePID *int32 `db:"active_pid"`
	// ConfirmedFlush is the LSN up to which the slot has confirmed, as text.
	ConfirmedFlush string `db:"confirmed_flush"`
	// LagBytes of WAL come after what the slot has confirmed, and RetainedBytes
	// are kept for it; nil where the slot does not say.
	LagBytes      *int64 `db:"lag_bytes"`
	RetainedBytes *int64 `db:"retained_bytes"`
	// SafeBytes of WAL may be written before the slot is lost; nil without a
	// limit.
	SafeBytes *int64 `db:"safe_bytes"`
}

// Sources is where facts are read. What the scope does not need may be nil.
type Sources struct {
	Postgres *pgx.Conn
	NATS     *connect.JetStream

	nats *nats.Conn
}

// Connect connects to both sides. The error joins what each of them says. The
// caller closes the sources.
func Connect(ctx context.Context, cfg config.Config) (Sources, error) {
	s, postgresErr, natsErr := ConnectEach(ctx, cfg)
	if err := errors.Join(postgresErr, natsErr); err != nil {
		s.Close()
		return Sources{}, err
	}
	return s, nil
}

// ConnectEach connects to both sides. A side that cannot be reached is nil. The caller
// closes the sources.
func ConnectEach(ctx context.Context, cfg config.Config) (s Sources, postgresErr, natsErr error) {
	s.Postgres, postgresErr = connect.Postgres(ctx, cfg.Postgres)
	if s.nats, natsErr = connect.NATS(ctx, cfg.NATS); natsErr != nil {
		return s, postgresErr, connect.Refused(cfg.NATS, natsErr)
	}
	s.NATS, natsErr = connect.NewJetStream(s.nats, cfg.NATS)
	return s, postgresErr, natsErr
}

// Close closes the connections of [Connect].
func (s *Sources) Close() {
	if s.Postgres != nil {
		connect.ClosePostgres(s.Postgres)
	}
	if s.nats != nil {
		s.nats.Close()
	}
}

// Read asks for the facts of a scope. It blocks until both sides have answered.
// Of a server that is too old it reads the version only. The error joins what
// each side could not be asked; the facts of the other side are there.
func Read(ctx context.Context, from Sources, cfg config.Config, scope Scope) (Facts, error) {
	facts := Facts{Scope: scope}
	if scope != ScopeSlot {
		facts.OpenFiles = connect.OpenFiles(cfg)
	}
	var postgresErr, slotErr, natsErr error
	if scope.has(ScopePostgres) {
		postgresErr = facts.readPostgres(ctx, from.Postgres, cfg)
	}
	if scope.has(ScopeSlot) && postgresErr == nil && (!scope.has(ScopePostgres) || facts.Server.Major() >= OldestServer) {
		slotErr = facts.readSlot(ctx, from.Postgres, cfg)
	}
	if scope.has(ScopeNATS) {
		facts.Streams, natsErr = readStreams(ctx, from.NATS, cfg.Streams)
	}
	if postgresErr != nil {
		facts.Scope &^= ScopeDatabase
	}
	if slotErr != nil {
		facts.Scope &^= ScopeSlot
	}
	if natsErr != nil {
		facts.Scope &^= ScopeNATS
	}
	return facts, errors.Join(postgresErr, slotErr, natsErr)
}

// Run reads and judges everything, over connections of its own. The error says what
// could not be found out: *[config.Error] and *[problem.Problem] values, joined, and
// what may go away by itself.
func Run(ctx context.Context, cfg config.Config) (Results, *Facts, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	version, err := sql.SchemaVersion()
	if err != nil {
		return nil, nil, err
	}
	sources, err := Connect(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	defer sources.Close()
	facts, err := Read(ctx, sources, cfg, ScopeAll)
	return Judge(&facts, cfg, version), &facts, err
}

// readPostgres asks for what concerns the database, but for the slot.
func (f *Facts) readPostgres(ctx context.Context, conn *pgx.Conn, cfg config.Config) error {
	server, err := readOne[Server](ctx, conn, sql.Server)
	if err == nil && server == nil {
		err = errors.New("no row for the role")
	}
	if err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	f.Server = *server
	f.Server.ApplicationName = conn.Config().RuntimeParams["application_name"]
	if server.Major() < OldestServer {
		return nil
	}
	schema, err := readOne[Schema](ctx, conn, sql.Schema)
	if err != nil || schema == nil {
		return fmt.Errorf("looking for the schema %s: %w", sql.OwnSchema, err)
	}
	if schema.Readable {
		if err := conn.QueryRow(ctx, sql.Version).Scan(&schema.Version); err != nil {
			return fmt.Errorf("reading the version of the schema %s: %w", sql.OwnSchema, err)
		}
	}
	f.Schema = *schema
	outboxes, err := cfg.Outboxes()
	if err != nil {
		return err
	}
	for i, table := range outboxes.Tables {
		read, err := readOne[Table](ctx, conn, sql.TableState, table.Schema, table.Name, cfg.Publication, outboxes.IDs[i])
		if err != nil {
			return fmt.Errorf("looking for table %s: %w", table, err)
		}
		if read == nil {
			read = &Table{}
		}
		f.Tables = append(f.Tables, *read)
	}
	if f.Schema.Writable && f.Schema.Version >= standbyVersion {
		rows, err := conn.Query(ctx, sql.Orphans, cfg.Slot)
		if err == nil {
			f.Orphans, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("looking for delayed events of other slots: %w", err)
		}
	}
	if err := f.readRenamed(ctx, conn, cfg.Slot, outboxes.Tables); err != nil {
		return err
	}
	f.Publication, err = readOne[Publication](ctx, conn, sql.PublicationState, cfg.Publication)
	if err != nil {
		return fmt.Errorf("looking for publication %q: %w", cfg.Publication, err)
	}
	return nil
}

// Versions of the schema: columnsVersion is the one from which on init notes the columns
// of tables, and standbyVersion that from which on a slot may be on a standby.
const (
	columnsVersion = 9
	standbyVersion = 14
)

func (f *Facts) readRenamed(ctx context.Context, conn *pgx.Conn, slot string, tables []sql.Table) error {
	if !f.Schema.Writable || f.Schema.Version < columnsVersion {
		return nil
	}
	rows, err := conn.Query(ctx, sql.Renamed, slot)
	if err != nil {
		return fmt.Errorf("looking for renamed columns: %w", err)
	}
	var table sql.Table
	var was, now string
	if _, err := pgx.ForEachRow(rows, []any{&table.Schema, &table.Name, &was, &now}, func() error {
		if i := slices.Index(tables, table); i >= 0 {
			if f.Tables[i].Renamed == nil {
				f.Tables[i].Renamed = make(map[string]string)
			}
			f.Tables[i].Renamed[was] = now
		}
		return nil
	}); err != nil {
		return fmt.Errorf("looking for renamed columns: %w", err)
	}
	return nil
}

// readSlot asks for the slot, and for the standby that has it.
func (f *Facts) readSlot(ctx context.Context, conn *pgx.Conn, cfg config.Config) error {
	err := AtSlot(ctx, conn, cfg.Postgres, func(at *pgx.Conn) (err error) {
		if f.Scope.has(ScopePostgres) && at != conn {
			if f.SlotServer, err = readOne[Server](ctx, at, sql.Server); err != nil {
				return fmt.Errorf("reading the standby's settings: %w", err)
			}
			if f.Foreign, err = foreign(ctx, conn, at); err != nil {
				return err
			}
		}
		f.Slot, err = ReadSlot(ctx, at, cfg.Slot)
		return err
	})
	if err == nil {
		f.Closed, err = readClosed(ctx, conn, cfg.Slot)
	}
	return err
}

// foreign reports whether two servers are of different database clusters.
func foreign(ctx context.Context, a, b *pgx.Conn) (bool, error) {
	var ids [2]int64
	for i, conn := range []*pgx.Conn{a, b} {
		if err := conn.QueryRow(ctx, "SELECT system_identifier FROM pg_catalog.pg_control_system()").Scan(&ids[i]); err != nil {
			return false, fmt.Errorf("reading the system identifier: %w", err)
		}
	}
	return ids[0] != ids[1], nil
}

// AtSlot calls do with a connection to the server that has the slot: the one that is given, or
// one to the standby, for as long as do runs.
func AtSlot(ctx context.Context, conn *pgx.Conn, cfg config.Postgres, do func(*pgx.Conn) error) error {
	if cfg.Standby == "" {
		return do(conn)
	}
	standby, err := connect.Slot(ctx, cfg)
	if err != nil {
		return err
	}
	defer connect.ClosePostgres(standby)
	return do(standby)
}

// FindSlot asks for the slot of a configuration, on the server that has it; nil if there is none.
func FindSlot(ctx context.Context, conn *pgx.Conn, cfg config.Config) (slot *Slot, err error) {
	err = AtSlot(ctx, conn, cfg.Postgres, func(at *pgx.Conn) error {
		slot, err = ReadSlot(ctx, at, cfg.Slot)
		return err
	})
	return slot, err
}

// RefuseRelay returns a *[problem.Problem] if a relay reads the slot of the configuration.
func RefuseRelay(ctx context.Context, conn *pgx.Conn, cfg config.Config) error {
	slot, err := FindSlot(ctx, conn, cfg)
	if err != nil || slot == nil {
		return err
	}
	return slot.RefuseRelay(cfg.Slot)
}

// RefuseRelay does so for a slot of that name, as it was read.
func (s *Slot) RefuseRelay(name string) error {
	if s.ActivePID == nil {
		return nil
	}
	return &problem.Problem{ID: "relay_running", What: fmt.Sprintf("a relay is running: it reads slot %q", name), Fix: "stop it, its standbys too, and run this again"}
}

// replayPoll is the time between two looks at what a standby has replayed.
const replayPoll = 50 * time.Millisecond

// AwaitReplay waits until a standby has replayed what the primary had written before the call.
func AwaitReplay(ctx context.Context, primary, standby *pgx.Conn) error {
	var end string
	if err := primary.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		return fmt.Errorf("reading the end of the WAL: %w", err)
	}
	for {
		var replayed bool
		err := standby.QueryRow(ctx, "SELECT NOT pg_catalog.pg_is_in_recovery() OR coalesce(pg_catalog.pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)", end).Scan(&replayed)
		if err != nil {
			return fmt.Errorf("reading what the standby has replayed: %w", err)
		}
		if replayed {
			return nil
		}
		if err := wait.For(ctx, replayPoll); err != nil {
			return fmt.Errorf("waiting until the standby has replayed up to %s: %w", end, err)
		}
	}
}

// ReadSlot asks a server for a replication slot; nil if there is none of the name.
func ReadSlot(ctx context.Context, conn *pgx.Conn, name string) (*Slot, error) {
	slot, err := readOne[Slot](ctx, conn, sql.SlotState, name)
	if err != nil {
		return nil, fmt.Errorf("looking for replication slot %q: %w", name, err)
	}
	return slot, nil
}

// readClosed asks when the slot was closed; zero if it was not, or that cannot be known: in a
// database that has nothing of walrelay's, or where the role may not see it.
func readClosed(ctx context.Context, conn *pgx.Conn, slot string) (time.Time, error) {
	var known bool
	if err := conn.QueryRow(ctx, sql.SlotClosable).Scan(&known); err != nil || !known {
		return time.Time{}, err
	}
	closed, err := readOne[struct {
		At time.Time `db:"at"`
	}](ctx, conn, sql.SlotClosed, slot)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("asking whether slot %q is closed: %w", slot, err)
	case closed == nil:
		return time.Time{}, nil
	}
	return closed.At, nil
}

// readStreams asks for the configured streams; nil stands for one that does not
// exist.
func readStreams(ctx context.Context, js *connect.JetStream, streams []config.Stream) ([]*jetstream.StreamInfo, error) {
	infos := make([]*jetstream.StreamInfo, len(streams))
	for n, s := range streams {
		var err error
		if infos[n], err = js.Stream(ctx, s.Name); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// readOne returns nil if the query returns no row.
func readOne[T any](ctx context.Context, conn *pgx.Conn, query string, args ...any) (*T, error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByNameLax[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no row is an answer
	}
	return row, err
}
