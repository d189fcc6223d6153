package relay

import (
	"strings"

	"github.com/walrelay/walrelay/event"
)

// maxRecent is how many of the last events of partitioned tables are known by their ids, in
// some 5 MB.
const maxRecent = 50_000

// recent knows the last events of partitioned tables that were read in this session. An
// UPDATE that moves a row to another partition arrives as an insert with nothing in it that
// tells it from one (Postgres manual, CREATE PUBLICATION): it is known by the table and id
// of a row that was read before. It must be of one session: the next one reads again what
// was not settled. Nil knows nothing. For one goroutine.
type recent struct {
	partitioned map[tableName]bool
	seen        map[seenRow]struct{}
	order       []seenRow
	next        int // in order, once that is full
}

type tableName struct{ schema, name string }

type seenRow struct {
	tableName

	id string
}

// newRecent returns nil if no table is partitioned.
func newRecent(partitioned map[tableName]bool) *recent {
	if len(partitioned) == 0 {
		return nil
	}
	return &recent{partitioned: partitioned, seen: make(map[seenRow]struct{})}
}

// moved reports whether the row was read before, at another position, and notes it.
func (r *recent) moved(ev *event.Event) bool {
	if r == nil || ev.Delay != nil || ev.ID == "" || !r.partitioned[tableName{ev.Schema, ev.Table}] {
		return false
	}
	row := seenRow{tableName{ev.Schema, ev.Table}, ev.ID}
	if _, ok := r.seen[row]; ok {
		return true
	}
	row.id = strings.Clone(ev.ID) // or it would keep the memory of others alive
	if len(r.order) < maxRecent {
		r.order = append(r.order, row)
	} else {
		delete(r.seen, r.order[r.next])
		r.order[r.next] = row
		r.next = (r.next + 1) % maxRecent
	}
	r.seen[row] = struct{}{}
	return false
}
