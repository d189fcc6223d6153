package inbox_test

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/inbox"
)

// Order is the payload of order events.
type Order struct {
	ID       int64
	Customer string
}

// A worker with a handler for two types.
func Example() {
	if err := work(); err != nil {
		log.Fatal(err)
	}
}

func work() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := inbox.Migrate(ctx, pool, inbox.Roles{}); err != nil {
		return err
	}

	var handlers inbox.Registry
	inbox.On(&handlers, "billing", inbox.Types("order.placed", "order.paid"),
		func(ctx context.Context, tx pgx.Tx, ev inbox.Event[Order]) error {
			_, err := tx.Exec(ctx, "INSERT INTO invoices (order_id) VALUES ($1)", ev.Data.ID)
			return err
		})
	return inbox.Run(ctx, inbox.Config{NATS: nc, Pool: pool}, &handlers)
}

// Effects outside of the database are at least once.
func ExampleOnAtLeastOnce() {
	var handlers inbox.Registry
	inbox.OnAtLeastOnce(&handlers, "mailer", inbox.All(), func(ctx context.Context, ev inbox.Event[Order]) error {
		if ev.Data.Customer == "" {
			return inbox.Park(errors.New("nobody to write to")) // trying again is useless
		}
		return sendMail(ctx, ev.Data.Customer)
	})
}

func sendMail(context.Context, string) error { return nil }
