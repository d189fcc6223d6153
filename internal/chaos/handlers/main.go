// Handlers is the application whose handlers chaos kills: three handlers of every event, each of
// which writes down what it did. Some events fail twice, and some until the table mended has a
// row.
//
// With the argument migrate it makes its tables, and ends. Input: CHAOS_DATABASE, the handlers' database; CHAOS_OUTBOX, that of the outbox, which has the keys of
// positions; CHAOS_NATS; CHAOS_SUBJECT, the template of subjects. It must not import the harness.
package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/inbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("CHAOS_DATABASE"))
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer pool.Close()
	if len(os.Args) > 1 && os.Args[1] == "migrate" {
		return inbox.Migrate(ctx, pool, inbox.Roles{})
	}
	nc, err := nats.Connect(os.Getenv("CHAOS_NATS"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreDiscoveredServers(),
		nats.ReconnectWait(100*time.Millisecond), nats.PingInterval(2*time.Second), nats.MaxPingsOutstanding(2))
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	defer nc.Close()
	var r inbox.Registry
	types := inbox.Types("chaos.>")
	once := func(ctx context.Context, tx pgx.Tx, ev inbox.Event[[]byte], handler string) error {
		if err := fails(ctx, tx, ev.ID, ev.Attempt); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insert, handler, ev.ID, ev.Key, ev.Position)
		return err
	}
	inbox.On(&r, "once", types, func(ctx context.Context, tx pgx.Tx, ev inbox.Event[[]byte]) error {
		return once(ctx, tx, ev, "once")
	}, inbox.Lanes(8))
	inbox.OnBatch(&r, "batch", types, func(ctx context.Context, tx pgx.Tx, events []inbox.Event[[]byte]) error {
		for _, ev := range events {
			if err := once(ctx, tx, ev, "batch"); err != nil {
				return err
			}
		}
		return nil
	}, inbox.Lanes(8), inbox.Batch(20))
	inbox.OnAtLeastOnce(&r, "atleast", types, func(ctx context.Context, ev inbox.Event[[]byte]) error {
		if err := fails(ctx, pool, ev.ID, ev.Attempt); err != nil {
			return err
		}
		_, err := pool.Exec(ctx, insert, "atleast", ev.ID, ev.Key, ev.Position)
		return err
	}, inbox.Lanes(8))
	return inbox.Run(ctx, inbox.Config{
		NATS: nc, Pool: pool, Subject: os.Getenv("CHAOS_SUBJECT"), Keys: keys, Grace: 3 * time.Second,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, &r)
}

const insert = "INSERT INTO effects (handler, id, key, position) VALUES ($1, $2, $3, $4)"

type querier interface {
	QueryRow(ctx context.Context, statement string, args ...any) pgx.Row
}

// fails says what is wrong with an event, by its id.
func fails(ctx context.Context, db querier, id string, attempt int) error {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // it never fails
	switch h.Sum32() % 200 {
	case 0:
		var mended bool
		if err := db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM mended)").Scan(&mended); err != nil {
			return err
		}
		if !mended {
			return inbox.Park(errors.New("it is not mended"))
		}
	case 1, 2:
		if attempt <= 2 {
			return inbox.RetryAfter(100*time.Millisecond, errors.New("not yet"))
		}
	}
	return nil
}

// keys reads those of the outbox's database.
func keys(ctx context.Context) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, os.Getenv("CHAOS_OUTBOX"))
	if err != nil {
		return nil, fmt.Errorf("connecting to the outbox: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT slot, key FROM walrelay.secrets")
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	found := make(map[string][]byte)
	var slot string
	var key []byte
	if _, err := pgx.ForEachRow(rows, []any{&slot, &key}, func() error {
		found[slot] = append([]byte(nil), key...)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	return found, nil
}
