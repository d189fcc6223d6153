package router

import (
	"fmt"
	"testing"
)

func TestWindow(t *testing.T) {
	t.Parallel()
	w := window{ring: make([]flight, 4)}
	tickets := func() (all string) {
		for n := w.base; n < w.next; n++ {
			all += fmt.Sprint(w.at(n).ticket, " ")
		}
		return fmt.Sprint(all, w.bytes)
	}
	want := func(step, want string) {
		t.Helper()
		if got := tickets(); got != want {
			t.Errorf("%s: the window has %q, want %q", step, got, want)
		}
	}
	for i := range uint64(4) {
		if n := w.push(flight{ticket: i, size: 10}); n != i {
			t.Errorf("flight %d has number %d", i, n)
		}
	}
	want("filled", "0 1 2 3 40")
	w.pop()
	want("the last one taken out", "0 1 2 30")
	// The first two are settled, and the ring goes round.
	for range 2 {
		w.bytes -= w.at(w.base).size
		*w.at(w.base) = flight{}
		w.base++
	}
	for i := uint64(4); i < 7; i++ {
		w.push(flight{ticket: i, size: 10})
	}
	want("gone round", "2 4 5 6 40")
	w.retain(func(n uint64, f *flight) bool {
		if f.ticket%2 == 0 && n != w.base {
			w.bytes -= f.size
			*f = flight{}
			return false
		}
		return true
	})
	want("some retained", "2 5 20")
	for n := w.next; n < w.base+4; n++ {
		if f := w.at(n); f.ticket != 0 || f.size != 0 {
			t.Errorf("place %d still has flight %+v", n, *f)
		}
	}
}
