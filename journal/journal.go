// Package journal packs which events a stream has got, in the order of the
// stream, and where the row of each is: so that what the stream loses can be
// published again, and published rows can be cleaned up by evidence. The rows
// themselves have no order: their ids are random, and transactions do not commit in
// the order in which they began.
//
// Input: events, as they are settled. Output: pages of bounded size; and the
// entries of a page. The package saves nothing itself, and must not import
// databases or NATS.
package journal

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/walrelay/walrelay/event"
)

// Page is a part of a stream's journal, in the order of positions.
type Page struct {
	Stream      string
	First, Last event.Position
	Events      int
	// Entries is read with [Page.Read].
	Entries []byte
}

// Streams of pages whose events no stream has got, and which are settled all the same: a
// route drops them, or they are duplicates. No stream has these names.
const (
	Dropped    = ""
	Duplicates = ".duplicates"
)

// IDs returns table and id of each event of a page that is no stream's, with a space between
// them; nil of any other.
func (p *Page) IDs() ([]string, error) {
	if p.Stream != Dropped && p.Stream != Duplicates {
		return nil, nil
	}
	var ids []string
	for reader := p.Read(); ; {
		e, ok, err := reader.Next()
		if err != nil || !ok {
			return ids, err
		}
		ids = append(ids, e.Schema+"."+e.Table+" "+e.ID)
	}
}

// Entry names an event that the stream has got.
type Entry struct {
	Position event.Position
	// Schema and Table are those of the event.
	Schema, Table string
	ID            string
}

// limit is how many bytes of entries, near enough, may wait to be written
// down: some 200 000 events. At half of it, saving is asked for; when it is
// reached, the window has no room.
const limit = 4 << 20

// A page begins with its version. An entry is a byte of flags and then, as they
// say: the distance to the position before (of the commit LSN, and the index; or
// of the index alone, in the same transaction), the number of the table (and its
// name, the first time), and the id. Numbers are unsigned varints.
const (
	version = 1

	flagTransaction = 1 << 0 // another transaction than that of the entry before
	flagTable       = 1 << 1 // another table
	flagUUID        = 1 << 2 // the id is a UUID, in 16 bytes; otherwise its length and text
	knownFlags      = flagTransaction | flagTable | flagUUID

	// maxTables bounds the tables of a page, which are searched one by one.
	maxTables = 64
)

// Buffer is the part of a stream's journal that is not saved yet. Nil keeps no
// journal. Not safe for concurrent use.
type Buffer struct {
	stream string
	// filling is called when half of the limit is reached. It must not block.
	filling func()

	sealed []Page      // in the order in which they were begun
	page   Page        // the one that grows; empty without entries
	tables []tableName // of that page
	table  int         // of its last entry
	spare  []byte      // of a page that was saved
	bytes  int
	called bool
}

type tableName struct{ schema, table string }

// NewBuffer returns an empty buffer. filling is called when it is half full, and
// must not block.
func NewBuffer(stream string, filling func()) *Buffer {
	return &Buffer{stream: stream, filling: filling}
}

// Add appends an event. It keeps nothing of the event's memory.
func (j *Buffer) Add(ev *event.Event) {
	if j == nil {
		return
	}
	table := j.find(ev)
	if j.page.Events > 0 && (j.page.Last.Compare(ev.Position) >= 0 || table == maxTables) {
		j.seal()
		table = 0
	}
	before := len(j.page.Entries)
	if j.page.Events == 0 {
		j.page = Page{Stream: j.stream, First: ev.Position, Entries: append(j.spare[:0], version)}
		j.spare, j.tables, j.table = nil, j.tables[:0], -1
		before, table = 0, 0
	}
	j.append(ev, table)
	j.page.Last, j.table = ev.Position, table
	j.page.Events++
	j.bytes += len(j.page.Entries) - before
	if j.bytes >= limit/2 && !j.called {
		j.called = true
		j.filling()
	}
}

// find returns the number of the event's table in the page; one more than there
// are if it is new.
func (j *Buffer) find(ev *event.Event) int {
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

func (j *Buffer) append(ev *event.Event, table int) {
	b := append(j.page.Entries, 0) //nolint:gocritic // grows, and is put back
	flags := len(b) - 1
	last := j.page.Last
	if ev.Position.CommitLSN != last.CommitLSN || j.page.Events == 0 {
		b[flags] |= flagTransaction
		b = binary.AppendUvarint(b, ev.Position.CommitLSN-last.CommitLSN)
		b = binary.AppendUvarint(b, uint64(ev.Position.Index))
	} else {
		b = binary.AppendUvarint(b, uint64(ev.Position.Index-last.Index))
	}
	if table != j.table {
		b[flags] |= flagTable
		b = binary.AppendUvarint(b, uint64(table))
		if table == len(j.tables) {
			name := tableName{strings.Clone(ev.Schema), strings.Clone(ev.Table)}
			j.tables = append(j.tables, name)
			b = appendText(appendText(b, name.schema), name.table)
		}
	}
	if packed, ok := packUUID(b, ev.ID); ok {
		b = packed
		b[flags] |= flagUUID
	} else {
		b = appendText(b, ev.ID)
	}
	j.page.Entries = b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// seal ends the page that grows.
func (j *Buffer) seal() {
	if j.page.Events > 0 {
		j.sealed = append(j.sealed, j.page)
	}
	j.page = Page{}
}

// HasRoom reports whether another event may be taken.
func (j *Buffer) HasRoom() bool { return j == nil || j.bytes < limit }

// Pages returns everything that is not saved.
func (j *Buffer) Pages() []Page {
	if j == nil {
		return nil
	}
	j.seal()
	return j.sealed
}

// Saved says that the first n pages are saved.
func (j *Buffer) Saved(n int) {
	if n == 0 {
		return
	}
	for i := range j.sealed[:n] {
		j.bytes -= len(j.sealed[i].Entries)
	}
	j.spare = j.sealed[n-1].Entries[:0]
	j.sealed = append([]Page(nil), j.sealed[n:]...)
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
func (p *Page) Read() *Reader {
	return &Reader{page: p, rest: p.Entries, begun: false}
}

// Reader reads the entries of a page one by one.
type Reader struct {
	page   *Page
	rest   []byte
	begun  bool
	tables []tableName
	entry  Entry
	read   int
}

var errEnd = errors.New("it ends in the middle of an entry")

// Next reads the next entry. It returns false after the last one.
func (r *Reader) Next() (entry Entry, ok bool, err error) {
	if err := r.next(); err != nil {
		return Entry{}, false, fmt.Errorf("the journal of stream %q, page from %s: entry %d: %w", r.page.Stream, r.page.First, r.read+1, err)
	}
	if r.read == r.page.Events && r.rest == nil {
		return Entry{}, false, nil
	}
	r.read++
	return r.entry, true, nil
}

// next reads an entry; at the end, it makes rest nil.
func (r *Reader) next() error {
	if !r.begun {
		if len(r.rest) == 0 || r.rest[0] != version {
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
	if flags&^knownFlags != 0 {
		return fmt.Errorf("flags %#x are not known", flags)
	}
	if err := r.position(flags); err != nil {
		return err
	}
	if err := r.table(flags); err != nil {
		return err
	}
	if flags&flagUUID != 0 {
		if len(r.rest) < 16 {
			return errEnd
		}
		r.entry.ID, r.rest = unpackUUID(r.rest), r.rest[16:]
		return nil
	}
	var err error
	r.entry.ID, err = r.text()
	return err
}

func (r *Reader) position(flags byte) error {
	last := r.entry.Position
	next := last
	distance, err := r.number()
	if err != nil {
		return err
	}
	index := distance
	if flags&flagTransaction != 0 {
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

func (r *Reader) table(flags byte) error {
	if flags&flagTable == 0 {
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

func (r *Reader) number() (uint64, error) {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		return 0, errEnd
	}
	r.rest = r.rest[size:]
	return n, nil
}

func (r *Reader) text() (string, error) {
	n, err := r.number()
	if err != nil {
		return "", err
	}
	if n > uint64(len(r.rest)) {
		return "", errEnd
	}
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text, nil
}

// Filling reports whether the buffer is half full or more, and Empty whether
// there is nothing in it.
func (j *Buffer) Filling() bool { return j != nil && j.bytes >= limit/2 }

// Empty is described with [Buffer.Filling].
func (j *Buffer) Empty() bool { return j == nil || j.bytes == 0 }
