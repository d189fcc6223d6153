package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/operate"
	"github.com/walrelay/walrelay/retry"
)

// delayedFilter reads the filter that a form or an address says. The events are those of the
// relay's slot.
func (c *Console) delayedFilter(values url.Values) retry.Filter {
	return retry.Filter{
		ID: values.Get("id"), State: retry.State(values.Get("state")), Type: values.Get("type"), PartitionKey: values.Get("key"),
		Error: values.Get("error"), Table: values.Get("table"), Slot: c.source.Config.Slot,
	}
}

// delayedValues is a filter as delayedFilter reads it.
func delayedValues(f retry.Filter) url.Values {
	return valuesOf("id", f.ID, "state", string(f.State), "type", f.Type, "key", f.PartitionKey, "error", f.Error, "table", f.Table)
}

// delayedKind is what can be done to delayed events.
func (c *Console) delayedKind() kind {
	return kind{
		name: "delayed", nav: "delayed", purpose: operate.DelayedEvents(), values: func(v url.Values) url.Values { return delayedValues(c.delayedFilter(v)) },
		actions: []action{
			{string(retry.Redrive), "Redrive", "They are tried again at once, failed ones with all their retries anew.", "tried again", false},
			{string(retry.Discard), "Discard", "They are given up for good, and stay visible as discarded for outbox.repair_window.", "discarded", true},
			{string(retry.Cancel), "Cancel", "They are not published.", "cancelled", true},
			{string(retry.Reschedule), "Reschedule", "They are due at another time.", "moved", false},
		},
		takes: func(a, state string) bool { return retry.Action(a).Takes(retry.State(state)) },
		count: func(ctx context.Context, conn *pgx.Conn, a string, v url.Values) (int64, error) {
			return retry.Count(ctx, conn, retry.Action(a), c.delayedFilter(v))
		},
		do: func(ctx context.Context, conn *pgx.Conn, a string, v url.Values, at time.Time) (int64, error) {
			return retry.Do(ctx, conn, retry.Action(a), c.delayedFilter(v), at)
		},
	}
}

func (c *Console) delayedList(w http.ResponseWriter, req *http.Request) error {
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	values := req.URL.Query()
	filter := c.delayedFilter(values)
	last, err := pageAfter(values.Get("before"))
	if err != nil {
		return err
	}
	k := c.delayedKind()
	p := page{Title: "Delayed events", Nav: k.nav, Notice: k.notice(values)}
	body := map[string]any{"Filter": filter, "Values": k.values(values), "States": retry.States(), "Actions": k.possible(string(filter.State)), "Filtered": len(k.values(values)) > 0}
	err = c.with(ctx, k.purpose, func(conn *pgx.Conn) error {
		counts, err := retry.CountStates(ctx, conn, c.source.Config.Slot)
		if err != nil {
			return err
		}
		body["Counts"] = counts.States
		reasons, err := retry.Reasons(ctx, conn, c.source.Config.Slot)
		if err != nil {
			return err
		}
		body["Failures"] = failuresOf(reasons, k.name, "")
		list, err := retry.List(ctx, conn, filter, last, perPage+1)
		if err != nil {
			return err
		}
		if len(list) > perPage {
			list = list[:perPage]
			more := delayedValues(filter)
			more.Set("before", list[perPage-1].Position+"/"+list[perPage-1].Slot)
			body["More"] = more
		}
		body["Events"] = list
		return nil
	})
	if err != nil {
		p.Problems = append(p.Problems, troubleOf(err))
	}
	p.Body = body
	return c.show(w, req, http.StatusOK, "delayed", p)
}

// pageAfter reads after which event of an earlier page a page begins.
func pageAfter(text string) (*retry.Delayed, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // at the beginning
	}
	position, slot, found := strings.Cut(text, "/")
	if _, err := event.ParsePosition(position); err != nil || !found || slot == "" {
		return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("%q is no place in the list", event.Clip(text)), "Begin at its first page.", false}
	}
	return &retry.Delayed{Position: position, Slot: slot}, nil
}
