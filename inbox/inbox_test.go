package inbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	_ "github.com/lib/pq"              // the driver postgres
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
)

type order struct{ Number int }

// effect inserts what the tests look at.
func effect(ctx context.Context, tx pgx.Tx, ev inbox.CloudEvent) error {
	_, err := tx.Exec(ctx, "INSERT INTO effects (id, key) VALUES ($1, $2)", ev.ID, ev.Key)
	return err
}

func numbered(n int, keys int) []sent {
	all := make([]sent, n)
	for i := range all {
		all[i] = sent{id: fmt.Sprintf("e%04d", i), kind: "order.placed", key: fmt.Sprintf("k%d", i%keys), data: order{i}}
	}
	return all
}

// inOrder fails unless each event had one effect, in order for each key.
func (w *world) inOrder(want int) {
	w.t.Helper()
	if n := w.count("SELECT count(*) FROM effects"); n != want {
		w.t.Errorf("there are %d effects, want %d", n, want)
	}
	if twice := w.texts("SELECT id FROM effects GROUP BY id HAVING count(*) > 1 ORDER BY id"); len(twice) > 0 {
		w.t.Errorf("took effect more than once: %v", twice)
	}
	if wrong := w.texts("SELECT id FROM (SELECT id, lag(id) OVER (PARTITION BY key ORDER BY n) AS before FROM effects) AS x WHERE before > id"); len(wrong) > 0 {
		w.t.Errorf("took effect after a later event of their key: %v", wrong)
	}
}

func TestOn_EachEventTakesEffectOnceAndInOrder(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]inbox.Option{"one by one": nil, "batches": {inbox.Batch(20)}, "one lane": {inbox.Lanes(1), inbox.Batch(7)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.publish(numbered(200, 7)...)
			var r inbox.Registry
			inbox.On(&r, "billing", inbox.Types("order.placed"), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
				if want := fmt.Sprintf("e%04d", ev.Data.Number); ev.ID != want || ev.Attempt != 1 {
					return fmt.Errorf("event %s has the number %d at attempt %d", ev.ID, ev.Data.Number, ev.Attempt)
				}
				return effect(ctx, tx, ev.CloudEvent)
			}, opts...)
			p := w.start(&r)
			eventually(t, "200 effects", func() bool { return w.count("SELECT count(*) FROM effects") >= 200 })
			p.stop()
			w.inOrder(200)

			// The server forgets what was acknowledged; the marks do not.
			if err := w.js.DeleteConsumer(t.Context(), "EVENTS", "billing"); err != nil {
				t.Fatal(err)
			}
			w.publish(sent{id: "e9999", kind: "order.placed", key: "k1", data: order{9999}})
			w.start(&r)
			eventually(t, "another effect", func() bool { return w.count("SELECT count(*) FROM effects WHERE id = 'e9999'") == 1 })
			w.inOrder(201)
		})
	}
}

// queries counts the statements of a pool.
type queries struct{ n atomic.Int64 }

func (q *queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	q.n.Add(1)
	return ctx
}

func (q *queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (q *queries) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	q.n.Add(1)
	return ctx
}

func (q *queries) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (q *queries) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// A consumer that is made anew begins at the start of the stream.
func TestOn_PassesOverHandledEventsManyAtATime(t *testing.T) {
	t.Parallel()
	const events = 2000
	for name, opts := range map[string][]inbox.Option{"one by one": nil, "batches": {inbox.Batch(20)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fill(t, events)
			cfg, err := pgxpool.ParseConfig(w.url)
			if err != nil {
				t.Fatal(err)
			}
			var asked queries
			cfg.ConnConfig.Tracer = &asked
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			var r inbox.Registry
			inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[[]byte]) error {
				return effect(ctx, tx, ev.CloudEvent)
			}, opts...)
			p := w.start(&r, func(cfg *inbox.Config) { cfg.Pool = pool })
			eventually(t, "all effects", func() bool { return w.count("SELECT count(*) FROM effects") >= events })
			p.stop()
			if err := w.js.DeleteConsumer(t.Context(), "EVENTS", "billing"); err != nil {
				t.Fatal(err)
			}
			w.lsn = events
			w.publish(sent{id: "last", kind: "order.placed", key: "k1", data: order{1}})
			asked.n.Store(0)
			p = w.start(&r, func(cfg *inbox.Config) { cfg.Pool = pool })
			eventually(t, "another effect", func() bool { return w.count("SELECT count(*) FROM effects WHERE id = 'last'") == 1 })
			eventually(t, "the repeated events are counted", func() bool {
				s, ok := p.status.Load("billing")
				return ok && s.(inbox.Status).Repeated == events
			})
			p.stop()
			if n := asked.n.Load(); n > events/5 {
				t.Errorf("%d events took %d statements", events, n)
			}
			if n := w.count("SELECT count(*) FROM effects"); n != events+1 {
				t.Errorf("there are %d effects, want %d", n, events+1)
			}
		})
	}
}

func TestOn_AStreamThatWasMadeAnewRepeatsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(numbered(50, 3)...)
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		return effect(ctx, tx, ev.CloudEvent)
	})
	p := w.start(&r)
	eventually(t, "50 effects", func() bool { return w.count("SELECT count(*) FROM effects") >= 50 })
	if err := w.js.DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	w.makeStream()
	again := numbered(60, 3) // a repair has the same positions
	for i := range again {
		again[i].position = uint64(i + 1)
	}
	w.publish(again...)
	eventually(t, "60 effects", func() bool { return w.count("SELECT count(*) FROM effects") >= 60 })
	p.stop()
	w.inOrder(60)
}

// A standby that lacks the last events of the primary becomes the primary: other events stand
// now where those stood.
func TestOn_AnotherTimelineHidesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(numbered(20, 3)...) // up to position 20
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		return effect(ctx, tx, ev.CloudEvent)
	}, inbox.Batch(5))
	p := w.start(&r)
	eventually(t, "20 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 20 })
	const timeline = "2/0000000000000010" // from position 16 on
	for i, m := range numbered(40, 3)[20:] {
		m.position, m.timeline = uint64(16+i), timeline
		w.publish(m)
	}
	eventually(t, "40 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 40 })
	// A repair, on the new timeline, of what was there before.
	if err := w.js.DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	w.makeStream()
	for i, m := range numbered(15, 3) {
		m.position, m.timeline = uint64(i+1), timeline
		w.publish(m)
	}
	w.publish(sent{id: "e0040", kind: "order.placed", key: "k1", data: order{40}, position: 36, timeline: timeline})
	eventually(t, "41 effects", func() bool { return w.count("SELECT count(*) FROM effects") >= 41 })
	p.stop()
	w.inOrder(41)
}

func TestOn_WhoCannotSignHidesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		return effect(ctx, tx, ev.CloudEvent)
	}, inbox.Batch(10))
	w.start(&r)
	w.publish(numbered(10, 2)...)
	// Another publisher claims a position that is far ahead, with the digest of another message.
	msg := nats.NewMsg("events.order.placed")
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "f1", "ce-source": "/s", "ce-type": "order.placed", "ce-partitionkey": "k1",
		event.PositionHeader: "FFFFFFFFFFFFFFFF.00000000 1 7/" + slot, event.DigestHeader: "AAAAAAAAAAAAAAAAAAAAAA",
	} {
		msg.Header[name] = []string{value}
	}
	for range 2 { // twice: it is known by source and id
		if _, err := w.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	w.lsn = 10
	more := numbered(20, 2)[10:]
	w.publish(more...)
	eventually(t, "21 effects", func() bool { return w.count("SELECT count(*) FROM effects") >= 21 })
	eventually(t, "everything acknowledged", func() bool { return w.unacknowledged("billing") == 0 })
	if n := w.count("SELECT count(*) FROM effects WHERE id = 'f1'"); n != 1 {
		t.Errorf("the foreign event took effect %d times, want once", n)
	}
	w.exec("DELETE FROM effects WHERE id = 'f1'")
	w.inOrder(20)
}

// unacknowledged is how many messages a handler has yet to acknowledge.
func (w *world) unacknowledged(handler string) int {
	w.t.Helper()
	c, err := w.js.Consumer(w.t.Context(), "EVENTS", handler)
	if err != nil {
		return -1
	}
	return c.CachedInfo().NumAckPending + int(c.CachedInfo().NumPending)
}

func TestOn_WhatFailsParksAndWhatFollowsItsKeyWaits(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]inbox.Option{"one by one": nil, "batches": {inbox.Batch(10), inbox.Lanes(2)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var mended atomic.Bool
			var r inbox.Registry
			inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
				if err := effect(ctx, tx, ev.CloudEvent); err != nil {
					return err
				}
				if ev.ID == "e0005" && !mended.Load() {
					return inbox.Park(errors.New("no such customer"))
				}
				return nil
			}, opts...)
			p := w.start(&r)
			w.publish(numbered(30, 5)...)
			eventually(t, "24 effects and 6 parked", func() bool {
				return w.count("SELECT count(*) FROM effects") == 25-1 && w.count("SELECT count(*) FROM walrelay.parked") == 5+1-0-1+0 ||
					w.count("SELECT count(*) FROM effects") == 25 && w.count("SELECT count(*) FROM walrelay.parked") == 5
			})
			states := w.texts("SELECT event_id || ' ' || state FROM walrelay.parked ORDER BY number")
			if want := []string{"e0005 failed", "e0010 held", "e0015 held", "e0020 held", "e0025 held"}; !slices.Equal(states, want) {
				t.Errorf("parked are %v, want %v", states, want)
			}
			if got := w.texts("SELECT last_error FROM walrelay.parked WHERE state = 'failed'"); !slices.Equal(got, []string{"no such customer"}) {
				t.Errorf("the last error is %q", got)
			}
			mended.Store(true)
			w.exec("SELECT walrelay.redrive_parked(number) FROM walrelay.parked")
			w.publish(sent{id: "e0030", kind: "order.placed", key: "k0", data: order{30}})
			eventually(t, "nothing parked", func() bool {
				return w.count("SELECT count(*) FROM walrelay.parked") == 0 && w.count("SELECT count(*) FROM effects") == 31
			})
			p.stop()
			w.inOrder(31)
		})
	}
}

func TestOn_RetriesUntilItSucceeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var attempts sync.Map
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		seen, _ := attempts.LoadOrStore(ev.ID, new(atomic.Int32))
		counter, _ := seen.(*atomic.Int32)
		n := int(counter.Add(1))
		if ev.Attempt != n {
			t.Errorf("event %s: attempt %d says that it is attempt %d", ev.ID, n, ev.Attempt)
		}
		switch {
		case ev.ID == "e0000" && n == 1:
			return errors.New("not yet")
		case ev.ID == "e0000" && n == 2:
			panic("odd")
		case ev.ID == "e0000" && n == 3:
			return inbox.RetryAfter(10*time.Millisecond, errors.New("later"))
		case ev.ID == "e0001":
			if n == 1 {
				_, err := tx.Exec(ctx, "SELECT 1/0") // the transaction is aborted
				_ = err
				return nil
			}
		}
		return effect(ctx, tx, ev.CloudEvent)
	}, inbox.Backoff(func(int) time.Duration { return 10 * time.Millisecond }))
	p := w.start(&r)
	w.publish(numbered(10, 2)...)
	eventually(t, "10 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 10 })
	p.stop()
	w.inOrder(10)
}

func TestOn_ParkedEventsAreHandledWhileTheStreamIsQuiet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		if ev.Attempt == 1 {
			return inbox.RetryAfter(time.Second, errors.New("later"))
		}
		return effect(ctx, tx, ev.CloudEvent)
	})
	p := w.start(&r)
	w.publish(numbered(3, 1)...)
	eventually(t, "3 parked", func() bool { return w.count("SELECT count(*) FROM walrelay.parked") == 3 })
	p.stop()
	w.start(&r) // no message makes it the active process
	eventually(t, "3 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 3 })
	w.inOrder(3)
}

func TestOn_WhatCannotBeReadParksAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		return effect(ctx, tx, ev.CloudEvent)
	})
	w.start(&r)
	w.publish(sent{id: "bad", kind: "order.placed", data: []string{"no order"}})
	if _, err := w.js.Publish(t.Context(), "events.order.placed", []byte("no event")); err != nil {
		t.Fatal(err)
	}
	w.publish(sent{id: "e1", kind: "order.placed", data: order{1}})
	eventually(t, "an effect and two parked", func() bool {
		return w.count("SELECT count(*) FROM effects") == 1 && w.count("SELECT count(*) FROM walrelay.parked WHERE state = 'failed'") == 2
	})
	for _, text := range w.texts("SELECT last_error FROM walrelay.parked") {
		if !strings.Contains(text, `event "bad": reading the payload`) && !strings.Contains(text, "not a CloudEvents event") {
			t.Errorf("the reason is %q", text)
		}
	}
}

func TestOn_TheTransactionIsTheInboxs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		if tx.Commit(ctx) == nil || tx.Rollback(ctx) == nil {
			return errors.New("the handler ended the transaction")
		}
		inner, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := inner.Exec(ctx, "SELECT 1/0"); err == nil {
			return errors.New("1/0")
		}
		if err := inner.Rollback(ctx); err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return effect(ctx, tx, ev.CloudEvent) })
	}, inbox.MaxRetries(0))
	w.start(&r)
	w.publish(numbered(3, 1)...)
	eventually(t, "3 effects", func() bool {
		if failed := w.texts("SELECT last_error FROM walrelay.parked"); len(failed) > 0 {
			t.Fatal(failed)
		}
		return w.count("SELECT count(*) FROM effects") == 3
	})
}

func TestOnSQL_EachEventTakesEffectOnce(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			db, err := sql.Open(driver, w.url)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var failed atomic.Bool
			var r inbox.Registry
			inbox.OnSQL(&r, "billing", inbox.Types("order.*"), func(ctx context.Context, tx *sql.Tx, ev inbox.Event[order]) error {
				if _, err := tx.ExecContext(ctx, "INSERT INTO effects (id, key) VALUES ($1, $2)", ev.ID, ev.Key); err != nil {
					return err
				}
				if ev.ID == "e0007" && !failed.Swap(true) {
					return errors.New("once")
				}
				return nil
			}, inbox.Batch(8), inbox.Backoff(func(int) time.Duration { return time.Millisecond }))
			p := w.start(&r, func(cfg *inbox.Config) { cfg.Pool, cfg.DB = nil, db })
			messages := numbered(60, 4)
			messages[20].unsigned, messages[21].key, messages[21].unsigned = true, "", true
			w.publish(messages...)
			eventually(t, "60 effects", func() bool { return w.count("SELECT count(*) FROM effects") == 60 })
			p.stop()
			w.inOrder(60)
		})
	}
}

func TestTakeover_NothingIsLostTwiceOrOutOfOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		if ev.Data.Number%50 == 7 && ev.Attempt == 1 {
			return inbox.RetryAfter(50*time.Millisecond, errors.New("later"))
		}
		return effect(ctx, tx, ev.CloudEvent)
	}, inbox.Batch(5))
	first := w.start(&r)
	second := w.start(&r)
	const n = 600
	messages := numbered(n, 10)
	for i, m := range messages {
		w.publish(m)
		switch i {
		case 150:
			w.server.CutClients("")
		case 250:
			first.stop() // whichever is active: the other goes on
			first = w.start(&r)
		case 350:
			second.stop()
			second = w.start(&r)
		case 450:
			stream, err := w.js.Stream(t.Context(), "EVENTS")
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.UnpinConsumer(t.Context(), "billing", "walrelay") // there may be no pin at this moment
		case 500:
			w.server.Stop()
			if err := w.server.Restart(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the stream is there", func() bool {
				_, err := w.js.Stream(t.Context(), "EVENTS")
				return err == nil
			})
		}
	}
	defer w.explain("billing")
	eventually(t, "all effects", func() bool { return w.count("SELECT count(DISTINCT id) FROM effects") == n })
	first.stop()
	second.stop()
	w.inOrder(n)
}

func TestOnAtLeastOnce_InOrderAndParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	var got []string
	var mended atomic.Bool
	var r inbox.Registry
	inbox.OnAtLeastOnce(&r, "mailer", inbox.Types("order.>"), func(_ context.Context, ev inbox.Event[[]byte]) error {
		if ev.ID == "e0002" && !mended.Load() {
			return inbox.Park(errors.New("no address"))
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, ev.ID)
		return nil
	})
	p := w.start(&r)
	w.publish(numbered(12, 2)...)
	eventually(t, "five parked", func() bool { return w.count("SELECT count(*) FROM walrelay.parked") == 5 })
	mended.Store(true)
	w.exec("SELECT walrelay.redrive_parked(number) FROM walrelay.parked")
	eventually(t, "12 calls", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == 12
	})
	p.stop()
	for _, parity := range []int{0, 1} {
		last := ""
		for _, id := range got {
			if int(id[4]-'0')%2 != parity {
				continue
			}
			if id <= last {
				t.Errorf("%s came after %s", id, last)
			}
			last = id
		}
	}
}

func TestWithoutADatabase_WhatFailsGoesToDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "DEAD", Subjects: []string{"dead_letters.>"}}); err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	var r inbox.Registry
	inbox.OnAtLeastOnce(&r, "mailer", inbox.All(), func(_ context.Context, ev inbox.Event[order]) error {
		if ev.ID == "e0001" {
			tries.Add(1)
			return errors.New("no\naddress")
		}
		return nil
	}, inbox.MaxRetries(2), inbox.Backoff(func(int) time.Duration { return time.Millisecond }))
	p := w.start(&r, func(cfg *inbox.Config) { cfg.Pool = nil })
	w.publish(numbered(5, 5)...)
	stream, err := w.js.Stream(t.Context(), "DEAD")
	if err != nil {
		t.Fatal(err)
	}
	var dead *jetstream.RawStreamMsg
	eventually(t, "a dead letter", func() bool {
		dead, err = stream.GetLastMsgForSubject(t.Context(), "dead_letters.mailer")
		return err == nil
	})
	eventually(t, "all acknowledged", func() bool { return w.unacknowledged("mailer") == 0 })
	p.stop()
	if tries.Load() != 3 {
		t.Errorf("it was tried %d times, want 3", tries.Load())
	}
	ev, err := inbox.DecodeParts(dead.Header, dead.Data)
	if err != nil || ev.ID != "e0001" {
		t.Errorf("the dead letter is %v, %v", ev, err)
	}
	if got := dead.Header.Get("Walrelay-Error"); got != "no address" {
		t.Errorf("its reason is %q", got)
	}
}

func TestTypes_OthersAreNotDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	got := map[string][]string{}
	var r inbox.Registry
	for name, match := range map[string]inbox.Match{
		"one": inbox.Types("order.placed"), "several": inbox.Types("order.paid", "user.created"), "pattern": inbox.Types("order.*", "order.placed"), "all": inbox.All(),
		"overlap": inbox.Types("*.placed", "order.*"),
	} {
		inbox.OnAtLeastOnce(&r, name, match, func(_ context.Context, ev inbox.Event[[]byte]) error {
			mu.Lock()
			defer mu.Unlock()
			got[name] = append(got[name], ev.Type)
			return nil
		}, inbox.Lanes(1))
	}
	p := w.start(&r)
	for _, kind := range []string{"order.placed", "order.paid", "user.created", "order.item.added", "cart.placed"} {
		w.publish(sent{id: kind, kind: kind})
	}
	eventually(t, "everything acknowledged", func() bool {
		for _, name := range []string{"one", "several", "pattern", "all", "overlap"} {
			if w.unacknowledged(name) != 0 {
				return false
			}
		}
		return true
	})
	p.stop()
	for name, want := range map[string]string{
		"one": "order.placed", "several": "order.paid user.created", "pattern": "order.placed order.paid",
		"all": "order.placed order.paid user.created order.item.added cart.placed", "overlap": "order.placed order.paid cart.placed",
	} {
		if g := strings.Join(got[name], " "); g != want {
			t.Errorf("handler %s got %q, want %q", name, g, want)
		}
	}
}

func TestRun_MistakesAreToldAtOnce(t *testing.T) {
	t.Parallel()
	var r inbox.Registry
	ok := func(context.Context, inbox.Event[order]) error { return nil }
	inbox.OnAtLeastOnce(&r, "a", inbox.All(), ok)
	inbox.OnAtLeastOnce(&r, "a", inbox.All(), ok)
	inbox.OnAtLeastOnce(&r, "b.c", inbox.Types("order.>.x"), ok)
	inbox.OnAtLeastOnce(&r, "d", inbox.Types(), ok, inbox.Lanes(65))
	inbox.OnAtLeastOnce(&r, "e", inbox.Types("order.pl*"), ok)
	inbox.OnAtLeastOnce[order](&r, "f", inbox.All(), nil)
	inbox.On(&r, "g", inbox.All(), func(context.Context, pgx.Tx, inbox.Event[order]) error { return nil })
	err := inbox.Run(t.Context(), inbox.Config{}, &r)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`handler "a": it is registered twice`, `handler "b.c": its name must have`, `"order.>.x": > stands at the end`, `handler "d": it takes no type`,
		`Lanes(65)`, `"order.pl*": * and > stand for whole parts`, `handler "f": its function is nil`, `handler "g": Config.Pool is nil`, "Config.NATS is nil",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	if err := inbox.Run(t.Context(), inbox.Config{}, new(inbox.Registry)); err == nil || !strings.Contains(err.Error(), "no handler is registered") {
		t.Errorf("an empty registry: %v", err)
	}
}
