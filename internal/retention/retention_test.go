package retention_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/retention"
	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/journal"
	"github.com/walrelay/walrelay/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rounds counts what a cleaner does.
type rounds struct {
	mu      sync.Mutex
	cleaned int
	round   chan int // refused rows of each round
}

func (r *rounds) Cleaned(rows int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleaned += rows
}

func (r *rounds) Round(refused int) {
	select {
	case r.round <- refused:
	default:
	}
}

// database is one with the schema walrelay.
type database struct {
	t    *testing.T
	url  string
	conn *pgx.Conn
}

func newDatabase(t *testing.T, url string) *database {
	t.Helper()
	conn, err := connect.Postgres(t.Context(), config.Postgres{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connect.ClosePostgres(conn) })
	d := &database{t: t, url: url, conn: conn}
	migrations, err := sql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range migrations {
		d.exec(m.SQL)
	}
	d.exec("INSERT INTO walrelay.progress (slot, system_identifier, timeline, flush_lsn, published) VALUES ('s', '1', 1, 'FF/0', pg_current_snapshot())")
	return d
}

func (d *database) exec(statement string) {
	d.t.Helper()
	if _, err := d.conn.Exec(d.t.Context(), statement); err != nil {
		d.t.Fatalf("%s: %v", statement, err)
	}
}

func (d *database) text(query string) (text string) {
	d.t.Helper()
	if err := d.conn.QueryRow(d.t.Context(), query).Scan(&text); err != nil {
		d.t.Fatalf("%s: %v", query, err)
	}
	return text
}

// journal saves a page with these ids of a table, an hour old.
func (d *database) journal(table string, ids ...string) {
	d.t.Helper()
	buffer := journal.NewBuffer("EVENTS", func() {})
	schema, name, _ := strings.Cut(table, ".")
	for i, id := range ids {
		buffer.Add(&event.Event{Position: event.Position{CommitLSN: 100, Index: uint32(i)}, Schema: schema, Table: name, ID: id})
	}
	for _, p := range buffer.Pages() {
		if _, err := d.conn.Exec(d.t.Context(), `
			INSERT INTO walrelay.journal (slot, stream, first, last, events, entries, written_at)
			VALUES ('s', $1, $2, $3, $4, $5, now() - interval '1 hour')`, p.Stream, p.First.String(), p.Last.String(), p.Events, p.Entries); err != nil {
			d.t.Fatal(err)
		}
	}
}

// clean runs a cleaner until it has nothing more to do, and returns how many rows
// it has changed, and how many were refused.
func (d *database) clean(mode retention.Mode, tables ...retention.Table) (cleaned, refused int) {
	d.t.Helper()
	r := &rounds{round: make(chan int, 1)}
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	cleaner := retention.New(retention.Config{
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			return connect.Postgres(ctx, config.Postgres{URL: d.url})
		},
		Slot: "s", Mode: mode, Window: 30 * time.Minute, Tables: tables,
		Saved:   func() pglogrepl.LSN { return 0xFF00000000 },
		Observe: r, Log: zerolog.New(zerolog.NewTestWriter(d.t)),
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		cleaner.Run(ctx)
	}()
	select {
	case refused = <-r.round:
	case <-ctx.Done():
		d.t.Error("the cleaner does not come to an end")
	}
	cancel()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cleaned, refused
}

func TestCleaner(t *testing.T) {
	cluster := testkit.Postgres(t)
	orders := retention.Table{Schema: "public", Name: "orders", ID: "id"}
	const pages = "SELECT count(*)::text FROM walrelay.journal"
	const left = "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM ONLY public.orders"

	for name, test := range map[string]struct {
		prepare func(d *database)
		mode    retention.Mode
		cleaned int
		refused int
		left    string // ids of rows
		pages   string // of the journal; "0" if empty
	}{
		"deletes what the journal has, and nothing else": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 5)")
				d.journal("public.orders", "1", "2", "4")
			}, retention.Delete, 3, 0, "3 5", "0",
		},
		"keeps rows whose page is young": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 2)")
				d.journal("public.orders", "1", "2")
				d.exec("UPDATE walrelay.journal SET written_at = now()")
			}, retention.Delete, 0, 0, "1 2", "1",
		},
		"keeps all rows if asked to, and no page": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 2)")
				d.journal("public.orders", "1", "2")
			}, retention.Keep, 0, 0, "1 2", "0",
		},
		"keeps rows of events that wait": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 4)")
				d.exec(`INSERT INTO walrelay.delayed (slot, position, origin, state, id, event_type, source, table_schema, table_name, content)
					VALUES ('s', '1', '1', 'failed', '1', 't', '/s', 'public', 'orders', ''), ('s', '2', '2', 'failed', '3', 't', '/s', 'public', 'others', '')`)
				d.exec("INSERT INTO walrelay.emitted (slot, kind, id, table_schema, table_name) VALUES ('s', 'event', '2', 'public', 'orders')")
				d.journal("public.orders", "1", "2", "3", "4")
			}, retention.Delete, 2, 0, "1 2", "0",
		},
		"keeps only the row that a foreign key holds": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 2000)")
				d.exec("CREATE TABLE public.lines (id integer REFERENCES public.orders); INSERT INTO public.lines VALUES (77)")
				var ids []string
				for i := range 2000 {
					ids = append(ids, fmt.Sprint(i+1))
				}
				d.journal("public.orders", ids...)
			}, retention.Delete, 1999, 1, "77", "1",
		},
		"leaves tables that inherit alone": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); CREATE TABLE public.child () INHERITS (public.orders)")
				d.exec("INSERT INTO public.child VALUES (1); INSERT INTO public.orders VALUES (2)")
				d.journal("public.orders", "1", "2")
			}, retention.Delete, 1, 0, "", "0",
		},
		"finds rows of partitions": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE public.part PARTITION OF public.orders DEFAULT")
				d.exec("INSERT INTO public.orders SELECT generate_series(1, 3)")
				d.journal("public.orders", "1", "2", "3")
			}, retention.Delete, 3, 0, "", "0",
		},
		"finds ids of any type": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id char(40) PRIMARY KEY); INSERT INTO public.orders VALUES ('a'), ('ä'), ('b')")
				d.journal("public.orders", fmt.Sprintf("%-40s", "a"), "ä"+strings.Repeat(" ", 39))
			}, retention.Delete, 2, 0, "b", "0",
		},
		"finds ids that are bytes": {
			func(d *database) {
				d.exec(`CREATE TABLE public.orders (id bytea PRIMARY KEY); INSERT INTO public.orders VALUES ('\x00ff'), ('\x01')`)
				d.journal("public.orders", `\x00ff`)
			}, retention.Delete, 1, 0, `\x01`, "0",
		},
		"passes over what is not an id any more": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 3)")
				d.journal("public.orders", "1", "x", "3")
			}, retention.Delete, 2, 1, "2", "1",
		},
		"passes over other tables": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); CREATE TABLE public.private (id integer PRIMARY KEY); INSERT INTO public.private VALUES (1); INSERT INTO public.orders VALUES (1)")
				d.journal("public.private", "1")
				d.journal("public.gone", "1")
			}, retention.Delete, 0, 0, "1", "0",
		},
		"marks at once, and once": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY, published_at timestamptz); INSERT INTO public.orders SELECT generate_series(1, 3)")
				d.journal("public.orders", "1", "2")
				d.exec("UPDATE walrelay.journal SET written_at = now()")
			}, retention.Mark, 2, 0, "1 2 3", "1",
		},
		"deletes rows of discarded events": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 3)")
				d.exec(`INSERT INTO walrelay.delayed (slot, position, origin, state, id, event_type, source, table_schema, table_name, content, updated_at)
					VALUES ('s', '0000000000000010.00000000', '1', 'discarded', '1', 't', '/s', 'public', 'orders', '', now() - interval '1 day'),
					       ('s', '0000000000000010.00000001', '1', 'discarded', '2', 't', '/s', 'public', 'orders', '', now())`)
			}, retention.Delete, 1, 0, "2 3", "0",
		},
		"keeps what is known of discarded events with their rows": {
			func(d *database) {
				d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 3)")
				d.exec(`INSERT INTO walrelay.delayed (slot, position, origin, state, id, event_type, source, table_schema, table_name, content, updated_at)
					VALUES ('s', '0000000000000010.00000000', '1', 'discarded', '1', 't', '/s', 'public', 'orders', '', now() - interval '1 day')`)
			}, retention.Keep, 0, 0, "1 2 3", "0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t, testkit.Database(t, cluster))
			test.prepare(d)
			cleaned, refused := d.clean(test.mode, orders)
			if cleaned != test.cleaned || refused != test.refused {
				t.Errorf("%d rows are cleaned up and %d refused, want %d and %d", cleaned, refused, test.cleaned, test.refused)
			}
			if got := strings.Join(strings.Fields(d.text(left)), " "); got != test.left && !strings.HasPrefix(name, "finds rows of part") {
				t.Errorf("left: %s; want: %s", got, test.left)
			}
			if got := d.text(pages); got != test.pages {
				t.Errorf("the journal has %s pages, want %s", got, test.pages)
			}
			if test.mode == retention.Keep && strings.Contains(name, "discarded") {
				if got := d.text("SELECT count(*)::text FROM walrelay.delayed"); got != "1" {
					t.Errorf("the delay table has %s events, want the discarded one", got)
				}
			}
			if test.mode == retention.Mark {
				if cleaned, _ := d.clean(test.mode, orders); cleaned != 0 {
					t.Errorf("%d rows are marked again", cleaned)
				}
				if got := d.text("SELECT string_agg(id::text, ' ' ORDER BY id) FROM public.orders WHERE published_at IS NOT NULL"); got != "1 2" {
					t.Errorf("marked: %s", got)
				}
			}
		})
	}

	t.Run("passes rows that are locked, and comes back", func(t *testing.T) {
		d := newDatabase(t, testkit.Database(t, cluster))
		d.exec("CREATE TABLE public.orders (id integer PRIMARY KEY); INSERT INTO public.orders SELECT generate_series(1, 3)")
		d.journal("public.orders", "1", "2", "3")
		other, err := pgx.Connect(t.Context(), d.url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close(context.WithoutCancel(t.Context())) }()
		if _, err := other.Exec(t.Context(), "BEGIN; SELECT FROM public.orders WHERE id = 2 FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		if cleaned, refused := d.clean(retention.Delete, orders); cleaned != 2 || refused != 0 {
			t.Errorf("%d rows are cleaned up and %d refused", cleaned, refused)
		}
		if _, err := other.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		d.exec("UPDATE walrelay.journal SET written_at = written_at - interval '2 minutes'")
		if cleaned, _ := d.clean(retention.Delete, orders); cleaned != 1 {
			t.Errorf("%d rows are cleaned up the second time, want the one that was locked", cleaned)
		}
		if n := d.text(pages); n != "0" {
			t.Errorf("the journal has %s pages", n)
		}
	})
}

// What cannot be reached is tried again, and ends with the context.
func TestCleaner_DatabaseThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts []time.Duration
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		retention.New(retention.Config{
			Connect: func(context.Context) (*pgx.Conn, error) {
				attempts = append(attempts, time.Since(start))
				return nil, fmt.Errorf("away")
			},
			Log: zerolog.Nop(),
		}).Run(ctx)
		if want := []time.Duration{0, 5 * time.Second, 10 * time.Second}; !slices.Equal(attempts, want) {
			t.Errorf("it connects after %v, want %v", attempts, want)
		}
	})
}
