package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// History is what happened in a run, in the order in which the harness saw it:
// a file of JSON lines. Safe for concurrent use.
type History struct {
	mu    sync.Mutex
	start time.Time
	file  *os.File
	w     *bufio.Writer
	tail  []string // the last lines of what a person should see
}

// shown is how many lines of a failed run are printed.
const shown = 60

// NewHistory writes to a new file.
func NewHistory(path string) (*History, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("making the history: %w", err)
	}
	return &History{start: time.Now(), file: f, w: bufio.NewWriter(f)}, nil
}

// Add notes what happened: who did what, with details.
func (h *History) Add(who, what string, details ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	entry := map[string]any{"at": time.Since(h.start).Round(time.Microsecond).String(), "who": who, "what": what}
	var line strings.Builder
	fmt.Fprintf(&line, "%9.3fs  %-10s %s", time.Since(h.start).Seconds(), who, what)
	for i := 0; i+1 < len(details); i += 2 {
		name := fmt.Sprint(details[i])
		entry[name] = fmt.Sprint(details[i+1])
		fmt.Fprintf(&line, "  %s=%v", name, details[i+1])
	}
	if b, err := json.Marshal(entry); err == nil {
		_, _ = h.w.Write(append(b, '\n'))
	}
	if who != "writer" { // there are thousands of these
		h.tail = append(h.tail, line.String())
		h.tail = h.tail[max(0, len(h.tail)-shown):]
	}
}

// Tail prints the last entries, but those of the writers.
func (h *History) Tail(w io.Writer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range h.tail {
		fmt.Fprintln(w, "  "+line)
	}
}

// Close ends the file.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.w.Flush(); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	return h.file.Close()
}
