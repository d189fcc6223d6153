package outbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	_ "github.com/lib/pq"              // the driver postgres
	"go.opentelemetry.io/otel/trace"

	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/outbox"
	"github.com/walrelay/walrelay/outbox/outboxtest"
	walrelaysql "github.com/walrelay/walrelay/sql"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// newDatabase has walrelay's tables, and no relay.
func newDatabase(t testing.TB) string {
	t.Helper()
	url := newEmptyDatabase(t)
	conn := connect(t, url)
	migrations, err := walrelaysql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	statements := []string{}
	for _, m := range migrations {
		statements = append(statements, m.SQL)
	}
	table, err := walrelaysql.Outbox(walrelaysql.Table{Schema: "public", Name: "outbox"})
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range append(statements, table) {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return url
}

func newEmptyDatabase(t testing.TB) string {
	t.Helper()
	return testkit.Database(t, testkit.Shared(t))
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func open(t testing.TB, driver, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// transactions are a transaction of each driver. Each is rolled back at the end.
func transactions(t *testing.T, url string, test func(t *testing.T, tx outbox.Tx)) {
	t.Helper()
	t.Run("pgx", func(t *testing.T) {
		conn := connect(t, url)
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		test(t, tx)
	})
	t.Run("pgx, simple protocol", func(t *testing.T) {
		config, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		test(t, tx)
	})
	t.Run("pgxpool", func(t *testing.T) {
		pool, err := pgxpool.New(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		test(t, tx)
	})
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run("database/sql with "+driver, func(t *testing.T) {
			address := url
			if driver == "postgres" && !strings.Contains(url, "sslmode") {
				address += "?sslmode=disable"
			}
			tx, err := open(t, driver, address).BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			test(t, outbox.SQL(tx))
		})
	}
}

type order struct {
	Number int     `json:"number"`
	Note   string  `json:"note"`
	Total  float64 `json:"total"`
}

func TestEventsAreRowsOfTheTransaction(t *testing.T) {
	t.Parallel()
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	orders := outbox.Outbox{Source: "/orders"}
	transactions(t, newDatabase(t), func(t *testing.T, tx outbox.Tx) {
		id, err := orders.Publish(t.Context(), tx, outbox.Event{
			Type: "order.placed", Subject: "42", Data: order{42, `<&> "ü"`, 9.9}, Key: "customer-8", At: at, MaxRetries: new(0),
			DataSchema: "https://example.org/order.json", Extensions: map[string]any{"tenant": "t1", "late": true, "attempt": 3},
		})
		if err != nil {
			t.Fatal(err)
		}
		ids, err := orders.PublishAll(t.Context(), tx, []outbox.Event{
			{Type: "raw", Source: "/other", Data: []byte{0, 1, 255}},
			{Type: "text", Data: "plain", ContentType: "text/plain"},
			{Type: "json", Data: json.RawMessage(`null`)},
			{Type: "own", Data: []byte(`{"a":  1}`), ContentType: "application/vnd.x+json"},
			{Type: "none", ID: "00000000-0000-0000-0000-00000000000a"},
		})
		if err != nil || len(ids) != 5 || ids[4] != "00000000-0000-0000-0000-00000000000a" {
			t.Fatalf("%v %v", ids, err)
		}
		first := outboxtest.One(t, tx, outboxtest.Type("order.placed"), outboxtest.Key("customer-8"), outboxtest.Source("/orders"),
			outboxtest.Subject("42"), outboxtest.Data(order{42, `<&> "ü"`, 9.9}))
		if first.ID != id || !first.At.Equal(at) || first.MaxRetries == nil || *first.MaxRetries != 0 ||
			first.Extensions["tenant"] != "t1" || first.Extensions["late"] != true || first.Extensions["attempt"] != 3.0 {
			t.Errorf("the event is %+v", first)
		}
		var types []string
		all := outboxtest.Published(t, tx)
		for _, ev := range all {
			types = append(types, ev.Type)
		}
		if want := []string{"order.placed", "raw", "text", "json", "own", "none"}; !slices.Equal(types, want) {
			t.Fatalf("the transaction has %q, want %q", types, want)
		}
		if string(all[1].Data) != "\x00\x01\xff" || all[1].Source != "/other" || string(all[2].Data) != "plain" || all[2].ContentType != "text/plain" {
			t.Errorf("the bytes are %+v and %+v", all[1], all[2])
		}
		var null bool
		if err := tx.QueryRow(t.Context(), "SELECT data = 'null' FROM public.outbox WHERE event_type = 'json'").Scan(&null); err != nil || !null {
			t.Errorf("JSON null is no payload (%v)", err)
		}
		outboxtest.None(t, tx, outboxtest.Type("order.cancelled"))
	})
}

// Statement and COPY write the same rows.
func TestManyEventsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	transactions(t, newDatabase(t), func(t *testing.T, tx outbox.Tx) {
		for _, n := range []int{0, 1, 199, 200, 2500} {
			events := make([]outbox.Event, n)
			for i := range events {
				events[i] = outbox.Event{Type: fmt.Sprintf("many.%d", n), Source: "/s", Data: i, Key: "k", Extensions: map[string]any{"n": i}, MaxRetries: new(i)}
				switch i % 10 {
				case 1:
					events[i].Data = []byte{byte(i), 0xFF}
				case 2:
					events[i].Data = nil
				case 3:
					events[i].Data, events[i].ContentType, events[i].At = "text", "text/plain", time.Unix(4e9, 0)
				case 4:
					events[i].Data, events[i].Key, events[i].Extensions, events[i].MaxRetries = json.RawMessage("null"), "", nil, nil
				}
			}
			ids, err := outbox.Outbox{}.PublishAll(t.Context(), tx, events)
			if err != nil || len(ids) != n {
				t.Fatalf("%d events give %d ids (%v)", n, len(ids), err)
			}
			var got []outboxtest.Event
			for _, ev := range outboxtest.Published(t, tx) {
				if ev.Type == fmt.Sprintf("many.%d", n) {
					got = append(got, ev)
				}
			}
			if len(got) != n {
				t.Fatalf("%d events make %d rows", n, len(got))
			}
			for i, ev := range got {
				want, at := []byte(fmt.Sprint(i)), time.Time{}
				switch i % 10 {
				case 1:
					want = []byte{byte(i), 0xFF}
				case 2, 4:
					want = nil
				case 3:
					want, at = []byte("text"), time.Unix(4e9, 0)
				}
				if ev.ID != ids[i] || string(ev.Data) != string(want) || !ev.At.Equal(at) || (ev.Key == "k") == (i%10 == 4) ||
					(ev.Extensions == nil) != (i%10 == 4) || (ev.MaxRetries == nil) != (i%10 == 4) {
					t.Fatalf("event %d of %d is %+v, want id %s and data %q", i, n, ev, ids[i], want)
				}
			}
			var nulls int
			if err := tx.QueryRow(t.Context(), "SELECT count(*) FROM public.outbox WHERE data = 'null' AND event_type = $1", fmt.Sprintf("many.%d", n)).Scan(&nulls); err != nil || nulls != (n+5)/10 {
				t.Errorf("%d of %d payloads are JSON null (%v), want %d", nulls, n, err, (n+5)/10)
			}
		}
	})
}

func TestPublish_RefusesWhatARelayCannotPublish(t *testing.T) {
	t.Parallel()
	conn := connect(t, newDatabase(t))
	good := outbox.Event{Type: "t", Source: "/s"}
	for name, test := range map[string]struct {
		change func(*outbox.Event)
		want   string
	}{
		"no type":         {func(ev *outbox.Event) { ev.Type = "" }, "type: it is empty; every event needs a value here"},
		"no source":       {func(ev *outbox.Event) { ev.Source = "" }, "source: it is empty"},
		"blank type":      {func(ev *outbox.Event) { ev.Type = " " }, "type: it is nothing but white space"},
		"control":         {func(ev *outbox.Event) { ev.Type = "a\nb" }, "type: it has a control character"},
		"not UTF-8":       {func(ev *outbox.Event) { ev.Subject = "\xff" }, "subject: it is not valid UTF-8"},
		"source":          {func(ev *outbox.Event) { ev.Source = "%zz" }, `source: "%zz" is not a URI reference`},
		"schema":          {func(ev *outbox.Event) { ev.DataSchema = "order.json" }, "dataschema: \"order.json\" is not an absolute URI"},
		"content type":    {func(ev *outbox.Event) { ev.ContentType = "a/b/c" }, "datacontenttype: \"a/b/c\" is not a media type"},
		"id":              {func(ev *outbox.Event) { ev.ID = "7" }, `id: "7" is not a UUID`},
		"retries":         {func(ev *outbox.Event) { ev.MaxRetries = new(-1) }, "max_retries: -1 is not a number of retries"},
		"far future":      {func(ev *outbox.Event) { ev.At = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) }, "scheduled_at: 12000-01-01"},
		"extension name":  {func(ev *outbox.Event) { ev.Extensions = map[string]any{"Trace-ID": "x"} }, `extension "Trace-ID": a name has lower-case letters and digits only`},
		"extension value": {func(ev *outbox.Event) { ev.Extensions = map[string]any{"x": []int{1}} }, `extension "x": it is an object or an array`},
		"extension id":    {func(ev *outbox.Event) { ev.Extensions = map[string]any{"id": "1"} }, `extension "id": the name is an attribute of CloudEvents itself`},
		"large number":    {func(ev *outbox.Event) { ev.Extensions = map[string]any{"x": 1 << 40} }, "is not a 32-bit integer"},
		"two keys": {func(ev *outbox.Event) { ev.Key, ev.Extensions = "a", map[string]any{"partitionkey": "b"} },
			`extension "partitionkey": the event has the key "a"`},
		"bad JSON":           {func(ev *outbox.Event) { ev.Data = json.RawMessage("{") }, "data: it is not valid JSON"},
		"JSON with NUL":      {func(ev *outbox.Event) { ev.Data = "a\x00b" }, `data: it has the character \u0000`},
		"no JSON at all":     {func(ev *outbox.Event) { ev.Data = func() {} }, "data: writing it as JSON"},
		"text as a struct":   {func(ev *outbox.Event) { ev.Data, ev.ContentType = order{}, "text/plain" }, `data: it is a outbox_test.order, and the content type is "text/plain"`},
		"text as RawMessage": {func(ev *outbox.Event) { ev.Data, ev.ContentType = json.RawMessage("1"), "text/plain" }, "data: it is a json.RawMessage"},
	} {
		ev := good
		test.change(&ev)
		_, err := outbox.Outbox{}.Publish(t.Context(), conn, ev)
		if !errors.Is(err, outbox.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want ErrInvalid with %q", name, err, test.want)
		}
	}
	if _, err := (outbox.Outbox{}).Publish(t.Context(), conn, outbox.Event{Type: "t", Source: "/s", Data: `a\u0000b`}); err != nil {
		t.Errorf("a backslash before u0000 is no NUL: %v", err)
	}
	_, err := outbox.Outbox{}.PublishAll(t.Context(), conn, []outbox.Event{good, {Source: "/s"}, good, {Type: "t"}})
	if err == nil || !strings.Contains(err.Error(), "event 2 of 4: ") || !strings.Contains(err.Error(), "event 4 of 4: ") {
		t.Errorf("two faults of four events are %v", err)
	}
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM public.outbox").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d events were written (%v), want the good one", n, err)
	}
}

func TestPublish_WrongTransactionOrDatabase(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := newDatabase(t)
	ev := outbox.Event{Type: "t", Source: "/s"}
	expect := func(what string, err error, is error, text string) {
		t.Helper()
		if err == nil || is != nil && !errors.Is(err, is) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", what, err, text)
		}
	}
	publish := func(o outbox.Outbox, tx outbox.Tx) error {
		_, err := o.Publish(ctx, tx, ev)
		return err
	}
	var noTx pgx.Tx
	var noConn *pgx.Conn
	var noSQL *sql.Tx
	expect("nil", publish(outbox.Outbox{}, nil), outbox.ErrNoTransaction, "it is nil")
	expect("nil pgx.Tx", publish(outbox.Outbox{}, noTx), outbox.ErrNoTransaction, "it is nil")
	expect("nil *pgx.Conn", publish(outbox.Outbox{}, noConn), outbox.ErrNoTransaction, "it is nil")
	expect("nil *sql.Tx", publish(outbox.Outbox{}, outbox.SQL(noSQL)), outbox.ErrNoTransaction, "it is nil")
	_, err := outbox.Outbox{}.Status(ctx, nil, "x")
	expect("status without a connection", err, outbox.ErrNoTransaction, "it is nil")

	conn := connect(t, url)
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	expect("committed pgx", publish(outbox.Outbox{}, tx), outbox.ErrNoTransaction, "was committed or rolled back before")
	sqlTx, err := open(t, "pgx", url).BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlTx.Rollback(); err != nil {
		t.Fatal(err)
	}
	expect("rolled back *sql.Tx", publish(outbox.Outbox{}, outbox.SQL(sqlTx)), outbox.ErrNoTransaction, "was committed or rolled back before")

	expect("no table", publish(outbox.Outbox{Table: "public.other"}, conn), outbox.ErrNotInstalled, `run "walrelay init"`)
	expect("no schema in the name", publish(outbox.Outbox{Table: "outbox"}, conn), nil, "write the table with its schema")
	expect("three parts", publish(outbox.Outbox{Table: "a.b.c"}, conn), nil, "write the table with its schema")
	empty := connect(t, newEmptyDatabase(t))
	expect("no walrelay", publish(outbox.Outbox{}, empty), outbox.ErrNotInstalled, `run "walrelay init"`)
	_, err = outbox.Outbox{}.Cancel(ctx, empty, "x")
	expect("no function", err, outbox.ErrNotInstalled, `run "walrelay init"`)

	twice := outbox.Event{ID: "00000000-0000-0000-0000-000000000001", Type: "t", Source: "/s"}
	if _, err := (outbox.Outbox{}).Publish(ctx, conn, twice); err != nil {
		t.Fatal(err)
	}
	_, err = outbox.Outbox{}.Publish(ctx, conn, twice)
	expect("the same id", err, nil, "an event with this id is in the table already")
	if _, err := conn.Exec(ctx, "CREATE ROLE stranger_"+fmt.Sprint(os.Getpid())+"; SET ROLE stranger_"+fmt.Sprint(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	expect("no rights", publish(outbox.Outbox{}, conn), nil, "GRANT walrelay_app TO it")
}

func TestSavepointsCount(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	conn := connect(t, newDatabase(t))
	publish := func(tx outbox.Tx, typ string) {
		t.Helper()
		if _, err := (outbox.Outbox{Source: "/s"}).Publish(ctx, tx, outbox.Event{Type: typ}); err != nil {
			t.Fatal(err)
		}
	}
	publish(conn, "committed before")
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	publish(tx, "one")
	for typ, end := range map[string]func(pgx.Tx) error{
		"kept": func(tx pgx.Tx) error { return tx.Commit(ctx) },
		"gone": func(tx pgx.Tx) error { return tx.Rollback(ctx) },
	} {
		savepoint, err := tx.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		publish(savepoint, typ)
		if err := end(savepoint); err != nil {
			t.Fatal(err)
		}
	}
	outboxtest.One(t, tx, outboxtest.Type("one"))
	outboxtest.One(t, tx, outboxtest.Type("kept"))
	outboxtest.None(t, tx, outboxtest.Type("gone"))
	outboxtest.None(t, tx, outboxtest.Type("committed before"))
}

func TestCloudEventsOfTheSDK(t *testing.T) {
	t.Parallel()
	conn := connect(t, newDatabase(t))
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ce := cloudevents.New()
	ce.SetID("00000000-0000-0000-0000-00000000000c")
	ce.SetType("order.completed")
	ce.SetSource("/orders")
	ce.SetSubject("Order #456")
	ce.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 600000000, time.UTC))
	ce.SetExtension("partitionkey", "k")
	ce.SetExtension("attempt", 3)
	ce.SetExtension("due", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	if err := ce.SetData("application/json", map[string]any{"order_id": 456, "total": 99.99}); err != nil {
		t.Fatal(err)
	}
	id, err := outbox.Outbox{}.PublishCloudEvent(t.Context(), tx, ce)
	if err != nil || id != ce.ID() {
		t.Fatalf("%s %v", id, err)
	}
	got := outboxtest.One(t, tx, outboxtest.Data(map[string]any{"order_id": 456, "total": 99.99}), outboxtest.Key("k"))
	if got.Extensions["attempt"] != 3.0 || got.Extensions["due"] != "2026-01-02T00:00:00Z" || got.Extensions["partitionkey"] != nil || got.ContentType != "application/json" {
		t.Errorf("the event is %+v", got)
	}
	var created time.Time
	if err := tx.QueryRow(t.Context(), "SELECT created_at FROM public.outbox").Scan(&created); err != nil || !created.Equal(ce.Time()) {
		t.Errorf("its time is %v (%v), want %v", created, err, ce.Time())
	}
	ce.SetID("of-another-system")
	if _, err := (outbox.Outbox{}).PublishCloudEvent(t.Context(), tx, ce); !errors.Is(err, outbox.ErrInvalid) {
		t.Errorf("an id that is no UUID gives %v", err)
	}
}

func TestSpanOfTheContextBecomesTraceparent(t *testing.T) {
	t.Parallel()
	conn := connect(t, newDatabase(t))
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state, err := trace.ParseTraceState("vendor=1")
	if err != nil {
		t.Fatal(err)
	}
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4, 5}, TraceFlags: trace.FlagsSampled, TraceState: state,
	}))
	box := outbox.Outbox{Source: "/s"}
	for _, ev := range []outbox.Event{{Type: "spanned"}, {Type: "own", Extensions: map[string]any{"traceparent": "x"}}} {
		if _, err := box.Publish(ctx, tx, ev); err != nil {
			t.Fatal(err)
		}
	}
	got := outboxtest.One(t, tx, outboxtest.Type("spanned")).Extensions
	if got["traceparent"] != "00-01020300000000000000000000000000-0405000000000000-01" || got["tracestate"] != "vendor=1" {
		t.Errorf("the extensions are %v", got)
	}
	if got := outboxtest.One(t, tx, outboxtest.Type("own")).Extensions; got["traceparent"] != "x" || got["tracestate"] != nil {
		t.Errorf("the event's own traceparent became %v", got)
	}
}

func TestStatusOfAnEvent(t *testing.T) {
	t.Parallel()
	transactions(t, newDatabase(t), func(t *testing.T, tx outbox.Tx) {
		box := outbox.Outbox{Source: "/s"}
		id, err := box.Publish(t.Context(), tx, outbox.Event{Type: "t"})
		if err != nil {
			t.Fatal(err)
		}
		// Nobody has said which tables a slot reads.
		if s, err := box.Status(t.Context(), tx, id); err != nil || s.State != outbox.Unknown || s.Reason == "" {
			t.Errorf("the status is %+v (%v)", s, err)
		}
		if ok, err := box.Cancel(t.Context(), tx, id); err != nil || ok {
			t.Errorf("an event that is not scheduled is cancelled: %v %v", ok, err)
		}
		if ok, err := box.Reschedule(t.Context(), tx, id, time.Now()); err != nil || ok {
			t.Errorf("an event that is not scheduled is moved: %v %v", ok, err)
		}
	})
}

// fake is a test of which it is of interest whether it fails.
type fake struct {
	testing.TB

	said []string
}

func (f *fake) Helper()                      {}
func (f *fake) Context() context.Context     { return context.Background() }
func (f *fake) Errorf(text string, a ...any) { f.said = append(f.said, fmt.Sprintf(text, a...)) }
func (f *fake) Fatalf(text string, a ...any) { f.Errorf(text, a...); panic(f) }

func TestMatchersSayWhatIsThere(t *testing.T) {
	t.Parallel()
	conn := connect(t, newDatabase(t))
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (outbox.Outbox{Source: "/s"}).Publish(t.Context(), tx, outbox.Event{Type: "order.placed", Key: "k", Data: 1}); err != nil {
		t.Fatal(err)
	}
	run := func(test func(t testing.TB)) string {
		f := &fake{}
		func() {
			defer func() {
				if r := recover(); r != nil && r != any(f) {
					panic(r)
				}
			}()
			test(f)
		}()
		return strings.Join(f.said, "\n")
	}
	for want, test := range map[string]func(t testing.TB){
		`published 0 events with type "order.paid", want 1; it has published`: func(t testing.TB) { outboxtest.One(t, tx, outboxtest.Type("order.paid")) },
		`type "order.placed" source "/s" subject "" key "k" data 1`:           func(t testing.TB) { outboxtest.One(t, tx, outboxtest.Key("other")) },
		`published 1 events with anything, want none`:                         func(t testing.TB) { outboxtest.None(t, tx) },
		`published 0 events with data 2`:                                      func(t testing.TB) { outboxtest.One(t, tx, outboxtest.Data(2)) },
	} {
		if got := run(test); !strings.Contains(got, want) {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}
