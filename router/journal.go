package router

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/walrelay/walrelay/event"
)

// The journal says, in the order of the stream, which events an owned stream has
// got and where the row of each is, so that what the stream loses can be
// published again. The rows themselves have no order: their ids are random, and
// transactions do not commit in the order in which they began.

// JournalPage is a part of a stream's journal, in the order of positions.
type JournalPage struct {
	Stream      string
	First, Last event.Position
	Events      int
	// Entries is read with [JournalPage.Read].
	Entries []byte
}

// JournalEntry names an event that the stream has got.
type JournalEntry struct {
	Position event.Position
	// Schema and Table are those of the event.
	Schema, Table string
	ID            string
}

// journalLimit is how many bytes of entries, near enough, may wait to be written
// down: some 200 000 events. At half of it, saving is asked for; when it is
// reached, the window has no room.
const journalLimit = 4 << 20

// A page begins with its version. An entry is a byte of flags and then, as they
// say: the distance to the position before (of the commit LSN, and the index; or
// of the index alone, in the same transaction), the number of the table (and its
// name, the first time), and the id. Numbers are unsigned varints.
const (
	journalVersion = 1

	journalTransaction = 1 << 0 // another transaction than that of the entry before
	journalTable       = 1 << 1 // another table
	journalUUID        = 1 << 2 // the id is a UUID, in 16 bytes; otherwise its length and text
	journalFlags       = journalTransaction | journalTable | journalUUID

	// maxJournalTables bounds the tables of a page, which are searched one by one.
	maxJournalTables = 64
)

// journal is the part of a stream's journal that is not written down yet. The
// writer that it belongs to guards it. Nil keeps no journal.
type journal struct {
	stream string
	// filling is called when half of the limit is reached. It must not block.
	filling func()

	sealed []JournalPage // in the order in which they were begun
	page   JournalPage   // the one that grows; empty without entries
	tables []tableName   // of that page
	table  int           // of its last entry
	spare  []byte        // of a page that was written down
	bytes  int
	called bool
}

type tableName struct{ schema, table string }

// add appends an event. It keeps nothing of the event's memory.
func (j *journal) add(ev *event.Event) {
	if j == nil {
		return
	}
	table := j.find(ev)
	if j.page.Events > 0 && (j.page.Last.Compare(ev.Position) >= 0 || table == maxJournalTables) {
		j.seal()
		table = 0
	}
	before := len(j.page.Entries)
	if j.page.Events == 0 {
		j.page = JournalPage{Stream: j.stream, First: ev.Position, Entries: append(j.spare[:0], journalVersion)}
		j.spare, j.tables, j.table = nil, j.tables[:0], -1
		before, table = 0, 0
	}
	j.append(ev, table)
	j.page.Last, j.table = ev.Position, table
	j.page.Events++
	j.bytes += len(j.page.Entries) - before
	if j.bytes >= journalLimit/2 && !j.called {
		j.called = true
		j.filling()
	}
}

// find returns the number of the event's table in the page; one more than there
// are if it is new.
func (j *journal) find(ev *event.Event) int {
	if last := j.table; j.page.Events > 0 && j.tables[last].table == ev.Table && j.tables[last].schema == ev.Schema {
		return last
	}
	for i := range j.tables {
		if j.tables[i].table == ev.Table && j.tables[i].schema == ev.Schema {
			return i
		}
	}
	return len(j.tables)
}

func (j *journal) append(ev *event.Event, table int) {
	b := append(j.page.Entries, 0) //nolint:gocritic // grows, and is put back
	flags := len(b) - 1
	last := j.page.Last
	if ev.Position.CommitLSN != last.CommitLSN || j.page.Events == 0 {
		b[flags] |= journalTransaction
		b = binary.AppendUvarint(b, ev.Position.CommitLSN-last.CommitLSN)
		b = binary.AppendUvarint(b, uint64(ev.Position.Index))
	} else {
		b = binary.AppendUvarint(b, uint64(ev.Position.Index-last.Index))
	}
	if table != j.table {
		b[flags] |= journalTable
		b = binary.AppendUvarint(b, uint64(table))
		if table == len(j.tables) {
			name := tableName{strings.Clone(ev.Schema), strings.Clone(ev.Table)}
			j.tables = append(j.tables, name)
			b = appendText(appendText(b, name.schema), name.table)
		}
	}
	if packed, ok := packUUID(b, ev.ID); ok {
		b = packed
		b[flags] |= journalUUID
	} else {
		b = appendText(b, ev.ID)
	}
	j.page.Entries = b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// seal ends the page that grows.
func (j *journal) seal() {
	if j.page.Events > 0 {
		j.sealed = append(j.sealed, j.page)
	}
	j.page = JournalPage{}
}

// hasRoom reports whether another event may be taken.
func (j *journal) hasRoom() bool { return j == nil || j.bytes < journalLimit }

// pages returns everything that is not written down.
func (j *journal) pages() []JournalPage {
	if j == nil {
		return nil
	}
	j.seal()
	return j.sealed
}

// saved says that the first n pages are written down.
func (j *journal) saved(n int) {
	if n == 0 {
		return
	}
	for i := range j.sealed[:n] {
		j.bytes -= len(j.sealed[i].Entries)
	}
	j.spare = j.sealed[n-1].Entries[:0]
	j.sealed = append([]JournalPage(nil), j.sealed[n:]...)
	j.called = false
}

// uuidLength is the length of the canonical text of a UUID.
const uuidLength = 36

// packUUID appends the 16 bytes of a UUID, if its text can be made of them again.
func packUUID(b []byte, id string) ([]byte, bool) {
	if len(id) != uuidLength || id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-' {
		return b, false
	}
	const digits = "0123456789abcdef"
	var packed [16]byte
	at := 0
	for i := range packed {
		if at == 8 || at == 13 || at == 18 || at == 23 {
			at++
		}
		// Without a branch for digits and letters, which no processor foresees.
		high, low := id[at], id[at+1]
		h, l := (high+9*(high>>6))&0xF, (low+9*(low>>6))&0xF
		if digits[h] != high || digits[l] != low {
			return b, false
		}
		packed[i] = h<<4 | l
		at += 2
	}
	return append(b, packed[:]...), true
}

func unpackUUID(b []byte) string {
	var text [uuidLength]byte
	hex.Encode(text[0:8], b[0:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:36], b[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// Read returns a reader of the page's entries.
func (p *JournalPage) Read() *JournalReader {
	return &JournalReader{page: p, rest: p.Entries, begun: false}
}

// JournalReader reads the entries of a page one by one.
type JournalReader struct {
	page   *JournalPage
	rest   []byte
	begun  bool
	tables []tableName
	entry  JournalEntry
	read   int
}

var errJournalEnd = errors.New("it ends in the middle of an entry")

// Next reads the next entry. It returns false after the last one.
func (r *JournalReader) Next() (entry JournalEntry, ok bool, err error) {
	if err := r.next(); err != nil {
		return JournalEntry{}, false, fmt.Errorf("the journal of stream %q, page from %s: entry %d: %w", r.page.Stream, r.page.First, r.read+1, err)
	}
	if r.read == r.page.Events && r.rest == nil {
		return JournalEntry{}, false, nil
	}
	r.read++
	return r.entry, true, nil
}

// next reads an entry; at the end, it makes rest nil.
func (r *JournalReader) next() error {
	if !r.begun {
		if len(r.rest) == 0 || r.rest[0] != journalVersion {
			return errors.New("it was written by another version")
		}
		r.begun, r.rest = true, r.rest[1:]
	}
	if len(r.rest) == 0 {
		if r.read != r.page.Events || r.entry.Position != r.page.Last {
			return fmt.Errorf("it ends at %s, and should have %d up to %s", r.entry.Position, r.page.Events, r.page.Last)
		}
		r.rest = nil
		return nil
	}
	flags := r.rest[0]
	r.rest = r.rest[1:]
	if flags&^journalFlags != 0 {
		return fmt.Errorf("flags %#x are not known", flags)
	}
	if err := r.position(flags); err != nil {
		return err
	}
	if err := r.table(flags); err != nil {
		return err
	}
	if flags&journalUUID != 0 {
		if len(r.rest) < 16 {
			return errJournalEnd
		}
		r.entry.ID, r.rest = unpackUUID(r.rest), r.rest[16:]
		return nil
	}
	var err error
	r.entry.ID, err = r.text()
	return err
}

func (r *JournalReader) position(flags byte) error {
	last := r.entry.Position
	next := last
	distance, err := r.number()
	if err != nil {
		return err
	}
	index := distance
	if flags&journalTransaction != 0 {
		if index, err = r.number(); err != nil {
			return err
		}
		next.CommitLSN += distance
		if next.CommitLSN < last.CommitLSN {
			return errJournalOrder
		}
	} else if index += uint64(last.Index); index < distance {
		return errJournalOrder
	}
	if index > math.MaxUint32 {
		return errJournalOrder
	}
	next.Index = uint32(index)
	if r.read > 0 && next.Compare(last) <= 0 || r.read == 0 && next != r.page.First {
		return errJournalOrder
	}
	r.entry.Position = next
	return nil
}

var errJournalOrder = errors.New("its position is not after that of the entry before")

func (r *JournalReader) table(flags byte) error {
	if flags&journalTable == 0 {
		if r.read == 0 {
			return errors.New("it has no table")
		}
		return nil
	}
	n, err := r.number()
	if err != nil {
		return err
	}
	switch {
	case n > uint64(len(r.tables)):
		return fmt.Errorf("it names table %d of %d", n, len(r.tables))
	case n == uint64(len(r.tables)):
		var name tableName
		if name.schema, err = r.text(); err != nil {
			return err
		}
		if name.table, err = r.text(); err != nil {
			return err
		}
		r.tables = append(r.tables, name)
	}
	r.entry.Schema, r.entry.Table = r.tables[n].schema, r.tables[n].table
	return nil
}

func (r *JournalReader) number() (uint64, error) {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		return 0, errJournalEnd
	}
	r.rest = r.rest[size:]
	return n, nil
}

func (r *JournalReader) text() (string, error) {
	n, err := r.number()
	if err != nil {
		return "", err
	}
	if n > uint64(len(r.rest)) {
		return "", errJournalEnd
	}
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text, nil
}

// Unsaved is what the journals have that is not written down yet.
type Unsaved struct {
	Pages []JournalPage
	of    []int // how many of each writer
}

// Unsaved returns what is to be written down. Until it is given back to Saved,
// it is returned again, with what has come meanwhile behind it. Taken after the
// frontier was read, it has every event before that.
func (r *Router) Unsaved() Unsaved {
	u := Unsaved{of: make([]int, len(r.ordered))}
	for i, w := range r.ordered {
		w.mu.Lock()
		pages := w.journal.pages()
		w.mu.Unlock()
		u.of[i] = len(pages)
		u.Pages = append(u.Pages, pages...)
	}
	return u
}

// Saved says that it is written down.
func (r *Router) Saved(u Unsaved) {
	for i, w := range r.ordered {
		w.mu.Lock()
		w.journal.saved(u.of[i])
		w.mu.Unlock()
		signal(w.space)
	}
}

// MustSave reports whether a journal is filling up, and HasUnsaved whether there
// is anything in one.
func (r *Router) MustSave() bool {
	return r.anyJournal(func(j *journal) bool { return j.bytes >= journalLimit/2 })
}

// HasUnsaved is described with [Router.MustSave].
func (r *Router) HasUnsaved() bool {
	return r.anyJournal(func(j *journal) bool { return j.bytes > 0 })
}

func (r *Router) anyJournal(is func(*journal) bool) bool {
	for _, w := range r.ordered {
		w.mu.Lock()
		yes := w.journal != nil && is(w.journal)
		w.mu.Unlock()
		if yes {
			return true
		}
	}
	return false
}
