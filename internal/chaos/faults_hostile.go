package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
)

// hostileFaults are those that somebody else makes: another login, another publisher,
// another database, odd tables, odd rows, odd settings.
func hostileFaults() []fault {
	return []fault{
		{
			name: "hostile-login", settings: []string{onSingle, onPair}, short: onSingle,
			what: "a role that may log in, and nothing else, writes logical messages in the relay's name, calls every function, and makes objects with the names of walrelay's and Postgres's own",
			then: "nothing of that is published, and nothing stops",
			do:   hostileLogin,
		},
		{
			name: "forged-positions", settings: []string{onSingle}, alone: true, short: onSingle,
			what: "another publisher writes messages with the relay's headers and positions that are ahead of the database, and the relay is killed after each",
			then: "they are messages of somebody else; no event is taken for stored because of them",
			says: []string{"somebody else writes into a stream that walrelay owns"},
			do:   forgedPositions,
		},
		{
			name: "huge-rows", settings: []string{onSingle, onPair}, short: onSingle,
			what: "rows of 50 MB are written",
			then: "they fail at once, and take the relay's memory once each; the others flow",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				a := &application{number: writerCount, rng: rng, n: int(rng.Int32())}
				for range 3 {
					if err := w.writeHugeRow(ctx, a); err != nil {
						return err
					}
				}
				return w.flowing(ctx, 200)
			},
		},
		{
			name: "table-inherited", settings: []string{onSingle}, short: onSingle,
			what: "a table that inherits from the outbox table gets rows",
			then: "they are not published, not deleted, and their state is unknown",
			do:   inheritedTable,
		},
		{
			name: "second-database", settings: []string{onSingle}, short: onSingle,
			what: "walrelay init is run for a second database of the cluster, with the first one's names and with names of its own",
			then: "it refuses the former and leaves the first database alone; the latter works beside it",
			do:   secondDatabase,
		},
		{
			name: "role-settings", settings: []string{onSingle, onPair}, short: onSingle,
			what: "the database gets other formats of times and bytes, another time zone, serializable transactions and a short idle_session_timeout, and the relay connects again",
			then: "events are the same as before",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				names := []string{"datestyle", "intervalstyle", "timezone", "bytea_output", "extra_float_digits", "default_transaction_isolation", "idle_session_timeout"}
				for i, value := range []string{"German", "sql_standard", "America/New_York", "escape", "-3", "serializable", "2s"} {
					if err := w.exec(ctx, fmt.Sprintf("ALTER DATABASE postgres SET %s = '%s'", names[i], value)); err != nil {
						return err
					}
				}
				r, err := w.active(ctx)
				if err != nil {
					return err
				}
				r.kill()
				if err := errors.Join(r.start(""), w.flowing(ctx, 300)); err != nil {
					return err
				}
				for _, name := range names {
					if err := w.exec(ctx, "ALTER DATABASE postgres RESET "+name); err != nil {
						return err
					}
				}
				return nil
			},
		},
	}
}

// hostileLogin does what any login can. What Postgres refuses is as good as done.
func hostileLogin(ctx context.Context, w *World, rng *rand.Rand) error {
	const forged = `{"specversion": "1.0", "id": "%s", "source": "/chaos", "type": "chaos.forged", "data": {}}`
	if err := w.exec(ctx, `DO $$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mallory') THEN CREATE ROLE mallory LOGIN; END IF;
	END $$`); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, strings.Replace(w.pgURL(), "postgres@", "mallory@", 1))
	if err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	a := &application{rng: rng}
	for _, statement := range []string{
		"CREATE SCHEMA walrelay", "CREATE TEMPORARY TABLE outboxes (slot text, relation regclass, id_column name)",
		"CREATE FUNCTION pg_temp.hashtextextended(text, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 1/0::bigint'",
		"CREATE FUNCTION public.jsonb_build_object() RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'",
		"CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT 1/0::text'",
		"SET search_path = pg_temp, public", "LOCK TABLE walrelay.delayed", "LOCK TABLE public.outbox", "TRUNCATE walrelay.emitted",
		"INSERT INTO walrelay.emitted (slot, kind, id) VALUES ('walrelay', 'marker', 'session 1')",
		"UPDATE walrelay.progress SET flush_lsn = 'F/0'", "SELECT * FROM walrelay.secrets", "NOTIFY walrelay, 'x'",
		"SELECT pg_drop_replication_slot('walrelay')", "SELECT pg_replication_slot_advance('walrelay', 'F/0')",
		"SELECT walrelay.discard(everything => true)", "SELECT walrelay.redrive(everything => true)", "SELECT walrelay.cancel(everything => true)",
		"SELECT walrelay.adopt('walrelay', 'walrelay_witness')", "SELECT walrelay.event_status('x')",
		"SELECT walrelay.emit_event('chaos.forged', '/chaos', '{}')", "SELECT walrelay.publish_event('chaos.forged', '/chaos', '{}')",
		"SELECT walrelay.cancel_event('x')", "DROP PUBLICATION walrelay", "ALTER TABLE public.outbox RENAME TO outbox_2",
	} {
		_, _ = conn.Exec(ctx, statement) // see above
	}
	for range 50 {
		head := []string{"{}", "{\"marker\": \"session 1\"}", "{\"kind\": \"row\"}", "{", "", "{\"scheduled_at\": \"infinity\"}"}[rng.IntN(6)]
		prefix := []string{"walrelay.walrelay", "walrelay", "walrelay.walrelay", "x"}[rng.IntN(4)]
		content := head + "\n" + fmt.Sprintf(forged, a.uuid())
		if rng.IntN(10) == 0 {
			content += strings.Repeat(" ", 20<<20)
		}
		if _, err := conn.Exec(ctx, "SELECT pg_catalog.pg_logical_emit_message($1, $2, $3)", rng.IntN(4) > 0, prefix, content); err != nil {
			return fmt.Errorf("writing a logical message, which everybody may: %w", err)
		}
	}
	return w.flowing(ctx, 100)
}

// forgedPositions publishes copies of the last message whose position is where the
// database will be in a moment.
func forgedPositions(ctx context.Context, w *World, rng *rand.Rand) error {
	w.reorders, w.foreign = true, true
	for range 5 {
		stream, err := w.js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		last, err := stream.GetLastMsgForSubject(ctx, "events.chaos.plain.>")
		if err != nil {
			return err
		}
		fields := strings.SplitN(last.Header.Get("Walrelay-Position"), " ", 2)
		if len(fields) != 2 {
			return fmt.Errorf("a message has the position %q", fields)
		}
		w.relays[0].kill()
		for range 1 + rng.IntN(3) {
			var ahead string
			if err := w.query(ctx, &ahead, "SELECT lpad(to_hex((pg_current_wal_insert_lsn() - '0/0')::bigint + $1::bigint), 16, '0')", 20_000+rng.IntN(200_000)); err != nil {
				return err
			}
			header := nats.Header{
				"Walrelay-Position": {strings.ToUpper(ahead) + ".00000000 " + fields[1]}, "Walrelay-Digest": {last.Header.Get("Walrelay-Digest")},
			}
			if _, err := w.js.PublishMsg(ctx, &nats.Msg{Subject: "events.chaos.plain.w0", Header: header, Data: []byte("{}")}); err != nil {
				return fmt.Errorf("publishing a forged message: %w", err)
			}
		}
		// The database passes the forged position.
		sleep(ctx, between(rng, 200*time.Millisecond, time.Second))
		if err := errors.Join(w.relays[0].start(""), w.flowing(ctx, 100)); err != nil {
			return err
		}
	}
	return nil
}

// writeHuge writes an event that is far too large, between two others.
func (w *World) writeHugeRow(ctx context.Context, a *application) error {
	if err := a.connect(ctx, w.pgURL()); err != nil {
		return err
	}
	defer a.disconnect(ctx)
	t := &transaction{}
	huge := a.event(poison)
	huge.what += ": 50 MB"
	err := pgx.BeginFunc(ctx, a.conn, func(tx pgx.Tx) error {
		if err := a.insert(ctx, tx, t, a.event(plain)); err != nil {
			return err
		}
		t.events = append(t.events, huge.expected)
		if _, err := tx.Exec(ctx, `INSERT INTO public.outbox (id, event_type, source, data, partition_key)
			VALUES ($1, $2, '/chaos', to_jsonb(repeat('h', 50000000)), nullif($3, ''))`, huge.id, huge.eventType, huge.key); err != nil {
			return err
		}
		return a.insert(ctx, tx, t, a.event(plain))
	})
	if err != nil {
		return fmt.Errorf("writing a huge row: %w", err)
	}
	t.outcome = committed
	w.ledger.add(t)
	return nil
}

// inheritedTable writes into a child of the outbox table, and checks that walrelay leaves
// it alone.
func inheritedTable(ctx context.Context, w *World, rng *rand.Rand) error {
	a := &application{rng: rng}
	id := a.uuid()
	if err := w.exec(ctx, "CREATE TABLE public.outbox_child () INHERITS (public.outbox)",
		"INSERT INTO public.outbox_child (id, event_type, source) VALUES ('"+id+"', 'chaos.child', '/chaos')"); err != nil {
		return err
	}
	if err := errors.Join(w.flowing(ctx, 100), w.caughtUp(ctx, 30*time.Second)); err != nil {
		return err
	}
	var state string
	if err := w.query(ctx, &state, "SELECT state FROM walrelay.event_status($1::text)", id); err != nil {
		return err
	}
	if state != "unknown" {
		return fmt.Errorf("the state of a row that is not read is %q, want unknown", state)
	}
	var left int
	if err := w.query(ctx, &left, "SELECT count(*) FROM ONLY public.outbox_child"); err != nil {
		return err
	}
	if left != 1 {
		return errors.New("a row that was not published was deleted")
	}
	return w.exec(ctx, "DROP TABLE public.outbox_child")
}

// secondDatabase sets walrelay up for another database of the cluster.
func secondDatabase(ctx context.Context, w *World, _ *rand.Rand) error {
	if err := w.exec(ctx, "CREATE DATABASE second"); err != nil {
		return err
	}
	environ := w.environ()
	for i := range environ {
		environ[i] = strings.Replace(environ[i], "/postgres?", "/second?", 1)
	}
	out, err := run(ctx, w.dir, environ, w.programs.relay, "init")
	if err == nil || !strings.Contains(out+err.Error(), `belongs to database`) {
		return fmt.Errorf("init of a second database with the names of the first says (%w):\n%s", err, out)
	}
	environ = append(environ, "WALRELAY_SLOT=second", "WALRELAY_PUBLICATION=second", "WALRELAY_POSTGRES_ROLE_PREFIX=second")
	stream, err := w.js.CreateStream(ctx, jetstream.StreamConfig{Name: "SECOND", Subjects: []string{"second.>"}})
	if err != nil {
		return fmt.Errorf("making a stream: %w", err)
	}
	config := strings.Replace(strings.Replace(w.configuration(), streamName, "SECOND", 1), "events.chaos.>", "second.>", 1)
	config = strings.Replace(config, "publish: {", "publish: {subject: \"second.{type}\", ", 1)
	name := filepath.Join(w.dir, "second.yaml")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		return fmt.Errorf("writing a configuration: %w", err)
	}
	if out, err := run(ctx, w.dir, environ, w.programs.relay, "init", "--config", name); err != nil {
		return fmt.Errorf("init of a second database with names of its own: %w\n%s", err, out)
	}
	log, err := w.newLog("relay-second")
	if err != nil {
		return err
	}
	cmd := exec.Command(w.programs.relay, "run", "--config", name)
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), environ...)
	second, err := child.Start("relay-second", cmd, child.Options{Log: &log.Log})
	if err != nil {
		return err
	}
	defer second.Kill()
	address, err := pgx.ParseConfig(w.pgURL())
	if err != nil {
		return fmt.Errorf("connecting to the second database: %w", err)
	}
	address.Database = "second"
	conn, err := pgx.ConnectConfig(ctx, address)
	if err != nil {
		return fmt.Errorf("connecting to the second database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "INSERT INTO public.outbox (event_type, source) SELECT 'a', '/second' FROM generate_series(1, 100)"); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	if err := until(ctx, 30*time.Second, "the second stream has 100 events", func(ctx context.Context) error {
		info, err := stream.Info(ctx)
		if err == nil && info.State.Msgs != 100 {
			err = fmt.Errorf("it has %d", info.State.Msgs)
		}
		return err
	}); err != nil {
		return err
	}
	second.Kill()
	_ = conn.Close(ctx)
	if err := until(ctx, 10*time.Second, "the second slot is dropped", func(ctx context.Context) error {
		return w.exec(ctx, "SELECT pg_drop_replication_slot('second')")
	}); err != nil {
		return err
	}
	if err := w.exec(ctx, "DROP DATABASE second WITH (FORCE)"); err != nil {
		return err
	}
	return w.flowing(ctx, 100)
}
