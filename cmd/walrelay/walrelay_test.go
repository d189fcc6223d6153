package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// invoke runs a command in a folder of its own.
func invoke(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	var out, errs bytes.Buffer
	code = execute(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodesTellUsageFromFailure(t *testing.T) {
	for _, tt := range []struct {
		name       string
		args       []string
		code       int
		out, stder string // what they begin with
	}{
		{"help", nil, exitDone, "Stream a Postgres outbox", ""},
		{"version", []string{"version"}, exitDone, "walrelay ", ""},
		{"completion", []string{"completion", "bash"}, exitDone, "# bash completion", ""},
		{"unknown command", []string{"rum"}, exitUsage, "", `walrelay: unknown command "rum" for "walrelay"; did you mean run`},
		{"unknown flag", []string{"run", "--sloot=x"}, exitUsage, "", "walrelay: unknown flag: --sloot"},
		{"an argument too many", []string{"init", "x"}, exitUsage, "", `walrelay: unknown command "x" for "walrelay init"`},
		{"wrong type", []string{"run", "--publish-max-in-flight=many"}, exitUsage, "", `walrelay: invalid argument "many" for "--publish-max-in-flight" flag: "many" is not a whole number`},
		{"no configuration", []string{"run"}, exitUsage, "", "walrelay: postgres.url: must be set"},
		{"no configuration for init", []string{"init"}, exitUsage, "", "walrelay: postgres.url: must be set"},
		{"servers away", []string{"init", "--postgres-url=postgres://127.0.0.1:1/x", "--nats-url=nats://127.0.0.1:1"}, exitFailed, "", "walrelay: connecting to Postgres: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := invoke(t, tt.args...)
			if code != tt.code || !strings.HasPrefix(stdout, tt.out) || !strings.HasPrefix(stderr, tt.stder) {
				t.Errorf("want exit code %d, output %q and error %q; got %d, %q and %q", tt.code, tt.out, tt.stder, code, stdout, stderr)
			}
			if strings.Contains(stderr, "Usage:") {
				t.Errorf("an error is buried under the usage: %s", stderr)
			}
			for line := range strings.Lines(stderr) {
				if !strings.HasPrefix(line, "walrelay: ") {
					t.Errorf("a fault takes more than its line: %q", line)
				}
			}
		})
	}
}

func TestInitReportsWhatItDid(t *testing.T) {
	cluster, server := testkit.Postgres(t), testkit.NATS(t)
	args := []string{"init", "--postgres-url", testkit.Database(t, cluster), "--nats-url", server.URL()}
	code, stdout, stderr := invoke(t, args...)
	if code != exitDone || strings.Count(stdout, " created") != 5 || !strings.HasPrefix(stderr, "warning: max_slot_wal_keep_size") {
		t.Errorf("first init: want five things created and a warning, got %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ = invoke(t, args...)
	if code != exitDone || strings.Count(stdout, " already there") != 5 {
		t.Errorf("second init: want five things already there, got %d\n%s", code, stdout)
	}
}

func TestPrintedSQLNeedsNoServer(t *testing.T) {
	code, stdout, stderr := invoke(t, "init", "--print-sql", "--outbox-tables", "public.outbox,public.second")
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	conn, err := pgx.Connect(t.Context(), testkit.Database(t, testkit.Postgres(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.PgConn().Exec(t.Context(), stdout).ReadAll(); err != nil {
		t.Errorf("the printed SQL does not run: %v\n%s", err, stdout)
	}
	code, _, stderr = invoke(t, "init", "--print-sql", "--slot", "Bad")
	if code != exitUsage || !strings.HasPrefix(stderr, "walrelay: --slot: ") {
		t.Errorf("a bad name: want exit code 2 and the flag's name, got %d: %s", code, stderr)
	}
}

func TestLogsAreJSONUnlessOnATerminal(t *testing.T) {
	t.Setenv("WALRELAY_POSTGRES_URL", "postgres://127.0.0.1:1/x")
	cfg, err := load(t, "", append(os.Environ(), "WALRELAY_NATS_URL=nats://x", "WALRELAY_LOG_LEVEL=warn"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for format, prefix := range map[string]string{"auto": "{", "json": "{", "console": ""} {
		cfg.Log.Format = format
		var b bytes.Buffer
		log, err := newLogger(cfg, &b)
		if err != nil {
			t.Fatal(err)
		}
		log.Info().Msg("unwanted")
		log.Warn().Msg("wanted")
		if got := b.String(); strings.Contains(got, "unwanted") || !strings.Contains(got, "wanted") ||
			strings.HasPrefix(got, "{") != (prefix == "{") || strings.Contains(got, "\x1b") {
			t.Errorf("format %s: got %q", format, got)
		}
	}
}

// writerFunc is an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestLogger_WritesTheLastLines(t *testing.T) {
	for range 2000 {
		var b bytes.Buffer
		queue := newLineQueue(&b, 4)
		_, _ = queue.Write([]byte("the last words\n"))
		queue.close(time.Minute)
		if b.String() != "the last words\n" {
			t.Fatalf("got %q", b.String())
		}
	}
}

func TestLogLinesThatAreLeftOutAreCounted(t *testing.T) {
	var b bytes.Buffer
	taken, free := make(chan struct{}, 1), make(chan struct{})
	queue := newLineQueue(writerFunc(func(line []byte) (int, error) {
		select {
		case taken <- struct{}{}:
			<-free
		default:
		}
		return b.Write(line)
	}), 1)
	_, _ = queue.Write([]byte("first\n"))
	<-taken
	for range 4 {
		_, _ = queue.Write([]byte("next\n"))
	}
	close(free)
	queue.close(time.Minute)
	want := "first\n" + `{"level":"warn","lines":3,"message":"log lines left out: standard error did not take them"}` + "\nnext\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// status and doctor say how things stand before and after init, and end with what they found.
func TestStatusAndDoctor(t *testing.T) {
	cluster, server := testkit.Postgres(t), testkit.NATS(t)
	at := []string{"--postgres-url", testkit.Database(t, cluster), "--nats-url", server.URL()}
	with := func(args ...string) []string { return append(args, at...) }
	if code, stdout, stderr := invoke(t, with("doctor")...); code != exitFailed || !strings.Contains(stdout, "schema_missing") || !strings.Contains(stdout, `fix: run "walrelay init"`) || stderr != "walrelay: at least one check fails\n" {
		t.Errorf("doctor before init: %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := invoke(t, with("status")...); code != exitDone || !strings.HasPrefix(stdout, "walrelay  failing at ") || stderr != "" {
		t.Errorf("status before init: %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := invoke(t, with("init")...); code != exitDone {
		t.Fatal(stderr)
	}
	if code, stdout, _ := invoke(t, with("doctor")...); code != exitDone || !strings.Contains(stdout, " 0 fail, 0 skipped\n") || !strings.Contains(stdout, "relay_missing") || strings.Contains(stdout, "\npass") {
		t.Errorf("doctor after init: %d\n%s", code, stdout)
	}
	code, stdout, _ := invoke(t, with("doctor", "--json")...)
	for line := range strings.Lines(stdout) {
		var result walrelay.Result
		if err := json.Unmarshal([]byte(line), &result); err != nil || result.ID == "" || result.What == "" || result.Status == walrelay.CheckFail {
			t.Errorf("doctor --json: %d, %s %v", code, line, err)
		}
	}
	code, stdout, _ = invoke(t, with("status", "--json")...)
	var document walrelay.StatusDocument
	if err := json.Unmarshal([]byte(stdout), &document); err != nil || code != exitDone || !document.Slot.Present || document.Slot.WALBytesPerSecond == nil || len(document.Streams) != 1 {
		t.Errorf("status --json: %d %v\n%s", code, err, stdout)
	}
	if code, _, stderr := invoke(t, with("status", "--watch=1ms")...); code != exitUsage || !strings.Contains(stderr, "--watch") {
		t.Errorf("too short a watch: %d %s", code, stderr)
	}
	at[3] = "nats://127.0.0.1:1"
	if code, stdout, stderr := invoke(t, with("status")...); code != exitFailed || !strings.Contains(stdout, "schema version") || !strings.HasPrefix(stderr, "walrelay: NATS: ") {
		t.Errorf("status without NATS: %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, _ := invoke(t, with("doctor")...); code != exitFailed || !strings.Contains(stdout, "nats_reachable") {
		t.Errorf("doctor without NATS: %d\n%s", code, stdout)
	}
	if code, _, stderr := invoke(t, "doctor"); code != exitUsage || !strings.Contains(stderr, "postgres") {
		t.Errorf("doctor without a configuration: %d %s", code, stderr)
	}
}
