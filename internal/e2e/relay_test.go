package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/testkit"
)

// binary is the walrelay that TestMain built.
var binary string // built once for every test

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "walrelay-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "walrelay")
	args := []string{"build", "-tags", "servers", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/walrelay/walrelay/cmd/walrelay")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building walrelay: %v\n%s", err, out)
		return 1
	}
	return testkit.Main(m)
}

// plainBinary is the binary without the race detector, which multiplies its
// memory.
func plainBinary(t testing.TB) string {
	t.Helper()
	if !raceEnabled {
		return binary
	}
	path := filepath.Join(t.TempDir(), "walrelay")
	if out, err := exec.Command("go", "build", "-tags", "servers", "-o", path, "github.com/walrelay/walrelay/cmd/walrelay").CombinedOutput(); err != nil {
		t.Fatalf("building walrelay: %v\n%s", err, out)
	}
	return path
}

// relay is a running "walrelay run".
type relay struct {
	*child.Process

	t    testing.TB
	logs *child.Log
	addr string // of its HTTP server, once known
}

// command prepares a walrelay process against the servers of the test.
func (e *env) command(args ...string) *exec.Cmd {
	path := binary
	if e.plain {
		path = plainBinary(e.t)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(),
		"WALRELAY_POSTGRES_URL="+e.postgresURL,
		"WALRELAY_NATS_URL="+e.natsURL,
		"WALRELAY_HTTP_ADDR=127.0.0.1:0",
		"WALRELAY_SLOT="+e.slot,
		"WALRELAY_PUBLICATION="+e.slot,
		"GORACE=halt_on_error=1 exitcode=66",
	)
	cmd.Env = append(cmd.Env, e.environ...)
	cmd.Dir = e.dir
	return cmd
}

// walrelay runs a command to its end and returns what it printed.
func (e *env) walrelay(args ...string) (output string, code int) {
	e.t.Helper()
	out, err := e.command(args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		e.t.Fatalf("walrelay %s: %v", strings.Join(args, " "), err)
	}
	return string(out), 0
}

// init runs "walrelay init", which must succeed.
func (e *env) init() {
	e.t.Helper()
	if out, code := e.walrelay("init"); code != 0 {
		e.t.Fatalf("walrelay init ended with %d:\n%s", code, out)
	}
}

// start starts "walrelay run" and returns at once.
func (e *env) start(args ...string) *relay {
	e.t.Helper()
	return e.launch(append([]string{"run"}, args...)...)
}

// launch starts a command that runs until it is stopped, and returns at once.
func (e *env) launch(args ...string) *relay {
	e.t.Helper()
	logs := &child.Log{}
	process, err := child.Start("walrelay", e.command(args...), child.Options{Log: logs})
	if err != nil {
		e.t.Fatal(err)
	}
	r := &relay{Process: process, t: e.t, logs: logs}
	e.t.Cleanup(func() {
		r.Kill()
		if e.t.Failed() {
			e.t.Logf("walrelay %d said:\n%s", r.PID(), r.logs.Tail(60))
		}
		if strings.Contains(r.logs.String(), "DATA RACE") {
			e.t.Errorf("walrelay has a data race:\n%s", r.logs.String())
		}
	})
	return r
}

// run starts "walrelay run" and waits until it is ready.
func (e *env) run(args ...string) *relay {
	e.t.Helper()
	r := e.start(args...)
	r.awaitReady()
	return r
}

// stop asks the process to end and returns its exit code.
func (r *relay) stop() int {
	r.t.Helper()
	r.Signal(syscall.SIGTERM)
	return r.wait(15 * time.Second)
}

// wait waits for the process to end by itself and returns its exit code.
func (r *relay) wait(limit time.Duration) int {
	r.t.Helper()
	select {
	case <-r.Done():
	case <-time.After(limit):
		r.t.Fatalf("walrelay did not end within %s; it said:\n%s", limit, r.logs.Tail(40))
	}
	return r.Code()
}

// httpAddr finds the address of the HTTP server in the log.
func (r *relay) httpAddr() string {
	if r.addr == "" {
		_, rest, found := strings.Cut(r.logs.String(), `"addr":"`)
		if found {
			r.addr, _, _ = strings.Cut(rest, `"`)
		}
	}
	return r.addr
}

// get asks the HTTP server; status 0 means that it does not answer.
func (r *relay) get(path string) (status int, body string) {
	addr := r.httpAddr()
	if addr == "" {
		return 0, ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		return 0, ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (r *relay) awaitReady() {
	r.t.Helper()
	testkit.Eventually(r.t, 20*time.Second, "walrelay is ready", func() error {
		select {
		case <-r.Done():
			r.t.Fatalf("walrelay ended with %d:\n%s", r.Code(), r.logs.Tail(40))
		default:
		}
		status, body := r.get("/readyz")
		if status != http.StatusOK {
			return fmt.Errorf("/readyz says %d %s", status, strings.TrimSpace(body))
		}
		return nil
	})
}

// awaitCleanUps waits until the outbox tables were cleaned that many times more.
func (r *relay) awaitCleanUps(n int) {
	r.t.Helper()
	const name = "walrelay_cleanups_total"
	before, err := r.metric(name)
	if err != nil {
		r.t.Fatal(err)
	}
	testkit.Eventually(r.t, time.Duration(n)*15*time.Second, "the outbox tables are cleaned", func() error {
		now, err := r.metric(name)
		if err == nil && now < before+float64(n) {
			err = fmt.Errorf("%v of %d times", now-before, n)
		}
		return err
	})
}

// metric reads one value from /metrics, by its name with labels.
func (r *relay) metric(name string) (float64, error) {
	_, body := r.get("/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("/metrics has no %s", name)
}

// awaitLog waits until the process has logged the text.
func (r *relay) awaitLog(text string) {
	r.t.Helper()
	testkit.Eventually(r.t, 20*time.Second, fmt.Sprintf("walrelay logs %q", text), func() error {
		if !strings.Contains(r.logs.String(), text) {
			return errors.New("it does not; it said:\n" + r.logs.Tail(20))
		}
		return nil
	})
}
