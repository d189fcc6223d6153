package retry

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/walrelay/walrelay/event"
)

func keyed(key string, lsn uint64, released bool) *event.Event {
	ev := &event.Event{PartitionKey: key, Position: event.Position{CommitLSN: lsn}}
	if released {
		ev.Delay = &event.Delay{Released: true}
	}
	return ev
}

func wantHeld(t *testing.T, k *Keys, ev *event.Event, want bool) {
	t.Helper()
	if got := k.Blocked(ev); got != want {
		t.Errorf("that an event of key %q at %d (%+v) is held is %v, want %v", ev.PartitionKey, ev.Position.CommitLSN, ev.Delay, got, want)
	}
}

// The life of a key: an event fails, the next is held, both are given back one
// after the other, and the key is free.
func TestKeys_BlockedUntilSettled(t *testing.T) {
	k := NewKeys(nil)
	wantHeld(t, k, keyed("k", 1, false), false)
	k.Fail("k", 0)
	wantHeld(t, k, keyed("k", 2, false), true)
	wantHeld(t, k, keyed("other", 2, false), false)
	wantHeld(t, k, keyed("", 2, false), false)
	if held, err := k.Hold(t.Context(), keyed("k", 2, false)); !held || err != nil {
		t.Fatalf("the second event: held is %v, %v", held, err)
	}
	k.Parked("k", false)
	k.Parked("k", false)

	hash := KeyHash("k")
	give := func(lsn uint64) {
		t.Helper()
		k.reemit([]int64{hash})
		wantHeld(t, k, keyed("k", lsn-1, false), true)
		wantHeld(t, k, keyed("k", lsn, true), false)
		k.ObserveReleased(keyed("k", lsn, true))
		if all, _ := k.take(lsn, 10); len(all) > 0 {
			t.Errorf("the key is looked at before the frontier has passed %d", lsn)
			k.endScan(all, nil, nil)
		}
	}
	give(10)
	all, free := k.take(11, 10)
	if len(all) != 1 || len(free) != 1 {
		t.Fatalf("after the frontier has passed the event, %d keys are looked at, and %d may be free; want 1", len(all), len(free))
	}
	give20 := func() { k.reemit(all); k.endScan(all, nil, nil) }
	give20()
	k.ObserveReleased(keyed("k", 20, true))
	all, _ = k.take(21, 10)
	k.endScan(all, all, nil)
	wantHeld(t, k, keyed("k", 22, false), false)
	if n := k.Len(); n != 0 {
		t.Errorf("%d keys are held, want none", n)
	}
}

// Of those that were given back together, the ones after a failed one do not
// pass.
func TestKeys_ReleasedWaitForOneThatFailsAgain(t *testing.T) {
	k := NewKeys(nil)
	k.Fail("k", 0)
	k.Parked("k", false)
	k.reemit([]int64{KeyHash("k")})
	wantHeld(t, k, keyed("k", 10, true), false)
	k.Fail("k", 1)
	wantHeld(t, k, keyed("k", 10, true), true)
}

// An event that arrives while its key is about to be free waits until that is
// decided.
func TestKeys_NewEventWaitsForReleasedOnes(t *testing.T) {
	for freed, want := range map[bool]bool{true: false, false: true} {
		t.Run(fmt.Sprintf("freed %v", freed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := NewKeys(nil)
				k.Fail("k", 0)
				k.Parked("k", true)
				all, free := k.take(1, 10)
				if len(free) != 1 {
					t.Fatal("the key is not about to be free; this test shows nothing")
				}
				answered := make(chan bool, 1)
				go func() {
					held, err := k.Hold(t.Context(), keyed("k", 5, false))
					if err != nil {
						t.Error(err)
					}
					answered <- held
				}()
				synctest.Wait()
				select {
				case <-answered:
					t.Fatal("the event did not wait")
				default:
				}
				if !freed {
					free = nil
				}
				k.endScan(all, free, nil)
				if held := <-answered; held != want {
					t.Errorf("that the event is held is %v, want %v", held, want)
				}
			})
		})
	}
}

func TestKeys_WaitEndsWithTheContext(t *testing.T) {
	k := NewKeys(nil)
	k.Fail("k", 0)
	k.Parked("k", true)
	k.take(1, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Hold(ctx, keyed("k", 5, false)); err == nil {
		t.Error("it waits longer than its context")
	}
}

// A key with an event on its way into the table does not become free.
func TestKeys_PendingEventBlocks(t *testing.T) {
	k := NewKeys(nil)
	k.Fail("k", 0)
	k.Parked("k", true)
	if held, err := k.Hold(t.Context(), keyed("k", 5, false)); !held || err != nil {
		t.Fatal(held, err)
	}
	all, free := k.take(10, 10)
	if len(all) != 1 || len(free) != 0 {
		t.Errorf("%d keys are looked at and %d may be free, want 1 and none", len(all), len(free))
	}
}

// What an earlier session has given back counts as under way until the marker
// of this one is read and has been passed.
func TestKeys_EarlierSessionWaitsForTheMarker(t *testing.T) {
	k := NewKeys([]int64{KeyHash("k")})
	wantHeld(t, k, keyed("k", 5, false), true)
	k.ReplayedThrough(20)
	if all, _ := k.take(20, 10); len(all) != 0 {
		t.Error("the key is looked at before the frontier has passed the marker")
	}
	all, free := k.take(21, 10)
	if len(all) != 1 || len(free) != 1 {
		t.Errorf("%d keys are looked at and %d may be free, want 1 and 1", len(all), len(free))
	}
}

func BenchmarkHoldsWithHundredThousandKeys(b *testing.B) {
	hashes := make([]int64, 100_000)
	for i := range hashes {
		hashes[i] = KeyHash(fmt.Sprint(i))
	}
	k := NewKeys(hashes)
	ev := keyed("free", 1, false)
	b.ReportAllocs()
	for b.Loop() {
		if k.Blocked(ev) {
			b.Fatal("it is held")
		}
	}
}

// A session was killed between two writes of what it had read in one go: the
// first event of a key, which had failed, is in the table, the next ones, given
// back together with it, are not. They must not overtake it.
func TestKeys_ReemittedWaitsForFailedOfEarlierSession(t *testing.T) {
	k := NewKeys([]int64{KeyHash("k"), KeyHash("other")})
	wantHeld(t, k, keyed("k", 10, true), false)
	k.RestoreFailed("k")
	k.RestoreFailed("nobody's")
	wantHeld(t, k, keyed("k", 10, true), true)
	wantHeld(t, k, keyed("other", 10, true), false)
	wantHeld(t, k, keyed("nobody's", 10, false), false)

	// Once everything of that session is settled, the table decides.
	k.ReplayedThrough(20)
	all, free := k.take(21, 10)
	if len(all) != 2 || len(free) != 2 {
		t.Fatalf("%d keys are looked at, and %d may be free; want both", len(all), len(free))
	}
	k.reemit([]int64{KeyHash("k")})
	k.endScan(all, []int64{KeyHash("other")}, nil)
	wantHeld(t, k, keyed("k", 30, true), false)
	wantHeld(t, k, keyed("k", 30, false), true)
	wantHeld(t, k, keyed("other", 30, false), false)
}

// While a transaction gives events of a key back, another event of it fails for
// good, and asks to look at the key.
func TestKeys_NoScanDuringReemission(t *testing.T) {
	k := NewKeys(nil)
	k.Fail("k", 0)
	k.Parked("k", true)
	k.reemit([]int64{KeyHash("k")})
	k.Fail("k", 0)
	k.Parked("k", true)
	if all, _ := k.take(100, 10); len(all) > 0 {
		t.Error("a key is looked at although events of it were given back and are not settled")
	}
	wantHeld(t, k, keyed("k", 10, true), true)
	k.ObserveReleased(keyed("k", 10, true))
	all, free := k.take(11, 10)
	if len(all) != 1 || len(free) != 1 {
		t.Errorf("after that, %d keys are looked at, and %d may be free; want 1", len(all), len(free))
	}
}

// A key was looked at while an event of it was on its way into the table: it is looked at
// again when that is there. Otherwise the event would be held for ever.
func TestKeys_ScanAgainAfterReemission(t *testing.T) {
	ev := &event.Event{PartitionKey: "k"}
	k := NewKeys(nil)
	k.Fail("k", 0)
	k.Parked("k", true) // failed for good, and blocks nothing
	select {
	case <-k.wake:
	default:
		t.Error("nobody is told that the key is to be looked at")
	}
	if held, err := k.Hold(t.Context(), ev); err != nil || !held {
		t.Fatalf("the next event of the key is not held: %v %v", held, err)
	}
	all, free := k.take(1, 10)
	if len(all) != 1 || len(free) != 0 {
		t.Fatalf("the keys to look at are %v, and may be free %v; want the key, and not that", all, free)
	}
	k.endScan(all, nil, nil) // the table had nothing of the key
	k.Parked("k", false)
	select {
	case <-k.wake:
	default:
		t.Error("nobody is told that the key is to be looked at again")
	}
	if all, free = k.take(1, 10); len(all) != 1 || len(free) != 1 {
		t.Errorf("once the event is in the table, the keys to look at are %v, and may be free %v; want the key in both", all, free)
	}
}
