package console

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/operate"
)

func parkedFilter(values url.Values) inbox.Filter {
	return inbox.Filter{
		Handler: values.Get("handler"), ID: values.Get("id"), Type: values.Get("type"), Key: values.Get("key"), Error: values.Get("error"), State: values.Get("state"),
	}
}

func parkedValues(f inbox.Filter) url.Values {
	return valuesOf("handler", f.Handler, "id", f.ID, "type", f.Type, "key", f.Key, "error", f.Error, "state", f.State)
}

// parkedKind is what can be done to parked events.
func parkedKind() kind {
	return kind{
		name: "parked", nav: "handlers", purpose: operate.ParkedEvents(), values: func(v url.Values) url.Values { return parkedValues(parkedFilter(v)) },
		actions: []action{
			{string(inbox.Redrive), "Redrive", "They are handled again, and then what is held behind them.", "redriven", false},
			{string(inbox.Discard), "Discard", "They are given up for good; what is held behind them is handled.", "discarded", true},
		},
		takes: func(a, state string) bool { return inbox.Action(a).Takes(state) },
		count: func(ctx context.Context, conn *pgx.Conn, a string, v url.Values) (int64, error) {
			return inbox.CountParked(ctx, conn, inbox.Action(a), parkedFilter(v))
		},
		do: func(ctx context.Context, conn *pgx.Conn, a string, v url.Values, _ time.Time) (int64, error) {
			return inbox.ChangeParked(ctx, conn, inbox.Action(a), parkedFilter(v))
		},
	}
}

func (c *Console) parkedList(w http.ResponseWriter, req *http.Request) error {
	ctx, done, err := c.turn(req)
	if err != nil {
		return err
	}
	defer done()
	values := req.URL.Query()
	filter := parkedFilter(values)
	k := parkedKind()
	p := page{Title: "Parked events", Nav: k.nav, Notice: k.notice(values)}
	body := map[string]any{
		"Filter": filter, "Values": k.values(values), "States": []string{"retrying", "ready", "held", "failed"}, "Actions": k.possible(filter.State),
		"Filtered": len(k.values(values)) > 0,
	}
	err = c.with(ctx, k.purpose, func(conn *pgx.Conn) error {
		reasons, err := inbox.ParkedReasons(ctx, conn, filter.Handler)
		if err != nil {
			return err
		}
		body["Failures"] = failuresOf(reasons, k.name, filter.Handler)
		list, err := inbox.ListParked(ctx, conn, filter, int64(number(values.Get("before"))), perPage+1)
		if err != nil {
			return err
		}
		if len(list) > perPage {
			list = list[:perPage]
			more := parkedValues(filter)
			more.Set("before", strconv.FormatInt(list[perPage-1].Number, 10))
			body["More"] = more
		}
		body["Events"] = list
		return nil
	})
	if err != nil {
		p.Problems = append(p.Problems, troubleOf(err))
	}
	p.Body = body
	return c.show(w, req, http.StatusOK, "parked", p)
}
