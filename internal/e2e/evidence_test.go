package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/testkit"
)

// statusOf is the state and the reason of an event.
func (e *env) statusOf(id string) string {
	e.t.Helper()
	return testkit.Query(e.t, e.postgresURL, "SELECT state || coalesce(': ' || reason, '') FROM walrelay.event_status($1)", id)
}

// Rows that the slot never read are neither deleted nor called published,
// whatever is published after them.
func TestEvidence_RowsThatTheSlotNeverRead(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(e *env){
		"from before init": func(e *env) {
			testkit.Exec(e.t, e.postgresURL, `CREATE TABLE public.outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text, source text, subject text, data jsonb, data_bytes bytea,
				content_type text, data_schema text, extensions jsonb, partition_key text, scheduled_at timestamptz, max_retries int, created_at timestamptz DEFAULT now())`)
			testkit.Exec(e.t, e.postgresURL, "INSERT INTO outbox (id, event_type, source) VALUES ('00000000-0000-0000-0000-00000000beef', 'early', '/e2e')")
			e.init()
		},
		"while there was no slot": func(e *env) {
			e.init()
			r := e.run()
			e.insert(3)
			e.awaitCaughtUp()
			r.Kill()
			testkit.Eventually(e.t, 20*time.Second, "the slot is dropped", func() error {
				conn := testkit.Connect(e.t, e.postgresURL)
				_, err := conn.Exec(e.t.Context(), "SELECT pg_drop_replication_slot($1)", e.slot)
				return err
			})
			testkit.Exec(e.t, e.postgresURL, "INSERT INTO outbox (id, event_type, source) VALUES ('00000000-0000-0000-0000-00000000beef', 'early', '/e2e')")
			e.init()
		},
		"of a table that inherits": func(e *env) {
			e.init()
			testkit.Exec(e.t, e.postgresURL, "CREATE TABLE child () INHERITS (outbox); INSERT INTO child (id, event_type, source) VALUES ('00000000-0000-0000-0000-00000000beef', 'early', '/e2e')")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, own)
			e.writeConfig("outbox: {repair_window: 1ms}\n")
			prepare(e)
			r := e.run()
			e.insert(10)
			testkit.Eventually(t, 30*time.Second, "the rows of published events are deleted", func() error {
				if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM outbox"); n != "1" && n != "4" {
					return fmt.Errorf("%s are left", n)
				}
				return nil
			})
			r.awaitCleanUps(2)
			if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM outbox WHERE event_type = 'early'"); n != "1" {
				t.Errorf("%s rows of an event that no stream has are left, want 1", n)
			}
			if got := e.statusOf("00000000-0000-0000-0000-00000000beef"); !strings.HasPrefix(got, "unknown: ") {
				t.Errorf("its status is %s", got)
			}
		})
	}
}

// An id of two tables needs the table.
func TestEvidence_IDsOfTwoTables(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.writeConfig(`
outbox:
  tables: [public.one, public.two]
  mappings:
    - {table: public.one, columns: {id: number}}
    - {table: public.two, columns: {id: number}}
`)
	for _, table := range []string{"one", "two"} {
		testkit.Exec(t, e.postgresURL, "CREATE TABLE "+table+` (number bigserial PRIMARY KEY, event_type text, source text, subject text, data jsonb, data_bytes bytea,
			content_type text, data_schema text, extensions jsonb, partition_key text, scheduled_at timestamptz, max_retries int, created_at timestamptz DEFAULT now())`)
	}
	e.init()
	e.run()
	for _, table := range []string{"one", "two"} {
		testkit.Exec(t, e.postgresURL, "INSERT INTO "+table+" (event_type, source, scheduled_at) VALUES ('a', '/"+table+"', now() + interval '1 hour')")
	}
	e.awaitDelayed(map[string]int{"scheduled": 2})
	conn := testkit.Connect(t, e.postgresURL)
	var n int
	err := conn.QueryRow(t.Context(), "SELECT walrelay.cancel('1')").Scan(&n)
	if err == nil || !strings.Contains(err.Error(), "several tables have the id 1 (public.one, public.two)") {
		t.Errorf("want an error that names both tables, got %d, %v", n, err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT walrelay.cancel('1', outbox => 'public.two')").Scan(&n); err != nil || n != 1 {
		t.Errorf("want one event, got %d, %v", n, err)
	}
	if got := e.statusOf("1"); got == "" {
		t.Error("there is no status")
	}
	if got := testkit.Query(t, e.postgresURL, "SELECT state FROM walrelay.event_status('1', outbox => 'public.one')"); got != "scheduled" {
		t.Errorf("the status of the event of public.one is %s", got)
	}
	if got := testkit.Query(t, e.postgresURL, "SELECT state FROM walrelay.event_status('1', outbox => 'public.two')"); got != "discarded" {
		t.Errorf("the status of the event of public.two is %s", got)
	}
}

// The roles that init makes have the rights of their work, also where PUBLIC may
// execute nothing, and no others.
func TestRoles(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	testkit.Exec(t, e.postgresURL, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
	e.init()
	execScript(t, e.postgresURL, `
		CREATE ROLE app LOGIN IN ROLE walrelay_app;
		CREATE ROLE operator LOGIN IN ROLE walrelay_operator;
		CREATE ROLE relay LOGIN REPLICATION IN ROLE walrelay_relay`)
	superuser := e.postgresURL
	as := func(role string) string { return strings.Replace(superuser, "postgres@", role+"@", 1) }
	e.postgresURL = as("relay")
	r := e.run()
	e.postgresURL = superuser
	try := func(role, statement string, allowed bool) {
		t.Helper()
		conn := testkit.Connect(t, as(role))
		if _, err := conn.Exec(t.Context(), statement); (err == nil) != allowed {
			t.Errorf("%s: %s: allowed should be %v: %v", role, statement, allowed, err)
		}
	}
	const id = "'00000000-0000-0000-0000-00000000beef'"
	try("app", "INSERT INTO public.outbox (id, event_type, source, scheduled_at) VALUES ("+id+", 'later', '/e2e', now() + interval '1 hour') RETURNING *", true)
	e.awaitDelayed(map[string]int{"scheduled": 1})
	try("app", "SELECT walrelay.publish_event('a', '/e2e')", true)
	try("app", "SELECT walrelay.publish_cloud_event('{\"specversion\": \"1.0\", \"type\": \"a\", \"source\": \"/e2e\"}')", true)
	try("app", "SELECT walrelay.emit_event('a', '/e2e', slot => '"+e.slot+"')", true)
	try("app", "SELECT state FROM walrelay.event_status("+id+")", true)
	try("app", "SELECT state FROM walrelay.event_status("+id+"::uuid)", true)
	try("app", "SELECT walrelay.reschedule_event("+id+", now() + interval '2 hours')", true)
	try("app", "SELECT walrelay.cancel_event("+id+")", true)
	try("app", "SELECT walrelay.discard(everything => true)", false)
	try("app", "SELECT id FROM walrelay.delayed", false)
	try("app", "INSERT INTO walrelay.emitted (slot, kind, id) VALUES ('s', 'marker', 'm')", false)
	try("app", "UPDATE public.outbox SET source = '/x'", false)
	try("app", "DELETE FROM public.outbox", false)
	try("operator", "SELECT id FROM walrelay.delayed", true)
	try("operator", "SELECT walrelay.redrive(everything => true)", true)
	try("operator", "SELECT walrelay.redrive("+id+"::uuid)", true)
	try("operator", "SELECT walrelay.discard(everything => true)", true)
	try("operator", "UPDATE walrelay.delayed SET state = 'discarded'", false)
	try("operator", "DELETE FROM walrelay.keys", false)
	try("operator", "SELECT key FROM walrelay.secrets", false)
	try("app", "SELECT key FROM walrelay.secrets", false)
	try("operator", "UPDATE walrelay.progress SET session = 0", false)
	try("relay", "UPDATE walrelay.outboxes SET id_column = 'x'", false)
	try("relay", "DELETE FROM walrelay.migrations", false)
	e.awaitMessages("EVENTS", 3)
	r.awaitReady()
	if got := testkit.Query(t, superuser, "SELECT coalesce(string_agg(DISTINCT proowner::regrole::text, ','), '') FROM pg_proc WHERE pronamespace = 'walrelay'::regnamespace AND prosecdef"); got != "walrelay_owner" {
		t.Errorf("functions that act with their owner's rights belong to %s", got)
	}
	if got := testkit.Query(t, superuser, "SELECT has_schema_privilege('walrelay_owner', 'walrelay', 'CREATE')::text"); got != "false" {
		t.Error("walrelay_owner may create in the schema walrelay")
	}
}

// Whoever has a role of one database has no rights in another of the same cluster.
func TestRoles_OfAnotherDatabase(t *testing.T) {
	t.Parallel()
	first := newEnv(t, own)
	first.init()
	second := newEnv(t, own)
	second.postgresURL = testkit.Database(t, first.cluster)
	second.slot = "second"
	out, code := second.walrelay("init")
	if code != 0 || !strings.Contains(out, "roles walrelay_app, walrelay_operator, walrelay_owner, walrelay_relay are those of database") || !strings.Contains(out, "set postgres.role_prefix") {
		t.Errorf("init in a second database ends with %d and says %s", code, out)
	}
	execScript(t, first.postgresURL, "CREATE ROLE somebody LOGIN IN ROLE walrelay_app, walrelay_operator")
	as := func(url string) string { return strings.Replace(url, "postgres@", "somebody@", 1) }
	const insert = "INSERT INTO public.outbox (event_type, source) VALUES ('a', '/a')"
	if err := tryQuery(as(first.postgresURL), insert); err != nil {
		t.Errorf("in the first database: %v", err)
	}
	for _, statement := range []string{insert, "SELECT id FROM walrelay.delayed", "SELECT walrelay.discard(everything => true)"} {
		if err := tryQuery(as(second.postgresURL), statement); err == nil {
			t.Errorf("a role of the first database may do this in the second: %s", statement)
		}
	}
	second.environ = []string{"WALRELAY_POSTGRES_ROLE_PREFIX=second"}
	second.init()
	execScript(t, first.postgresURL, "GRANT second_app TO somebody")
	if err := tryQuery(as(second.postgresURL), insert); err != nil {
		t.Errorf("with the role of the second database: %v", err)
	}
	second.environ = []string{"WALRELAY_POSTGRES_ROLE_PREFIX=Second-"}
	if out, code := second.walrelay("init"); code != 2 || !strings.Contains(out, "ROLE_PREFIX: \"Second-\"") {
		t.Errorf("a bad prefix ends with %d: %s", code, out)
	}
}

// That an event was published is not for applications to say.
func TestRoles_ApplicationsDoNotMark(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.environ = []string{"WALRELAY_POSTGRES_ROLE_PREFIX=" + e.slot, "WALRELAY_OUTBOX_AFTER_PUBLISH=mark"}
	e.init()
	execScript(t, e.postgresURL, fmt.Sprintf("CREATE ROLE %[1]s_marker LOGIN IN ROLE %[1]s_app", e.slot))
	url := strings.Replace(e.postgresURL, "postgres@", e.slot+"_marker@", 1)
	if err := tryQuery(url, "INSERT INTO public.outbox (event_type, source, published_at) VALUES ('a', '/a', now())"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("an application may mark its event as published: %v", err)
	}
	if err := tryQuery(url, "INSERT INTO public.outbox (event_type, source, data) VALUES ('a', '/a', '{}') RETURNING *"); err != nil {
		t.Error(err)
	}
}

// Functions that a hostile role puts into public do not run with the rights of
// whoever runs init, or of the relay.
func TestIsolation_SearchPath(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	execScript(t, e.postgresURL, `
		CREATE TABLE public.caught (who text);
		GRANT ALL ON SCHEMA public TO PUBLIC;
		GRANT ALL ON public.caught TO PUBLIC;
		CREATE ROLE hostile LOGIN;
		`+e.alterDatabase("search_path = public, pg_catalog"))
	hostile := testkit.Connect(t, strings.Replace(e.postgresURL, "postgres@", "hostile@", 1))
	for _, function := range []string{
		"format(text, text) RETURNS text", "hashtextextended(text, bigint) RETURNS bigint", "jsonb_build_object(text, text) RETURNS jsonb",
		"pg_current_wal_insert_lsn() RETURNS pg_lsn", "now() RETURNS timestamptz", "clock_timestamp() RETURNS timestamptz", "set_config(text, text, boolean) RETURNS text",
		"current_setting(text) RETURNS text", "to_regclass(text) RETURNS regclass", "pg_notify(text, text) RETURNS void",
	} {
		if _, err := hostile.Exec(t.Context(), "CREATE FUNCTION public."+function+" LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN NULL; END $$"); err != nil {
			t.Logf("%s: %v", function, err)
		}
	}
	e.init()
	e.run()
	e.insert(3)
	testkit.Exec(t, e.postgresURL, "INSERT INTO public.outbox (event_type, source, scheduled_at) VALUES ('later', '/e2e', pg_catalog.now() + interval '1 second')")
	e.awaitMessages("EVENTS", 4)
	testkit.Exec(t, e.postgresURL, "SELECT walrelay.discard(everything => true)")
	if n := testkit.Query(t, e.postgresURL, "SELECT count(*)::text FROM public.caught"); n != "0" {
		t.Errorf("%s calls were caught", n)
	}
}

// alterDatabase is the statement by which the test's database gets a setting.
func (e *env) alterDatabase(setting string) string {
	return "ALTER DATABASE " + testkit.Query(e.t, e.postgresURL, "SELECT quote_ident(current_database())") + " SET " + setting
}

// What ALTER ROLE and ALTER DATABASE set for others changes nothing.
func TestIsolation_SettingsOfRoleAndDatabase(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{
		"client_encoding = 'LATIN1'", "bytea_output = 'escape'", "DateStyle = 'German, DMY'", "idle_session_timeout = '1s'",
		"default_transaction_isolation = 'serializable'", "default_transaction_read_only = on", "statement_timeout = '1ms'", "TimeZone = 'America/New_York'",
		"lock_timeout = '1ms'", "standard_conforming_strings = off", "IntervalStyle = 'sql_standard'", "row_security = off",
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, shared)
			e.init()
			execScript(t, e.postgresURL, e.alterDatabase(setting))
			r := e.run()
			insert := func(statement string) {
				// What a connection asks for goes before what the database has.
				execScript(t, e.postgresURL+"&statement_timeout=0&lock_timeout=0", "BEGIN READ WRITE; "+statement+"; COMMIT")
			}
			insert("INSERT INTO public.outbox (event_type, source, scheduled_at, data_bytes) VALUES ('later', '/e2e', now() + interval '1 second', decode('00ff', 'hex'))")
			insert("INSERT INTO public.outbox (event_type, source) VALUES ('now', '/e2e')")
			e.awaitMessages("EVENTS", 2)
			if _, body := r.get("/metrics"); !strings.Contains(body, `walrelay_reconnects_total{peer="postgres"} 0`) {
				t.Errorf("the relay had to connect again:\n%s", r.logs.Tail(5))
			}
		})
	}
}

// What no stream has is not called published: not while the window lasts, and not after it
// where rows are kept.
func TestEvidence_DroppedAndDuplicateEvents(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"keep", "delete"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, shared)
			e.writeConfig("outbox: {tables: [public.outbox, public.second], after_publish: " + mode + ", repair_window: 1s}\nroutes: [{type: noise, drop: true}]\n")
			e.init()
			e.run()
			const noise, same, other = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003"
			testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source) VALUES ('"+noise+"', 'noise', '/e2e'), ('"+same+"', 'order.created', '/e2e'), ('"+other+"', 'order.created', '/e2e')")
			e.awaitMessages("EVENTS", 2)
			testkit.Exec(t, e.postgresURL, "INSERT INTO second (id, event_type, source) VALUES ('"+same+"', 'order.created', '/e2e')")
			states := "SELECT concat_ws(' ', (walrelay.event_status('" + noise + "'::text)).state, (walrelay.event_status('" + same + "'::text, 'public.outbox')).state, " +
				"(walrelay.event_status('" + same + "'::text, 'public.second')).state, (walrelay.event_status('" + other + "'::text)).state)"
			e.awaitSQL("each event has its state", states, "dropped published duplicate published")
			if mode == "delete" {
				e.awaitSQL("the rows are deleted", "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM second) || ''", "0")
				e.awaitSQL("nothing is said of what is gone", states, "unknown unknown unknown unknown")
				return
			}
			e.awaitSQL("the window is over", "SELECT count(*)::text FROM walrelay.journal WHERE ids IS NULL", "0")
			e.awaitSQL("each event still has its state", states, "dropped published duplicate published")
		})
	}
}

// Somebody's transaction, in another database, is open when the last event is settled. When it has
// ended, the event is called published although nothing else happens.
func TestEvidence_StatusAfterATransactionOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	e.run()
	other, err := pgx.Connect(t.Context(), e.cluster.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(context.WithoutCancel(t.Context())) }()
	for _, statement := range []string{"BEGIN", "SELECT pg_current_xact_id()"} {
		if _, err := other.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	const id = "00000000-0000-0000-0000-000000000001"
	testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (id, event_type, source) VALUES ('"+id+"', 'a', '/e2e')")
	e.awaitMessages("EVENTS", 1)
	// The relay has asked for a snapshot, in which the transaction is open.
	e.awaitSQL("a noted snapshot", "SELECT coalesce(bool_or(pg_snapshot_xmin(published) < pg_snapshot_xmax(published)), false)::text FROM walrelay.progress", "true")
	if got := e.status(id); got != "pending" {
		t.Logf("its status is %s meanwhile", got)
	}
	if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	e.awaitStatus(id, "published")
}
