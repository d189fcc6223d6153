// Package pace makes a reader wait a moment before it reads, while much comes.
//
// In comes how much was read; out goes how long to wait. It waits for nothing
// itself, and does not know what is read.
//
// A server that writes each message by itself wakes a reader that takes each as
// it comes for every single one, which costs both of them more than all else
// that they do with a message. A reader that comes back a moment later finds
// many. While little comes, it waits for nothing.
package pace

import "time"

const (
	// Pause is how long a reader leaves the server alone, while much comes.
	Pause = 2 * time.Millisecond
	// Interval is over how long is counted for that: long enough that what a
	// few transactions bring that commit together is not much.
	Interval = 10 * time.Millisecond
)

// Pace is that of one reader. Not safe for concurrent use.
type Pace struct {
	// Much is how much in an Interval is much, in whatever unit Count counts.
	Much int

	// Late says that what is read is old already: then waiting costs nothing.
	Late bool

	counted int // in this interval
	since   time.Time
	busy    bool
	last    time.Time // when the last read began
}

// Count says that so much was read.
func (p *Pace) Count(n int) { p.counted += n }

// Next returns how long to wait before the next read, which is about to begin:
// what is left of the pause since the last one began.
func (p *Pace) Next(now time.Time) time.Duration {
	if elapsed := now.Sub(p.since); elapsed >= Interval {
		p.busy = float64(p.counted)*float64(Interval) >= float64(p.Much)*float64(elapsed)
		p.counted, p.since = 0, now
	}
	var wait time.Duration
	if p.busy || p.Late {
		wait = max(0, Pause-now.Sub(p.last))
	}
	p.last = now.Add(wait)
	return wait
}
