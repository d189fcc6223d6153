package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
)

// newBatchRig is a rig whose stream allows atomic batches.
func newBatchRig(t *testing.T, cfg nats.StreamConfig) *rig {
	t.Helper()
	r := newRig(t, cfg)
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	changed := stream.CachedInfo().Config
	changed.AllowAtomicPublish = true
	if _, err := js.UpdateStream(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	return r
}

// together makes the events of a transaction.
func together(lsn uint64, n int) []*event.Event {
	events := make([]*event.Event, n)
	for i := range events {
		events[i] = at(lsn, uint32(i))
	}
	return events
}

// publishTransaction publishes events as one batch, with tickets from first on.
func (r *rig) publishTransaction(first uint64, events ...*event.Event) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	flights := make([]Flight, len(events))
	for i, ev := range events {
		flights[i] = Flight{Event: ev, Ticket: first + uint64(i)}
	}
	return r.router.PublishTransaction(ctx, flights)
}

func (r *rig) mustPublishTransaction(first uint64, events ...*event.Event) {
	r.t.Helper()
	if err := r.publishTransaction(first, events...); err != nil {
		r.t.Fatalf("publishing a transaction: %v", err)
	}
}

// headers lists a header of all messages of the stream.
func (r *rig) headers(name string) []string {
	r.t.Helper()
	var values []string
	for seq := range len(r.ids()) {
		msg, err := r.js.GetMsg("EVENTS", uint64(seq+1))
		if err != nil {
			r.t.Fatal(err)
		}
		values = append(values, msg.Header.Get(name))
	}
	return values
}

func wantIDsOf(events ...*event.Event) []string {
	var ids []string
	for _, ev := range events {
		ids = append(ids, ev.ID)
	}
	return ids
}

func TestBatch_TransactionIsOne(t *testing.T) {
	r := newBatchRig(t, nats.StreamConfig{})
	r.start(nil)
	r.publish(at(50, 0))
	r.mustPublishTransaction(1, together(100, 3)...)
	r.mustPublishTransaction(4, together(200, 1)...)
	r.mustPublishTransaction(5, together(300, 2)...)
	r.awaitOutcomes(7)
	r.wantIDs("id-50-0", "id-100-0", "id-100-1", "id-100-2", "id-200-0", "id-300-0", "id-300-1")
	if got, want := strings.Join(r.headers(batchSequenceHeader), "|"), "|1|2|3||1|2"; got != want {
		t.Errorf("the places in batches are %q, want %q", got, want)
	}
	if got, want := strings.Join(r.headers(batchCommitHeader), "|"), "|||1|||1"; got != want {
		t.Errorf("the ends of batches are %q, want %q", got, want)
	}
	if got, want := strings.Join(r.headers(nats.ExpectedLastSeqHdr), "|"), "0|1|||4|5|"; got != want {
		t.Errorf("the expected sequences are %q, want %q", got, want)
	}
	if ids := r.headers(batchIDHeader); ids[1] == "" || ids[1] != ids[3] || ids[1] == ids[5] || len(ids[1]) > 64 {
		t.Errorf("the ids of the batches are %q, want one for each, of at most 64 characters", ids)
	}
	if got := r.router.Progress()["EVENTS"]; got.LastSequence != 7 || got.Position != at(300, 1).Position.String() {
		t.Errorf("the progress is %+v, want sequence 7 and the last position", got)
	}
}

// What a relay had sent of a batch without its end is not stored, and the next
// relay sends it again; what it had stored is skipped.
func TestBatch_UncommittedIsNotStored(t *testing.T) {
	r := newBatchRig(t, nats.StreamConfig{Duplicates: 100 * time.Millisecond})
	r.start(nil)
	first, second := together(100, 3), together(200, 4)
	r.mustPublishTransaction(0, first...)
	r.awaitOutcomes(3)
	w := r.router.ordered[0]
	w.mu.Lock()
	for i, ev := range second[:3] {
		n := w.take(Flight{Event: ev}, r.router.cfg.Rules.Match(ev), 1, 99)
		if err := w.send(n, place{id: "cut-short", number: i + 1, of: 4}); err != nil {
			t.Error(err)
		}
	}
	w.next -= 3
	w.mu.Unlock()
	if err := r.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	r.wantIDs(wantIDsOf(first...)...)
	r.end()
	r.start(nil)
	r.mustPublishTransaction(0, first...)
	r.mustPublishTransaction(3, second...)
	r.awaitOutcomes(7)
	r.wantIDs(wantIDsOf(append(first, second...)...)...)
	if r.outcomes.done[0][0] != AlreadyStored || r.outcomes.done[3][0] != Published {
		t.Errorf("the outcomes are %v, want that the first transaction was there already, and the second is published", r.outcomes.done)
	}
}

// What a stream refuses of one event concerns the whole transaction: it fails
// with what is behind it, or is split, and marked.
func TestBatch_RefusedFailsOrIsSplit(t *testing.T) {
	for _, split := range []bool{false, true} {
		t.Run(fmt.Sprintf("split=%t", split), func(t *testing.T) {
			r := newBatchRig(t, nats.StreamConfig{MaxMsgSize: 1500})
			r.split = split
			r.start(nil)
			before, bad, after := together(100, 2), together(200, 3), together(300, 3)
			bad[1].Data = []byte(`"` + strings.Repeat("x", 3000) + `"`)
			bad[1].PartitionKey, after[1].PartitionKey = "k", "k"
			r.mustPublishTransaction(0, before...)
			r.mustPublishTransaction(2, bad...)
			r.mustPublishTransaction(5, after...)
			failed, behind := "id-200-0 id-200-1 id-200-2", "id-300-1"
			want := wantIDsOf(before[0], before[1], after[0], after[2])
			if split {
				failed = "id-200-1"
				want = wantIDsOf(before[0], before[1], bad[0], bad[2], after[0], after[2])
			}
			r.await("the others are stored", func() bool { return slices.Equal(r.ids(), want) })
			var ids []string
			for line := range strings.SplitSeq(r.delays.failures(), "\n") {
				id, reason, _ := strings.Cut(line, " ")
				ids = append(ids, id)
				if !strings.Contains(reason, "message size exceeds maximum allowed") {
					t.Errorf("event %s failed because %q, want the server's reason", id, reason)
				}
			}
			if got := strings.Join(ids, " "); got != failed {
				t.Errorf("%q failed, want %q", got, failed)
			}
			if got := strings.Join(r.delays.behind, " "); got != behind {
				t.Errorf("behind it there are %q, want %q", got, behind)
			}
			marks := "|||"
			if split {
				marks = "||refused|refused||"
			}
			if got := strings.Join(r.headers(SplitHeader), "|"); got != marks {
				t.Errorf("the marks are %q, want %q", got, marks)
			}
		})
	}
}

// An id that the stream remembers makes the server refuse the batch. The event
// counts as published, and the others are published one by one.
func TestBatch_DuplicateID(t *testing.T) {
	r := newBatchRig(t, nats.StreamConfig{})
	r.start(nil)
	events := together(200, 3)
	events[1].ID = "id-100-0"
	r.publish(at(100, 0))
	r.mustPublishTransaction(1, events...)
	r.mustPublishTransaction(4, together(300, 2)...)
	r.awaitOutcomes(6)
	r.wantIDs("id-100-0", "id-200-0", "id-200-2", "id-300-0", "id-300-1")
	if failures := r.delays.failures(); failures != "" {
		t.Errorf("events failed: %s", failures)
	}
}

// A message of somebody else trips the fence: the batch comes after it, whole.
func TestBatch_AfterForeignMessage(t *testing.T) {
	r := newBatchRig(t, nats.StreamConfig{})
	r.start(nil)
	r.mustPublishTransaction(0, together(100, 2)...)
	r.awaitOutcomes(2)
	if _, err := r.js.Publish("events.foreign", nil, nats.MsgId("foreign")); err != nil {
		t.Fatal(err)
	}
	r.mustPublishTransaction(2, together(200, 3)...)
	r.mustPublishTransaction(5, together(300, 2)...)
	r.awaitOutcomes(7)
	r.wantIDs("id-100-0", "id-100-1", "foreign", "id-200-0", "id-200-1", "id-200-2", "id-300-0", "id-300-1")
	if got, want := strings.Join(r.headers(batchSequenceHeader), "|"), "1|2||1|2|3|1|2"; got != want {
		t.Errorf("the places in batches are %q, want %q", got, want)
	}
}

// A transaction is taken whole or not at all.
func TestBatch_Refused(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(r *rig, events []*event.Event)
		check func(err error) bool
	}{
		"an event has to wait": {
			spoil: func(r *rig, events []*event.Event) {
				events[2].PartitionKey = "k"
				r.delays.held = map[string]bool{"k": true}
			},
			check: func(err error) bool { return errors.Is(err, ErrBlocked) && culprit(err) == 2 },
		},
		"an event is too large to be sent": {
			spoil: func(_ *rig, events []*event.Event) { events[1].Data = make([]byte, 2<<20) },
			check: func(err error) bool {
				poison, ok := errors.AsType[*EventError](err)
				return ok && poison.Class == Poison && poison.ID == "id-200-1" && culprit(err) == 1
			},
		},
		"an event has a subject that is too long": {
			spoil: func(_ *rig, events []*event.Event) { events[0].Type = strings.Repeat("x", 5000) },
			check: func(err error) bool { return culprit(err) == 0 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newBatchRig(t, nats.StreamConfig{})
			r.start(nil)
			r.mustPublishTransaction(0, together(100, 2)...)
			events := together(200, 3)
			test.spoil(r, events)
			if err := r.publishTransaction(2, events...); !test.check(err) {
				t.Errorf("want that the transaction is not taken because of one event, got %v", err)
			}
			r.mustPublishTransaction(2, together(300, 2)...)
			r.awaitOutcomes(4)
			r.wantIDs("id-100-0", "id-100-1", "id-300-0", "id-300-1")
		})
	}
}

func culprit(err error) int {
	if transaction, ok := errors.AsType[*TransactionError](err); ok {
		return transaction.Flight
	}
	return -1
}

// A stream that does not allow batches is for a person to change.
func TestBatch_StreamDoesNotAllowThem(t *testing.T) {
	r := newRig(t, nats.StreamConfig{})
	r.prepare()
	if err := r.router.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.router.Close() }()
	ended := make(chan error, 1)
	go func() { ended <- r.router.Run(t.Context()) }()
	r.mustPublishTransaction(0, together(100, 2)...)
	select {
	case err := <-ended:
		if _, ok := problem.Find(err); !ok || !strings.Contains(err.Error(), "atomic publish is disabled") {
			t.Errorf("want an error that says that the stream does not allow batches, got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("waited 20s until the router ended")
	}
	r.wantIDs()
}
