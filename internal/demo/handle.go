package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/inbox"
)

// Order is the payload of the events order.placed and order.paid.
type Order struct {
	ID     int `json:"order"`
	User   int `json:"user"`
	Amount int `json:"amount"`
}

// The order closedOrder is paid by a user whose account is closed: it cannot be billed.
const (
	closedOrder = 4
	closedUser  = 7
)

// prepare makes the tables of handlers, and those of this one.
func prepare(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("preparing the handler: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is under way
	if err := inbox.Migrate(ctx, conn, inbox.Roles{}); err != nil {
		return fmt.Errorf("preparing the handler: %w", err)
	}
	const tables = `
		CREATE TABLE IF NOT EXISTS public.demo_bills (user_id integer PRIMARY KEY, total bigint NOT NULL);
		CREATE TABLE IF NOT EXISTS public.demo_closed_accounts (user_id integer PRIMARY KEY);`
	if _, err := conn.Exec(ctx, tables+fmt.Sprintf("INSERT INTO public.demo_closed_accounts VALUES (%d) ON CONFLICT DO NOTHING", closedUser)); err != nil {
		return fmt.Errorf("preparing the handler: %w", err)
	}
	return nil
}

var errClosed = errors.New("the account is closed")

// handle bills what was paid: the total of a user grows once for each event.
func handle(ctx context.Context, opts Options, natsURL string, out *printer) error {
	pool, err := pgxpool.New(ctx, opts.PostgresURL)
	if err != nil {
		return fmt.Errorf("connecting the handler: %w", err)
	}
	defer pool.Close()
	nc, err := nats.Connect(natsURL, nats.Name("walrelay demo handler"), nats.MaxReconnects(-1))
	if err != nil {
		return fmt.Errorf("connecting the handler: %w", err)
	}
	defer nc.Close()
	var handlers inbox.Registry
	inbox.On(&handlers, "billing", inbox.Types("order.paid"), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[Order]) error {
		var closed bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM public.demo_closed_accounts WHERE user_id = $1)", ev.Data.User).Scan(&closed); err != nil {
			return err
		}
		if closed {
			out.linef(`    handler      cannot bill order %d of user %d: %v. It is parked, and what follows of this user waits.
                 Open the account and have it handled again, from another terminal:

  psql '%s' -c 'DELETE FROM demo_closed_accounts'
  WALRELAY_POSTGRES_URL='%s' bin/walrelay parked redrive %s
`, ev.Data.ID, ev.Data.User, errClosed, opts.PostgresURL, opts.PostgresURL, ev.ID)
			return inbox.Park(errClosed)
		}
		var total int64
		err := tx.QueryRow(ctx, `INSERT INTO public.demo_bills AS b VALUES ($1, $2)
			ON CONFLICT (user_id) DO UPDATE SET total = b.total + excluded.total RETURNING total`, ev.Data.User, ev.Data.Amount).Scan(&total)
		if err != nil {
			return err
		}
		out.linef("    handler      billed order %d: user %d owes %d", ev.Data.ID, ev.Data.User, total)
		return nil
	})
	return inbox.Run(ctx, inbox.Config{NATS: nc, Pool: pool, Log: slog.New(slog.DiscardHandler)}, &handlers)
}
