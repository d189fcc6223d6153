package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// world is a dispatcher between two fakes: of the router's sending side, and of
// the delay table. What happens is a line each, in order.
type world struct {
	t       *testing.T
	d       *dispatcher
	lines   []string
	parking *parking
	lsn     uint64
	index   uint32
	ticket  uint64

	reads map[string]bool // ids of events

	// refuse says why the router takes no event of a type, and tableErr why the
	// table takes none.
	refuse   map[string]error
	tableErr error
	tableFor time.Duration // how long the table takes
}

func newWorld(t *testing.T, cfg config.Publish) *world {
	t.Helper()
	w := &world{t: t, lsn: 100, refuse: make(map[string]error), reads: make(map[string]bool)}
	w.parking = &parking{
		table: w, keys: retry.NewKeys(nil), observe: w,
		policy: func(*event.Event) retry.Policy {
			return retry.Policy{Initial: time.Second, Factor: 2, Max: time.Hour, MaxRetries: 3}
		},
	}
	w.d = &dispatcher{router: w, parking: w.parking, batch: newBatch(cfg)}
	return w
}

func (w *world) say(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// Publish implements sender.
func (w *world) Publish(_ context.Context, f router.Flight) error {
	if w.parking.Blocked(f.Event) {
		return router.ErrBlocked
	}
	if reason := w.refuse[f.Event.Type]; reason != nil {
		return &router.EventError{Class: router.Poison, ID: f.Event.ID, Err: reason}
	}
	if !w.reads[f.Event.ID] {
		w.t.Errorf("%s is published before it is said to be read", f.Event.ID)
	}
	split := ""
	if f.Split != "" {
		split = " split:" + f.Split
	}
	w.say("publish %s%s", f.Event.ID, split)
	w.settle(f.Ticket, "published", f.Event)
	return nil
}

// PublishTransaction implements sender.
func (w *world) PublishTransaction(_ context.Context, flights []router.Flight) error {
	var ids []string
	for i, f := range flights {
		if w.parking.Blocked(f.Event) {
			return &router.TransactionError{Flight: i, Err: router.ErrBlocked}
		}
		if f.Event.Type == "elsewhere" {
			return router.ErrSeveralStreams
		}
		if reason := w.refuse[f.Event.Type]; reason != nil {
			return &router.TransactionError{Flight: i, Err: &router.EventError{Class: router.Poison, ID: f.Event.ID, Err: reason}}
		}
		ids = append(ids, f.Event.ID)
	}
	w.say("batch %s", strings.Join(ids, "+"))
	for _, f := range flights {
		w.settle(f.Ticket, "published", f.Event)
	}
	return nil
}

// Blocked implements sender.
func (w *world) Blocked(ev *event.Event) bool { return w.parking.Blocked(ev) }

// Add implements table.
func (w *world) Add(ctx context.Context, entries []retry.Entry) error {
	if w.tableFor > 0 {
		select {
		case <-time.After(w.tableFor):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if w.tableErr != nil {
		return w.tableErr
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Event.ID+":"+string(e.State))
	}
	w.say("table %s", strings.Join(ids, " "))
	return nil
}

func (w *world) read(ev *event.Event) { w.reads[ev.ID] = true }
func (w *world) settle(_ uint64, outcome string, ev *event.Event) {
	w.say("settled %s %s", ev.ID, outcome)
}
func (w *world) failed(e *retry.Entry, _ error) { w.say("failed %s %s", e.Event.ID, e.State) }
func (w *world) batchSplit(_ event.Position, split string, _ error) {
	w.say("batch split: %s", split)
}
func (w *world) batchFailed(_ event.Position, split string, _ error, _ int) {
	w.say("batch failed: %s", split)
}
func (w *world) batchFailedMore(int) {}

// insert dispatches an event: id, or id/key; with a type.
func (w *world) insert(id, typ string, change ...func(*event.Event)) {
	w.t.Helper()
	if err := w.tryInsert(id, typ, change...); err != nil {
		w.t.Fatalf("event %s: %v", id, err)
	}
}

func (w *world) tryInsert(id, typ string, change ...func(*event.Event)) error {
	w.ticket++
	ev := &event.Event{
		Type: typ, MaxRetries: -1, Position: event.Position{CommitLSN: w.lsn, Index: w.index}, CommittedAt: time.Now(),
	}
	w.index++
	ev.ID, ev.PartitionKey, _ = strings.Cut(id, "/")
	for _, c := range change {
		c(ev)
	}
	var rowErr *decode.RowError
	c := decode.Change{Kind: decode.Insert, Event: ev}
	if typ == "malformed" {
		rowErr = &decode.RowError{Column: "source", Err: errors.New("it is empty")}
		c.Raw = &decode.Raw{Kind: decode.RawRow, Content: []byte("[]")}
	}
	return w.d.insert(context.Background(), c, w.ticket, rowErr)
}

func (w *world) commit() {
	w.t.Helper()
	if err := w.d.commit(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.lsn++
	w.index = 0
}

func (w *world) flush(idle bool) {
	w.t.Helper()
	if err := w.d.flush(context.Background(), idle); err != nil {
		w.t.Fatal(err)
	}
}

// want compares what has happened, and forgets it.
func (w *world) want(lines ...string) {
	w.t.Helper()
	if !slices.Equal(w.lines, lines) {
		w.t.Errorf("got:\n  %s\nwant:\n  %s", strings.Join(w.lines, "\n  "), strings.Join(lines, "\n  "))
	}
	w.lines = nil
}

func later(ev *event.Event) { ev.ScheduledAt = ev.CommittedAt.Add(time.Hour) }

func released(ev *event.Event) { ev.Delay = &event.Delay{Released: true, Attempts: 1} }

func TestDispatcher_PublishesInOrder(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.insert("1", "good")
	w.insert("2/k", "good")
	w.commit()
	w.flush(true)
	w.want("publish 1", "settled 1 published", "publish 2", "settled 2 published")
}

// Nothing is stored after an event that goes to the table before that is there.
func TestDispatcher_BarrierKeepsWhatFollows(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.insert("1", "good")
	w.insert("2", "good", later)
	w.insert("3", "good")
	w.insert("4", "good", later)
	w.insert("5", "good")
	w.want("publish 1", "settled 1 published")
	w.flush(false)
	w.want()
	w.flush(true)
	w.want("table 2:scheduled 4:scheduled", "settled 2 scheduled", "settled 4 scheduled",
		"publish 3", "settled 3 published", "publish 5", "settled 5 published")
}

func TestDispatcher_BarrierIsTakenDownWhenItIsFull(t *testing.T) {
	for name, test := range map[string]struct {
		events int
		data   []byte
	}{
		"of events": {config.StagedEvents, nil},
		"of bytes":  {1, make([]byte, config.StagedBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, config.Publish{})
			for n := range test.events {
				if n > 0 {
					w.flush(false)
					w.want()
				}
				w.insert(fmt.Sprint(n), "good", later, func(ev *event.Event) { ev.Data = test.data })
			}
			w.flush(false)
			if len(w.lines) != 1+test.events {
				t.Errorf("%d lines, want a write and %d events settled", len(w.lines), test.events)
			}
		})
	}
}

func TestDispatcher_PoisonGoesToTheTableAndItsKeyWaits(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.refuse["bad"] = errors.New("too large")
	w.insert("1/k", "bad")
	w.insert("2/k", "good")
	w.insert("3/other", "good")
	w.insert("4", "good")
	w.flush(true)
	w.want("failed 1 retrying", "table 1:retrying 2:held", "settled 1 retrying", "settled 2 held",
		"publish 3", "settled 3 published", "publish 4", "settled 4 published")
	// Later, too; but what is re-emitted passes.
	w.insert("5/k", "good")
	w.flush(true)
	w.want("table 5:held", "settled 5 held")
}

func TestDispatcher_ReleasedEventsPassUntilOneFailsAgain(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.parking.keys = retry.NewKeys([]int64{retry.KeyHash("k")})
	w.refuse["bad"] = errors.New("too large")
	w.insert("1/k", "good", released)
	w.insert("2/k", "good")
	w.flush(true)
	w.want("publish 1", "settled 1 published", "table 2:held", "settled 2 held")
	w.insert("3/k", "bad", released)
	w.insert("4/k", "good", released)
	w.flush(true)
	w.want("failed 3 retrying", "table 3:retrying 4:held", "settled 3 retrying", "settled 4 held")
}

func TestDispatcher_EventOutOfRetriesFailsAndFreesItsKey(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.refuse["bad"] = errors.New("too large")
	w.insert("1/k", "bad", func(ev *event.Event) { ev.MaxRetries = 0 })
	w.flush(true)
	w.want("failed 1 failed", "table 1:failed", "settled 1 failed")
}

func TestDispatcher_RowThatIsNoEventIsKept(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.insert("1", "malformed")
	w.insert("2", "good")
	w.flush(true)
	w.want("failed 1 failed", "table 1:failed", "settled 1 failed", "publish 2", "settled 2 published")
}

// What a session before has settled is not published again.
func TestDispatcher_ReplayAfterRestart(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.parking.keys = retry.NewKeys([]int64{retry.KeyHash("k")})
	w.d.passed = 101
	w.d.known = map[event.Position]retry.State{{CommitLSN: 101, Index: 0}: retry.Retrying}
	w.insert("1", "good")
	w.commit()
	w.insert("2/k", "bad")
	w.insert("3/k", "good")
	w.insert("4", "good")
	w.flush(true)
	w.want("settled 1 already_stored", "settled 2 already_delayed", "table 3:held", "settled 3 held", "publish 4", "settled 4 published")
}

func TestDispatcher_TableThatFailsSettlesNothing(t *testing.T) {
	w := newWorld(t, config.Publish{})
	w.tableErr = retry.ErrSuperseded
	w.insert("1", "good", later)
	w.insert("2", "good")
	if err := w.d.flush(t.Context(), true); !errors.Is(err, retry.ErrSuperseded) {
		t.Errorf("got %v", err)
	}
	w.want()
}

// A table that somebody has locked is waited for, until the context ends.
func TestDispatcher_TableThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, config.Publish{})
		w.tableFor = time.Minute
		w.insert("1", "good", later)
		w.insert("2", "good")
		start := time.Now()
		w.flush(true)
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("it waits for %v", waited)
		}
		w.want("table 1:scheduled", "settled 1 scheduled", "publish 2", "settled 2 published")
		w.insert("3", "good", later)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.d.flush(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		w.want()
	})
}

func TestDispatcher_ErrorOfTheRouterEndsIt(t *testing.T) {
	w := newWorld(t, config.Publish{})
	broken := errors.New("the connection is closed")
	w.d.router = brokenSender{broken}
	if err := w.tryInsert("1", "good"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	w.want()
}

// brokenSender takes nothing.
type brokenSender struct{ err error }

func (s brokenSender) Publish(context.Context, router.Flight) error { return s.err }

func (s brokenSender) PublishTransaction(context.Context, []router.Flight) error { return s.err }

func (s brokenSender) Blocked(*event.Event) bool { return false }

func batches(overflow string) config.Publish {
	return config.Publish{Atomic: true, AtomicMaxEvents: 3, MaxInFlightBytes: 1 << 20, AtomicOverflow: overflow}
}

func TestDispatcher_Batches(t *testing.T) {
	bad := func(w *world) { w.refuse["bad"] = errors.New("too large") }
	for name, test := range map[string]struct {
		overflow string
		run      func(w *world)
		want     []string
	}{
		"one batch": {config.OverflowDelay, func(w *world) {
			w.insert("1", "good")
			w.insert("2", "good")
			w.want()
			w.commit()
		}, []string{"batch 1+2", "settled 1 published", "settled 2 published"}},
		"one event": {config.OverflowDelay, func(w *world) {
			w.insert("1", "good")
			w.commit()
		}, []string{"publish 1", "settled 1 published"}},
		"at the barrier": {config.OverflowDelay, func(w *world) {
			w.insert("1", "good", later)
			w.commit()
			w.insert("2", "good")
			w.insert("3", "good")
			w.commit()
			w.want()
			w.flush(true)
		}, []string{"table 1:scheduled", "settled 1 scheduled", "batch 2+3", "settled 2 published", "settled 3 published"}},
		"a blocked key is not in it": {config.OverflowDelay, func(w *world) {
			w.parking.keys = retry.NewKeys([]int64{retry.KeyHash("k")})
			w.insert("1", "good")
			w.insert("2/k", "good")
			w.insert("3", "good")
			w.commit()
			w.flush(true)
		}, []string{"table 2:held", "settled 2 held", "batch 1+3", "settled 1 published", "settled 3 published"}},
		"too many events fail": {config.OverflowDelay, func(w *world) {
			for _, id := range []string{"1", "2", "3", "4", "5"} {
				w.insert(id, "good")
			}
			w.commit()
			w.flush(true)
		}, []string{
			"batch failed: events", "table 1:failed 2:failed 3:failed 4:failed 5:failed",
			"settled 1 failed", "settled 2 failed", "settled 3 failed", "settled 4 failed", "settled 5 failed",
		}},
		"too many events are split": {config.OverflowSplit, func(w *world) {
			for _, id := range []string{"1", "2", "3", "4", "5"} {
				w.insert(id, "good")
			}
			w.commit()
		}, []string{
			"batch split: events",
			"publish 1 split:events", "settled 1 published", "publish 2 split:events", "settled 2 published", "publish 3 split:events", "settled 3 published",
			"publish 4 split:events", "settled 4 published", "publish 5 split:events", "settled 5 published",
		}},
		"too many bytes": {config.OverflowSplit, func(w *world) {
			for _, id := range []string{"1", "2"} {
				w.insert(id, "good", func(ev *event.Event) { ev.Data = make([]byte, 1<<19) })
			}
			w.commit()
		}, []string{"batch split: bytes", "publish 1 split:bytes", "settled 1 published", "publish 2 split:bytes", "settled 2 published"}},
		"several streams": {config.OverflowSplit, func(w *world) {
			w.insert("1", "good")
			w.insert("2", "elsewhere")
			w.commit()
		}, []string{"batch split: streams", "publish 1 split:streams", "settled 1 published", "publish 2 split:streams", "settled 2 published"}},
		"a refused event fails all": {config.OverflowDelay, func(w *world) {
			bad(w)
			w.insert("1", "good")
			w.insert("2", "bad")
			w.commit()
			w.flush(true)
		}, []string{"batch failed: refused", "table 1:failed 2:failed", "settled 1 failed", "settled 2 failed"}},
		"a refused event is split off": {config.OverflowSplit, func(w *world) {
			bad(w)
			w.insert("1", "good")
			w.insert("2", "bad")
			w.insert("3", "good")
			w.commit()
			w.flush(true)
		}, []string{
			"failed 2 retrying", "batch split: refused", "table 2:retrying", "settled 2 retrying",
			"publish 1 split:refused", "settled 1 published", "publish 3 split:refused", "settled 3 published",
		}},
		"re-emitted events are alone": {config.OverflowDelay, func(w *world) {
			w.insert("1", "good", released)
			w.insert("2", "good", released)
			w.commit()
		}, []string{"publish 1", "settled 1 published", "publish 2", "settled 2 published"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, batches(test.overflow))
			test.run(w)
			w.want(test.want...)
		})
	}
}

// What the router finds refused later is parked with those of its key behind it.
func TestParking_Park(t *testing.T) {
	flight := func(id, key string) router.Flight {
		return router.Flight{Event: &event.Event{ID: id, PartitionKey: key, MaxRetries: -1}}
	}
	w := newWorld(t, config.Publish{})
	reason := &router.EventError{Class: router.Poison, ID: "1", Err: errors.New("too large")}
	if err := w.parking.Park(t.Context(), []router.Flight{flight("1", "k")}, reason, []router.Flight{flight("2", "k")}); err != nil {
		t.Fatal(err)
	}
	w.want("table 1:retrying 2:held", "failed 1 retrying", "settled 1 retrying", "settled 2 held")
	if !w.parking.Blocked(&event.Event{PartitionKey: "k"}) || w.parking.Blocked(&event.Event{PartitionKey: "l"}) {
		t.Error("the wrong keys are blocked")
	}
	if err := w.parking.Park(t.Context(), []router.Flight{flight("3", ""), flight("4", "")}, reason, nil); err != nil {
		t.Fatal(err)
	}
	w.want("table 3:failed 4:failed", "batch failed: refused", "settled 3 failed", "settled 4 failed")
	w.tableErr = errors.New("away")
	if err := w.parking.Park(t.Context(), []router.Flight{flight("5", "")}, reason, nil); !errors.Is(err, w.tableErr) {
		t.Errorf("got %v", err)
	}
	w.want()
}

// A row that moves to another partition is the event that it was.
func TestDispatcher_KnowsRowsThatMove(t *testing.T) {
	partitioned := map[tableName]bool{{"public", "parts"}: true}
	r := newRecent(partitioned)
	row := func(table, id string) *event.Event { return &event.Event{Schema: "public", Table: table, ID: id} }
	again := row("parts", "again")
	again.Delay = &event.Delay{}
	for i, step := range []struct {
		ev   *event.Event
		want bool
	}{
		{row("parts", "1"), false},
		{row("parts", "2"), false},
		{row("parts", "1"), true},
		{row("whole", "1"), false},
		{row("whole", "1"), false}, // another row with the id: that table has no partitions
		{row("parts", ""), false},
		{row("parts", ""), false},
		{row("parts", "again"), false},
		{again, false}, // comes back from the delay table
		{row("parts", "2"), true},
	} {
		if got := r.moved(step.ev); got != step.want {
			t.Errorf("step %d: moved is %v, want %v", i+1, got, step.want)
		}
	}
	for i := range maxRecent {
		r.moved(row("parts", fmt.Sprintf("more %d", i)))
	}
	if len(r.seen) != maxRecent || len(r.order) != maxRecent || r.moved(row("parts", "1")) {
		t.Errorf("%d rows are known, want no more than %d", len(r.seen), maxRecent)
	}
	if newRecent(nil).moved(row("parts", "1")) {
		t.Error("without partitioned tables, a row has moved")
	}

	w := newWorld(t, config.Publish{})
	w.d.recent = newRecent(partitioned)
	for range 2 {
		w.index++
		ev := row("parts", "1")
		ev.Position = event.Position{CommitLSN: w.lsn, Index: w.index}
		if err := w.d.insert(t.Context(), decode.Change{Kind: decode.Insert, Event: ev}, uint64(w.index), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(strings.Join(w.lines, "\n"), "publish 1"); got != 1 {
		t.Errorf("a row that moved is published %d times: %q", got, w.lines)
	}
}
