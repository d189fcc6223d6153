package walrelay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
)

// Report says what [Setup] found and did, in the order in which it did it.
type Report struct {
	Items []Item
	// Worth says, for each stream, what an acknowledgement of it is worth.
	Worth []StreamWorth
	// Warnings are sentences about what works, but may not be what is wanted.
	Warnings []string
}

// StreamWorth says what an acknowledgement of a stream is worth.
type StreamWorth struct {
	Stream, Worth string
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

// Setup makes what a relay needs and does not exist: the schema walrelay, the
// outbox tables of walrelay's own form, the publication, the slot and the
// streams. What exists is checked, and left as it is, except that tables are
// added to the publication. Nothing is made if anything that exists is wrong.
//
// It may be called again, also by several at a time. It blocks until
// everything is done, and for up to a minute while other transactions keep the
// slot from being created. The error is nil, or joins *[ConfigError] and
// *[Problem] values; anything else in it, such as a server that cannot be
// reached, may go away by itself. The report tells also what was done before
// an error.
func Setup(ctx context.Context, cfg Config) (Report, error) {
	var report Report
	i, err := newInspector(ctx, cfg)
	if err != nil {
		return report, err
	}
	defer i.close()
	if err := lockSetup(ctx, i.conn); err != nil {
		return report, err
	}
	found, err := i.inspect(ctx, true)
	if err != nil {
		return report, err
	}
	if err := i.createInPostgres(ctx, found.postgres, &report); err != nil {
		return report, err
	}
	if err := i.createStreams(ctx, found.streams, &report); err != nil {
		return report, err
	}
	found, err = i.inspect(ctx, false)
	report.Warnings, report.Worth = found.warnings, found.worth(i.cfg)
	return report, err
}

// Check reports everything in Postgres and NATS that keeps the configuration
// from working, and changes nothing. Its errors are those of [Setup].
func Check(ctx context.Context, cfg Config) error {
	_, err := Inspect(ctx, cfg)
	return err
}

// Inspect is [Check], and also returns warnings: sentences about what works,
// but may not be what is wanted.
func Inspect(ctx context.Context, cfg Config) (warnings []string, err error) {
	warnings, _, err = inspect(ctx, cfg)
	return warnings, err
}

// inspect also says what acknowledgements are worth.
func inspect(ctx context.Context, cfg Config) (warnings []string, worth []StreamWorth, err error) {
	i, err := newInspector(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	defer i.close()
	found, err := i.inspect(ctx, false)
	return found.warnings, found.worth(i.cfg), err
}

// CheckSlot reports everything that is wrong with the slot alone: nil, or
// *[Problem] values that are joined; any other error says that the database
// could not be asked. The connection is an ordinary one to the database of the
// slot.
func CheckSlot(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	cfg = cfg.WithDefaults()
	slot, err := readSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return err
	}
	var f findings
	f.slot(slot, cfg)
	return errors.Join(f.faults...)
}

// checkPostgres is the part of [Check] that concerns the database.
func checkPostgres(ctx context.Context, conn *pgx.Conn, cfg Config) error {
	state, err := readPostgres(ctx, conn, cfg)
	if err != nil {
		return err
	}
	var f findings
	f.postgres(state, cfg)
	return errors.Join(f.faults...)
}

// inspector has a connection to each side.
type inspector struct {
	cfg  Config
	conn *pgx.Conn
	nc   *nats.Conn
	js   *connect.JetStream
}

// newInspector validates the configuration and connects to both sides. The
// caller closes it.
func newInspector(ctx context.Context, cfg Config) (*inspector, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	i := &inspector{cfg: cfg}
	var postgresErr, natsErr error
	i.conn, postgresErr = connect.Postgres(ctx, cfg.Postgres)
	i.nc, natsErr = connect.NATS(ctx, cfg.NATS)
	if natsErr != nil {
		natsErr = connect.Refused(cfg.NATS, natsErr)
	} else {
		i.js, natsErr = connect.NewJetStream(i.nc, cfg.NATS)
	}
	if err := errors.Join(postgresErr, natsErr); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

func (i *inspector) close() {
	if i.conn != nil {
		connect.ClosePostgres(i.conn)
	}
	if i.nc != nil {
		i.nc.Close()
	}
}

// found is the state of both sides, as far as it concerns the configuration.
type found struct {
	postgres postgresState
	streams  []*jetstream.StreamInfo // as in the configuration; nil if missing
	warnings []string
}

// worth says what acknowledgements of the streams are worth.
func (f *found) worth(cfg Config) []StreamWorth {
	var list []StreamWorth
	for n, info := range f.streams {
		if info != nil {
			list = append(list, StreamWorth{cfg.Streams[n].Name, worth(info, cfg.Streams[n].Shared, cfg.Outbox.RepairWindow)})
		}
	}
	return list
}

// inspect reads the state of both sides and judges it. What init would create
// may be missing if creating.
func (i *inspector) inspect(ctx context.Context, creating bool) (found, error) {
	var state found
	f := findings{creating: creating}
	var postgresErr, natsErr error
	state.postgres, postgresErr = readPostgres(ctx, i.conn, i.cfg)
	if postgresErr == nil {
		f.postgres(state.postgres, i.cfg)
	}
	state.streams, natsErr = i.readStreams(ctx)
	if natsErr == nil {
		f.streams(state.streams, i.cfg)
	}
	state.warnings = f.warnings
	return state, errors.Join(append(f.faults, postgresErr, natsErr)...)
}

// findings collects what is wrong (faults) and what is odd (warnings).
type findings struct {
	creating bool
	faults   []error
	warnings []string
}

func (f *findings) fault(what, why, remedy string) {
	f.faults = append(f.faults, &problem.Problem{What: what, Why: why, Fix: remedy})
}

func (f *findings) missing(what string) {
	if !f.creating {
		f.fault(what, "", "run \"walrelay init\"")
	}
}

func (f *findings) warn(format string, args ...any) {
	f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
}
