package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/localpg"
)

func stepAfter(step string, times int) string { return step + ":" + strconv.Itoa(times) }

func postgresFaults() []fault { //nolint:gocognit // a table
	return []fault{
		{
			name: "postgres-restarted", settings: everywhere, short: onSingle,
			what: "Postgres is restarted in order, which makes those before 17 forget what the slot had confirmed",
			then: "the events that come again are known by their positions",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				if err := w.stopPostgres(ctx, localpg.Fast, 15*time.Second); err != nil {
					return err
				}
				return w.startPostgres(ctx)
			},
		},
		{
			name: "postgres-crashed", settings: everywhere, short: onSingle,
			what: "Postgres is shut down immediately, without a checkpoint, and recovers",
			then: "the same",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				if err := w.stopPostgres(ctx, localpg.Immediate, 15*time.Second); err != nil {
					return err
				}
				return w.startPostgres(ctx)
			},
		},
		{
			name: "postgres-killed", settings: []string{onSingle, onPair, onQueue},
			what: "the main process of Postgres is killed, and started again as soon as it can",
			then: "the same",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				if err := w.pg.Kill(); err != nil {
					return err
				}
				return w.startPostgres(ctx)
			},
		},
		{
			name: "postgres-stopped-while-nats-hangs", settings: []string{onSingle},
			what: "Postgres is asked to stop while NATS does not answer",
			then: "the relay lets it: the server ends within 10 seconds, and nothing is lost",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				w.nats[0].process.Signal(syscall.SIGSTOP)
				defer w.nats[0].process.Signal(syscall.SIGCONT)
				sleep(ctx, 500*time.Millisecond)
				if err := w.stopPostgres(ctx, localpg.Fast, 10*time.Second); err != nil {
					return err
				}
				return w.startPostgres(ctx)
			},
		},
		{
			name: "walsender-ended", settings: everywhere,
			what: "the walsender is terminated, three times",
			then: "the relay connects again",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 3 {
					if err := w.endWalsender(ctx); err != nil {
						return err
					}
					if err := w.flowing(ctx, 20+rng.IntN(50)); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "nats-hangs-past-wal-sender-timeout", settings: []string{onSingle, onQueue},
			what: "NATS does not answer for three times wal_sender_timeout",
			then: "the connection to Postgres stays, the slot stays, and then everything comes in order",
			says: []string{"stream paused"},
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				// A session that has yet to read its streams ends when they do not answer.
				if err := w.flowing(ctx, 50); err != nil {
					return err
				}
				before, err := w.walsender(ctx)
				if err != nil {
					return err
				}
				w.nats[0].process.Signal(syscall.SIGSTOP)
				defer w.nats[0].process.Signal(syscall.SIGCONT)
				sleep(ctx, 9*time.Second)
				after, err := w.walsender(ctx)
				if err != nil {
					return err
				}
				if before != after {
					return fmt.Errorf("the relay has lost its connection to Postgres: walsender %d became %d", before, after)
				}
				return nil
			},
		},
		{
			name: "relay-killed-while-nats-hangs", settings: []string{onSingle, onQueue}, short: onSingle,
			what: "NATS does not answer while another database is busy, so keepalives come; then the relay is killed",
			then: "the slot has not passed what was not acknowledged",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				w.nats[0].process.Signal(syscall.SIGSTOP)
				defer w.nats[0].process.Signal(syscall.SIGCONT)
				for range 10 {
					if err := w.exec(ctx, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 10000))", "SELECT txid_current()"); err != nil {
						return err
					}
					sleep(ctx, 250*time.Millisecond)
				}
				w.relays[0].kill()
				w.nats[0].process.Signal(syscall.SIGCONT)
				return w.relays[0].start("")
			},
		},
		{
			name: "long-transaction", settings: []string{onSingle, onCluster},
			what: "a transaction stays open while the relay is killed and Postgres restarts, and commits then",
			then: "its events stand where it committed",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				a := &application{number: writerCount, rng: rng, n: int(rng.Int32())}
				if err := a.connect(ctx, w.pgURL()); err != nil {
					return err
				}
				defer a.disconnect(ctx)
				t := &transaction{}
				err := pgx.BeginFunc(ctx, a.conn, func(tx pgx.Tx) error {
					if err := a.several(ctx, tx, t); err != nil {
						return err
					}
					for range 3 {
						w.relays[0].kill()
						if err := w.relays[0].start(""); err != nil {
							return err
						}
						if err := w.flowing(ctx, 50); err != nil {
							return err
						}
					}
					return a.several(ctx, tx, t)
				})
				if err == nil {
					t.outcome = committed
				}
				w.ledger.add(t)
				return err
			},
		},
		{
			name: "table-altered", settings: []string{onSingle, onPair},
			what: "columns of the outbox table come, change their type and go, also within a transaction that writes events",
			then: "events are read by the names of the columns",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for _, statement := range []string{
					"ALTER TABLE public.outbox ADD COLUMN extra text DEFAULT 'something'",
					"ALTER TABLE public.outbox ALTER COLUMN subject TYPE varchar(500)",
					"ALTER TABLE public.outbox RENAME COLUMN extra TO other",
				} {
					if err := w.exec(ctx, statement); err != nil {
						return err
					}
					if err := w.flowing(ctx, 50); err != nil {
						return err
					}
				}
				return w.writeAndAlter(ctx, rng)
			},
		},
		{
			name: "huge-transaction", settings: []string{onSingle, onQueue},
			what: "one transaction writes 100 000 events, a third of which is rolled back to a savepoint, and the relay is killed in the middle of them",
			then: "the next run goes on in the middle of the transaction; its memory is bounded",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				if err := w.writeHuge(ctx, 100_000, rng); err != nil {
					return err
				}
				if err := w.flowing(ctx, 5000+rng.IntN(20000)); err != nil {
					return err
				}
				w.relays[0].kill()
				return w.relays[0].start("")
			},
		},
		{
			name: "commits-wait-for-a-standby", settings: []string{onSingle},
			what: "commits wait for a synchronous standby that is away: Postgres streams what no other session sees yet",
			then: "it is published (docs/architecture.md says so), once and in order",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				if err := w.exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"); err != nil {
					return err
				}
				sleep(ctx, 3*time.Second)
				return w.exec(ctx, "SET synchronous_commit = local", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
			},
		},
		{
			name: "failover", settings: []string{onFailover},
			what: "the primary dies, and the standby, with a synchronised slot, is promoted",
			then: "the relay goes on at the new primary",
			do:   func(ctx context.Context, w *World, _ *rand.Rand) error { return w.failOver(ctx) },
		},
	}
}

func (w *World) stopPostgres(ctx context.Context, mode localpg.StopMode, limit time.Duration) error {
	w.hist.Add("harness", "Postgres is stopped", "mode", syscall.Signal(mode))
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return w.pg.Stop(ctx, mode)
}

func (w *World) startPostgres(ctx context.Context) error {
	w.hist.Add("harness", "Postgres is started")
	return restart(ctx, w.pg)
}

// restart starts a server that was killed: it cannot before all its processes have ended.
func restart(ctx context.Context, pg *localpg.Cluster) error {
	return until(ctx, 60*time.Second, "Postgres is up", func(ctx context.Context) error { return pg.Restart(ctx) })
}

// walsender is the process that serves the slot.
func (w *World) walsender(ctx context.Context) (pid int, err error) {
	err = until(ctx, 30*time.Second, "the slot is in use", func(ctx context.Context) error {
		return w.query(ctx, &pid, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active", slotName)
	})
	return pid, err
}

func (w *World) endWalsender(ctx context.Context) error {
	pid, err := w.walsender(ctx)
	if err != nil {
		return err
	}
	w.hist.Add("harness", "the walsender is terminated", "pid", pid)
	return w.exec(ctx, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
}

// schedule writes events that are due in a while.
func (w *World) schedule(ctx context.Context, n int, in time.Duration, rng *rand.Rand) error {
	a := &application{number: writerCount, rng: rng, n: int(rng.Int32())}
	if err := a.connect(ctx, w.pgURL()); err != nil {
		return err
	}
	defer a.disconnect(ctx)
	t := &transaction{}
	due := time.Now().Add(in)
	var rows [][]any
	for range n {
		e := a.event(scheduled)
		e.key, e.due = "", due
		t.events = append(t.events, e.expected)
		rows = append(rows, []any{uuid.MustParse(e.id), e.eventType, "/chaos", due})
	}
	_, err := a.conn.CopyFrom(ctx, pgx.Identifier{"public", "outbox"}, []string{"id", "event_type", "source", "scheduled_at"}, pgx.CopyFromRows(rows))
	if err == nil {
		t.outcome = committed
	}
	w.ledger.add(t)
	return err
}

// writeAndAlter changes the table between two events of a transaction.
func (w *World) writeAndAlter(ctx context.Context, rng *rand.Rand) error {
	a := &application{number: writerCount, rng: rng, n: int(rng.Int32())}
	if err := a.connect(ctx, w.pgURL()); err != nil {
		return err
	}
	defer a.disconnect(ctx)
	t := &transaction{}
	err := pgx.BeginFunc(ctx, a.conn, func(tx pgx.Tx) error {
		for _, statement := range []string{
			"ALTER TABLE public.outbox DROP COLUMN other",
			"ALTER TABLE public.outbox ADD COLUMN extra int",
			"ALTER TABLE public.outbox DROP COLUMN extra",
		} {
			if err := a.insert(ctx, tx, t, a.event(plain)); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return a.insert(ctx, tx, t, a.event(plain))
	})
	if err == nil {
		t.outcome = committed
	}
	w.ledger.add(t)
	return err
}

// writeHuge writes one transaction, of which every third part is rolled back.
func (w *World) writeHuge(ctx context.Context, n int, rng *rand.Rand) error {
	a := &application{number: writerCount, rng: rng, n: int(rng.Int32())}
	if err := a.connect(ctx, w.pgURL()); err != nil {
		return err
	}
	defer a.disconnect(ctx)
	kept, dropped := &transaction{}, &transaction{outcome: rolledBack}
	errUndo := errors.New("this part is rolled back")
	err := pgx.BeginFunc(ctx, a.conn, func(tx pgx.Tx) error {
		for part := range 3 {
			t := kept
			if part == 1 {
				t = dropped
			}
			err := pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error {
				var rows [][]any
				for range n / 3 {
					e := a.event(plain)
					e.key = ""
					t.events = append(t.events, e.expected)
					rows = append(rows, []any{uuid.MustParse(e.id), e.eventType, "/chaos", e.data})
				}
				if _, err := sub.CopyFrom(ctx, pgx.Identifier{"public", "outbox"}, []string{"id", "event_type", "source", "data"}, pgx.CopyFromRows(rows)); err != nil {
					return err
				}
				if part == 1 {
					return errUndo
				}
				return nil
			})
			if err != nil && !errors.Is(err, errUndo) {
				return err
			}
		}
		return nil
	})
	if err == nil {
		kept.outcome = committed
	}
	w.ledger.add(kept)
	w.ledger.add(dropped)
	return err
}

// startPair starts a primary and a standby that follows it, with which it shares
// its failover slots (Postgres 17 manual, "Logical Replication Failover").
func startPair(ctx context.Context, options localpg.Options) (primary, standby *localpg.Cluster, err error) {
	options.Settings["hot_standby_feedback"] = "on"
	if primary, err = localpg.Start(ctx, options); err != nil {
		return nil, nil, err
	}
	options.Settings = maps.Clone(options.Settings)
	options.Settings["sync_replication_slots"] = "on"
	if standby, err = localpg.StartStandby(ctx, primary, options); err != nil {
		return primary, standby, err
	}
	// Commits wait for the standby, so that a failover loses none, and the slots
	// never get ahead of it.
	conn, err := pgx.Connect(ctx, primary.URL("postgres"))
	if err != nil {
		return primary, standby, fmt.Errorf("connecting to the primary: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, statement := range []string{
		"ALTER SYSTEM SET synchronous_standby_names = 'standby'", "ALTER SYSTEM SET synchronized_standby_slots = 'standby'", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return primary, standby, fmt.Errorf("preparing the primary: %w", err)
		}
	}
	return primary, standby, nil
}

// synchronise waits until the standby has the witness's slot for good, which
// takes one that has moved since the standby began to follow.
func (w *World) synchronise(ctx context.Context, primary *pgx.Conn) error {
	conn, err := pgx.Connect(ctx, w.spare.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to the standby: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	return until(ctx, 90*time.Second, "the standby has the witness", func(ctx context.Context) error {
		for _, statement := range []string{
			"SELECT pg_log_standby_snapshot()", "SELECT pg_replication_slot_advance('" + witnessSlot + "', pg_current_wal_lsn())",
		} {
			if _, err := primary.Exec(ctx, statement); err != nil {
				return err
			}
		}
		sleep(ctx, 100*time.Millisecond)
		var ready bool
		err := conn.QueryRow(ctx, "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = $1", witnessSlot).Scan(&ready)
		if err == nil && !ready {
			err = errors.New("it is temporary")
		}
		return err
	})
}

// failOver kills the primary and promotes the standby once it has the slots. It
// can be done once.
func (w *World) failOver(ctx context.Context) error {
	if w.spare == nil {
		return nil
	}
	conn, err := pgx.Connect(ctx, w.spare.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to the standby: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := until(ctx, 60*time.Second, "the standby has the slots", func(ctx context.Context) error {
		var ready int
		err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary AND slot_name IN ($1, $2)", slotName, witnessSlot).Scan(&ready)
		if err == nil && ready < 2 {
			err = fmt.Errorf("it has %d of 2", ready)
		}
		return err
	}); err != nil {
		return err
	}
	if err := w.stopPostgres(ctx, localpg.Immediate, 15*time.Second); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_promote()"); err != nil {
		return fmt.Errorf("promoting the standby: %w", err)
	}
	w.hist.Add("harness", "the standby is promoted")
	w.mu.Lock()
	w.pg, w.spare = w.spare, w.pg
	w.mu.Unlock()
	old := w.spare
	w.spare = nil
	if err := old.Close(); err != nil {
		return err
	}
	return w.net.turnPostgres(ctx, w.pg.Port())
}
