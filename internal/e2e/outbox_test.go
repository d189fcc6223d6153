package e2e_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/outbox"
)

// What a Go program publishes arrives, and it sees what becomes of it.
func TestOutboxPackage(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.environ = []string{"WALRELAY_POSTGRES_ROLE_PREFIX=" + e.slot}
	e.init()
	e.run()
	// With the rights of an application, and no others.
	testkit.Exec(t, e.postgresURL, "CREATE ROLE "+e.slot+"_shop LOGIN; GRANT "+e.slot+"_app TO "+e.slot+"_shop")
	ctx := t.Context()
	conn := testkit.Connect(t, strings.Replace(e.postgresURL, "postgres@", e.slot+"_shop@", 1))
	box := outbox.Outbox{Source: "/e2e"}
	publish := func(tx outbox.Tx, ev outbox.Event) string {
		t.Helper()
		id, err := box.Publish(ctx, tx, ev)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	rollback := errors.New("no")
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		publish(tx, outbox.Event{Type: "never.was"})
		return rollback
	})
	if !errors.Is(err, rollback) {
		t.Fatal(err)
	}
	placed := publish(conn, outbox.Event{Type: "order.placed", Data: map[string]int{"n": 1}, Key: "k", Subject: "1", Extensions: map[string]any{"tenant": "t"}})
	refused := publish(conn, outbox.Event{Type: strings.Repeat("x", 5000), MaxRetries: new(0)})
	later := publish(conn, outbox.Event{Type: "order.late", At: time.Now().Add(time.Hour)})
	cancelled := publish(conn, outbox.Event{Type: "order.cancelled", At: time.Now().Add(time.Hour)})
	many := make([]outbox.Event, 500)
	for i := range many {
		many[i] = outbox.Event{Type: "order.many", Data: i}
	}
	if _, err := box.PublishAll(ctx, conn, many); err != nil {
		t.Fatal(err)
	}
	await := func(id string, want outbox.State) outbox.Status {
		t.Helper()
		var status outbox.Status
		testkit.Eventually(t, 30*time.Second, "the event is "+string(want), func() (err error) {
			if status, err = box.Status(ctx, conn, id); err == nil && status.State != want {
				err = errors.New("it is " + string(status.State))
			}
			return err
		})
		return status
	}
	await(placed, outbox.Published)
	if s := await(later, outbox.Scheduled); s.NextAttempt == nil || time.Until(*s.NextAttempt) < 50*time.Minute {
		t.Errorf("the scheduled event is due %v", s.NextAttempt)
	}
	if s := await(refused, outbox.Failed); s.Attempts != 1 || !strings.Contains(s.LastError, "subject") {
		t.Errorf("the failed event says %+v", s)
	}
	if ok, err := box.Cancel(ctx, conn, cancelled); !ok || err != nil {
		t.Errorf("cancelling says %v (%v)", ok, err)
	}
	if ok, err := box.Reschedule(ctx, conn, later, time.Now()); !ok || err != nil {
		t.Errorf("rescheduling says %v (%v)", ok, err)
	}
	e.awaitMessages("EVENTS", 502)
	await(later, outbox.Published)
	await(cancelled, outbox.Discarded)
	messages := readStream(t, e.nats(), "EVENTS")
	first := messages[0]
	if first.id != placed || string(first.data) != `{"n": 1}` || first.header.Get("ce-partitionkey") != "k" || first.header.Get("ce-tenant") != "t" {
		t.Errorf("the first message is %+v", first)
	}
	for _, m := range messages {
		if typ := m.header.Get("ce-type"); typ == "never.was" || typ == "order.cancelled" {
			t.Errorf("the stream has %s", typ)
		}
	}
}

// An application that publishes links neither a client of NATS nor a logger.
func TestOutboxPackageIsSmall(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "github.com/walrelay/walrelay/outbox").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, unwanted := range []string{"nats-io", "zerolog", "pglogrepl", "prometheus", "walrelay/internal", "walrelay/router", "walrelay/replication"} {
		if strings.Contains(string(out), unwanted) {
			t.Errorf("the package outbox needs %s", unwanted)
		}
	}
}
