package router

// window has the flights under way, numbered without gaps: flight n is at n modulo its size. Not safe for concurrent
// use.
type window struct {
	ring  []flight
	base  uint64 // the first unsettled flight
	next  uint64 // the number of the next flight
	bytes int    // the sizes of the flights between
}

// at returns the place of flight n.
func (w *window) at(n uint64) *flight { return &w.ring[n%uint64(len(w.ring))] }

// push adds a flight, for which there must be room, and returns its number.
func (w *window) push(f flight) uint64 {
	n := w.next
	*w.at(n) = f
	w.next++
	w.bytes += f.size
	return n
}

// hasKey reports whether an event of a key is under way.
func (w *window) hasKey(key string) bool {
	if key == "" {
		return false
	}
	for n := w.base; n < w.next; n++ {
		if w.at(n).ev.PartitionKey == key {
			return true
		}
	}
	return false
}

// pop takes the last flight out.
func (w *window) pop() {
	w.next--
	w.bytes -= w.at(w.next).size
	*w.at(w.next) = flight{}
}

// retain keeps the flights for which keep returns true, in their order, from the first number on. What it does not keep, keep
// has taken care of.
func (w *window) retain(keep func(n uint64, f *flight) bool) {
	end := w.base
	for n := w.base; n < w.next; n++ {
		f := w.at(n)
		if !keep(n, f) {
			continue
		}
		if n != end {
			*w.at(end) = *f
			*f = flight{}
		}
		end++
	}
	w.next = end
}
