package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay"
)

// newLogger returns the logger that log.level and log.format ask for.
func newLogger(cfg walrelay.Config, w io.Writer) (zerolog.Logger, error) {
	cfg = cfg.WithDefaults()
	level, err := zerolog.ParseLevel(cfg.Log.Level)
	if err != nil {
		return zerolog.Nop(), &walrelay.ConfigError{Key: "log.level", Problem: fmt.Sprintf("%q is not a level", cfg.Log.Level)}
	}
	terminal := isTerminal(w)
	if cfg.Log.Format == "console" || cfg.Log.Format == "auto" && terminal {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger(), nil
}

// isTerminal reports whether a person reads what is written there, or types what is read.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

const (
	// logLines is how many lines wait for a standard error that does not take them;
	// more are left out, and counted.
	logLines = 4096
	// logGrace is how long the last lines may take at the end.
	logGrace = time.Second
)

// newPatientLogger is newLogger for a process that must not wait for its standard
// error. Its lines are written by another goroutine, until flush is called.
func newPatientLogger(cfg walrelay.Config, w io.Writer) (log zerolog.Logger, flush func(), err error) {
	if isTerminal(w) {
		// A person looks on, and may hold the output up.
		log, err = newLogger(cfg, w)
		return log, func() {}, err
	}
	queue := newLineQueue(w, logLines)
	log, err = newLogger(cfg, queue)
	return log, func() { queue.close(logGrace) }, err
}

// A lineQueue writes lines from a goroutine of its own, so that whoever logs never
// waits. Write copies the line; lines that find the queue full are left out, and the
// next line says how many. Safe for concurrent use. (zerolog's diode
// closes what it writes to, and the last line, which says why a process ends, is written
// to standard error after the log has ended.)
type lineQueue struct {
	w     io.Writer
	lines chan []byte
	stop  chan struct{} // closed by close
	done  chan struct{} // closed when everything is written
	left  atomic.Int64  // lines left out and not yet reported
}

func newLineQueue(w io.Writer, size int) *lineQueue {
	q := &lineQueue{w: w, lines: make(chan []byte, size), stop: make(chan struct{}), done: make(chan struct{})}
	go q.run()
	return q
}

// Write never blocks and never fails.
func (q *lineQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.left.Add(1)
	}
	return len(line), nil
}

func (q *lineQueue) run() {
	defer close(q.done)
	for {
		select {
		case line := <-q.lines:
			q.write(line)
		case <-q.stop:
			for {
				select {
				case line := <-q.lines:
					q.write(line)
				default:
					return
				}
			}
		}
	}
}

// write writes line. Nothing can be done about a line that cannot be written.
func (q *lineQueue) write(line []byte) {
	if n := q.left.Swap(0); n > 0 {
		_, _ = fmt.Fprintf(q.w, "{\"level\":\"warn\",\"lines\":%d,\"message\":\"log lines left out: standard error did not take them\"}\n", n)
	}
	_, _ = q.w.Write(line)
}

// close writes what was logged before the call, for at most grace.
func (q *lineQueue) close(grace time.Duration) {
	close(q.stop)
	select {
	case <-q.done:
	case <-time.After(grace):
	}
}

// logReport logs what init did.
func logReport(log zerolog.Logger, report walrelay.Report) {
	for _, item := range report.Items {
		event := log.Info().Str("kind", item.Kind).Str("name", item.Name).Str("action", string(item.Action))
		if item.Detail != "" {
			event = event.Str("detail", item.Detail)
		}
		event.Msg("init")
	}
	for _, warning := range report.Warnings {
		log.Warn().Msg(warning)
	}
}
