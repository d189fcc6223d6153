package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/walrelay/walrelay/internal/telemetry"
)

const (
	// every is how often the charts get a point, and history how many of them a new page has:
	// half an hour.
	every   = 2 * time.Second
	history = 900
	// boardEvery is how often those who watch get the rest of the page anew.
	boardEvery = 4 * time.Second
	// maxWatchers is how many pages are kept up to date at a time: each takes a connection.
	maxWatchers = 16
	// watchPatience bounds one write to a page.
	watchPatience = 5 * time.Second
)

// point is what the charts show of a moment. Latencies are in milliseconds; nil if nothing was
// published.
type point struct {
	At     int64    `json:"t"` // Unix seconds
	Rate   float64  `json:"rate"`
	Lag    float64  `json:"lag"`
	Median *float64 `json:"p50"`
	High   *float64 `json:"p99"`
}

// live keeps what the charts show, and tells those who watch. Safe for concurrent use.
type live struct {
	source Source
	board  func(context.Context) (string, error)

	mu       sync.Mutex
	points   []point
	text     string        // of the board
	changed  chan struct{} // closed when there is something new
	boards   int           // counts them
	watchers int
	ended    bool
}

func newLive(source Source, board func(context.Context) (string, error)) *live {
	return &live{source: source, board: board, changed: make(chan struct{})}
}

func (l *live) run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { l.boardLoop(ctx) })
	defer group.Wait()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	before, at := l.source.Sample(), time.Now()
	for {
		select {
		case <-ctx.Done():
			l.update(func() { l.ended = true })
			return
		case <-ticker.C:
		}
		now := time.Now()
		sample := l.source.Sample()
		p := pointOf(before, sample, now.Sub(at).Seconds())
		p.At, p.Lag = now.Unix(), l.source.Relay().LagSeconds
		before, at = sample, now
		l.update(func() {
			if len(l.points) == history {
				l.points = append(l.points[:0], l.points[1:]...)
			}
			l.points = append(l.points, p)
		})
	}
}

// boardLoop makes the board anew while somebody watches.
func (l *live) boardLoop(ctx context.Context) {
	ticker := time.NewTicker(boardEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		l.mu.Lock()
		watched := l.watchers > 0
		l.mu.Unlock()
		if !watched {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, patience)
		text, err := l.board(asking)
		cancel()
		if err == nil {
			l.update(func() {
				l.text = text
				l.boards++
			})
		}
	}
}

// update changes something, and wakes those who watch.
func (l *live) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

// pointOf is what happened between two samples.
func pointOf(before, after telemetry.Sample, seconds float64) point {
	p := point{Rate: max(0, (after.Published-before.Published)/seconds)}
	p.Median, p.High = quantile(before.Latency, after.Latency, 0.5), quantile(before.Latency, after.Latency, 0.99)
	return p
}

// quantile is that of what came into the buckets in between, in milliseconds, on a straight
// line within a bucket; nil if nothing did.
func quantile(before, after []telemetry.Bucket, q float64) *float64 {
	if len(after) == 0 || len(before) != len(after) {
		return nil
	}
	came := func(i int) float64 { return float64(after[i].Count - before[i].Count) }
	all := came(len(after) - 1)
	if all == 0 {
		return nil
	}
	wanted := q * all
	lower, below := 0.0, 0.0
	for i := range after {
		if count := came(i); count >= wanted {
			upper := after[i].Seconds
			if i == len(after)-1 {
				upper = lower // nobody knows how long
			}
			at := 1000 * (lower + (upper-lower)*(wanted-below)/(count-below))
			return &at
		}
		lower, below = after[i].Seconds, came(i)
	}
	return nil
}

// serve keeps a page up to date (HTML Standard, "Server-sent events"): first the points that
// there are, then each new one, and the board when it is made anew.
func (l *live) serve(w http.ResponseWriter, req *http.Request) error {
	l.mu.Lock()
	if l.watchers >= maxWatchers {
		l.mu.Unlock()
		return &refusal{http.StatusServiceUnavailable, "Too many pages are kept up to date", "Close some, or load this one again to see what is new.", false}
	}
	l.watchers++
	points, boards := append([]point{}, l.points...), l.boards
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.watchers--
		l.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy passes it on as it comes
	send := sender{http.NewResponseController(w), w}
	if err := send.event("history", points); err != nil {
		return nil // the client is gone
	}
	last := int64(0)
	if len(points) > 0 {
		last = points[len(points)-1].At
	}
	for {
		l.mu.Lock()
		changed, ended, text, newBoards := l.changed, l.ended, l.text, l.boards
		var newest *point
		if n := len(l.points); n > 0 && l.points[n-1].At > last {
			p := l.points[n-1]
			newest, last = &p, p.At
		}
		l.mu.Unlock()
		var err error
		if newest != nil {
			err = send.event("point", newest)
		}
		if err == nil && newBoards != boards {
			boards = newBoards
			err = send.event("board", text)
		}
		if err != nil || ended {
			return nil // the client is gone
		}
		select {
		case <-changed:
		case <-req.Context().Done():
			return nil
		}
	}
}

// sender writes events.
type sender struct {
	control *http.ResponseController
	w       http.ResponseWriter
}

func (s sender) event(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	// The deadlines of the server are for answers that end.
	if err := s.control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(watchPatience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, text); err != nil {
		return err
	}
	return s.control.Flush()
}
