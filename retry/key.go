package retry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/wait"
)

// KeyHash is what a partition key is told by: the first eight bytes of its
// SHA-256, as the SQL function walrelay.key_hash computes it. Two keys with the
// same hash would wait for each other, and do nothing worse.
func KeyHash(partitionKey string) int64 {
	sum := sha256.Sum256([]byte(partitionKey))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// Keys knows, in memory, the blocked keys, whose later events are held. It takes about
// 50 bytes for each. Safe for concurrent use.
//
// A key becomes blocked when an event of it fails. Its events are then given to
// the delay table; those that are re-emitted are "released": they pass, until
// one of them fails again. When everything that was re-emitted is settled
// and nothing is left in the table, the key is free.
type Keys struct {
	count atomic.Int64 // of blocked; without any, nothing else is read

	mu       sync.Mutex
	blocked  map[int64]*key
	passing  []passing     // released events that were read and are not settled, in order
	ready    []int64       // keys to be looked at
	freed    chan struct{} // closed and made anew when keys stop being looked at
	replayed chan struct{} // closed by ReplayedThrough
	wake     wait.Signal   // an event that has gone into the table asks for a look
}

// key is a blocked key.
type key struct {
	// failed says that an event has failed since events of the key were last
	// re-emitted.
	failed bool
	// back says that events of the key were re-emitted, and at is the
	// transaction of the last one that was read; 0 while none was.
	back bool
	at   uint64
	// pending counts events that are on their way into the table.
	pending int
	// freeing says that the key is about to be free: wait and see.
	freeing bool
	// queued says that it is among the ready ones, and revisit that it was looked at
	// while something was on its way into the table.
	queued, revisit bool
}

// passing is a key of which a released event was read in a transaction.
type passing struct {
	lsn  uint64
	hash int64
}

// NewKeys returns a Keys that holds those of an earlier session. They count as
// re-emitted until ReplayedThrough says otherwise.
func NewKeys(hashes []int64) *Keys {
	k := &Keys{blocked: make(map[int64]*key, len(hashes)), freed: make(chan struct{}), replayed: make(chan struct{}), wake: wait.NewSignal()}
	for _, hash := range hashes {
		k.blocked[hash] = &key{back: true}
	}
	k.count.Store(int64(len(k.blocked)))
	return k
}

// ReplayedThrough says that everything that earlier sessions re-emitted stands
// before lsn: the marker of this session was read there. Only the first time
// counts.
func (k *Keys) ReplayedThrough(lsn uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.replayed:
		return
	default:
	}
	for hash, key := range k.blocked {
		if key.back && key.at < lsn {
			key.at = lsn
			k.passing = append(k.passing, passing{lsn, hash})
		}
	}
	close(k.replayed)
}

// awaitReplayed blocks until ReplayedThrough was called, and reports whether it was before
// the context ended.
func (k *Keys) awaitReplayed(ctx context.Context) bool {
	select {
	case <-k.replayed:
		return true
	case <-ctx.Done():
		return false
	}
}

// Len returns how many keys are blocked.
func (k *Keys) Len() int { return int(k.count.Load()) }

// Blocked reports whether an event has to wait behind an earlier one of its key.
// It does not block.
func (k *Keys) Blocked(ev *event.Event) bool {
	if k.count.Load() == 0 || ev.PartitionKey == "" {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blocks(KeyHash(ev.PartitionKey), ev)
}

func (k *Keys) blocks(hash int64, ev *event.Event) bool {
	key, ok := k.blocked[hash]
	return ok && (key.failed || ev.Delay == nil || !ev.Delay.Released)
}

// Hold says that an event is to be held, and reports whether it is: not when
// the key was about to be free, and now is. It blocks meanwhile, until the
// context ends. The caller says Parked when the event is in the table.
func (k *Keys) Hold(ctx context.Context, ev *event.Event) (bool, error) {
	hash := KeyHash(ev.PartitionKey)
	k.mu.Lock()
	for {
		if !k.blocks(hash, ev) {
			k.mu.Unlock()
			return false, nil
		}
		key := k.blocked[hash]
		if !key.freeing {
			key.pending++
			k.mu.Unlock()
			return true, nil
		}
		freed := k.freed
		k.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return false, fmt.Errorf("waiting for a key to be free: %w", context.Cause(ctx))
		}
		k.mu.Lock()
	}
}

// Fail says that an event has failed and, with behind more of its key, is on
// its way into the table. The caller says Parked for each of them.
func (k *Keys) Fail(partitionKey string, behind int) {
	if partitionKey == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	hash := KeyHash(partitionKey)
	state, ok := k.blocked[hash]
	if !ok {
		state = &key{}
		k.blocked[hash] = state
		k.count.Add(1)
	}
	state.failed = true
	state.pending += 1 + behind
}

// RestoreFailed says that an event was read that is in the table since an earlier
// session, and blocks its key: what was re-emitted of the key after it waits for
// it, as it would have in that session.
func (k *Keys) RestoreFailed(partitionKey string) {
	if partitionKey == "" || k.count.Load() == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, ok := k.blocked[KeyHash(partitionKey)]; ok {
		key.failed = true
	}
}

// Parked says that an event of the key is in the table. look asks to look at the
// key: the event is not one that blocks it.
func (k *Keys) Parked(partitionKey string, look bool) {
	if partitionKey == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	hash := KeyHash(partitionKey)
	key, ok := k.blocked[hash]
	if !ok {
		return
	}
	key.pending--
	if key.pending == 0 && key.revisit {
		look, key.revisit = true, false
	}
	if look && !key.back {
		k.queue(hash, key)
		k.wake.Send()
	}
}

// ObserveReleased says that a released event was read, in the transaction at lsn.
func (k *Keys) ObserveReleased(ev *event.Event) {
	if ev.Delay == nil || !ev.Delay.Released || ev.PartitionKey == "" || k.count.Load() == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	hash, lsn := KeyHash(ev.PartitionKey), ev.Position.CommitLSN
	if key, ok := k.blocked[hash]; ok && key.back && key.at < lsn {
		key.at = lsn
		k.passing = append(k.passing, passing{lsn, hash})
	}
}

func (k *Keys) queue(hash int64, key *key) {
	if !key.queued {
		key.queued = true
		k.ready = append(k.ready, hash)
	}
}

// look asks to look at keys of which something in the table has changed.
func (k *Keys) look(hashes []int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, hash := range hashes {
		if key, ok := k.blocked[hash]; ok && !key.back {
			k.queue(hash, key)
		}
	}
}

// take returns at most n keys to look at, now that the frontier is at lsn, and
// keeps those that may become free from taking events meanwhile. The caller
// says endScan.
func (k *Keys) take(lsn uint64, n int) (all, free []int64) {
	if k.count.Load() == 0 {
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	passed := 0
	for passed < len(k.passing) && k.passing[passed].lsn < lsn {
		p := k.passing[passed]
		passed++
		if key, ok := k.blocked[p.hash]; ok && key.back && key.at == p.lsn {
			key.back, key.at = false, 0
			k.queue(p.hash, key)
		}
	}
	k.passing = append(k.passing[:0], k.passing[passed:]...)
	n = min(n, len(k.ready))
	for _, hash := range k.ready[:n] {
		key, ok := k.blocked[hash]
		if !ok {
			continue
		}
		key.queued = false
		if key.back {
			// Given back since: it comes again when that is settled.
			continue
		}
		all = append(all, hash)
		if key.pending == 0 {
			// Nothing of it is under way, so nothing has failed since.
			key.freeing, key.failed = true, false
			free = append(free, hash)
		} else {
			key.revisit = true
		}
	}
	k.ready = append(k.ready[:0], k.ready[n:]...)
	return all, free
}

// reemit says that events of the keys are about to be re-emitted.
func (k *Keys) reemit(hashes []int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, hash := range hashes {
		if key, ok := k.blocked[hash]; ok {
			key.back, key.at, key.failed = true, 0, false
		}
	}
}

// endScan ends what take began: the keys in free are not blocked any more, and
// those in again are to be looked at again.
func (k *Keys) endScan(taken, free, again []int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, hash := range taken {
		if key, ok := k.blocked[hash]; ok {
			key.freeing = false
		}
	}
	for _, hash := range free {
		if key, ok := k.blocked[hash]; ok && key.pending == 0 && !key.failed {
			delete(k.blocked, hash)
			k.count.Add(-1)
		}
	}
	for _, hash := range again {
		if key, ok := k.blocked[hash]; ok {
			k.queue(hash, key)
		}
	}
	close(k.freed)
	k.freed = make(chan struct{})
}
