package decode

import "github.com/walrelay/walrelay/event"

const (
	// slabEvents is how many events are allocated at once, and slabBytes how
	// much for what they keep. An event keeps its slabs alive, so they are
	// small beside the windows.
	slabEvents = 16
	slabBytes  = 8 << 10
	// slabRow is the size from which on a row has memory of its own.
	slabRow = slabBytes / 8
)

// slab hands out memory for events, for many at a time. What was handed out is
// never used again. The zero value is ready.
type slab struct {
	events []event.Event
	bytes  []byte
}

// take returns a zero event, and an empty buffer of the capacity.
func (s *slab) take(capacity int) (*event.Event, []byte) {
	if capacity > slabRow {
		// Or a small event would keep the large ones of its slab alive.
		return new(event.Event), make([]byte, 0, capacity)
	}
	if len(s.events) == 0 {
		s.events = make([]event.Event, slabEvents)
	}
	ev := &s.events[0]
	s.events = s.events[1:]
	if len(s.bytes) < capacity {
		s.bytes = make([]byte, slabBytes)
	}
	buf := s.bytes[:0:capacity]
	s.bytes = s.bytes[capacity:]
	return ev, buf
}
