package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	cebinding "github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/testkit"
)

// subjectsOf lists the ce-subject of every message, in order.
func subjectsOf(messages []stored) []string {
	list := make([]string, len(messages))
	for i, m := range messages {
		list[i] = m.header.Get("ce-subject")
	}
	return list
}

// insertSQL inserts an event with that subject.
func insertSQL(table, subject string) string {
	return fmt.Sprintf("INSERT INTO %s (event_type, source, subject, data) VALUES ('order.created', '/e2e', '%s', '{}');", table, subject)
}

func TestTables_ChangeWhileStreaming(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run()
	script := insertSQL("outbox", "plain") +
		"ALTER TABLE outbox ADD COLUMN tenant text DEFAULT 'x';" + insertSQL("outbox", "column-added") +
		"ALTER TABLE outbox DROP COLUMN max_retries;" + insertSQL("outbox", "column-dropped") +
		"ALTER TABLE outbox ALTER COLUMN subject TYPE varchar(100);" + insertSQL("outbox", "column-retyped") +
		"BEGIN;" + insertSQL("outbox", "before-in-transaction") +
		"ALTER TABLE outbox DROP COLUMN tenant; ALTER TABLE outbox ADD COLUMN first text;" +
		insertSQL("outbox", "after-in-transaction") + "COMMIT;" +
		"CREATE TABLE unrelated (n int PRIMARY KEY); INSERT INTO unrelated VALUES (1); UPDATE unrelated SET n = 2; DELETE FROM unrelated;" +
		"TRUNCATE outbox;" + insertSQL("outbox", "after-truncate") +
		"UPDATE outbox SET subject = 'changed'; DELETE FROM outbox;" +
		"BEGIN;" + insertSQL("outbox", "inserted-and-deleted") + "DELETE FROM outbox; COMMIT;" +
		"BEGIN;" + insertSQL("outbox", "prepared") + "PREPARE TRANSACTION 'two-phase'; " + insertSQL("outbox", "between") + "COMMIT PREPARED 'two-phase';" +
		"ALTER TABLE outbox ALTER COLUMN data SET STORAGE EXTERNAL;" +
		"INSERT INTO outbox (event_type, source, subject, data) VALUES ('order.created', '/e2e', 'large', to_jsonb(repeat('x', 200000)));"
	execScript(t, e.postgresURL, script)
	e.awaitCaughtUp()
	want := []string{
		"plain", "column-added", "column-dropped", "column-retyped", "before-in-transaction", "after-in-transaction",
		"after-truncate", "inserted-and-deleted", "between", "prepared", "large",
	}
	if got := subjectsOf(readStream(t, e.nats(), "EVENTS")); !slices.Equal(got, want) {
		t.Errorf("the stream has\n%q, want\n%q", got, want)
	}
}

func TestTables_PartitionedAndSeveral(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("outbox: {tables: [public.outbox, sales.events]}\n")
	testkit.Exec(t, e.postgresURL, `
		CREATE SCHEMA sales;
		CREATE TABLE sales.events (
			id uuid NOT NULL DEFAULT gen_random_uuid(), event_type text NOT NULL, source text NOT NULL, subject text,
			data jsonb, created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, created_at)
		) PARTITION BY RANGE (created_at);
		CREATE TABLE sales.events_old PARTITION OF sales.events FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
		CREATE TABLE sales.events_new PARTITION OF sales.events FOR VALUES FROM ('2020-01-01') TO ('2200-01-01');`)
	e.init()
	e.run()
	execScript(t, e.postgresURL, "BEGIN;"+
		insertSQL("public.outbox", "1")+insertSQL("sales.events", "2")+insertSQL("public.outbox", "3")+
		insertSQL("sales.events_new", "4")+"COMMIT;"+
		"CREATE TABLE sales.events_far PARTITION OF sales.events FOR VALUES FROM ('2200-01-01') TO (MAXVALUE);"+
		"INSERT INTO sales.events (event_type, source, subject, created_at) VALUES ('order.created', '/e2e', '5', '2300-01-01');"+
		"ALTER TABLE sales.events DETACH PARTITION sales.events_old;"+
		insertSQL("sales.events", "6"))
	e.awaitCaughtUp()
	if got, want := subjectsOf(readStream(t, e.nats(), "EVENTS")), []string{"1", "2", "3", "4", "5", "6"}; !slices.Equal(got, want) {
		t.Errorf("the stream has %q, want %q", got, want)
	}
}

// An UPDATE that moves a row to another partition is no new event.
func TestTables_RowThatMovesToAnotherPartition(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("outbox: {tables: [public.parts]}\n")
	testkit.Exec(t, e.postgresURL, `
		CREATE TABLE parts (id uuid, event_type text, source text, subject text, data jsonb, done boolean DEFAULT false, PRIMARY KEY (id, done)) PARTITION BY LIST (done);
		CREATE TABLE parts_open PARTITION OF parts FOR VALUES IN (false);
		CREATE TABLE parts_done PARTITION OF parts FOR VALUES IN (true);`)
	e.init()
	r := e.run()
	testkit.Exec(t, e.postgresURL, "INSERT INTO parts (id, event_type, source) SELECT gen_random_uuid(), 'order.created', '/e2e' FROM generate_series(1, 10)")
	e.awaitMessages("EVENTS", 10)
	testkit.Exec(t, e.postgresURL, "UPDATE parts SET done = true")
	testkit.Exec(t, e.postgresURL, "WITH gone AS (DELETE FROM parts WHERE done RETURNING *) INSERT INTO parts SELECT gen_random_uuid(), event_type, source, 'new' FROM gone LIMIT 1")
	e.awaitMessages("EVENTS", 11)
	e.awaitCaughtUp()
	if n := e.messages("EVENTS"); n != 11 {
		t.Errorf("the stream has %d messages, want 11", n)
	}
	if moved, err := r.metric(`walrelay_events_total{outcome="moved"}`); err != nil || moved != 10 {
		t.Errorf("%v rows were counted as moved (%v), want 10", moved, err)
	}
}

func TestTables_Presets(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig(`
outbox:
  tables: [public.dbz, public.outbox_events, public.notices]
  mappings:
    - {table: public.dbz, preset: debezium}
    - {table: public.outbox_events, preset: django-broadcaster}
    - table: public.notices
      columns: {id: notice_id, type: kind, data: body, time: at, subject: "", partition_key: "", extensions: "", data_bytes: "", datacontenttype: "", dataschema: "", scheduled_at: "", max_retries: ""}
      values: {source: "/shop/{region}"}
`)
	testkit.Exec(t, e.postgresURL, `
		CREATE TABLE dbz (id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL, aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload jsonb);
		CREATE TABLE outbox_events (
			id uuid PRIMARY KEY, spec_version varchar(10) NOT NULL, event_type varchar(255) NOT NULL, source varchar(255) NOT NULL,
			subject varchar(255) NOT NULL, data_content_type varchar(100) NOT NULL, data_schema varchar(200) NOT NULL, data jsonb,
			status varchar(20) NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, scheduled_at timestamptz NOT NULL,
			published_at timestamptz, retry_count int NOT NULL, max_retries int NOT NULL, last_error text NOT NULL,
			publisher_backend varchar(100) NOT NULL, publisher_config jsonb NOT NULL);
		CREATE TABLE notices (notice_id bigint PRIMARY KEY, kind text NOT NULL, region text NOT NULL, body jsonb, at timestamptz);`)
	e.init()
	e.run()
	testkit.Exec(t, e.postgresURL, `
		INSERT INTO dbz VALUES ('00000000-0000-0000-0000-000000000001', 'customer', '77', 'CustomerMoved', '{"to": "Rome"}');
		INSERT INTO outbox_events VALUES ('00000000-0000-0000-0000-000000000002', '1.0', 'user.created', 'user-service', '', 'application/json', '',
			'{"user_id": 123}', 'pending', '2026-01-02 03:04:05.5+00', now(), now(), NULL, 0, 3, '', '', '{}');
		INSERT INTO notices VALUES (3, 'notice.sent', 'eu', '{"n": 3}', '2026-01-02 03:04:05+02');`)
	e.awaitCaughtUp()
	messages := readStream(t, e.nats(), "EVENTS")
	want := []map[string]string{
		{"ce-id": "00000000-0000-0000-0000-000000000001", "ce-type": "CustomerMoved", "ce-source": "/customer", "ce-subject": "77", "ce-partitionkey": "77"},
		{"ce-id": "00000000-0000-0000-0000-000000000002", "ce-type": "user.created", "ce-source": "user-service", "ce-subject": "", "ce-time": "2026-01-02T03:04:05.5Z", "ce-dataschema": ""},
		{"ce-id": "3", "ce-type": "notice.sent", "ce-source": "/shop/eu", "ce-time": "2026-01-02T01:04:05Z"},
	}
	if len(messages) != len(want) {
		t.Fatalf("the stream has %d messages, want %d", len(messages), len(want))
	}
	for i, headers := range want {
		for name, value := range headers {
			if got := messages[i].header.Get(name); got != value {
				t.Errorf("message %d has %s %q, want %q", i+1, name, got, value)
			}
		}
	}
}

// A reader of CloudEvents that is not ours reads what arrives, in both modes.
func TestMessages_ReadByTheSDK(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"binary", "structured"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, shared)
			e.writeConfig("publish: {mode: " + mode + "}\n")
			e.init()
			e.run()
			testkit.Exec(t, e.postgresURL, `INSERT INTO outbox (id, event_type, source, subject, data, data_schema, extensions, partition_key, created_at)
				VALUES ('00000000-0000-0000-0000-00000000000a', 'order.created', '/orders', 'order-42', '{"total": 9.90, "note": "<ü & \"q\">"}',
					'https://example.org/order.json', '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "attempt": 3, "late": true}', 'k1', '2026-11-23 10:11:12.25+00')`)
			e.awaitMessages("EVENTS", 1)
			got := readCloudEvent(t, readStream(t, e.nats(), "EVENTS")[0])
			if err := got.Validate(); err != nil {
				t.Errorf("the event is not valid: %v", err)
			}
			for what, values := range map[string][2]string{
				"id":              {got.ID(), "00000000-0000-0000-0000-00000000000a"},
				"type":            {got.Type(), "order.created"},
				"source":          {got.Source(), "/orders"},
				"subject":         {got.Subject(), "order-42"},
				"dataschema":      {got.DataSchema(), "https://example.org/order.json"},
				"datacontenttype": {got.DataContentType(), "application/json"},
				"time":            {got.Time().Format(time.RFC3339Nano), "2026-11-23T10:11:12.25Z"},
				"partitionkey":    {fmt.Sprint(got.Extensions()["partitionkey"]), "k1"},
				"traceparent":     {fmt.Sprint(got.Extensions()["traceparent"]), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
				"attempt":         {fmt.Sprint(got.Extensions()["attempt"]), "3"},
				"late":            {fmt.Sprint(got.Extensions()["late"]), "true"},
			} {
				if values[0] != values[1] {
					t.Errorf("%s is %q, want %q", what, values[0], values[1])
				}
			}
			var data struct {
				Total json.Number `json:"total"`
				Note  string      `json:"note"`
			}
			if err := json.Unmarshal(got.Data(), &data); err != nil || data.Total != "9.90" || data.Note != `<ü & "q">` {
				t.Errorf("the payload is %s (%v)", got.Data(), err)
			}
		})
	}
}

// readCloudEvent reads a message with the CloudEvents SDK: the JSON of
// structured mode as it is, and binary mode attribute by attribute.
func readCloudEvent(t *testing.T, m stored) cebinding.Event {
	t.Helper()
	got := cebinding.New()
	if strings.HasPrefix(m.header.Get("Content-Type"), "application/cloudevents") {
		if err := json.Unmarshal(m.data, &got); err != nil {
			t.Fatalf("the SDK does not read %s: %v", m.data, err)
		}
		return got
	}
	for name, values := range m.header {
		attribute, ok := strings.CutPrefix(name, "ce-")
		if !ok {
			continue
		}
		switch attribute {
		case "id":
			got.SetID(values[0])
		case "type":
			got.SetType(values[0])
		case "source":
			got.SetSource(values[0])
		case "subject":
			got.SetSubject(values[0])
		case "dataschema":
			got.SetDataSchema(values[0])
		case "datacontenttype":
			got.SetDataContentType(values[0])
		case "specversion":
			got.SetSpecVersion(values[0])
		case "time":
			at, err := time.Parse(time.RFC3339Nano, values[0])
			if err != nil {
				t.Errorf("ce-time: %v", err)
			}
			got.SetTime(at)
		default:
			got.SetExtension(attribute, values[0])
		}
	}
	got.DataEncoded = m.data
	return got
}

func TestPublication_DroppedEndsTheRelay(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	e.insert(5)
	e.awaitCaughtUp()
	r.Kill()
	testkit.Exec(t, e.postgresURL, "DROP PUBLICATION "+e.slot)
	e.insert(5)
	testkit.Exec(t, e.postgresURL, "CREATE PUBLICATION "+e.slot+" FOR TABLE outbox, walrelay.emitted WITH (publish = 'insert', publish_via_partition_root = true)")
	e.insert(5)
	r = e.start()
	if code := r.wait(30 * time.Second); code != 1 {
		t.Errorf("the relay ended with %d, want 1", code)
	}
	if logs := r.logs.String(); !strings.Contains(logs, "publication") || !strings.Contains(logs, "docs/operations.md") {
		t.Errorf("the relay does not say what is wrong and what to do:\n%s", r.logs.Tail(5))
	}
}

func TestPublication_TableRemovedEndsTheRelay(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	testkit.Exec(t, e.postgresURL, "ALTER PUBLICATION "+e.slot+" DROP TABLE outbox")
	if code := r.wait(60 * time.Second); code != 1 {
		t.Errorf("the relay ended with %d, want 1", code)
	}
	if logs := r.logs.String(); !strings.Contains(logs, "public.outbox") {
		t.Errorf("the relay does not name the table:\n%s", r.logs.Tail(5))
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.writeConfig("routes: [{type: \"debug.*\", drop: true}]\n")
	e.init()
	r := e.run()
	e.insert(30)
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source) SELECT 'debug.x', '/e2e' FROM generate_series(1, 7)")
	e.awaitCaughtUp()
	for name, want := range map[string]float64{
		`walrelay_events_total{outcome="published"}`: 30,
		`walrelay_events_total{outcome="dropped"}`:   7,
		`walrelay_publish_latency_seconds_count`:     30,
		`walrelay_in_flight`:                         0,
		`walrelay_lag_seconds`:                       0,
		`walrelay_ready`:                             1,
		`walrelay_reconnects_total{peer="postgres"}`: 0,
	} {
		if got, err := r.metric(name); err != nil || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, err, want)
		}
	}
	if lsn, err := r.metric("walrelay_flush_lsn"); err != nil || lsn == 0 {
		t.Errorf("walrelay_flush_lsn is %v (%v), want where the slot is", lsn, err)
	}
	testkit.Eventually(t, 20*time.Second, "the slot's lag is measured", func() error {
		_, err := r.metric("walrelay_slot_retained_bytes")
		if err != nil {
			return err
		}
		if retained, _ := r.metric("walrelay_slot_retained_bytes"); retained == 0 {
			return fmt.Errorf("walrelay_slot_retained_bytes is 0")
		}
		return nil
	})
	if status, body := r.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz says %d %q", status, body)
	}
}

func TestP2_SameIDTwice(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	r := e.run()
	testkit.Exec(t, e.postgresURL, "ALTER TABLE outbox DROP CONSTRAINT outbox_pkey")
	double := "INSERT INTO outbox (id, event_type, source) VALUES ('00000000-0000-0000-0000-00000000000d', 'x', '/e2e');"
	testkit.Exec(t, e.postgresURL, double)
	e.insert(3)
	testkit.Exec(t, e.postgresURL, double+insertSQL("outbox", "after"))
	e.insert(3)
	testkit.Exec(t, e.postgresURL, double+double+insertSQL("outbox", "after")+double) // one transaction
	e.awaitCaughtUp()
	r.awaitLog("duplicate: the stream has an event with this source and id")
	if n := e.messages("EVENTS"); n != 9 {
		t.Errorf("the stream has %d messages, want 9", n)
	}
	if n, err := r.metric(`walrelay_events_total{outcome="duplicate"}`); err != nil || n != 4 {
		t.Errorf("%v events are counted as duplicates, want 4: %v", n, err)
	}
	// The same id of another source is another event (CloudEvents, "id").
	testkit.Exec(t, e.postgresURL, strings.Replace(double, "'/e2e'", "'/other'", 1))
	e.awaitMessages("EVENTS", 10)
	// Once the stream has forgotten the id, it is one like any other.
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.Duplicates = 100 * time.Millisecond })
	testkit.Eventually(t, 30*time.Second, "the id is stored again", func() error {
		testkit.Exec(t, e.postgresURL, double)
		e.awaitCaughtUp()
		if n := e.messages("EVENTS"); n != 11 {
			return fmt.Errorf("the stream has %d messages", n)
		}
		return nil
	})
}

// A column that Postgres does not send would be missing from every event, silently.
func TestTables_GeneratedKeyIsRefused(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	execScript(t, e.postgresURL, `CREATE TABLE shop_events (
		id uuid PRIMARY KEY DEFAULT gen_random_uuid(), kind text NOT NULL, body jsonb, customer text,
		key text GENERATED ALWAYS AS ('customer-' || customer) STORED)`)
	e.writeConfig(`outbox:
  tables: [public.shop_events]
  mappings:
    - table: public.shop_events
      columns: {type: kind, data: body, partition_key: key}
      values: {source: /shop}
`)
	if out, code := e.walrelay("init"); code != 1 || !strings.Contains(out, `column "key" of outbox table public.shop_events`) || !strings.Contains(out, "is generated, and not sent") {
		t.Errorf("init ends with %d and says %s", code, out)
	}
}

// Whatever happens to a table while the relay runs, no event goes without what it had:
// it fails, with the whole row, and others flow on.
func TestTables_RenamedColumnFailsTheEvents(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run()
	insert := "INSERT INTO outbox (event_type, source, %s) VALUES ('a', '/a', 'k')"
	testkit.Exec(t, e.postgresURL, fmt.Sprintf(insert, "partition_key"))
	e.awaitMessages("EVENTS", 1)
	testkit.Exec(t, e.postgresURL, "ALTER TABLE outbox RENAME partition_key TO pkey")
	testkit.Exec(t, e.postgresURL, fmt.Sprintf(insert, "pkey"))
	e.awaitDelayed(map[string]int{"failed": 1})
	if got := testkit.Query(t, e.postgresURL, "SELECT last_error FROM walrelay.delayed"); !strings.Contains(got, "column partition_key: the table does not have it") {
		t.Errorf("the event failed because %s", got)
	}
	testkit.Exec(t, e.postgresURL, "ALTER TABLE outbox RENAME pkey TO partition_key")
	testkit.Exec(t, e.postgresURL, fmt.Sprintf(insert, "partition_key"))
	e.awaitMessages("EVENTS", 2)
}

// What init saw counts, also for a column that need not be there.
func TestTables_ColumnRenamedWhileNoRelayRuns(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	e.run().stop()
	testkit.Exec(t, e.postgresURL, "ALTER TABLE outbox RENAME partition_key TO pkey; ALTER TABLE outbox DROP COLUMN max_retries")
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, pkey) VALUES ('a', '/a', 'k')")
	for _, command := range []string{"run", "init"} {
		if out, code := e.walrelay(command); code != 1 || !strings.Contains(out, `which makes the partition_key of events, is called \"pkey\" now`) &&
			!strings.Contains(out, `which makes the partition_key of events, is called "pkey" now`) {
			t.Errorf("%s ends with %d and says:\n%s", command, code, out)
		}
	}
	e.writeConfig("outbox: {mappings: [{table: public.outbox, columns: {partition_key: pkey}}]}\n")
	e.run() // without max_retries, which was dropped
	e.awaitMessages("EVENTS", 1)
	if got := readStream(t, e.nats(), "EVENTS")[0].header.Get("ce-partitionkey"); got != "k" {
		t.Errorf("the event has the key %q, want k", got)
	}
}

func TestTables_ScheduleWithoutZoneIsRefusedBehindADomain(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	testkit.Exec(t, e.postgresURL, "CREATE DOMAIN moment AS timestamp; CREATE DOMAIN later AS moment;"+
		"CREATE TABLE outbox (id uuid PRIMARY KEY, event_type text, source text, scheduled_at later)")
	if out, code := e.walrelay("init"); code != 1 || !strings.Contains(out, "has type timestamp without time zone") {
		t.Errorf("init ends with %d and says:\n%s", code, out)
	}
}

// Text is published in UTF-8, whatever the database has, and a byte that has no
// equivalent is the fault of its row.
func TestEncodings_Rows(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ encoding, good, bad string }{
		{"WIN1252", `\xe9`, `\x81`},
		{"LATIN1", `\xe9`, ""},
		{"SQL_ASCII", `\xc3a9`, `\xe9`},
		{"EUC_JP", `\xc6fc`, ""},
	} {
		t.Run(test.encoding, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, shared)
			e.postgresURL = testkit.Database(t, e.cluster, "ENCODING '"+test.encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
			e.writeConfig("retry: {initial: 50ms, max_retries: 1}\n")
			e.init()
			e.run()
			const id = "00000000-0000-0000-0000-00000000beef"
			insert := func(id, bytes string) {
				testkit.Exec(t, e.postgresURL, fmt.Sprintf(
					"INSERT INTO outbox (id, event_type, source, subject, data) VALUES ('%s', 'order.created', '/e2e', convert_from('%s', '%s'), '{}')", id, bytes, test.encoding))
			}
			insert("00000000-0000-0000-0000-000000000001", test.good)
			if test.bad != "" {
				// Every text of the event in turn.
				insert(id, test.bad)
				for _, column := range []string{"event_type", "source", "partition_key", "content_type"} {
					columns := map[string]string{"event_type": "'t'", "source": "'/e2e'"}
					columns[column] = fmt.Sprintf("convert_from('%s', '%s')", test.bad, test.encoding)
					names := slices.Sorted(maps.Keys(columns))
					values := make([]string, len(names))
					for i, name := range names {
						values[i] = columns[name]
					}
					testkit.Exec(t, e.postgresURL, fmt.Sprintf("INSERT INTO outbox (%s) VALUES (%s)", strings.Join(names, ", "), strings.Join(values, ", ")))
				}
			}
			testkit.Exec(t, e.postgresURL, fmt.Sprintf(
				"INSERT INTO outbox (event_type, source, subject, data, scheduled_at) VALUES ('order.created', '/e2e', convert_from('%s', '%s'), '{}', now() + interval '200 ms')", test.good, test.encoding))
			e.awaitMessages("EVENTS", 2)
			e.awaitCaughtUp()
			want := map[string]string{"WIN1252": "%C3%A9", "LATIN1": "%C3%A9", "SQL_ASCII": "%C3%A9", "EUC_JP": "%E6%97%A5"}[test.encoding]
			for _, subject := range subjectsOf(readStream(t, e.nats(), "EVENTS")) {
				if subject != want {
					t.Errorf("a message has the subject %q, want %q", subject, want)
				}
			}
			if test.bad == "" {
				return
			}
			e.awaitDelayed(map[string]int{"failed": 5})
			e.awaitError(id, "failed", "does not convert to UTF-8")
			if n := testkit.Query(t, e.postgresURL, "SELECT walrelay.redrive($1)::text", id); n != "1" {
				t.Errorf("redrive changed %s events, want 1", n)
			}
			e.awaitStatus(id, "failed")
			e.insert(1)
			e.awaitMessages("EVENTS", 3)
			if out, code := e.walrelay("delayed", "show", id); code != 0 || !strings.Contains(out, "column subject: it has a byte") {
				t.Errorf("delayed show ends with %d: %s", code, out)
			}
		})
	}
}

// An id in characters beyond ASCII is one id in the table, the delay table and the journal.
func TestEncodings_IDs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ encoding, bytes string }{{"LATIN1", `\xe9`}, {"SQL_ASCII", `\xc3a9`}} {
		t.Run(test.encoding, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, shared)
			e.postgresURL = testkit.Database(t, e.cluster, "ENCODING '"+test.encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
			e.writeConfig("outbox: {tables: [public.named], mappings: [{table: public.named, columns: {id: id}}], repair_window: 1s}\n")
			testkit.Exec(t, e.postgresURL, "CREATE TABLE named (id text PRIMARY KEY, event_type text, source text, scheduled_at timestamptz, max_retries int)")
			e.init()
			e.run()
			testkit.Exec(t, e.postgresURL, fmt.Sprintf(`INSERT INTO named SELECT convert_from('%[1]s', '%[2]s') || x.kind, 'order.created', '/e2e', x.at, x.retries
				FROM (VALUES ('now', NULL::timestamptz, NULL::int), ('later', '2100-01-01', NULL), ('bad', NULL, -1), ('soon', now() + interval '300 ms', NULL)) AS x (kind, at, retries)`,
				test.bytes, test.encoding))
			e.awaitMessages("EVENTS", 2)
			e.awaitSQL("the published rows are deleted", "SELECT string_agg(substr(id, length(id) - 2), ' ' ORDER BY id) FROM named", "bad ter")
			states := "SELECT string_agg(s.state, ' ' ORDER BY n.id) FROM named AS n, walrelay.event_status(n.id) AS s"
			e.awaitSQL("the others have their states", states, "failed scheduled")
			if n := testkit.Query(t, e.postgresURL, "SELECT sum(walrelay.cancel(id) + walrelay.discard(id))::text FROM named"); n != "2" {
				t.Errorf("%s events are cancelled and discarded by their ids, want 2", n)
			}
			e.awaitSQL("nothing is left", "SELECT count(*)::text FROM named", "0")
		})
	}
}
