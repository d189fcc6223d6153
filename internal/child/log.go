package child

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// Log keeps what programs print. The zero value keeps all of it. Safe for concurrent use.
type Log struct {
	// Limit is how many of the last bytes are kept; 0 for all.
	Limit int
	// Copy, if not nil, gets everything too.
	Copy io.Writer

	mu      sync.Mutex
	text    []byte
	dropped int // bytes before text
}

// Write implements [io.Writer].
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if over := len(l.text) - l.Limit; l.Limit > 0 && over > 0 {
		l.text, l.dropped = append(l.text[:0], l.text[over:]...), l.dropped+over
	}
	if l.Copy == nil {
		return len(p), nil
	}
	n, err := l.Copy.Write(p)
	if err != nil {
		return n, fmt.Errorf("copying a log: %w", err)
	}
	return n, nil
}

// Mark is how much there is by now, for [Log.Since].
func (l *Log) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped + len(l.text)
}

// Since returns what was printed after a mark.
func (l *Log) Since(mark int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text[max(0, mark-l.dropped):])
}

// String returns everything that is kept.
func (l *Log) String() string { return l.Since(0) }

// Tail returns the last lines.
func (l *Log) Tail(lines int) string {
	all := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
