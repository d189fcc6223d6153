package console

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/outboxrows"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/internal/tail"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/sql"
)

const (
	// maxID is how long an id is that somebody looks for.
	maxID = 1024
	// maxShown is how many bytes of a payload a page shows, and maxDump how many of those that
	// are no text.
	maxShown = 16 << 10
	maxDump  = 512
)

// story is what is known of an event, from its row to its consumers.
type story struct {
	ID, Since string

	// State and the rest are as walrelay.event_status has them; no state if it could not be asked.
	State, LastError, Reason string
	Attempts                 int
	NextAttempt              *time.Time

	Rows    []rowOf
	Delayed []delayedOf
	// Messages were found in a stream, and Looked says where they were looked for.
	Messages []messageOf
	Looked   []string
	Parked   []parkedOf
}

// rowOf is a row of an outbox table.
type rowOf struct {
	Table string
	// Event is nil if there is no row; Fault says why the row makes none.
	Event   *event.Event
	Fault   string
	Payload payload
}

type delayedOf struct {
	retry.Detail

	Payload payload
	Actions []action
	Values  url.Values
}

type parkedOf struct {
	inbox.Parked

	Payload payload
	Actions []action
	Values  url.Values
}

// payload is content for people.
type payload struct {
	// Kind is JSON, text or bytes; "" if there is nothing.
	Kind, Text string
	Size       int
	Clipped    bool
	// Open shows it at once.
	Open bool
	// Link leads to the whole of it.
	Link string
}

func (c *Console) event(w http.ResponseWriter, req *http.Request) error {
	values := req.URL.Query()
	id := strings.TrimSpace(values.Get("id"))
	if id == "" || len(id) > maxID {
		return &refusal{http.StatusBadRequest, "No event was named", fmt.Sprintf("Give its id, of at most %d bytes.", maxID), false}
	}
	var since time.Time
	if text := strings.TrimSpace(values.Get("since")); text != "" {
		var ok bool
		if since, ok = tail.ParseTime(text, time.Now()); !ok {
			return &refusal{http.StatusBadRequest, fmt.Sprintf("%q is neither a time, such as 2026-11-27T10:00:00Z, nor how long ago, such as 10m", event.Clip(text)), "", false}
		}
	}
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	s := &story{ID: id, Since: values.Get("since")}
	p := page{Title: "Event", Body: s}
	for _, k := range []kind{c.delayedKind(), parkedKind()} {
		if values.Get("kind") == k.name {
			p.Notice = k.notice(values)
		}
	}
	p.Problems = c.tell(ctx, s, since)
	for i := range s.Rows {
		// What came of it has the same payload.
		s.Rows[i].Payload.Open = len(s.Delayed)+len(s.Messages) == 0
	}
	return c.show(w, req, http.StatusOK, "event", p)
}

// tell asks both sides for an event, and returns what could not be asked.
func (c *Console) tell(ctx context.Context, s *story, since time.Time) (problems []trouble) {
	try := func(err error) {
		if err != nil {
			problems = append(problems, troubleOf(err))
		}
	}
	delayed, parked := c.delayedKind(), parkedKind()
	try(c.with(ctx, delayed.purpose, func(conn *pgx.Conn) error {
		return errors.Join(s.askState(ctx, conn), s.askDelayed(ctx, conn, &delayed))
	}))
	try(s.askRows(ctx, c))
	// The tables of handlers may be in another database.
	err := c.with(ctx, parked.purpose, func(conn *pgx.Conn) error { return s.askParked(ctx, conn, &parked) })
	if !parked.purpose.IsMissing(err) {
		try(err)
	}
	try(s.askStreams(ctx, c, since))
	return problems
}

func (s *story) askState(ctx context.Context, conn *pgx.Conn) error {
	err := conn.QueryRow(ctx, sql.OutboxStatus, s.ID, nil).Scan(&s.State, &s.Attempts, &s.LastError, &s.NextAttempt, &s.Reason)
	if err != nil {
		return fmt.Errorf("asking walrelay.event_status: %w", err)
	}
	return nil
}

func (s *story) askDelayed(ctx context.Context, conn *pgx.Conn, k *kind) error {
	list, err := retry.Show(ctx, conn, s.ID)
	if err != nil {
		return err
	}
	for _, d := range list {
		values := valuesOf("id", d.ID, "table", d.Schema+"."+d.Table)
		link := Root + "content/delayed?" + valuesOf("id", d.ID, "position", d.Position, "slot", d.Slot).Encode()
		s.Delayed = append(s.Delayed, delayedOf{Detail: d, Payload: payloadOf(d.Content, link), Actions: k.possible(string(d.State)), Values: values})
	}
	return nil
}

func (s *story) askParked(ctx context.Context, conn *pgx.Conn, k *kind) error {
	list, err := inbox.ListParked(ctx, conn, inbox.Filter{ID: s.ID}, 0, perPage)
	if err != nil {
		return err
	}
	for _, p := range list {
		_, data, err := inbox.ParkedContent(ctx, conn, p.Number)
		if err != nil {
			return err
		}
		link := Root + "content/parked?" + valuesOf("number", fmt.Sprint(p.Number)).Encode()
		s.Parked = append(s.Parked, parkedOf{Parked: p, Payload: payloadOf(data, link), Actions: k.possible(p.State), Values: valuesOf("id", p.ID, "handler", p.Handler)})
	}
	return nil
}

// askRows looks for the event's row in each outbox table.
func (s *story) askRows(ctx context.Context, c *Console) error {
	return c.eachRow(ctx, s.ID, func(table string, ev *event.Event, fault error) {
		row := rowOf{Table: table, Event: ev}
		if fault != nil {
			row.Fault = fault.Error()
		}
		if ev != nil {
			row.Payload = payloadOf(ev.Data, Root+"content/row?"+valuesOf("id", s.ID, "table", row.Table).Encode())
		}
		s.Rows = append(s.Rows, row)
	})
}

// eachRow looks for the row of an event in each outbox table: no event without a row, and a
// fault if it makes none.
func (c *Console) eachRow(ctx context.Context, id string, do func(table string, ev *event.Event, fault error)) error {
	plan, err := c.source.Config.Compile()
	if err != nil {
		return err
	}
	reader, err := outboxrows.New(c.source.Config, plan.Decode)
	if err != nil {
		return err
	}
	defer reader.Close(ctx)
	var errs []error
	for _, t := range plan.Decode.Tables {
		ev, fault, err := rowEvent(ctx, reader, journal.Entry{Schema: t.Schema, Table: t.Name, ID: id})
		if err != nil {
			errs = append(errs, fmt.Errorf("reading table %s.%s: %w", t.Schema, t.Name, err))
			continue
		}
		do(t.Schema+"."+t.Name, ev, fault)
	}
	return errors.Join(errs...)
}

// rowEvent returns the event that a row makes; nil without a row.
func rowEvent(ctx context.Context, reader *outboxrows.Reader, entry journal.Entry) (ev *event.Event, fault, err error) {
	err = reader.Ask(ctx, []journal.Entry{entry})
	if err == nil {
		ev, fault, err = reader.Event(entry)
		err = errors.Join(err, reader.End())
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && strings.HasPrefix(pgErr.Code, sqlstate.ClassDataException) {
		return nil, nil, nil // not an id of this table
	}
	if fault != nil && ev.Type == "" {
		ev = nil
	}
	return ev, fault, err
}

// hint is when the event was published at the earliest, if something tells; else zero.
func (s *story) hint() time.Time {
	for i := range s.Rows {
		if s.Rows[i].Event != nil {
			if at, err := time.Parse(time.RFC3339Nano, s.Rows[i].Event.Time); err == nil {
				return at
			}
		}
	}
	// Version 7 has the time (RFC 9562, section 5.7).
	if id, err := uuid.Parse(s.ID); err == nil && id.Version() == 7 {
		seconds, nanoseconds := id.Time().UnixTime()
		return time.Unix(seconds, nanoseconds)
	}
	return time.Time{}
}

// payloadOf makes content readable.
func payloadOf(content []byte, link string) payload {
	p := payload{Size: len(content), Link: link, Open: true}
	var indented bytes.Buffer
	switch {
	case len(content) == 0:
		return payload{}
	case json.Indent(&indented, content, "", "  ") == nil:
		p.Kind, p.Text = "JSON", indented.String()
	case utf8.Valid(content):
		p.Kind, p.Text = "text", string(content)
	default:
		p.Kind, p.Clipped = "bytes", len(content) > maxDump
		p.Text = hex.Dump(content[:min(len(content), maxDump)])
		return p
	}
	if p.Clipped = len(p.Text) > maxShown; p.Clipped {
		p.Text = strings.ToValidUTF8(p.Text[:maxShown], "")
	}
	p.Text = event.Printable(p.Text)
	return p
}

// content is a payload as a file: a browser must not show it as a page.
func (c *Console) content(w http.ResponseWriter, req *http.Request) error {
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	values := req.URL.Query()
	var content []byte
	found := false
	switch req.PathValue("kind") {
	case "delayed":
		k := c.delayedKind()
		err = c.with(ctx, k.purpose, func(conn *pgx.Conn) error {
			list, err := retry.Show(ctx, conn, values.Get("id"))
			for _, d := range list {
				if d.Position == values.Get("position") && d.Slot == values.Get("slot") {
					content, found = d.Content, true
				}
			}
			return err
		})
	case "parked":
		k := parkedKind()
		err = c.with(ctx, k.purpose, func(conn *pgx.Conn) error {
			header, data, err := inbox.ParkedContent(ctx, conn, int64(number(values.Get("number"))))
			content, found = data, header != nil
			return err
		})
	case "row":
		err = c.eachRow(ctx, values.Get("id"), func(table string, ev *event.Event, _ error) {
			if table == values.Get("table") && ev != nil {
				content, found = ev.Data, true
			}
		})
	case "message":
		content, found, err = c.messageData(ctx, values.Get("stream"), uint64(number(values.Get("sequence"))))
	}
	if err != nil {
		return err
	}
	if !found {
		return &refusal{http.StatusNotFound, "This content is not there any more", "Look for the event again.", false}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="event"`)
	_, _ = w.Write(content) // nothing can be done about a client that is gone
	return nil
}
