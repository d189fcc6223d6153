// Package settled waits until a relay has settled what is in the WAL.
//
// Input: a connection and a slot. Output: none. Promises: it changes nothing, and returns
// when what is saved, or the slot, has passed the LSN. The package must not import what
// reads or publishes events.
package settled

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/checkpoint"
	"github.com/walrelay/walrelay/internal/wait"
)

// poll is the time between two looks at the slot.
const poll = 200 * time.Millisecond

// Await waits until everything that was committed before the call is settled and saved.
// It calls waiting, if that is not nil, once if it has to wait; running says that a relay
// has the slot.
func Await(ctx context.Context, conn *pgx.Conn, cfg config.Config, waiting func(running bool)) error {
	return check.AtSlot(ctx, conn, cfg.Postgres, func(at *pgx.Conn) error {
		return await(ctx, conn, at, cfg.Slot, waiting)
	})
}

// await asks one connection for the slot, and the other for what is saved.
func await(ctx context.Context, conn, at *pgx.Conn, slot string, waiting func(running bool)) error {
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return fmt.Errorf("reading the end of the WAL: %w", err)
	}
	end, err := pglogrepl.ParseLSN(text)
	if err != nil {
		return fmt.Errorf("reading the end of the WAL: %w", err)
	}
	for said := false; ; said = true {
		found, err := check.ReadSlot(ctx, at, slot)
		if err != nil {
			return err
		}
		state, err := checkpoint.Load(ctx, conn, slot)
		if err != nil {
			return err
		}
		var passed pglogrepl.LSN
		if state != nil {
			passed = state.FlushLSN
			if found != nil {
				confirmed, err := pglogrepl.ParseLSN(found.ConfirmedFlush)
				if err != nil {
					return fmt.Errorf("reading what slot %q has confirmed: %w", slot, err)
				}
				passed = max(passed, confirmed)
			}
		}
		if passed >= end {
			return nil
		}
		if !said && waiting != nil {
			waiting(found != nil && found.ActivePID != nil)
		}
		if err := wait.For(ctx, poll); err != nil {
			return fmt.Errorf("waiting until the relay has settled what is before %s: %w", end, err)
		}
	}
}
