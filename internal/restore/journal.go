package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/sql"
)

// journalReader reads the journal of a stream in the order of positions, each
// event once, with no more than a few pages in memory. Pages overlap where a
// session went over what another had written down before.
type journalReader struct {
	conn         *pgx.Conn
	slot, stream string
	// after and before bound what is read: positions after the one, of
	// transactions that commit before the other.
	after  event.Position
	before replication.LSN

	open  []*journalPage // those that are being read
	ahead *journalPage   // the next one; nil after the last
	begun bool
}

// journalPage is a page of the table that is being read.
type journalPage struct {
	journal.Page

	id        int64
	first     string
	writtenAt time.Time
	entries   *journal.Reader
	entry     journal.Entry // the next one
}

// journalled is an entry, and when it was written down.
type journalled struct {
	journal.Entry

	writtenAt time.Time
	// together says that events of its transaction stand beside it.
	together bool
}

// next returns the next entry, and false after the last one.
func (j *journalReader) next(ctx context.Context) (entry journalled, ok bool, err error) {
	if !j.begun {
		j.begun = true
		if err := j.fetch(ctx, &journalPage{id: -1}); err != nil {
			return journalled{}, false, err
		}
	}
	for {
		lowest := j.lowest()
		for j.ahead != nil && (lowest == nil || j.ahead.First.Compare(lowest.entry.Position) <= 0) {
			page := j.ahead
			if err := j.fetch(ctx, page); err != nil {
				return journalled{}, false, err
			}
			if err := j.advance(page); err != nil {
				return journalled{}, false, err
			}
			lowest = j.lowest()
		}
		if lowest == nil {
			return journalled{}, false, nil
		}
		entry := journalled{Entry: lowest.entry, writtenAt: lowest.writtenAt}
		if replication.LSN(entry.Position.CommitLSN) >= j.before {
			return journalled{}, false, nil
		}
		if err := j.advance(lowest); err != nil {
			return journalled{}, false, err
		}
		if entry.Position.Compare(j.after) > 0 {
			j.after = entry.Position
			return entry, true, nil
		}
	}
}

// lowest returns the open page whose next entry comes first.
func (j *journalReader) lowest() *journalPage {
	var lowest *journalPage
	for _, page := range j.open {
		if lowest == nil || page.entry.Position.Compare(lowest.entry.Position) < 0 {
			lowest = page
		}
	}
	return lowest
}

// advance goes to the next entry of a page, which is open until its last.
func (j *journalReader) advance(page *journalPage) error {
	if page.entries == nil {
		page.entries = page.Read()
		j.open = append(j.open, page)
	}
	entry, ok, err := page.entries.Next()
	if err != nil {
		return err
	}
	if !ok {
		j.open = slices.DeleteFunc(j.open, func(p *journalPage) bool { return p == page })
	}
	page.entry = entry
	return nil
}

// fetch reads the page that follows another one.
func (j *journalReader) fetch(ctx context.Context, page *journalPage) error {
	next := &journalPage{}
	next.Stream = j.stream
	var last string
	err := j.conn.QueryRow(ctx, sql.JournalNext, j.slot, j.stream, page.first, page.id, j.after.String()).
		Scan(&next.id, &next.first, &last, &next.Events, &next.writtenAt, &next.Entries)
	if errors.Is(err, pgx.ErrNoRows) {
		j.ahead = nil
		return nil
	}
	if err == nil {
		next.First, err = event.ParsePosition(next.first)
	}
	if err == nil {
		next.Last, err = event.ParsePosition(last)
	}
	if err != nil {
		return fmt.Errorf("reading walrelay.journal: %w", err)
	}
	j.ahead = next
	return nil
}
