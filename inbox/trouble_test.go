package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/child"
)

// record is a log that can be searched.
type record struct{ child.Log }

func (r *record) count(text string) int { return strings.Count(r.String(), text) }

func (r *record) use(cfg *inbox.Config) { cfg.Log = slog.New(slog.NewTextHandler(r, nil)) }

func billing(r *inbox.Registry, opts ...inbox.Option) {
	inbox.On(r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		return effect(ctx, tx, ev.CloudEvent)
	}, opts...)
}

func TestRun_WaitsForWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.js.DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	w.exec("ALTER TABLE walrelay.handlers RENAME TO away")
	var r inbox.Registry
	billing(&r)
	var log record
	w.start(&r, log.use)
	defer func() {
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	eventually(t, "the missing stream is named", func() bool { return log.count(`stream \"EVENTS\" does not exist`) > 0 })
	w.makeStream()
	w.publish(numbered(2, 1)...)
	eventually(t, "the missing tables are named", func() bool { return log.count("call inbox.Migrate") > 0 })
	w.exec("ALTER TABLE walrelay.away RENAME TO handlers")
	eventually(t, "2 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 2 })
	// The consumer is deleted under the handler, and the stream.
	if err := w.js.DeleteConsumer(t.Context(), "EVENTS", "billing"); err != nil {
		t.Fatal(err)
	}
	w.publish(sent{id: "e2", kind: "order.placed", key: "k0", data: order{2}})
	eventually(t, "3 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 3 })
	w.inOrder(3)
}

func TestRun_AHandlerThatDoesNotReturnIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := make(chan struct{})
	var others atomic.Int32
	var r inbox.Registry
	inbox.OnAtLeastOnce(&r, "stuck", inbox.All(), func(_ context.Context, ev inbox.Event[order]) error {
		if ev.ID == "e0001" {
			<-release
		}
		others.Add(1)
		return nil
	}, inbox.Timeout(50*time.Millisecond))
	var log record
	var running atomic.Value
	ctx, cancel := context.WithCancel(t.Context())
	cfg := inbox.Config{NATS: w.nc, Pool: w.pool, Grace: 100 * time.Millisecond, Observe: func(s inbox.Status) {
		if len(s.Running) > 0 {
			running.Store(s.Running[0])
		}
	}}
	log.use(&cfg)
	done := make(chan error, 1)
	go func() { done <- inbox.Run(ctx, cfg, &r) }()
	w.publish(numbered(6, 6)...)
	eventually(t, "the event is named", func() bool {
		text, _ := running.Load().(string)
		return strings.Contains(text, "id e0001") && log.count("longer than its timeout") > 0
	})
	eventually(t, "other keys go on", func() bool { return others.Load() == 5 })
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), `"stuck" has not returned`) || !strings.Contains(err.Error(), "e0001") {
		t.Errorf("Run returns %v", err)
	}
	close(release)
	eventually(t, "it returns after all", func() bool { return others.Load() == 6 })
}

func TestPause_ParksNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var away atomic.Bool
	away.Store(true)
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		if away.Load() {
			return inbox.Pause(errors.New("the bank is closed"))
		}
		if ev.Attempt != 1 {
			return fmt.Errorf("attempt %d", ev.Attempt)
		}
		return effect(ctx, tx, ev.CloudEvent)
	}, inbox.MaxRetries(0))
	var log record
	w.start(&r, log.use)
	w.publish(numbered(8, 3)...)
	eventually(t, "the reason is logged", func() bool { return log.count("the bank is closed") > 2 })
	away.Store(false)
	eventually(t, "8 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 8 })
	w.inOrder(8)
	if n := w.count("SELECT count(*) FROM walrelay.parked"); n != 0 {
		t.Errorf("%d are parked", n)
	}
}

// Without the key nobody's position counts, and events are known by source and id.
func TestOn_WithoutTheKeyEventsAreRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec("DROP TABLE walrelay.secrets")
	var r inbox.Registry
	billing(&r, inbox.Batch(10))
	var log record
	p := w.start(&r, log.use)
	w.publish(numbered(30, 4)...)
	eventually(t, "30 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 30 })
	p.stop()
	if err := w.js.DeleteConsumer(t.Context(), "EVENTS", "billing"); err != nil {
		t.Fatal(err)
	}
	w.publish(sent{id: "last", kind: "order.placed", data: order{30}})
	w.start(&r)
	eventually(t, "another effect", func() bool { return w.count("SELECT count(*) FROM effects WHERE id = 'last'") == 1 })
	if n := w.count("SELECT count(*) FROM effects"); n != 31 {
		t.Errorf("%d effects, want 31", n)
	}
	if log.count("positions are not authentic") != 1 {
		t.Error("nobody says that events are remembered by id")
	}
}

// A key that cannot be read for a while is not a key that is not there.
func TestOn_KeysThatCannotBeReadAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var broken atomic.Bool
	broken.Store(true)
	var r inbox.Registry
	billing(&r)
	var log record
	w.start(&r, log.use, func(cfg *inbox.Config) {
		cfg.Keys = func(context.Context) (map[string][]byte, error) {
			if broken.Load() {
				return nil, errors.New("the vault is sealed")
			}
			return map[string][]byte{slot: key}, nil
		}
	})
	w.publish(numbered(5, 2)...)
	eventually(t, "the reason is logged", func() bool { return log.count("the vault is sealed") > 0 })
	if n := w.count("SELECT count(*) FROM walrelay.handled"); n != 0 {
		t.Errorf("%d events are remembered by id", n)
	}
	broken.Store(false)
	eventually(t, "5 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 5 })
	if n := w.count("SELECT count(*) FROM walrelay.handled"); n != 0 {
		t.Errorf("%d events are remembered by id", n)
	}
	w.inOrder(5)
}

// What a process has got before it died comes to the next one although nothing else comes.
func TestTakeover_OfAQuietStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var r inbox.Registry
	billing(&r)
	p := w.start(&r)
	eventually(t, "the consumer is there", func() bool { return w.unacknowledged("billing") == 0 })
	p.stop()
	w.publish(numbered(5, 2)...)
	dying, err := w.js.Consumer(t.Context(), "EVENTS", "billing")
	if err != nil {
		t.Fatal(err)
	}
	batch, err := dying.Fetch(5, jetstream.FetchPriorityGroup("walrelay"))
	if err != nil {
		t.Fatal(err)
	}
	for range batch.Messages() { // it acknowledges none
	}
	w.start(&r)
	eventually(t, "5 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 5 })
	w.inOrder(5)
}

// The permissions that docs/inbox.md lists are enough.
func TestRun_NeedsFewPermissions(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, func(o *server.Options) {
		o.NoAuthUser = "admin"
		o.Users = []*server.User{
			{Username: "admin", Password: "a"},
			{Username: "handler", Password: "h", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{
					"$JS.API.STREAM.INFO.EVENTS", "$JS.API.CONSUMER.*.EVENTS.>", "$JS.API.CONSUMER.NAMES.EVENTS", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.>", "$JS.ACK.EVENTS.>",
				}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
		}
	})
	var r inbox.Registry
	billing(&r)
	var refused atomic.Value
	nc, err := nats.Connect(w.server.URL(), nats.UserInfo("handler", "h"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused.Store(err) }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	p := w.start(&r, func(cfg *inbox.Config) { cfg.NATS = nc })
	w.publish(numbered(10, 3)...)
	eventually(t, "10 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 10 })
	p.stop()
	if err := refused.Load(); err != nil {
		t.Errorf("it was refused something: %v", err)
	}
}

// A text that the database's encoding has no form for stops nothing.
func TestOn_AnotherEncodingOfTheDatabase(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			name := "encoded_" + strings.ToLower(encoding)
			w.exec("CREATE DATABASE " + name + " ENCODING '" + encoding + "' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
			config := w.pool.Config()
			config.ConnConfig.Database = name
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			if err := inbox.Migrate(t.Context(), pool, inbox.Roles{}); err != nil {
				t.Fatal(err)
			}
			w.pool = pool
			var mended atomic.Bool
			var handled atomic.Int32
			var r inbox.Registry
			inbox.On(&r, "billing", inbox.Types("order.placed", "order.世"), func(context.Context, pgx.Tx, inbox.Event[order]) error {
				if !mended.Load() {
					return inbox.Park(errors.New("kein Kunde für 世界"))
				}
				handled.Add(1)
				return nil
			})
			w.start(&r, func(cfg *inbox.Config) {
				cfg.Keys = func(context.Context) (map[string][]byte, error) { return map[string][]byte{slot: key}, nil }
			})
			w.publish(
				sent{id: "世1", kind: "order.placed", key: "世", data: order{1}}, sent{id: "2", kind: "order.placed", key: "世", data: order{2}},
				sent{id: "3", kind: "order.世", key: "ä", data: order{3}},
			)
			eventually(t, "3 parked", func() bool { return w.count("SELECT count(*) FROM walrelay.parked") == 3 })
			mended.Store(true)
			w.exec("SELECT walrelay.redrive_parked(number) FROM walrelay.parked")
			eventually(t, "3 are handled", func() bool { return handled.Load() == 3 && w.count("SELECT count(*) FROM walrelay.parked") == 0 })
		})
	}
}
