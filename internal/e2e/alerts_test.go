package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/localpg"
	"github.com/walrelay/walrelay/internal/testkit"
)

// prometheus is a server that scrapes a relay and a deliver process, with the rules of
// deploy/prometheus. Nobody waits for minutes: only how long a thing has to last, and how
// late and how much is too much, are less than there.
type prometheus struct {
	t   *testing.T
	url string
}

func startPrometheus(t *testing.T, relay string, handlers ...string) *prometheus {
	t.Helper()
	rules, err := os.ReadFile("../../deploy/prometheus/walrelay.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`for: \d+m`).ReplaceAllString(string(rules), "for: 1s")
	text = strings.NewReplacer("> 60\n", "> 2\n", "10 * 1024 * 1024 * 1024", "1024 * 1024").Replace(text)
	dir := t.TempDir()
	config := fmt.Sprintf(`
global: {scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}
rule_files: [rules.yaml]
scrape_configs:
  - {job_name: walrelay, static_configs: [{targets: [%q]}]}
  - {job_name: handlers, static_configs: [{targets: [%s]}]}
`, relay, strings.Join(handlers, ", "))
	for name, content := range map[string]string{"rules.yaml": text, "prometheus.yml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port, err := localpg.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	logs := &child.Log{}
	process, err := child.Start("prometheus", exec.Command("prometheus",
		"--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address), child.Options{Log: logs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Kill()
		if t.Failed() {
			t.Logf("prometheus said:\n%s", logs.Tail(20))
		}
	})
	return &prometheus{t, "http://" + address}
}

// get asks the server.
func (p *prometheus) get(path string, answer any) error {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	return json.NewDecoder(response.Body).Decode(answer)
}

// firing returns the alerts that fire.
func (p *prometheus) firing() (names []string, err error) {
	var answer struct {
		Data struct {
			Alerts []struct {
				State       string            `json:"state"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"alerts"`
		} `json:"data"`
	}
	if err := p.get("/api/v1/alerts", &answer); err != nil {
		return nil, err
	}
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
			if text := a.Annotations["summary"] + a.Annotations["description"]; strings.Contains(text, "<no value>") || text == "" {
				p.t.Errorf("%s says %q", a.Labels["alertname"], text)
			}
		}
	}
	return names, nil
}

// fires waits until alerts fire.
func (p *prometheus) fires(wanted ...string) {
	p.t.Helper()
	seen := map[string]bool{}
	testkit.Eventually(p.t, time.Minute, fmt.Sprintf("%v fire", wanted), func() error {
		names, err := p.firing()
		for _, name := range names {
			seen[name] = true
		}
		for _, name := range wanted {
			if err == nil && !seen[name] {
				err = fmt.Errorf("%s has not fired; there are %v", name, names)
			}
		}
		return err
	})
}

// quiet waits until no alert fires.
func (p *prometheus) quiet() {
	p.t.Helper()
	testkit.Eventually(p.t, time.Minute, "no alert fires", func() error {
		names, err := p.firing()
		if len(names) > 0 {
			err = fmt.Errorf("%v fire", names)
		}
		return err
	})
}

// dashboard makes each query of the Grafana dashboard.
func (p *prometheus) dashboard() {
	p.t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/walrelay.json")
	if err != nil {
		p.t.Fatal(err)
	}
	var board any
	if err := json.Unmarshal(text, &board); err != nil {
		p.t.Fatal(err)
	}
	queries := expressions(board)
	if len(queries) < 25 {
		p.t.Errorf("only %d queries: this test shows little", len(queries))
	}
	for _, query := range queries {
		var answer struct {
			Status string `json:"status"`
			Error  string `json:"error"`
			Data   struct {
				Result []any `json:"result"`
			} `json:"data"`
		}
		asked := strings.NewReplacer("$job", "walrelay", "$__rate_interval", "2m").Replace(query)
		if err := p.get("/api/v1/query?query="+url.QueryEscape(asked), &answer); err != nil {
			p.t.Fatal(err)
		}
		if answer.Status != "success" {
			p.t.Errorf("%s: %s", query, answer.Error)
		}
		// Some show only what is there.
		if len(answer.Data.Result) == 0 && !strings.HasSuffix(query, "> 0") {
			p.t.Errorf("%s shows nothing", query)
		}
	}
}

// expressions returns the queries of a dashboard, wherever they are.
func expressions(node any) (all []string) {
	switch n := node.(type) {
	case map[string]any:
		for key, value := range n {
			if text, ok := value.(string); ok && key == "expr" {
				all = append(all, text)
			} else {
				all = append(all, expressions(value)...)
			}
		}
	case []any:
		for _, value := range n {
			all = append(all, expressions(value)...)
		}
	}
	return all
}

// Each alert fires when that happens of which it warns, and stops when it is over. The
// dashboard shows something in each panel.
func TestAlerts_Fire(t *testing.T) {
	if os.Getenv("WALRELAY_TEST_PROMETHEUS") == "" {
		t.Skip("make test-deploy installs Prometheus, and runs this")
	}
	e := newEnv(t, own)
	e.plain = true
	testkit.AlterSystem(t, e.postgresURL, "SET max_slot_wal_keep_size = '256MB'")
	e.environ = append(e.environ, "WALRELAY_OUTBOX_REPAIR_WINDOW=1s")
	e.init()
	if out, code := e.walrelay("init", "--inbox"); code != 0 {
		t.Fatalf("init --inbox ended with %d: %s", code, out)
	}
	// The handler's endpoint hangs while it is told to.
	var hangs atomic.Bool
	released := make(chan struct{})
	release := sync.OnceFunc(func() {
		hangs.Store(false)
		close(released)
	})
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if hangs.Load() {
			select {
			case <-released:
			case <-req.Context().Done():
			}
		}
	}))
	t.Cleanup(func() {
		release()
		endpoint.Close()
	})
	file := fmt.Sprintf("handlers:\n- {name: billing, types: [order.*], url: %q}\n", endpoint.URL)
	if err := os.WriteFile(filepath.Join(e.dir, "handlers.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	r := e.run()
	relayAddress := r.httpAddr()
	active := e.launch("deliver", "--http-addr", "127.0.0.1:0")
	active.awaitLog(`"addr":"`)
	e.insert(10)
	testkit.Eventually(t, 30*time.Second, "the first process handles events", func() error {
		if n, err := active.metric(`walrelay_handler_handled_total{handler="billing",partition=""}`); err != nil || n < 10 {
			return fmt.Errorf("it has handled %v (%w)", n, err)
		}
		return nil
	})
	standby := e.launch("deliver", "--http-addr", "127.0.0.1:0")
	standby.awaitLog(`"addr":"`)
	p := startPrometheus(t, relayAddress, active.httpAddr(), standby.httpAddr())
	p.quiet()

	fault := func(name string, do, undo func(), alerts ...string) {
		t.Helper()
		t.Log(name)
		do()
		p.fires(alerts...)
		undo()
		p.quiet()
	}
	fault("the relay is away", func() { r.Kill() }, func() { r = e.run("--http-addr", relayAddress) }, "WalrelayAway")
	fault("a stream is full, and more is written",
		func() {
			e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) {
				cfg.MaxMsgs, cfg.Discard = int64(e.messages("EVENTS")), jetstream.DiscardNew
			})
			e.insert(10)
			testkit.Exec(t, e.postgresURL, "SELECT pg_logical_emit_message(false, 'somebody', repeat('x', 10000000)) FROM generate_series(1, 16)")
		},
		func() { e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs = -1 }) },
		"WalrelayStreamPaused", "WalrelayNotReady", "WalrelayLag", "WalrelaySlotNearlyLost", "WalrelayWALPilesUp")
	fault("an event fails",
		func() {
			testkit.Exec(t, e.postgresURL, `INSERT INTO outbox (event_type, source, extensions) VALUES ('order.odd', '/e2e', '{"A": "x"}')`)
		},
		func() { testkit.Exec(t, e.postgresURL, "SELECT walrelay.discard(everything => true)") },
		"WalrelayEventsFailed")
	locking := testkit.Connect(t, e.postgresURL)
	fault("somebody locks the delay table while an event is due",
		func() {
			testkit.Exec(t, e.postgresURL, "INSERT INTO outbox (event_type, source, scheduled_at) VALUES ('order.later', '/e2e', now() + interval '2 s')")
			e.awaitSQL("scheduled events", "SELECT count(*)::text FROM walrelay.delayed WHERE state = 'scheduled'", "1")
			if _, err := locking.Exec(t.Context(), "BEGIN; LOCK TABLE walrelay.delayed IN SHARE MODE"); err != nil {
				t.Fatal(err)
			}
		},
		func() {
			if _, err := locking.Exec(t.Context(), "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
		},
		"WalrelayEventsOverdue", "WalrelayDelayTableBlocked")
	fault("a foreign key keeps a published row",
		func() {
			testkit.Exec(t, e.postgresURL, `CREATE TABLE keeper (id uuid REFERENCES outbox (id));
				WITH row AS (INSERT INTO outbox (event_type, source) VALUES ('order.kept', '/e2e') RETURNING id) SELECT id INTO kept FROM row;
				INSERT INTO keeper SELECT id FROM kept`)
		},
		func() { testkit.Exec(t, e.postgresURL, "DROP TABLE keeper") },
		"WalrelayRowsRefused")
	fault("the process that handles events is frozen",
		func() {
			active.Signal(syscall.SIGSTOP)
			e.insert(100)
		},
		func() { active.Signal(syscall.SIGCONT) },
		"WalrelayHandlerStands")
	hangs.Store(true)
	e.insert(7000) // more than may be unacknowledged
	p.fires("WalrelayHandlerStuck")
	p.dashboard()
	// They are away for longer than the stream keeps events.
	address := active.httpAddr()
	active.Kill()
	standby.Kill()
	e.updateStream("EVENTS", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs, cfg.Discard = 5, jetstream.DiscardOld })
	release()
	e.launch("deliver", "--http-addr", address)
	p.fires("WalrelayHandlerLostEvents")
}
