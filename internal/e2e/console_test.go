package e2e_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/testkit"
)

// A person clicks through the console: browser/console.mjs says what. Events of strangers have
// markup everywhere; the relay is restarted while pages are open.
func TestConsole_InABrowser(t *testing.T) {
	if os.Getenv("WALRELAY_TEST_BROWSER") == "" {
		t.Skip("make test-console installs a browser, and runs this")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	shots := os.Getenv("WALRELAY_TEST_SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	shots, err = filepath.Abs(shots)
	if err == nil {
		err = os.MkdirAll(shots, 0o750)
	}
	if err != nil {
		t.Fatal(err)
	}
	const token = "a token that nobody guesses"
	e := newEnv(t, own)
	e.environ = append(e.environ, "WALRELAY_CONSOLE_TOKEN="+token)
	e.init()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = 1_010_000 })
	conn := testkit.Connect(t, e.postgresURL)
	if err := inbox.Migrate(t.Context(), conn, inbox.Roles{}); err != nil {
		t.Fatal(err)
	}
	testkit.Exec(t, e.postgresURL, `
INSERT INTO outbox (id, event_type, source, partition_key, data, extensions) VALUES
	('00000000-0000-0000-0000-000000000001', '<script>alert(1)</script>', '/s', '<img src=x onerror=alert(2)>', '"<b>"', '{"<i>": "x"}'),
	('00000000-0000-0000-0000-000000000002', 'b', '/s', 'k2', '1', '{"A": "x"}'),
	('00000000-0000-0000-0000-000000000003', 'b', '/s', 'k3', '1', '{"B": "x"}');
INSERT INTO outbox (id, event_type, source, scheduled_at, data) VALUES
	('00000000-0000-0000-0000-000000000004', 'large', '/s', now() + interval '1 day', to_jsonb(repeat('x', 1000 * 1000)));
INSERT INTO outbox (id, event_type, source, scheduled_at, data_bytes, content_type) VALUES
	('00000000-0000-0000-0000-000000000005', 'bytes', '/s', now() + interval '1 day', '\x00ff1b5b316d3c623e', 'application/octet-stream');
INSERT INTO outbox (id, event_type, source, partition_key, data) VALUES
	('00000000-0000-0000-0000-000000000006', 'plain', '/s', 'k6', '{"n": "</pre><script>alert(3)</script>"}');
INSERT INTO outbox (id, event_type, source, max_retries, data) VALUES
	('00000000-0000-0000-0000-000000000007', 'refused', '/s', 0, to_jsonb(repeat('x', 1020 * 1000)));
INSERT INTO walrelay.handlers (handler, stream, types, mode, last_error) SELECT 'handler_' || n, 'EVENTS', '{a}', 'once', '<b>no</b>' FROM generate_series(1, 1000) AS n;
INSERT INTO walrelay.handlers (handler, stream, types, mode, last_error) VALUES ('billing', 'EVENTS', '{a}', 'once', 'the account is closed');
INSERT INTO walrelay.parked (handler, state, event_id, event_type, source, key, stream, sequence, subject, headers, data, attempts, last_error, event, next_attempt_at)
	SELECT 'billing', 'failed', 'e' || n, 'a', '/s', '', 'EVENTS', n, 'events.a', convert_to('{}', 'UTF8'), '\x00ff', 1, 'order ' || n || ': the account is closed', decode(md5(n::text), 'hex'), now()
	FROM generate_series(1, 60) AS n;`)
	if _, err := e.jetstream().CreateConsumer(t.Context(), "EVENTS", jetstream.ConsumerConfig{Durable: "patient", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	r := e.run()
	e.awaitCaughtUp()
	address := r.httpAddr()

	cmd := exec.CommandContext(t.Context(), "node", "browser/console.mjs")
	cmd.Env = append(os.Environ(), "CONSOLE_URL=http://"+address+"/console/", "CONSOLE_TOKEN="+token, "CHROMIUM="+chromium, "SCREENSHOTS="+shots)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	things := map[string]func(){
		"mend": func() { e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgSize = -1 }) },
		"restart": func() {
			if code := r.stop(); code != 0 {
				t.Errorf("the relay ended with %d", code)
			}
			e.run("--http-addr", address)
		},
	}
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		thing, asked := strings.CutPrefix(lines.Text(), "do: ")
		if !asked {
			t.Log(lines.Text())
			continue
		}
		things[thing]()
		fmt.Fprintln(stdin, "done")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
}
