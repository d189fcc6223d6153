package inbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of ExampleOnSQL
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

// A batch of events is one transaction: much faster where one statement does for many.
func ExampleOnBatch() {
	var handlers inbox.Registry
	inbox.OnBatch(&handlers, "search", inbox.Types("order.>"), func(ctx context.Context, tx pgx.Tx, events []inbox.Event[Order]) error {
		ids := make([]int64, len(events))
		for i, ev := range events {
			ids[i] = ev.Data.ID
		}
		_, err := tx.Exec(ctx, "INSERT INTO to_index (order_id) SELECT unnest($1::bigint[])", ids)
		return err
	}, inbox.Lanes(8), inbox.Batch(50))
}

// With database/sql, and so with bun, GORM or sqlx.
func ExampleOnSQL() {
	var handlers inbox.Registry
	inbox.OnSQL(&handlers, "billing", inbox.Types("order.placed"), func(ctx context.Context, tx *sql.Tx, ev inbox.Event[Order]) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO invoices (order_id) VALUES ($1)", ev.Data.ID)
		return err
	})
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	_ = inbox.Config{DB: db} // and NATS
}

// What a handler returns decides what becomes of the event.
func ExamplePark() {
	var handlers inbox.Registry
	inbox.OnAtLeastOnce(&handlers, "shipping", inbox.Types("order.paid"), func(ctx context.Context, ev inbox.Event[Order]) error {
		switch err := ship(ctx, ev.Data); {
		case errors.Is(err, errNoSuchAddress):
			return inbox.Park(err) // a person must look
		case errors.Is(err, errBusy):
			return inbox.RetryAfter(time.Minute, err)
		case errors.Is(err, errMaintenance):
			return inbox.Pause(err) // it is away for all events, and this one keeps its place
		default:
			return err // nil: done; others: again after the handler's backoff
		}
	}, inbox.MaxRetries(5), inbox.Timeout(10*time.Second))
}

var (
	errNoSuchAddress = errors.New("no such address")
	errBusy          = errors.New("busy")
	errMaintenance   = errors.New("down for maintenance")
)

func ship(context.Context, Order) error { return nil }

// Middleware wraps the calls of a handler.
func ExampleUse() {
	count := func(next inbox.Func) inbox.Func {
		return func(ctx context.Context, events []inbox.CloudEvent) error {
			err := next(ctx, events)
			slog.InfoContext(ctx, "handled", "events", len(events), "failed", err != nil)
			return err
		}
	}
	var handlers inbox.Registry
	inbox.OnAtLeastOnce(&handlers, "audit", inbox.All(), func(context.Context, inbox.Event[[]byte]) error { return nil },
		inbox.Use(inbox.Log(slog.Default()), count))
}

// A test calls a handler in a transaction that is rolled back.
func ExampleRegistry_Call() {
	_ = func(t *testing.T, tx pgx.Tx, handlers *inbox.Registry) {
		placed := inbox.CloudEvent{ID: "1", Source: "/orders", Type: "order.placed", Data: []byte(`{"ID": 7}`)}
		if err := handlers.Call(t.Context(), "billing", tx, placed); err != nil {
			t.Error(err)
		}
	}
}

// The statements for a migration tool, in place of [inbox.Migrate].
func ExampleMigrationSQL() {
	statements, err := inbox.MigrationSQL(inbox.Roles{Handlers: []string{"worker"}, Operators: []string{"support"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Count(statements, "CREATE TABLE IF NOT EXISTS"), "tables")
	// Output: 4 tables
}

// A person's decision about what failed, as walrelay parked redrive makes it.
func ExampleChangeParked() {
	_ = func(ctx context.Context, pool *pgxpool.Pool) error {
		filter := inbox.Filter{Handler: "billing", Error: "no such customer", State: "failed"}
		list, err := inbox.ListParked(ctx, pool, filter, 0, 10)
		if err != nil {
			return err
		}
		for _, p := range list {
			fmt.Println(p.ID, p.Key, p.LastError)
		}
		_, err = inbox.ChangeParked(ctx, pool, inbox.Redrive, filter)
		return err
	}
}

// With partitions in the relay's subjects (publish.subject), several processes share the events of a handler.
func ExampleRun_partitions() {
	_ = func(ctx context.Context, nc *nats.Conn, pool *pgxpool.Pool, handlers *inbox.Registry) error {
		return inbox.Run(ctx, inbox.Config{NATS: nc, Pool: pool, Subject: "events.{partition:8}.{type}"}, handlers)
	}
}
