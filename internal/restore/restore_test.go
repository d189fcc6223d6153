package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/relay/relaytest"
	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/journal"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// list is a source; its Next fails after the last with err, if there is one.
type list struct {
	entries []Entry
	err     error
}

func (l *list) Next(context.Context) (Entry, bool, error) {
	if len(l.entries) == 0 {
		return Entry{}, false, l.err
	}
	entry := l.entries[0]
	l.entries = l.entries[1:]
	return entry, true, nil
}

// taker is a target that refuses one event.
type taker struct {
	put     []uint64
	flushes []int // how many it had then
	refuses uint64
}

var errRefused = errors.New("refused")

func (t *taker) Put(_ context.Context, entry Entry) error {
	if entry.Event.Position.CommitLSN == t.refuses {
		return errRefused
	}
	t.put = append(t.put, entry.Event.Position.CommitLSN)
	return nil
}

func (t *taker) Flush(context.Context) error {
	t.flushes = append(t.flushes, len(t.put))
	return nil
}

// notes is a clerk that leaves out what is lost.
type notes struct {
	lost, done int
	last       event.Position
}

func (n *notes) skip(entry *Entry) (bool, error) {
	if entry.Lost != "" {
		n.lost++
	}
	return entry.Lost != "", nil
}

func (n *notes) flushed(count int, last event.Position) { n.done, n.last = n.done+count, last }

func TestCopyAll(t *testing.T) {
	t.Parallel()
	entries := func(n int, lost ...int) (all []Entry) {
		for i := 1; i <= n; i++ {
			entry := Entry{Event: &event.Event{Position: event.Position{CommitLSN: uint64(i)}}}
			if slices.Contains(lost, i) {
				entry.Lost = "gone"
			}
			all = append(all, entry)
		}
		return all
	}
	broken := errors.New("broken")
	for _, test := range []struct {
		name    string
		source  list
		refuses uint64
		want    error
		done    int // flushed
		last    uint64
		lost    int
		flushes []int
	}{
		{name: "nothing"},
		{name: "few", source: list{entries: entries(3)}, done: 3, last: 3, flushes: []int{3}},
		{name: "the last is lost", source: list{entries: entries(3, 3)}, done: 2, last: 3, lost: 1, flushes: []int{2}},
		{name: "all are lost", source: list{entries: entries(2, 1, 2)}, last: 2, lost: 2, flushes: []int{0}},
		{name: "a batch", source: list{entries: entries(batch)}, done: batch, last: batch, flushes: []int{batch}},
		{name: "two batches", source: list{entries: entries(batch+1, 7)}, done: batch, last: batch + 1, lost: 1, flushes: []int{batch - 1, batch}},
		{name: "one is refused", source: list{entries: entries(batch + 9)}, refuses: batch + 2, want: errRefused, done: batch, last: batch, flushes: []int{batch}},
		{name: "the source fails", source: list{entries: entries(2), err: broken}, want: broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			target, clerk := &taker{refuses: test.refuses}, &notes{}
			if err := copyAll(t.Context(), &test.source, target, clerk); !errors.Is(err, test.want) {
				t.Errorf("it returns %v, want %v", err, test.want)
			}
			if clerk.done != test.done || clerk.last.CommitLSN != test.last || clerk.lost != test.lost || !slices.Equal(target.flushes, test.flushes) {
				t.Errorf("%d are there for good, up to %d, %d are lost, flushed at %v; want %d, %d, %d, %v",
					clerk.done, clerk.last.CommitLSN, clerk.lost, target.flushes, test.done, test.last, test.lost, test.flushes)
			}
		})
	}
}

// Pages overlap where a session went over what another had saved; each event comes once, in
// the order of positions, and only those that are asked for.
func TestJournalReader_OverlappingPages(t *testing.T) {
	t.Parallel()
	w := relaytest.New(t, config.Config{}, "")
	conn := testkit.Connect(t, w.Config.Postgres.URL)
	// The page of each session: from, to, step.
	for _, session := range [][3]uint64{{1, 40, 1}, {20, 60, 1}, {20, 60, 4}, {61, 61, 1}, {70, 90, 1}} {
		buffer := journal.NewBuffer("EVENTS", func() {})
		for lsn := session[0]; lsn <= session[1]; lsn += session[2] {
			buffer.Add(&event.Event{ID: relaytest.ID(int(lsn)), Schema: "public", Table: "outbox", Position: event.Position{CommitLSN: lsn}})
		}
		for _, page := range buffer.Pages() {
			if _, err := conn.Exec(t.Context(), "INSERT INTO walrelay.journal (slot, stream, first, last, events, entries) VALUES ($1, $2, $3, $4, $5, $6)",
				w.Config.Slot, page.Stream, page.First.String(), page.Last.String(), page.Events, page.Entries); err != nil {
				t.Fatal(err)
			}
		}
	}
	reader := &journalReader{conn: conn, slot: w.Config.Slot, stream: "EVENTS", after: event.Position{CommitLSN: 30}, before: 80}
	var got []uint64
	for {
		entry, ok, err := reader.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		got = append(got, entry.Position.CommitLSN)
		if entry.ID != relaytest.ID(int(entry.Position.CommitLSN)) {
			t.Errorf("position %d is event %s", entry.Position.CommitLSN, entry.ID)
		}
	}
	var want []uint64
	for lsn := uint64(31); lsn < 80; lsn++ {
		if lsn <= 61 || lsn >= 70 {
			want = append(want, lsn)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the journal has %v, want %v", got, want)
	}
}

// published has a stream with events 1 to n, which is lost then; what happens to the rows
// meanwhile is said by between.
func published(t *testing.T, n int, between string, change func(*jetstream.StreamConfig)) *relaytest.World {
	t.Helper()
	w := relaytest.New(t, config.Config{}, "")
	for i := 1; i <= n; i++ {
		w.Insert(i, "data", fmt.Sprintf(`'"%s"'`, strings.Repeat("x", 1000*i)))
	}
	w.Publish()
	if between != "" {
		w.Exec(between)
	}
	w.Recreate("EVENTS", change)
	return w
}

// fails reports whether a check of doctor fails.
func fails(t *testing.T, w *relaytest.World, id string) bool {
	t.Helper()
	results, err := check.Doctor(t.Context(), w.Config)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(results, func(r check.Result) bool { return r.ID == id && r.Status == check.Fail })
}

func ids(numbers ...int) (all []string) {
	for _, n := range numbers {
		all = append(all, relaytest.ID(n))
	}
	return all
}

func TestRepair(t *testing.T) {
	t.Parallel()
	// seen is what a repair says, event by event.
	repair := func(w *relaytest.World, options RepairOptions) (report RepairReport, seen []string, err error) {
		options.Event = func(m MissingEvent) error {
			seen = append(seen, strings.TrimSuffix(m.ID[len(m.ID)-2:]+" "+m.Lost, " "))
			return nil
		}
		report, err = Repair(t.Context(), w.Config, options)
		return report, seen, err
	}

	t.Run("nothing is lost", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		w.Insert(1, "", "")
		w.Publish()
		if report, seen, err := repair(w, RepairOptions{}); err != nil || len(report.Streams) != 0 || len(seen) != 0 {
			t.Errorf("%+v, %v, %v", report, seen, err)
		}
	})

	t.Run("everything comes back in order", func(t *testing.T) {
		t.Parallel()
		w := published(t, 5, "", nil)
		if !fails(t, w, "stream_lost_events") {
			t.Error("doctor does not name the loss")
		}
		report, seen, err := repair(w, RepairOptions{DryRun: true})
		if err != nil || len(report.Streams) != 1 || report.Streams[0].Missing != 5 || report.Streams[0].Restored != 5 || report.Streams[0].Done || !slices.Equal(seen, []string{"01", "02", "03", "04", "05"}) {
			t.Errorf("a dry run: %+v, %v, %v", report, seen, err)
		}
		if got := w.Stream("EVENTS"); len(got) != 0 {
			t.Errorf("a dry run published %v", got)
		}
		report, seen, err = repair(w, RepairOptions{})
		if err != nil || len(report.Streams) != 1 || report.Streams[0].Restored != 5 || !report.Streams[0].Done || len(seen) != 0 {
			t.Errorf("%+v, %v, %v", report, seen, err)
		}
		if fails(t, w, "stream_lost_events") {
			t.Error("doctor names a loss that is repaired")
		}
		if report, _, err = repair(w, RepairOptions{}); err != nil || len(report.Streams) != 0 {
			t.Errorf("again: %+v, %v", report, err)
		}
		w.Insert(6, "", "")
		w.Publish()
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(1, 2, 3, 4, 5, 6)) {
			t.Errorf("the stream has %v", got)
		}
	})

	t.Run("rows are gone", func(t *testing.T) {
		t.Parallel()
		w := published(t, 4, "DELETE FROM outbox WHERE id::text LIKE '%02'; UPDATE outbox SET max_retries = -1 WHERE id::text LIKE '%03'", nil)
		_, seen, err := repair(w, RepairOptions{})
		incomplete, ok := errors.AsType[*IncompleteError](err)
		if !ok || incomplete.Lost != 2 || len(seen) != 2 || seen[0] != "02 its row is gone" || !strings.HasPrefix(seen[1], "03 column max_retries: -1 ") {
			t.Errorf("%v, %v", seen, err)
		}
		if got := w.Stream("EVENTS"); len(got) != 0 {
			t.Errorf("a repair that is not complete published %v", got)
		}
		report, seen, err := repair(w, RepairOptions{AcceptLoss: true})
		if err != nil || report.Streams[0].Restored != 2 || report.Streams[0].Lost != 2 || !report.Streams[0].Done || len(seen) != 2 {
			t.Errorf("%+v, %v, %v", report, seen, err)
		}
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(1, 4)) {
			t.Errorf("the stream has %v", got)
		}
		w.Publish() // a relay takes the stream
	})

	t.Run("NATS refuses one", func(t *testing.T) {
		t.Parallel()
		w := published(t, 4, "UPDATE outbox SET data = '1' WHERE id::text LIKE '%04'", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = 3000 })
		if _, _, err := repair(w, RepairOptions{}); err == nil || !strings.Contains(err.Error(), "max_msg_size") || !strings.Contains(err.Error(), "--accept-loss") {
			t.Errorf("the error is %v", err)
		}
		report, seen, err := repair(w, RepairOptions{AcceptLoss: true})
		if err != nil || len(report.Streams) != 1 || report.Streams[0].Lost != 1 || len(seen) != 1 {
			t.Errorf("%+v, %v, %v", report, seen, err)
		}
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(1, 2, 4)) {
			t.Errorf("the stream has %v", got)
		}
	})

	t.Run("the journal begins later", func(t *testing.T) {
		t.Parallel()
		w := published(t, 3, "DELETE FROM walrelay.journal", nil)
		_, _, err := repair(w, RepairOptions{})
		if incomplete, ok := errors.AsType[*IncompleteError](err); !ok || incomplete.Unknown != 3 || incomplete.Lost != 0 {
			t.Errorf("the error is %v", err)
		}
		if report, _, err := repair(w, RepairOptions{AcceptLoss: true}); err != nil || !report.Streams[0].Done || report.Streams[0].Unknown != 3 {
			t.Errorf("%+v, %v", report, err)
		}
		w.Insert(4, "", "")
		w.Publish()
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(4)) {
			t.Errorf("the stream has %v", got)
		}
	})

	t.Run("a relay runs", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		defer w.Start()()
		testkit.Eventually(t, 20*time.Second, "the relay has the slot", func() error {
			if w.Query("SELECT active::text FROM pg_replication_slots WHERE slot_name = $1", w.Config.Slot) != "true" {
				return errors.New("it has not")
			}
			return nil
		})
		_, _, err := repair(w, RepairOptions{})
		if found, ok := problem.Find(err); !ok || found.ID != "relay_running" {
			t.Errorf("the error is %v", err)
		}
		if _, _, err := repair(w, RepairOptions{DryRun: true}); err != nil {
			t.Errorf("a dry run beside a relay: %v", err)
		}
	})

	t.Run("what is asked for does not exist", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		if _, _, err := repair(w, RepairOptions{Stream: "OTHER"}); err == nil || !strings.Contains(err.Error(), `"OTHER"`) {
			t.Errorf("the error is %v", err)
		}
	})

	t.Run("the caller ends it", func(t *testing.T) {
		t.Parallel()
		w := published(t, 3, "", nil)
		enough := errors.New("enough")
		if _, err := Repair(t.Context(), w.Config, RepairOptions{Begin: func(StreamRepair) error { return enough }}); !errors.Is(err, enough) {
			t.Errorf("the error is %v", err)
		}
		if _, _, err := repair(w, RepairOptions{}); err != nil {
			t.Error(err)
		}
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(1, 2, 3)) {
			t.Errorf("the stream has %v", got)
		}
	})
}
