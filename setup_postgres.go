package walrelay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/sql"
)

// oldestServer has what the outbox and pgoutput need.
const oldestServer = 14

// postgresState is what a database has of the things that a relay needs.
type postgresState struct {
	server      serverState
	schema      schemaState
	tables      []tableState // as in the configuration
	publication *publicationState
	slot        *slotState
}

type serverState struct {
	Version          int    `db:"version"` // such as 150018
	VersionText      string `db:"version_text"`
	WALLevel         string `db:"wal_level"`
	Standby          bool   `db:"standby"`
	MaxSlots         int    `db:"max_slots"`
	Slots            int    `db:"slots"`
	MaxWalsenders    int    `db:"max_walsenders"`
	Walsenders       int    `db:"walsenders"`
	SynchronousNames string `db:"synchronous_standby_names"`
	KeepSize         int64  `db:"max_slot_wal_keep_size"`
	Role             string `db:"role"`
	Database         string `db:"database"`
	MayReplicate     bool   `db:"may_replicate"`

	applicationName string
}

func (s serverState) major() int { return s.Version / 10000 }

type schemaState struct {
	Present  bool `db:"present"`
	Readable bool `db:"readable"`
	Writable bool `db:"writable"`

	version int // of the newest migration that was applied
}

type tableState struct {
	Kind       string `db:"kind"` // pg_class.relkind; "" if there is no such table
	Partition  bool   `db:"partition"`
	Permanent  bool   `db:"permanent"`
	Published  bool   `db:"published"`
	Listed     bool   `db:"listed"`
	Filtered   bool   `db:"filtered"`
	ColumnList bool   `db:"column_list"`
}

type publicationState struct {
	AllTables bool     `db:"all_tables"`
	Inserts   bool     `db:"inserts"`
	Others    bool     `db:"others"`
	ViaRoot   bool     `db:"via_root"`
	OwnTables []string `db:"own_tables"`
	Emitted   bool     `db:"emitted"`
}

type slotState struct {
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
}

// readPostgres asks for everything that is judged. Of a server that is too old
// it reads the version only.
func readPostgres(ctx context.Context, conn *pgx.Conn, cfg Config) (postgresState, error) {
	var state postgresState
	server, err := readOne[serverState](ctx, conn, sql.Server)
	if err != nil || server == nil {
		return state, fmt.Errorf("reading the server's settings: %w", err)
	}
	state.server = *server
	state.server.applicationName = conn.Config().RuntimeParams["application_name"]
	if server.major() < oldestServer {
		return state, nil
	}
	schema, err := readOne[schemaState](ctx, conn, sql.Schema)
	if err != nil || schema == nil {
		return state, fmt.Errorf("looking for the schema %s: %w", sql.OwnSchema, err)
	}
	if schema.Readable {
		if err := conn.QueryRow(ctx, sql.Version).Scan(&schema.version); err != nil {
			return state, fmt.Errorf("reading the version of the schema %s: %w", sql.OwnSchema, err)
		}
	}
	state.schema = *schema
	for _, text := range cfg.Outbox.Tables {
		table, err := config.ParseTable(text)
		if err != nil {
			return state, err
		}
		read, err := readOne[tableState](ctx, conn, sql.TableState, table.Schema, table.Name, cfg.Publication)
		if err != nil {
			return state, fmt.Errorf("looking for table %s: %w", table, err)
		}
		if read == nil {
			read = &tableState{}
		}
		state.tables = append(state.tables, *read)
	}
	if state.publication, err = readOne[publicationState](ctx, conn, sql.PublicationState, cfg.Publication); err != nil {
		return state, fmt.Errorf("looking for publication %q: %w", cfg.Publication, err)
	}
	state.slot, err = readSlot(ctx, conn, cfg.Slot)
	return state, err
}

func readSlot(ctx context.Context, conn *pgx.Conn, name string) (*slotState, error) {
	slot, err := readOne[slotState](ctx, conn, sql.SlotState, name)
	if err != nil {
		return nil, fmt.Errorf("looking for replication slot %q: %w", name, err)
	}
	return slot, nil
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
