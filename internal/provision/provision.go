// Package provision makes what a relay needs in Postgres and NATS.
//
// Input: the configuration. Output: the schema walrelay, the outbox tables of
// walrelay's own form, the publication, the slot, the streams; or the SQL that makes
// those of the database. Promises: nothing is made if anything that exists is
// wrong; what exists is left as it is, except that tables are added to the
// publication and brought to the form of today; it may be run again, also by several
// at a time. The package must not import what runs a relay.
package provision

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/sql"
)

// Report says what [Setup] found and did, in the order in which it did it.
type Report struct {
	Items []Item
	// Durability says, for each stream, what its acknowledgements stand for.
	Durability []check.Durability
	// Warnings are sentences about what works, but may not be what is wanted.
	Warnings []string
}

// Item is an object in Postgres or NATS that a relay needs.
type Item struct {
	// Kind is schema, table, publication, slot or stream.
	Kind   string
	Name   string
	Action Action
	// Detail says more where there is more to say.
	Detail string
}

// Action is what was done to an object.
type Action string

// What Setup does to objects.
const (
	Created      Action = "created"
	AlreadyThere Action = "already there"
	Changed      Action = "changed"
)

func (r *Report) add(kind, name string, action Action, detail string) {
	r.Items = append(r.Items, Item{Kind: kind, Name: name, Action: action, Detail: detail})
}

// Setup makes what is missing. It blocks until everything is done, and for up to a
// minute while other transactions keep the slot from being created. The error is
// nil, or joins *[config.Error] and *[problem.Problem] values; anything else in it,
// such as a server that cannot be reached, may go away by itself. The report tells
// also what was done before an error.
func Setup(ctx context.Context, cfg config.Config) (Report, error) {
	return setup(ctx, cfg, false, nil)
}

// Reopen is [Setup] for a slot that was closed, and whose streams it is to take over. The
// statements run in the transaction that makes the outbox tables: before the slot is there,
// nobody may write an event.
func Reopen(ctx context.Context, cfg config.Config, statements []string) (Report, error) {
	return setup(ctx, cfg, true, statements)
}

func setup(ctx context.Context, cfg config.Config, reopen bool, statements []string) (Report, error) {
	var report Report
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return report, err
	}
	sources, err := check.Connect(ctx, cfg)
	if err != nil {
		return report, err
	}
	defer sources.Close()
	m := &maker{cfg: cfg, statements: statements, conn: sources.Postgres, js: sources.NATS, report: &report}
	if m.version, err = sql.SchemaVersion(); err != nil {
		return report, err
	}
	if err := m.lock(ctx); err != nil {
		return report, err
	}
	read := func() (check.Facts, error) {
		facts, err := check.Read(ctx, sources, cfg, check.ScopeAll)
		if reopen {
			facts.Closed = time.Time{}
		}
		return facts, err
	}
	facts, err := read()
	results := check.Judge(&facts, cfg, m.version)
	if err := errors.Join(results.Blocking(), err); err != nil {
		return report, err
	}
	if err := m.database(ctx, &facts); err != nil {
		return report, err
	}
	if err := m.streams(ctx, facts.Streams); err != nil {
		return report, err
	}
	facts, err = read()
	results = check.Judge(&facts, cfg, m.version)
	for _, r := range results.With(check.Warn) {
		report.Warnings = append(report.Warnings, r.Text())
	}
	report.Durability = facts.Durabilities(cfg)
	return report, errors.Join(results.Err(), err)
}

// maker makes what is missing.
type maker struct {
	cfg     config.Config
	version int // of the newest migration
	// statements are for the outbox tables, when they are made.
	statements []string
	conn       *pgx.Conn
	js         *connect.JetStream
	report     *Report
}
