// Events with GORM: the transaction's ConnPool is what the package outbox takes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/walrelay/walrelay/outbox"
)

// Order is a row of the application.
type Order struct {
	ID       uint
	Customer string
}

// TableName is GORM's.
func (Order) TableName() string { return "orders_gorm" }

var orders = outbox.Outbox{Source: "/orders"}

func main() {
	ctx := context.Background()
	db, err := gorm.Open(postgres.Open(os.Getenv("DATABASE_URL")), &gorm.Config{})
	if err == nil {
		err = db.AutoMigrate(&Order{})
	}
	if err != nil {
		log.Fatal(err)
	}

	var placed string
	err = db.Transaction(func(tx *gorm.DB) error {
		order := Order{Customer: "customer-8"}
		if err := tx.Create(&order).Error; err != nil {
			return err
		}
		var err error
		placed, err = orders.Publish(ctx, outbox.SQL(tx.Statement.ConnPool), outbox.Event{
			Type: "order.placed", Subject: "gorm", Data: map[string]uint{"order": order.ID}, Key: order.Customer,
		})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	notTaken := errors.New("the order is not taken")
	err = db.Transaction(func(tx *gorm.DB) error {
		if _, err := orders.Publish(ctx, outbox.SQL(tx.Statement.ConnPool), outbox.Event{Type: "order.never", Subject: "gorm"}); err != nil {
			return err
		}
		return notTaken
	})
	if !errors.Is(err, notTaken) {
		log.Fatal(err)
	}

	conn := outbox.SQL(db.Statement.ConnPool)
	if _, err := orders.Publish(ctx, conn, outbox.Event{Type: "order.reminder", Subject: "gorm", At: time.Now().Add(time.Second)}); err != nil {
		log.Fatal(err)
	}
	var status outbox.Status
	for range 100 {
		if status, err = orders.Status(ctx, conn, placed); err != nil {
			log.Fatal(err)
		}
		if status.State == outbox.Published {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Println(placed, status.State)
}
