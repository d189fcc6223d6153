package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/router"
)

// lossTimeout bounds finding out which events are missing.
const lossTimeout = 30 * time.Second

// Explain adds, to an error that says that a stream lost events, which ones the
// journal knows to be missing. It blocks for 30 s at most; what cannot be found out
// is logged.
func Explain(ctx context.Context, cfg config.Config, log zerolog.Logger, err error) error {
	loss, lost := errors.AsType[*router.Loss](err)
	found, ok := problem.Find(err)
	if !lost || !ok {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lossTimeout)
	defer cancel()
	said := *found
	missing, explainErr := missingIn(ctx, cfg, *loss)
	if explainErr != nil {
		log.Warn().Err(explainErr).Msg("which events are missing could not be found out")
		return err
	}
	said.Why = missing
	return &said
}

// missingIn says which events of a stream are missing, by the journal.
func missingIn(ctx context.Context, cfg config.Config, loss router.Loss) (string, error) {
	conn, err := connect.Postgres(ctx, cfg.Postgres)
	if err != nil {
		return "", err
	}
	defer connect.ClosePostgres(conn)
	recorded, err := checkpoint.Load(ctx, conn, cfg.Slot)
	if err != nil || recorded == nil {
		return "", err
	}
	passed, err := passedLSN(ctx, conn, cfg, recorded)
	if err != nil {
		return "", err
	}
	// What was not written down yet comes again from the slot.
	loss.Recorded = recorded.Streams[loss.Stream]
	loss.Count = loss.Recorded.LastSequence - min(loss.LastSequence, loss.Recorded.LastSequence)
	s, err := survey(ctx, conn, cfg.Slot, &loss, passed)
	if err != nil {
		return "", err
	}
	text := "no event is missing that the slot does not send again"
	if s.Missing > 0 {
		text = fmt.Sprintf("%s, published since %s, from position %s to %s", counted(s.Missing, "event"), s.Since.UTC().Format(time.RFC3339), s.First, s.Last)
	}
	if s.Unknown > 0 {
		text += fmt.Sprintf(", and %s from before the journal begins", counted(int(s.Unknown), "message"))
	}
	return text, nil
}

// passedLSN is where the slot goes on.
func passedLSN(ctx context.Context, conn *pgx.Conn, cfg config.Config, recorded *checkpoint.State) (replication.LSN, error) {
	state, err := check.FindSlot(ctx, conn, cfg)
	if err != nil || state == nil {
		return recorded.FlushLSN, err
	}
	confirmed, err := pglogrepl.ParseLSN(state.ConfirmedFlush)
	if err != nil {
		return 0, fmt.Errorf("reading what slot %q has confirmed: %w", cfg.Slot, err)
	}
	return max(confirmed, recorded.FlushLSN), nil
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// survey counts what the journal says is missing. It finds the position after
// which that begins, if only the number of events is known.
func survey(ctx context.Context, conn *pgx.Conn, slot string, loss *router.Loss, passed replication.LSN) (s StreamRepair, err error) {
	s = StreamRepair{
		Stream: loss.Stream, What: loss.Error(), AfterSequence: loss.LastSequence, RecordedSequence: loss.Recorded.LastSequence,
	}
	through := event.Position{}
	if loss.Recorded.Position != "" {
		if through, err = event.ParsePosition(loss.Recorded.Position); err != nil {
			return s, fmt.Errorf("the recorded state of stream %q: %w", loss.Stream, err)
		}
	}
	if loss.Counted {
		if err := findStart(ctx, conn, slot, loss, through); err != nil {
			return s, err
		}
	}
	// The slot brings those again that it has not passed; but the sequence that
	// is recorded counts them.
	j := &journalReader{conn: conn, slot: slot, stream: loss.Stream, after: loss.After, before: ^replication.LSN(0)}
	known := uint64(0)
	for {
		entry, ok, err := j.next(ctx)
		if err != nil {
			return s, err
		}
		if !ok {
			break
		}
		if entry.Position.Compare(through) <= 0 {
			known++
		}
		if replication.LSN(entry.Position.CommitLSN) >= passed {
			continue
		}
		if s.Missing++; s.Missing == 1 {
			s.First, s.Since = entry.Position.String(), &entry.writtenAt
		}
		s.Last = entry.Position.String()
	}
	had := loss.Recorded.LastSequence
	if !loss.Recreated() || !loss.After.IsZero() {
		had -= min(had, loss.LastSequence)
	}
	if !loss.Recorded.Repairing && had > known {
		s.Unknown = had - known
	}
	return s, nil
}

// findStart finds out behind which event the last ones up to a position begin,
// of which only the number is known.
func findStart(ctx context.Context, conn *pgx.Conn, slot string, loss *router.Loss, through event.Position) error {
	count := func(n uint64) (seen uint64, last event.Position, err error) {
		j := &journalReader{conn: conn, slot: slot, stream: loss.Stream, before: ^replication.LSN(0)}
		for seen < n {
			entry, ok, err := j.next(ctx)
			if err != nil {
				return 0, last, err
			}
			if !ok || entry.Position.Compare(through) > 0 {
				break
			}
			seen, last = seen+1, entry.Position
		}
		return seen, last, nil
	}
	all, _, err := count(^uint64(0))
	if err != nil {
		return err
	}
	_, loss.After, err = count(all - min(all, loss.Count))
	return err
}
