package journal

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/walrelay/walrelay/event"
)

const someUUID = "5c5da8e6-6a8a-4d5c-9f0f-2f5f8ab5ad35"

func journalled(lsn uint64, index uint32, table, id string) Entry {
	return Entry{Position: event.Position{CommitLSN: lsn, Index: index}, Schema: "public", Table: table, ID: id}
}

func addEntry(j *Buffer, e Entry) {
	j.Add(&event.Event{Position: e.Position, Schema: e.Schema, Table: e.Table, ID: e.ID})
}

func readPage(p Page) (entries []Entry, err error) {
	r := p.Read()
	for {
		e, ok, err := r.Next()
		if err != nil || !ok {
			return entries, err
		}
		entries = append(entries, e)
	}
}

func TestJournalReadsBackWhatItWasGiven(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]Entry{
		"one event":             {journalled(0x16B3748, 0, "outbox", someUUID)},
		"one transaction":       {journalled(9, 0, "outbox", someUUID), journalled(9, 1, "outbox", someUUID), journalled(9, 700, "outbox", someUUID)},
		"several transactions":  {journalled(9, 5, "outbox", someUUID), journalled(10, 0, "outbox", someUUID), journalled(1<<40, 3, "outbox", someUUID)},
		"the ends of positions": {journalled(0, 0, "outbox", someUUID), journalled(math.MaxUint64, math.MaxUint32, "outbox", someUUID)},
		"tables in turns": {
			journalled(1, 0, "outbox", someUUID), journalled(1, 1, "audit", someUUID),
			journalled(1, 2, "outbox", someUUID), journalled(2, 0, "audit", someUUID), journalled(3, 0, "audit", someUUID),
		},
		"ids that are no UUIDs": {
			journalled(1, 0, "outbox", ""), journalled(1, 1, "outbox", "42"), journalled(1, 2, "outbox", strings.ToUpper(someUUID)),
			journalled(1, 3, "outbox", strings.ReplaceAll(someUUID, "-", "a")), journalled(1, 4, "outbox", someUUID+" "),
			journalled(1, 5, "outbox", someUUID[:35]+"g"), journalled(1, 6, "outbox", "é\x00"), journalled(1, 7, "outbox", strings.Repeat("x", 300)),
		},
		"names that are odd": {journalled(1, 0, "", someUUID), journalled(1, 1, "ä\".b", someUUID)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &Buffer{stream: "EVENTS", filling: func() {}}
			for _, e := range entries {
				addEntry(j, e)
			}
			pages := j.Pages()
			if len(pages) != 1 {
				t.Fatalf("%d events in order make %d pages, want 1", len(entries), len(pages))
			}
			p := pages[0]
			if p.Stream != "EVENTS" || p.Events != len(entries) || p.First != entries[0].Position || p.Last != entries[len(entries)-1].Position {
				t.Errorf("the page says that it has %d events of stream %q from %s to %s", p.Events, p.Stream, p.First, p.Last)
			}
			if got, err := readPage(p); err != nil || !slices.Equal(got, entries) {
				t.Errorf("it reads as %v, %v\nwant %v", got, err, entries)
			}
		})
	}
}

func TestBuffer_NewPageWherePositionsGoBack(t *testing.T) {
	t.Parallel()
	j := &Buffer{stream: "EVENTS", filling: func() {}}
	var want [][]Entry
	for _, page := range [][]uint64{{1, 2, 5}, {3, 4}, {4}, {4, 6}} {
		var entries []Entry
		for _, lsn := range page {
			entries = append(entries, journalled(lsn, 0, "outbox", someUUID))
			addEntry(j, entries[len(entries)-1])
		}
		want = append(want, entries)
	}
	pages := j.Pages()
	if len(pages) != len(want) {
		t.Fatalf("there are %d pages, want %d", len(pages), len(want))
	}
	for i, p := range pages {
		if got, err := readPage(p); err != nil || !slices.Equal(got, want[i]) {
			t.Errorf("page %d reads as %v, %v; want %v", i, got, err, want[i])
		}
	}
}

func TestBuffer_NewPageForTooManyTables(t *testing.T) {
	t.Parallel()
	j := &Buffer{stream: "EVENTS", filling: func() {}}
	for i := range 3 * maxTables {
		addEntry(j, journalled(uint64(i+1), 0, fmt.Sprint("t", i), someUUID))
	}
	n := 0
	for _, p := range j.Pages() {
		entries, err := readPage(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if want := fmt.Sprint("t", n); e.Table != want {
				t.Fatalf("event %d is of table %q, want %q", n, e.Table, want)
			}
			n++
		}
	}
	if n != 3*maxTables {
		t.Errorf("%d events read back, want %d", n, 3*maxTables)
	}
}

// What is not written down stays, and what was may be overwritten.
func TestJournalForgetsOnlyWhatIsSaved(t *testing.T) {
	t.Parallel()
	j := &Buffer{stream: "EVENTS", filling: func() {}}
	addEntry(j, journalled(1, 0, "outbox", someUUID))
	first := len(j.Pages()) // a save that fails
	addEntry(j, journalled(2, 0, "outbox", someUUID))
	if n := len(j.Pages()); n != 2 {
		t.Fatalf("after a save that failed there are %d pages, want both", n)
	}
	addEntry(j, journalled(3, 0, "audit", "42"))
	j.Saved(first)
	addEntry(j, journalled(4, 0, "audit", "42"))
	var got []uint64
	for _, p := range j.Pages() {
		entries, err := readPage(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got = append(got, e.Position.CommitLSN)
		}
	}
	if want := []uint64{2, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("what is left are events %v, want %v", got, want)
	}
	j.Saved(len(j.Pages()))
	if j.bytes != 0 || len(j.Pages()) != 0 {
		t.Errorf("after everything was saved, %d bytes and %d pages are left", j.bytes, len(j.Pages()))
	}
}

func TestBuffer_FillsUp(t *testing.T) {
	t.Parallel()
	asked := 0
	j := &Buffer{stream: "EVENTS", filling: func() { asked++ }}
	n := uint64(0)
	for ; j.HasRoom(); n++ {
		if n > limit {
			t.Fatal("the journal has no limit")
		}
		addEntry(j, journalled(n, 0, "outbox", someUUID))
		if asked > 0 && j.bytes < limit/2 {
			t.Fatalf("it asked to be saved with %d bytes", j.bytes)
		}
	}
	if asked != 1 {
		t.Errorf("it asked %d times to be saved, want once", asked)
	}
	if perEvent := float64(j.bytes) / float64(n); perEvent > 21 {
		t.Errorf("an event takes %.1f bytes, want about 20", perEvent)
	}
	j.Saved(len(j.Pages()))
	if !j.HasRoom() {
		t.Error("it has no room although everything is saved")
	}
}

func TestJournalPageThatIsDamagedIsRefused(t *testing.T) {
	t.Parallel()
	j := &Buffer{stream: "EVENTS", filling: func() {}}
	for i := range uint32(3) {
		addEntry(j, journalled(7, i, "outbox", someUUID))
	}
	good := j.Pages()[0]
	for name, damage := range map[string]func(p *Page){
		"empty":            func(p *Page) { p.Entries = nil },
		"another version":  func(p *Page) { p.Entries[0] = 9 },
		"unknown flags":    func(p *Page) { p.Entries[1] |= 0x80 },
		"cut off":          func(p *Page) { p.Entries = p.Entries[:len(p.Entries)-1] },
		"an entry missing": func(p *Page) { p.Events++ },
		"an entry more":    func(p *Page) { p.Events-- },
		"another end":      func(p *Page) { p.Last.Index++ },
		"another start":    func(p *Page) { p.First.CommitLSN++ },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := good
			p.Entries = slices.Clone(good.Entries)
			damage(&p)
			if entries, err := readPage(p); err == nil {
				t.Errorf("it reads as %v, want an error", entries)
			}
		})
	}
}

func FuzzJournalPage(f *testing.F) {
	j := &Buffer{stream: "EVENTS", filling: func() {}}
	for i := range uint32(5) {
		addEntry(j, journalled(7+uint64(i/2), i, fmt.Sprint("t", i%2), []string{someUUID, "42"}[i%2]))
	}
	p := j.Pages()[0]
	f.Add(p.First.CommitLSN, p.First.Index, p.Last.CommitLSN, p.Last.Index, p.Events, p.Entries)
	f.Fuzz(func(t *testing.T, firstLSN uint64, firstIndex uint32, lastLSN uint64, lastIndex uint32, events int, b []byte) {
		p := Page{
			First:  event.Position{CommitLSN: firstLSN, Index: firstIndex},
			Last:   event.Position{CommitLSN: lastLSN, Index: lastIndex},
			Events: events, Entries: b,
		}
		entries, err := readPage(p)
		if err != nil {
			return
		}
		if len(entries) != events {
			t.Fatalf("%d entries were read of %d", len(entries), events)
		}
		// What can be read can be written, and reads as the same.
		again := &Buffer{filling: func() {}}
		for _, e := range entries {
			addEntry(again, e)
		}
		var got []Entry
		for _, p := range again.Pages() {
			part, err := readPage(p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
		}
		if !slices.Equal(got, entries) {
			t.Fatalf("written again, it reads as %v, want %v", got, entries)
		}
	})
}

func BenchmarkJournal(b *testing.B) {
	j := &Buffer{stream: "EVENTS", filling: func() {}}
	ev := &event.Event{Schema: "public", Table: "outbox", ID: someUUID}
	b.ReportAllocs()
	bytes := 0
	for n := range b.N {
		ev.Position = event.Position{CommitLSN: 0x16B3748 + uint64(n)*150}
		j.Add(ev)
		if n%100_000 == 99_999 {
			bytes += j.bytes
			j.Saved(len(j.Pages()))
		}
	}
	b.ReportMetric(float64(bytes+j.bytes)/float64(b.N), "bytes/event")
}
