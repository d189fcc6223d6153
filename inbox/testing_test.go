package inbox_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/outbox"
	"github.com/walrelay/walrelay/outbox/outboxtest"
	"github.com/walrelay/walrelay/sql"
)

// placeOrder and register are what docs/testing.md tests.
func placeOrder(ctx context.Context, tx pgx.Tx, customer string) error {
	_, err := outbox.Outbox{Source: "/orders"}.Publish(ctx, tx, outbox.Event{Type: "order.placed", Key: customer, Data: Order{ID: 7, Customer: customer}})
	return err
}

func register(r *inbox.Registry) {
	inbox.On(r, "billing", inbox.Types("order.placed"), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[Order]) error {
		if ev.Data.ID == 8 {
			panic("eight")
		}
		_, err := tx.Exec(ctx, "INSERT INTO effects (id, key) VALUES ($1, $2)", ev.ID, ev.Key)
		return err
	})
}

func TestDocs_Testing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, err := sql.Outbox(sql.Table{Schema: "public", Name: "outbox"})
	if err != nil {
		t.Fatal(err)
	}
	w.exec(text)
	begin := func(t *testing.T) pgx.Tx {
		t.Helper()
		tx, err := w.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
		return tx
	}
	t.Run("published", func(t *testing.T) {
		tx := begin(t) // a pgx.Tx that is rolled back at the end of the test
		if err := placeOrder(t.Context(), tx, "customer-8"); err != nil {
			t.Fatal(err)
		}
		outboxtest.One(t, tx, outboxtest.Type("order.placed"), outboxtest.Key("customer-8"))
		outboxtest.None(t, tx, outboxtest.Type("order.cancelled"))
	})
	t.Run("handled", func(t *testing.T) {
		var handlers inbox.Registry
		register(&handlers) // as the program does
		tx := begin(t)
		placed := inbox.CloudEvent{ID: "1", Source: "/orders", Type: "order.placed", Data: []byte(`{"ID": 7}`)}
		if err := handlers.Call(t.Context(), "billing", tx, placed); err != nil {
			t.Fatal(err)
		}
		unreadable := inbox.CloudEvent{ID: "2", Source: "/orders", Type: "order.placed", Data: []byte(`{"ID": "seven"}`)}
		err := handlers.Call(t.Context(), "billing", tx, unreadable)
		if _, parked := errors.AsType[*inbox.ParkError](err); !parked {
			t.Errorf("an event that cannot be read is not parked: %v", err)
		}
		var n int
		if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM effects").Scan(&n); err != nil || n != 1 {
			t.Errorf("there are %d effects (%v), want 1", n, err)
		}
		panics := inbox.CloudEvent{ID: "3", Source: "/orders", Type: "order.placed", Data: []byte(`{"ID": 8}`)}
		if _, ok := errors.AsType[*inbox.PanicError](handlers.Call(t.Context(), "billing", tx, panics)); !ok {
			t.Error("a panic is not an error")
		}
		for _, err := range []error{
			handlers.Call(t.Context(), "billling", tx, placed), handlers.Call(t.Context(), "billing", tx),
			handlers.Call(t.Context(), "billing", tx, inbox.CloudEvent{Type: "order.other"}),
		} {
			if err == nil || !strings.Contains(err.Error(), "handler \"bil") {
				t.Errorf("it returns %v", err)
			}
		}
	})
	// The page says what is run here.
	here, err := os.ReadFile("testing_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	indent := regexp.MustCompile(`(?m)^\s+`)
	code := indent.ReplaceAllString(string(here), "")
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(code, indent.ReplaceAllString(block[1], "")) {
			t.Errorf("this is not run here:\n%s", block[1])
		}
	}
}
