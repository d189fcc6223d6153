package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"
	"time"
)

// story is everything that the check judges by.
type story struct {
	transactions []*transaction
	witness      []witnessed // in commit order
	stream       []stored    // in the order of the stream
	delayed      []delayed
	flushes      []flushed
	published    map[string]time.Time // when walrelay said so of an event
	peaks        map[string]int64     // of the relays' memory, in bytes
	memoryLimit  int64
	// reorders says that the stream is not the order of commits: events were
	// brought back after later ones.
	reorders bool
	// lost are the events of which a repair says that it cannot bring them back;
	// what was committed below repairedBelow may be stored again, and later.
	lost          map[string]string
	repairedBelow uint64
}

// early is by how much the clocks of Postgres and NATS, which are one, are
// allowed to differ: they are read at different moments.
const early = 5 * time.Millisecond

// violations says which promises were broken, and by which events; nothing if
// none was.
func (s *story) violations() []string {
	v := &verdict{story: s, expected: make(map[string]*expected), origin: make(map[string]int), storedAt: s.storedAt()}
	v.writers()
	v.stored()
	v.order()
	v.keys()
	v.frontier()
	v.status()
	v.table()
	for name, peak := range s.peaks {
		if peak > s.memoryLimit {
			v.say("P4: %s took %d MiB of memory, more than %d", name, peak>>20, s.memoryLimit>>20)
		}
	}
	return v.found()
}

// verdict collects violations.
type verdict struct {
	*story
	expected map[string]*expected
	origin   map[string]int // where an event was first witnessed
	storedAt map[string]time.Time
	counts   []count
}

// count is a kind of violation: the first examples, and how many there are.
type count struct {
	format   string
	examples []string
	n        int
}

// examples is how many events are named for each kind of violation.
const examples = 5

func (v *verdict) say(format string, args ...any) {
	i := slices.IndexFunc(v.counts, func(c count) bool { return c.format == format })
	if i < 0 {
		i = len(v.counts)
		v.counts = append(v.counts, count{format: format})
	}
	c := &v.counts[i]
	if c.n++; c.n <= examples {
		c.examples = append(c.examples, fmt.Sprintf(format, args...))
	}
}

func (v *verdict) found() []string {
	var all []string
	for _, c := range v.counts {
		all = append(all, c.examples...)
		if c.n > examples {
			all = append(all, fmt.Sprintf("… and %d more like the last", c.n-examples))
		}
	}
	return all
}

// writers compares what the writers were told with what Postgres has: neither
// may lie, or the rest says nothing.
func (v *verdict) writers() {
	for i, w := range v.witness {
		if _, seen := v.origin[w.id]; !seen && w.id != "" {
			v.origin[w.id] = i
		}
	}
	for _, t := range v.transactions {
		for _, e := range t.events {
			v.expected[e.id] = e
			_, seen := v.origin[e.id]
			switch {
			case t.outcome == committed && !seen:
				v.say("Postgres: event %s (%s) was committed, and is not in the write-ahead log", e.id, e.what)
			case t.outcome == rolledBack && seen:
				v.say("Postgres: event %s (%s) was rolled back, and is in the write-ahead log", e.id, e.what)
			}
		}
	}
}

// stored checks that every committed event is in the stream once, unless it is
// poison, and nothing else is.
func (v *verdict) stored() {
	times := make(map[string]int, len(v.stream))
	for _, m := range v.stream {
		times[m.id]++
		e := v.expected[m.id]
		switch {
		case e == nil:
			v.say("P1: message %d has event %s, which nobody wrote", m.sequence, m.id)
			continue
		case times[m.id] == 2:
			v.say("P2: event %s (%s) is stored twice, the second time with sequence %d", m.id, e.what, m.sequence)
		case e.kind == poison:
			v.say("P5: event %s (%s) cannot be published, and is stored with sequence %d", m.id, e.what, m.sequence)
		case e.kind == scheduled && m.at.Before(e.due.Add(-early)):
			v.say("P3: event %s (%s) is stored %s before its time", m.id, e.what, e.due.Sub(m.at))
		}
		if _, seen := v.origin[m.id]; !seen {
			v.say("P1: message %d has event %s (%s), which was never committed", m.sequence, m.id, e.what)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(v.origin), func(a, b string) int { return cmp.Compare(v.origin[a], v.origin[b]) }) {
		e := v.expected[id]
		why, given := v.lost[id]
		switch {
		case e == nil || e.kind == poison:
		case given && !e.rowless:
			v.say("P7: event %s (%s) has a row, and is not brought back: %s", id, e.what, why)
		case given && times[id] > 0:
			v.say("P7: event %s (%s) is stored, and was said to be lost: %s", id, e.what, why)
		case !given && times[id] == 0:
			v.say("P1: event %s (%s), key %q, committed at %s, is lost", id, e.what, e.key, v.witness[v.origin[id]].position)
		}
	}
}

// order checks that the stream has the order of the write-ahead log: that each
// message stands for an event that comes after that of the message before it.
// An event may be in the log more than once: each time that the delay table
// gave it back.
func (v *verdict) order() {
	if v.reorders {
		return
	}
	places := make(map[string][]int, len(v.witness))
	position := make(map[string]string, len(v.witness))
	for i, w := range v.witness {
		places[w.id] = append(places[w.id], i)
		position[w.position] = w.id
	}
	last, lastID := -1, ""
	for _, m := range v.stream {
		if at, ok := position[m.position]; m.position != "" && (!ok || at != m.id) {
			v.say("P3: message %d has event %s and says that it stands at %s, where Postgres has %q", m.sequence, m.id, m.position, at)
		}
		candidates := places[m.id]
		i := sort.SearchInts(candidates, last+1)
		if i == len(candidates) {
			if len(candidates) > 0 {
				v.say("P3: message %d has event %s, which was committed before event %s of the message before it", m.sequence, m.id, lastID)
			}
			continue
		}
		last, lastID = candidates[i], m.id
	}
}

// keys checks that the events of each key are in commit order, also across
// retries. Scheduled events hold nobody, and nobody holds them.
func (v *verdict) keys() {
	if v.reorders {
		return
	}
	last := make(map[string]*stored)
	for i := range v.stream {
		m := &v.stream[i]
		e := v.expected[m.id]
		if e == nil || e.key == "" || e.kind == scheduled {
			continue
		}
		if before := last[e.key]; before != nil && v.origin[before.id] > v.origin[m.id] {
			v.say("P3: event %s (%s) of key %q, committed at %s, stands at sequence %d, after event %s (%s), which was committed at %s and stands at %d",
				m.id, e.what, e.key, v.witness[v.origin[m.id]].position, m.sequence,
				before.id, v.expected[before.id].what, v.witness[v.origin[before.id]].position, before.sequence)
			continue
		}
		last[e.key] = m
	}
}

// storedAt says when each event was stored first.
func (s *story) storedAt() map[string]time.Time {
	at := make(map[string]time.Time, len(s.stream))
	for _, m := range s.stream {
		if _, seen := at[m.id]; !seen {
			at[m.id] = m.at
		}
	}
	return at
}

// status checks that no event was called published before it was stored.
func (v *verdict) status() {
	for _, id := range slices.Sorted(maps.Keys(v.published)) {
		e, said := v.expected[id], v.published[id]
		i, seen := v.origin[id]
		if e == nil || !seen || v.witness[i].end <= v.repairedBelow {
			continue
		}
		switch t, ok := v.storedAt[id]; {
		case !ok:
			v.say("status: event %s (%s) was said to be published, and is not stored", id, e.what)
		case t.After(said.Add(early)):
			v.say("status: event %s (%s) was said to be published %s before it was stored", id, e.what, t.Sub(said))
		}
	}
}

// frontier checks that the slot never confirmed a transaction before its events
// were stored. Those that go to the delay table are judged by the rest.
func (v *verdict) frontier() {
	type storedBy struct {
		end uint64
		at  time.Time
		id  string
	}
	var latest []storedBy // when everything up to end was stored
	for _, w := range v.witness {
		e := v.expected[w.id]
		if e == nil || e.kind != plain || e.key != "" || w.back || w.end <= v.repairedBelow {
			continue
		}
		t, ok := v.storedAt[w.id]
		if !ok {
			t = time.Now().Add(time.Hour) // never
		}
		next := storedBy{w.end, t, w.id}
		if n := len(latest); n > 0 && latest[n-1].at.After(t) {
			next.at, next.id = latest[n-1].at, latest[n-1].id
		}
		latest = append(latest, next)
	}
	for _, f := range v.flushes {
		n := sort.Search(len(latest), func(i int) bool { return latest[i].end > f.lsn })
		if n > 0 && latest[n-1].at.After(f.at.Add(early)) {
			v.say("P1: the slot had confirmed %X/%X %s before event %s was stored", f.lsn>>32, uint32(f.lsn), latest[n-1].at.Sub(f.at), latest[n-1].id)
		}
	}
}

// table checks that the delay table has what cannot be published, failed, and
// nothing else; and that it never had what only an outage kept back.
func (v *verdict) table() {
	failed := make(map[string]bool)
	for _, d := range v.delayed {
		e := v.expected[d.id]
		switch {
		case d.state == "discarded":
		case e == nil:
			// A row that cannot become an event may have no id.
		case e.kind == poison && d.state == "failed":
			failed[d.id] = true
			if d.lastError == "" {
				v.say("P5: event %s (%s) has failed without saying why", d.id, e.what)
			}
		default:
			v.say("P5: event %s (%s) is in the delay table as %s: %s", d.id, e.what, d.state, d.lastError)
		}
	}
	for id := range v.origin {
		if e := v.expected[id]; e != nil && e.kind == poison && !failed[id] {
			v.say("P1: event %s (%s) is neither stored nor has it failed", id, e.what)
		}
	}
	for _, w := range v.witness {
		if e := v.expected[w.id]; w.back && w.attempts > 0 && e != nil && e.kind < patient {
			v.say("P5: event %s (%s) was tried again %d times, although nothing is wrong with it", w.id, e.what, w.attempts)
		}
	}
}

// write writes everything down that was committed, in order, and what became of
// it: what a person needs to find out why.
func (s *story) write(path string) error {
	v := &verdict{story: s, expected: make(map[string]*expected), origin: make(map[string]int)}
	v.writers()
	sequences := make(map[string][]uint64)
	for _, m := range s.stream {
		sequences[m.id] = append(sequences[m.id], m.sequence)
	}
	states := make(map[string]string)
	for _, d := range s.delayed {
		states[d.id] = d.state
	}
	var b strings.Builder
	for _, w := range s.witness {
		what, key := "", ""
		if e := v.expected[w.id]; e != nil {
			what, key = e.what, e.key
		}
		if w.back {
			what = fmt.Sprintf("given back, released=%t, after %d attempts: %s", w.released, w.attempts, what)
		}
		fmt.Fprintf(&b, "%s %-36s key=%-6s stored=%v %s %s%s\n", w.position, w.id, key, sequences[w.id], states[w.id], what, w.marker)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing the story: %w", err)
	}
	return nil
}
