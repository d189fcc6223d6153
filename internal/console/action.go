package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/operate"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/retry"
)

// kind is a kind of events, and what can be done to them. A filter is the values that values
// returns.
type kind struct {
	name, nav string
	purpose   operate.Purpose
	actions   []action
	values    func(url.Values) url.Values
	// takes reports whether an action can be done to events in a state.
	takes func(action, state string) bool
	count func(ctx context.Context, conn *pgx.Conn, action string, filter url.Values) (int64, error)
	do    func(ctx context.Context, conn *pgx.Conn, action string, filter url.Values, at time.Time) (int64, error)
}

// action is something to be done to events.
type action struct {
	Name, Label, Does, Done string
	// Final says that it cannot be taken back.
	Final bool
}

// action returns the one that a request names.
func (k *kind) action(req *http.Request) (action, error) {
	name := req.PathValue("action")
	if i := slices.IndexFunc(k.actions, func(a action) bool { return a.Name == name }); i >= 0 {
		return k.actions[i], nil
	}
	return action{}, &refusal{http.StatusNotFound, fmt.Sprintf("%q is no action", event.Clip(name)), "", false}
}

// possible are the actions that events of a state take; of any state, all.
func (k *kind) possible(state string) []action {
	return slices.DeleteFunc(slices.Clone(k.actions), func(a action) bool { return state != "" && !k.takes(a.Name, state) })
}

// notice says what was done, as do has put it into the address.
func (k *kind) notice(values url.Values) string {
	n, err := strconv.ParseInt(values.Get("n"), 10, 64)
	i := slices.IndexFunc(k.actions, func(a action) bool { return a.Name == values.Get("done") })
	if err != nil || i < 0 {
		return ""
	}
	switch n {
	case 0:
		return "Nothing was changed: somebody was faster, or the events are in another state by now."
	case 1:
		return "1 event " + k.actions[i].Done + "."
	}
	return fmt.Sprintf("%d events %s.", n, k.actions[i].Done)
}

// back is the address from which events of a filter are changed.
func (k *kind) back(filter url.Values) (address string, values url.Values) {
	if id := filter.Get("id"); id != "" {
		return Root + "event?", valuesOf("id", id)
	}
	return Root + k.name + "?", filter
}

// with runs do on a connection that has the rights for a purpose.
func (c *Console) with(ctx context.Context, purpose operate.Purpose, do func(conn *pgx.Conn) error) error {
	conn, err := operate.Connect(ctx, c.source.Config, purpose)
	if err != nil {
		return err
	}
	defer connect.ClosePostgres(conn)
	return do(conn)
}

// question is asked before something is done.
type question struct {
	Action action
	Kind   string
	// Count events would be changed. Filter says which, in words, and Values for the form.
	Count  int64
	Filter []string
	Values url.Values
	// Ask is for a time, and At the one that was given.
	Ask, At string
	// Changed says that there are more events than when it was asked before.
	Changed bool
	// Command does the same, and Back leads to where the visitor came from.
	Command, Back string
	MayChange     bool
}

// ask shows what would be done.
func (c *Console) ask(k kind) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, req *http.Request) error {
		return c.question(w, req, k, question{Values: k.values(req.URL.Query())}, "")
	}
}

func (c *Console) question(w http.ResponseWriter, req *http.Request, k kind, q question, problem string) error {
	var err error
	if q.Action, err = k.action(req); err != nil {
		return err
	}
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	address, back := k.back(q.Values)
	q.Kind, q.Filter, q.Back, q.MayChange = k.name, words(q.Values), address+back.Encode(), visitorOf(req).signedIn
	q.Command = command(k.name, q.Action.Name, q.Values)
	if q.Action.Name == string(retry.Reschedule) {
		q.Ask = "New time, such as 2030-01-02T15:04:05Z, or how long from now, such as 10m"
		q.Command += " --at 10m"
	}
	p := page{Title: q.Action.Label, Nav: k.nav}
	if problem != "" {
		p.Problems = append(p.Problems, trouble{What: problem})
	}
	err = c.with(ctx, k.purpose, func(conn *pgx.Conn) (err error) {
		q.Count, err = k.count(ctx, conn, q.Action.Name, q.Values)
		return err
	})
	if err != nil {
		p.Problems = append(p.Problems, troubleOf(err))
	}
	p.Body = q
	return c.show(w, req, http.StatusOK, "ask", p)
}

// do changes the events that the visitor was told of, unless there are more by now.
func (c *Console) do(k kind) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, req *http.Request) error {
		if err := mayChange(req); err != nil {
			return err
		}
		a, err := k.action(req)
		if err != nil {
			return err
		}
		expected, err := expectedCount(req)
		if err != nil {
			return err
		}
		q := question{Values: k.values(req.PostForm), At: req.PostForm.Get("at")}
		var at time.Time
		if a.Name == string(retry.Reschedule) {
			if at, err = retry.ParseTime(q.At, time.Now()); err != nil {
				return c.question(w, req, k, q, err.Error())
			}
		}
		n, err := c.change(req, k, a.Name, q.Values, expected, at)
		switch {
		case err != nil:
			return err
		case n < 0:
			q.Changed = true
			return c.question(w, req, k, q, "")
		}
		c.source.Log.Info().Str("client", req.RemoteAddr).Str("action", a.Name).Str("kind", k.name).Int64("events", n).Str("filter", q.Values.Encode()).
			Msg("events were changed at the console")
		address, values := k.back(q.Values)
		if values.Get("state") != "" {
			values.Del("state") // they are in another one now
		}
		values.Set("kind", k.name)
		values.Set("done", a.Name)
		values.Set("n", strconv.FormatInt(n, 10))
		http.Redirect(w, req, address+values.Encode(), http.StatusSeeOther)
		return nil
	}
}

// change does it, and returns how many events it changed; -1 if there are more than expected.
func (c *Console) change(req *http.Request, k kind, action string, filter url.Values, expected int64, at time.Time) (n int64, err error) {
	ctx, done, err := c.turn(req)
	if err != nil {
		return 0, err
	}
	defer done()
	err = c.with(ctx, k.purpose, func(conn *pgx.Conn) error {
		count, err := k.count(ctx, conn, action, filter)
		if err != nil {
			return err
		}
		if count > expected {
			n = -1
			return nil
		}
		n, err = k.do(ctx, conn, action, filter, at)
		return err
	})
	return n, err
}

// valuesOf has those of the pairs of names and values that are not empty.
func valuesOf(pairs ...string) url.Values {
	values := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		if name, value := pair[0], pair[1]; value != "" {
			values.Set(name, value)
		}
	}
	return values
}

// expectedCount reads how many events the visitor was told of.
func expectedCount(req *http.Request) (int64, error) {
	if err := req.ParseForm(); err != nil {
		return 0, &refusal{http.StatusBadRequest, "The form cannot be read", "Nothing was changed.", false}
	}
	n, err := strconv.ParseInt(req.PostForm.Get("count"), 10, 64)
	if err != nil || n < 0 {
		return 0, &refusal{http.StatusBadRequest, "The form does not say how many events are meant", "Nothing was changed. Begin at the list.", false}
	}
	return n, nil
}

// words says which events a filter takes.
func words(values url.Values) []string {
	var all []string
	for _, field := range [][2]string{{"handler", "of handler"}, {"id", "with the id"}, {"state", "in state"}, {"type", "of type"}, {"key", "of key"}, {"error", "whose last error contains"}, {"table", "of table"}} {
		if value := values.Get(field[0]); value != "" {
			all = append(all, field[1]+" "+value)
		}
	}
	return all
}

// command is how the same is done in a shell.
func command(kind, action string, values url.Values) string {
	parts := []string{"walrelay", kind, action}
	if id := values.Get("id"); id != "" {
		parts = append(parts, problem.ShellWord(id))
	}
	for _, flag := range []string{"handler", "state", "type", "key", "error", "table"} {
		if value := values.Get(flag); value != "" {
			parts = append(parts, "--"+flag, problem.ShellWord(value))
		}
	}
	if len(values) == 0 {
		parts = append(parts, "--all")
	}
	return strings.Join(parts, " ")
}
