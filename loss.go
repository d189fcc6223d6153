package walrelay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/router"
)

// lossTimeout bounds finding out which events are missing.
const lossTimeout = 30 * time.Second

// explainLoss adds, to an error that says that a stream lost events, which ones
// the journal knows to be missing.
func (r *Relay) explainLoss(ctx context.Context, err error) error {
	fault, ok := errors.AsType[*router.ConfigurationError](err)
	if !ok || fault.Loss == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lossTimeout)
	defer cancel()
	said := *fault
	missing, explainErr := r.missing(ctx, *fault.Loss)
	if explainErr != nil {
		r.log.Warn().Err(explainErr).Msg("which events are missing could not be found out")
		return err
	}
	said.What += ": " + missing
	return &said
}

// missing says which events of a stream are missing, by the journal.
func (r *Relay) missing(ctx context.Context, loss router.Loss) (string, error) {
	conn, err := connectPostgres(ctx, r.cfg)
	if err != nil {
		return "", err
	}
	defer closePostgres(conn)
	recorded, err := loadProgress(ctx, conn, r.cfg.Slot)
	if err != nil || recorded == nil {
		return "", err
	}
	passed, err := passedLSN(ctx, conn, r.cfg.Slot, recorded)
	if err != nil {
		return "", err
	}
	// What was not written down yet comes again from the slot.
	loss.Recorded = recorded.streams[loss.Stream]
	loss.Count = loss.Recorded.LastSequence - min(loss.LastSequence, loss.Recorded.LastSequence)
	s, err := survey(ctx, conn, r.cfg.Slot, &loss, passed)
	if err != nil {
		return "", err
	}
	text := "no event is missing that the slot does not send again"
	if s.Missing > 0 {
		text = fmt.Sprintf("%s, published since %s, from position %s to %s", counted(s.Missing, "event"), s.Since.UTC().Format(time.RFC3339), s.First, s.Last)
	}
	if s.Unknown > 0 {
		text += fmt.Sprintf(", and %s from before the journal begins", counted(int(s.Unknown), "message")) //nolint:gosec // a number of messages
	}
	return text, nil
}

// passedLSN is where the slot goes on.
func passedLSN(ctx context.Context, conn *pgx.Conn, slot string, recorded *progress) (replication.LSN, error) {
	var confirmed replication.LSN
	if err := conn.QueryRow(ctx, "SELECT coalesce(confirmed_flush_lsn, '0/0') FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", slot).Scan(&confirmed); err != nil {
		return 0, fmt.Errorf("reading what slot %q has confirmed: %w", slot, err)
	}
	return max(confirmed, recorded.flushLSN), nil
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
