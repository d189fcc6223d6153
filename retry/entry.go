package retry

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/event"
)

// State says why an event is in the delay table.
type State string

// The states of events in the delay table.
const (
	Scheduled State = "scheduled"
	Retrying  State = "retrying"
	Held      State = "held"
	Failed    State = "failed"
	Discarded State = "discarded"
)

// States returns all of them.
func States() []State { return []State{Scheduled, Retrying, Held, Failed, Discarded} }

// Blocks reports whether an event in this state keeps later ones of its key from
// being published. failedBlocks: failed ones do (retry.failed_holds_key). In SQL
// it is walrelay.blocks_key.
func (s State) Blocks(failedBlocks bool) bool {
	return s == Retrying || s == Failed && failedBlocks
}

// KeepsBlocked reports whether the key is blocked as long as an event is in this
// state: it blocks the key, or waits behind one that does.
func (s State) KeepsBlocked(failedBlocks bool) bool {
	return s == Held || s.Blocks(failedBlocks)
}

const (
	// maxFailures is how many attempts are remembered with an event.
	maxFailures = 20
	// maxError bounds the text of an attempt, in bytes.
	maxError = 2000
)

// Entry is an event on its way into the delay table.
type Entry struct {
	Event *event.Event
	State State
	// Wait is in how long a retrying event is due.
	Wait time.Duration
	// Attempts, Failures and the last error are those of a failed attempt; of
	// any other entry, what the event brings with it.
	Attempts int
	Failures []event.Failure
	// Kind and Content are set for what cannot be decoded.
	Kind    string
	Content []byte

	// plainKey says that the key is written in ASCII; its hash is the key's.
	plainKey bool
}

// NewFailure returns the entry of an event that could not be published.
func NewFailure(ev *event.Event, policy Policy, reason error) Entry {
	e := Entry{Event: ev, State: Retrying, Attempts: 1}
	if ev.Delay != nil {
		e.Attempts += ev.Delay.Attempts
		e.Failures = ev.Delay.Failures
	}
	e.Failures = append(slices.Clip(e.Failures), event.Failure{At: now(), Error: clean(reason.Error(), maxError)})
	e.Failures = e.Failures[max(0, len(e.Failures)-maxFailures):]
	if policy.Exhausted(e.Attempts, ev.MaxRetries) {
		e.State = Failed
	} else {
		e.Wait = policy.Delay(e.Attempts)
	}
	return e
}

// NewEntry returns the entry of an event that waits without having failed.
func NewEntry(ev *event.Event, state State) Entry {
	e := Entry{Event: ev, State: state}
	if ev.Delay != nil {
		e.Attempts, e.Failures = ev.Delay.Attempts, ev.Delay.Failures
	}
	return e
}

func now() time.Time { return time.Now().UTC() }

// clean makes a text that Postgres takes, of at most limit bytes and a sign that
// it is cut.
func clean(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// columns are entries as the arrays of sql.DelayInsert.
type columns struct {
	position, origin, state, id, typ, source, schema, table, failures, kind []string
	partitionKey, lastError                                                 []*string
	keyHash                                                                 []*int64
	due                                                                     []*time.Time
	wait                                                                    []float64
	attempts                                                                []int32
	maxRetries                                                              []*int32
	content                                                                 [][]byte

	// blocked are the keys that are blocked as long as the entries are in the
	// table.
	blocked []int64
}

func newColumns(entries []Entry, failedBlocks bool) (*columns, error) {
	c := &columns{}
	for i := range entries {
		if err := c.add(&entries[i], failedBlocks); err != nil {
			return nil, fmt.Errorf("event %q: %w", clean(entries[i].Event.ID, maxError), err)
		}
	}
	return c, nil
}

func (c *columns) add(e *Entry, failedBlocks bool) error {
	ev := e.Event
	failures := e.Failures
	if failures == nil {
		failures = []event.Failure{}
	}
	text, err := json.Marshal(failures)
	if err != nil {
		return fmt.Errorf("writing the failures: %w", err)
	}
	c.failures = append(c.failures, string(text))
	c.position, c.origin = append(c.position, ev.Position.String()), append(c.origin, ev.Origin().String())
	c.state = append(c.state, string(e.State))
	c.id, c.typ, c.source = append(c.id, ev.ID), append(c.typ, ev.Type), append(c.source, ev.Source)
	c.schema, c.table = append(c.schema, ev.Schema), append(c.table, ev.Table)
	c.wait, c.attempts = append(c.wait, e.Wait.Seconds()), append(c.attempts, int32(e.Attempts))
	var due *time.Time
	if e.State == Scheduled {
		due = &ev.ScheduledAt
	}
	var retries *int32
	if ev.MaxRetries >= 0 {
		retries = new(int32(ev.MaxRetries))
	}
	var key, last *string
	var hash *int64
	if ev.PartitionKey != "" {
		key, hash = &ev.PartitionKey, new(KeyHash(ev.PartitionKey))
		if e.plainKey {
			key = new(plain(ev.PartitionKey))
		}
		if e.State.KeepsBlocked(failedBlocks) {
			c.blocked = append(c.blocked, *hash)
		}
	}
	if n := len(failures); n > 0 {
		last = &failures[n-1].Error
	}
	c.due, c.maxRetries = append(c.due, due), append(c.maxRetries, retries)
	c.partitionKey, c.keyHash, c.lastError = append(c.partitionKey, key), append(c.keyHash, hash), append(c.lastError, last)
	content, kind := e.Content, e.Kind
	if kind == "" {
		content, kind = ev.AppendJSON(nil), "event"
	}
	c.kind, c.content = append(c.kind, kind), append(c.content, content)
	return nil
}

// arguments are the parameters of sql.DelayInsert.
func (c *columns) arguments(slot string, session int64) pgx.NamedArgs {
	return pgx.NamedArgs{
		"slot": slot, "session": session,
		"position": c.position, "origin": c.origin, "state": c.state, "due_at": c.due, "wait": c.wait,
		"id": c.id, "event_type": c.typ, "source": c.source, "partition_key": c.partitionKey, "key_hash": c.keyHash,
		"table_schema": c.schema, "table_name": c.table, "attempts": c.attempts, "max_retries": c.maxRetries,
		"last_error": c.lastError, "failures": c.failures, "kind": c.kind, "content": c.content,
	}
}
