package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/walrelay/walrelay/outbox"
	"github.com/walrelay/walrelay/outbox/outboxtest"
)

// Order is what the examples are about.
type Order struct {
	Number   int    `json:"number"`
	Customer string `json:"customer"`
}

// A row of the application and its event are committed together, or not at all.
func ExampleOutbox_Publish() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://shop@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	orders := outbox.Outbox{Source: "/orders"}
	order := Order{Number: 42, Customer: "customer-8"}

	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders (number, customer) VALUES ($1, $2)", order.Number, order.Customer); err != nil {
			return err
		}
		_, err := orders.Publish(ctx, tx, outbox.Event{Type: "order.placed", Data: order, Key: order.Customer})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}

// An event for later; until it is due it can be moved or taken back.
func ExampleOutbox_Cancel() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "postgres://shop@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	orders := outbox.Outbox{Source: "/orders"}
	id, err := orders.Publish(ctx, conn, outbox.Event{
		Type: "reminder.due", Data: Order{Number: 42}, At: time.Now().Add(time.Hour), MaxRetries: new(5),
	})
	if err != nil {
		log.Fatal(err)
	}
	if cancelled, err := orders.Cancel(ctx, conn, id); err == nil && !cancelled {
		fmt.Println("too late: it is published, or on its way")
	}
}

// What has become of an event, and why it was not published.
func ExampleOutbox_Status() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "postgres://shop@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	status, err := outbox.Outbox{}.Status(ctx, conn, "0199c7a2-5a5b-7c3e-8a57-0d5f4f1c7b11")
	if err != nil {
		log.Fatal(err)
	}
	if status.State == outbox.Failed {
		fmt.Println("not published:", status.LastError)
	}
}

// With database/sql, whatever the driver.
func ExampleSQL() {
	ctx := context.Background()
	db, err := sql.Open("pgx", "postgres://shop@localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = outbox.Outbox{}.Publish(ctx, outbox.SQL(tx), outbox.Event{Type: "order.placed", Source: "/orders"})
	if err != nil {
		err = errors.Join(err, tx.Rollback())
	} else {
		err = tx.Commit()
	}
	if err != nil {
		log.Fatal(err)
	}
}

// A test of the application needs no relay: the transaction knows what it has published.
func Example_test() {
	_ = func(t *testing.T, tx pgx.Tx, placeOrder func(context.Context, pgx.Tx) error) {
		defer func() { _ = tx.Rollback(t.Context()) }()
		if err := placeOrder(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		outboxtest.One(t, tx, outboxtest.Type("order.placed"), outboxtest.Key("customer-8"), outboxtest.Data(Order{42, "customer-8"}))
		outboxtest.None(t, tx, outboxtest.Type("order.cancelled"))
	}
}
