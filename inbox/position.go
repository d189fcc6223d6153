package inbox

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/sql"
)

// buckets is the number of marks that a handler has for a writer and a stream. It is part of
// what the database means: it never changes.
const buckets = 64

// bucketOf returns the bucket of a key, or of an event without one. The hash is another one than that of
// partitions, so that the keys of a partition have all the buckets.
func bucketOf(key, id string) int {
	h := fnv.New64a()
	if key == "" {
		key = id
	}
	_, _ = h.Write([]byte(key)) // it never fails
	sum := h.Sum64()
	return int((sum ^ sum>>29 ^ sum>>47) % buckets)
}

// keyHash is how the database knows a key: as bytes, of whatever length and encoding it is.
func keyHash(key string) []byte {
	if key == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(key))
	return sum[:16]
}

// eventHash is how the database knows an event: by source and id.
func eventHash(source, id string) []byte {
	sum := sha256.Sum256([]byte(source + "\x00" + id))
	return sum[:16]
}

// keyring has the keys that authenticate positions, by slot. Safe for concurrent use.
type keyring struct {
	// load reads them; nil if nobody has any.
	load func(context.Context) (map[string][]byte, error)

	mu     sync.Mutex
	keys   map[string][]byte
	loaded time.Time // when the last reading began
}

// get returns the key of a slot; nil if it has none, as of a time.
func (k *keyring) get(ctx context.Context, slot string, asOf time.Time) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.load != nil && k.loaded.Before(asOf) {
		began := time.Now()
		keys, err := k.load(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading the keys of positions: %w", err)
		}
		k.keys, k.loaded = keys, began
	}
	return k.keys[slot], nil
}

// verifier tells authentic positions from others. Not safe for concurrent use.
type verifier struct {
	ring    *keyring
	signers map[string]*event.Signer // by stream, a space and the slot
}

// stamp is what an authentic position says; the zero value for none.
type stamp struct {
	writer   string
	timeline int32
	// began is where the timeline began, as the text of a position.
	began    string
	position string
}

// sameTimeline reports whether two positions can be compared: they are of one writer and timeline.
func (s stamp) sameTimeline(as stamp) bool { return s.writer == as.writer && s.timeline == as.timeline }

// parseStamp reads the header; false if it is nobody's.
func parseStamp(text string) (s stamp, slot string, ok bool) {
	fields := strings.Split(text, " ")
	if len(fields) != 3 {
		return s, "", false
	}
	number, began, _ := strings.Cut(fields[1], "/")
	timeline, err1 := strconv.ParseInt(number, 10, 32)
	_, err2 := event.ParsePosition(fields[0])
	_, slot, found := strings.Cut(fields[2], "/")
	return stamp{fields[2], int32(timeline), began, fields[0]}, slot, err1 == nil && err2 == nil && found
}

// verify returns what a message's position says, if it is authentic. An error says that this
// is not known.
func (v *verifier) verify(ctx context.Context, it *item) (stamp, error) {
	text, digest := first(it.header, event.PositionHeader), first(it.header, event.DigestHeader)
	s, slot, ok := parseStamp(text)
	if digest == "" || !ok {
		return stamp{}, nil
	}
	name := it.stream + " " + slot
	if known := v.signers[name]; known != nil && known.Signs(it.sequence, text, digest) {
		return s, nil
	}
	key, err := v.ring.get(ctx, slot, it.received)
	if err != nil || len(key) == 0 {
		return stamp{}, err
	}
	signer := event.NewSigner(it.stream, key)
	if !signer.Signs(it.sequence, text, digest) {
		return stamp{}, nil
	}
	if v.signers == nil {
		v.signers = make(map[string]*event.Signer)
	}
	v.signers[name] = signer
	return s, nil
}

// readKeys reads the keys of positions from a database, if they are there.
func readKeys(ctx context.Context, db database) (map[string][]byte, error) {
	r, err := db.query(ctx, sql.InboxKeys)
	if err != nil {
		return nil, err
	}
	defer r.close()
	keys := make(map[string][]byte)
	for r.Next() {
		var slot string
		var key []byte
		if err := r.Scan(&slot, &key); err != nil {
			return nil, err
		}
		keys[slot] = key
	}
	return keys, r.Err()
}

// first returns a header's value as walrelay writes its name.
func first(header nats.Header, name string) string {
	if values := header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}
