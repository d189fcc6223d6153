// Events with bun: its Tx is what the package outbox takes.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/walrelay/walrelay/outbox"
)

// Order is a row of the application.
type Order struct {
	bun.BaseModel `bun:"table:orders_bun"`

	ID       int64 `bun:",pk,autoincrement"`
	Customer string
}

var orders = outbox.Outbox{Source: "/orders"}

func main() {
	ctx := context.Background()
	pool, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	db := bun.NewDB(pool, pgdialect.New())
	if _, err := db.NewCreateTable().Model((*Order)(nil)).IfNotExists().Exec(ctx); err != nil {
		log.Fatal(err)
	}

	var placed string
	err = db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		order := Order{Customer: "customer-8"}
		if _, err := tx.NewInsert().Model(&order).Exec(ctx); err != nil {
			return err
		}
		var err error
		placed, err = orders.Publish(ctx, outbox.SQL(tx.Tx), outbox.Event{
			Type: "order.placed", Subject: "bun", Data: map[string]int64{"order": order.ID}, Key: order.Customer,
		})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	notTaken := errors.New("the order is not taken")
	err = db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := orders.Publish(ctx, outbox.SQL(tx.Tx), outbox.Event{Type: "order.never", Subject: "bun"}); err != nil {
			return err
		}
		return notTaken
	})
	if !errors.Is(err, notTaken) {
		log.Fatal(err)
	}

	if _, err := orders.Publish(ctx, outbox.SQL(pool), outbox.Event{Type: "order.reminder", Subject: "bun", At: time.Now().Add(time.Second)}); err != nil {
		log.Fatal(err)
	}
	var status outbox.Status
	for range 100 {
		if status, err = orders.Status(ctx, outbox.SQL(pool), placed); err != nil {
			log.Fatal(err)
		}
		if status.State == outbox.Published {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Println(placed, status.State)
}
