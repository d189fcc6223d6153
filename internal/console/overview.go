package console

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/status"
	"github.com/walrelay/walrelay/retry"
)

const (
	// onBoard is how many handlers and consumers the overview shows.
	onBoard = 10
	// perPage is how many rows a list has.
	perPage = 50
	// doctorPatience bounds the checks, and the answer with them.
	doctorPatience = 20 * time.Second
)

// boardOf is what the overview shows beside the charts.
type boardOf struct {
	status.Document

	// Word says how things stand, and Reasons why the relay is not ready.
	Word    string
	Reasons []string
	// Handlers are those that need most attention, MoreHandlers how many others there are.
	Handlers     []inbox.HandlerState
	MoreHandlers int
	// Failures are why events have failed.
	Failures []failure
}

// failure is a reason with the events that have it.
type failure struct {
	Reason, Example string
	Events          int64
	// Link leads to the failed events whose errors have something in common with the reason;
	// "" if there is nothing.
	Link string
}

// failuresOf links each reason with the list of a kind of events, of a handler if it is named.
func failuresOf[R retry.Reason | inbox.Reason](reasons []R, kind, handler string) []failure {
	failures := make([]failure, 0, len(reasons))
	for _, r := range reasons {
		reason := retry.Reason(r)
		f := failure{Reason: reason.Reason, Example: reason.Example, Events: reason.Events}
		if part := common(reason.Reason); part != "" {
			f.Link = Root + kind + "?" + valuesOf("state", "failed", "error", part, "handler", handler).Encode()
		}
		failures = append(failures, f)
	}
	return failures
}

func (c *Console) readBoard(ctx context.Context) boardOf {
	b := boardOf{Document: c.source.Status(ctx)}
	b.Word, b.Reasons = b.Attention(), c.source.Relay().Reasons
	b.Handlers = attention(b.Document.Handlers)
	if len(b.Handlers) > onBoard {
		b.Handlers, b.MoreHandlers = b.Handlers[:onBoard], len(b.Handlers)-onBoard
	}
	if b.Delayed != nil {
		b.Failures = failuresOf(b.Delayed.Reasons, "delayed", "")
	}
	for i := range b.Streams {
		s := &b.Streams[i]
		s.Consumers = slices.Clone(s.Consumers)
		slices.SortStableFunc(s.Consumers, func(a, b status.Consumer) int { return cmp.Compare(b.Pending+b.Removed, a.Pending+a.Removed) })
		s.Consumers = s.Consumers[:min(len(s.Consumers), onBoard)]
	}
	return b
}

// attention sorts handlers: those first that have parked most, and then those that are
// furthest behind.
func attention(handlers []inbox.HandlerState) []inbox.HandlerState {
	sorted := slices.Clone(handlers)
	slices.SortStableFunc(sorted, func(a, b inbox.HandlerState) int {
		return cmp.Or(cmp.Compare(b.Parked, a.Parked), cmp.Compare(b.Lag, a.Lag), strings.Compare(a.Handler, b.Handler))
	})
	return sorted
}

// common returns the longest part of a reason that stands in each error of it: what differs is
// a star.
func common(reason string) string {
	longest := ""
	for part := range strings.SplitSeq(reason, "*") {
		if part = strings.TrimSpace(part); len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// board is the part of the overview that changes, as HTML.
func (c *Console) board(ctx context.Context) (string, error) {
	var b bytes.Buffer
	if err := c.pages["overview"].ExecuteTemplate(&b, "board", c.readBoard(ctx)); err != nil {
		return "", fmt.Errorf("making the board: %w", err)
	}
	return b.String(), nil
}

func (c *Console) overview(w http.ResponseWriter, req *http.Request) error {
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	return c.show(w, req, http.StatusOK, "overview", page{Title: "Overview", Nav: "overview", Body: c.readBoard(ctx)})
}

// doctor makes every check.
func (c *Console) doctor(w http.ResponseWriter, req *http.Request) error {
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	if err := extend(w, doctorPatience); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), doctorPatience)
	defer cancel()
	results, err := check.Doctor(ctx, c.source.Config)
	p := page{Title: "Doctor", Nav: "doctor"}
	if err != nil {
		p.Problems = append(p.Problems, troubleOf(err))
	}
	count := make(map[check.Status]int)
	for i := range results {
		count[results[i].Status]++
	}
	slices.SortStableFunc(results, func(a, b check.Result) int { return cmp.Compare(b.Status, a.Status) })
	p.Body = map[string]any{
		"Results": results, "Pass": count[check.Pass], "Warn": count[check.Warn], "Fail": count[check.Fail], "Skip": count[check.Skip],
	}
	return c.show(w, req, http.StatusOK, "doctor", p)
}

// extend gives an answer more time than the server gives others.
func extend(w http.ResponseWriter, d time.Duration) error {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("answering later: %w", err)
	}
	if err := control.SetWriteDeadline(time.Now().Add(d + patience)); err != nil {
		return fmt.Errorf("answering later: %w", err)
	}
	return nil
}

// handlers lists them, those first that need attention.
func (c *Console) handlers(w http.ResponseWriter, req *http.Request) error {
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	d := c.source.Status(ctx)
	name := req.URL.Query().Get("name")
	all := attention(d.Handlers)
	if name != "" {
		all = slices.DeleteFunc(all, func(h inbox.HandlerState) bool { return !strings.Contains(h.Handler, name) })
	}
	skip := min(max(0, number(req.URL.Query().Get("skip"))), len(all))
	shown := all[skip:min(skip+perPage, len(all))]
	p := page{Title: "Handlers", Nav: "handlers", Body: map[string]any{
		"Name": name, "Handlers": shown, "All": len(all), "First": skip + 1, "Last": skip + len(shown),
		"Before": skip > 0, "PageBefore": max(0, skip-perPage), "After": skip+len(shown) < len(all), "PageAfter": skip + len(shown),
	}}
	for _, unknown := range d.Unknown {
		p.Problems = append(p.Problems, trouble{What: unknown})
	}
	return c.show(w, req, http.StatusOK, "handlers", p)
}

// number reads a whole number; 0 for anything else.
func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// whole returns a whole number, or what a pointer leads to.
func whole(n any) (int64, error) {
	switch n := n.(type) {
	case int:
		return int64(n), nil
	case int64:
		return n, nil
	case uint64:
		return int64(n), nil
	case *int64:
		return *n, nil
	case *int:
		return int64(*n), nil
	}
	return 0, fmt.Errorf("%T is no whole number", n)
}

// texts are the functions of the pages.
func texts(version string) template.FuncMap {
	return template.FuncMap{
		"version":   func() string { return version },
		"printable": event.Printable, "clip": clip,
		"count": func(n any) (string, error) {
			value, err := whole(n)
			return status.Count(value), err
		},
		"bytes": func(n any) (string, error) {
			value, err := whole(n)
			return status.Bytes(float64(value)), err
		},
		// many writes how many there are: many 2 "event", many 2 "retry" "retries".
		"many": func(n any, one string, more ...string) (string, error) {
			value, err := whole(n)
			switch {
			case value == 1:
			case len(more) > 0:
				one = more[0]
			default:
				one += "s"
			}
			return status.Count(value) + " " + one, err
		},
		"span":  status.Span,
		"value": func(n *float64) float64 { return *n },
		"stamp": func(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05Z") },
		"query": func(values url.Values) template.URL { return template.URL(values.Encode()) }, //nolint:gosec // url.Values escapes
	}
}

// clip shortens a text for a cell.
func clip(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}
