package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walrelay/walrelay/internal/bench"
	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/testkit"
)

// smallBench are the arguments of a bench of a few seconds.
func smallBench(more ...string) []string {
	return append([]string{"bench", "--events", "5000", "--sync-events", "200", "--rate", "200", "--duration", "2s"}, more...)
}

// runBench runs a command that prints the JSON of a bench.
func runBench(t *testing.T, cmd *exec.Cmd) bench.Result {
	t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args[1:], " "), err, errs.String())
	}
	var result bench.Result
	decoder := json.NewDecoder(bytes.NewReader(out))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&result); err != nil {
		t.Fatalf("the output is no result: %v\n%s", err, out)
	}
	return result
}

// checkBench checks that a result of smallBench can be true.
func checkBench(t *testing.T, result bench.Result) {
	t.Helper()
	if result.Drain == nil || result.Live == nil || result.Takeover == nil {
		t.Fatalf("a part is missing: %+v", result)
	}
	if s := result.Takeover; s.KilledS <= 0 || s.KilledS > 30 || s.StoppedS <= 0 || s.StoppedS > 30 {
		t.Errorf("takeovers are not to be believed: %+v", s)
	}
	m := result.Drain.Median
	for name, value := range map[string]float64{
		"write": m.WritePerS, "bare reader": m.BareReaderPerS, "bare publisher": m.BarePublisherPerS,
		"synchronous relay": m.SynchronousPerS, "relay": m.RelayPerS,
	} {
		if value < 50 || value > 5e6 {
			t.Errorf("%s: %.1f events/s are not to be believed", name, value)
		}
	}
	for _, r := range result.Drain.Rounds {
		if r.RelayToSynchronous != r.RelayPerS/r.SynchronousPerS || r.RelayToBareReader != r.RelayPerS/r.BareReaderPerS || r.RelayToBarePublisher != r.RelayPerS/r.BarePublisherPerS {
			t.Errorf("a ratio is none: %+v", r)
		}
	}
	l := result.Live
	if l.Missing != 0 || l.Duplicated != 0 {
		t.Errorf("%d events are missing, %d came twice", l.Missing, l.Duplicated)
	}
	// Of two seconds at 200 a second; but slow machines are slow, and writers that
	// are late send what was due in the second that does not count after it.
	late := int(200 * l.WritersLateMaxUs / 1e6)
	if l.Events < 100 || l.Events > 404+late || l.CommitToStream.Samples != l.Events || l.CommitToConsumer.Samples != l.Events || l.Commit.Samples*result.Parameters.LivePerTx != l.Events {
		t.Errorf("want about 400 events and as many samples, got %d, and %d, %d and %d", l.Events, l.Commit.Samples, l.CommitToStream.Samples, l.CommitToConsumer.Samples)
	}
	for name, d := range map[string]bench.Distribution{"commit": l.Commit, "commit to stream": l.CommitToStream, "commit to consumer": l.CommitToConsumer} {
		rising := []float64{1, d.P50Us, d.P90Us, d.P99Us, d.P999Us, d.MaxUs, 60e6}
		if !slices.IsSorted(rising) {
			t.Errorf("%s: the percentiles are %v", name, rising)
		}
		if last := d.Curve[len(d.Curve)-1]; last.Percentile != 100 || last.Us != d.MaxUs {
			t.Errorf("%s: the curve ends with %+v, and the maximum is %v", name, last, d.MaxUs)
		}
	}
	if l.CommitToConsumer.P50Us < l.CommitToStream.P50Us {
		t.Errorf("a consumer has events before they are stored: %v and %v", l.CommitToConsumer.P50Us, l.CommitToStream.P50Us)
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		if m.RelayCPUPerEventUs <= 0 || l.RelayCPUPerEventUs <= 0 || m.RelayPeakMemoryBytes < 1<<20 || l.RelayPeakMemoryBytes < 1<<20 {
			t.Errorf("the relay was not measured: CPU %v and %v, memory %v and %v", m.RelayCPUPerEventUs, l.RelayCPUPerEventUs, m.RelayPeakMemoryBytes, l.RelayPeakMemoryBytes)
		}
	}
	if result.Environment.Postgres == "" || result.Environment.NATS == "" || result.Environment.CPUs < 1 {
		t.Errorf("where it was measured is not told: %+v", result.Environment)
	}
}

func TestBench_OwnServers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plot := filepath.Join(dir, "bench.svg")
	cmd := exec.Command(binary, smallBench("--private", "--json", "--plot", plot, "--rounds", "2", "--live-per-tx", "2")...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "WALRELAY_PG_BIN="+os.Getenv("WALRELAY_TEST_PG_BIN"))
	cmd.Dir = dir
	result := runBench(t, cmd)
	checkBench(t, result)
	if !result.Environment.Private || len(result.Drain.Rounds) != 2 || result.Drain.Median.PostgresCPUPerEventUs <= 0 {
		t.Errorf("want private servers, measured, and two rounds; got %+v and %+v", result.Environment, result.Drain)
	}
	if svg, err := os.ReadFile(plot); err != nil || !bytes.HasPrefix(svg, []byte("<svg ")) {
		t.Errorf("the plot: %v, %.20s", err, svg)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "walrelay*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// belongings lists everything that a bench may have made or changed.
func (e *env) belongings() string {
	e.t.Helper()
	var b strings.Builder
	for _, query := range []string{
		"SELECT coalesce(string_agg(slot_name || ' ' || (slot_name LIKE 'walrelay_bench%')::text, ', ' ORDER BY slot_name), '') FROM pg_replication_slots",
		"SELECT coalesce(string_agg(pubname, ', ' ORDER BY pubname), '') FROM pg_publication",
		"SELECT string_agg(nspname, ', ' ORDER BY nspname) FROM pg_namespace WHERE nspname NOT LIKE 'pg_%'",
		"SELECT coalesce(string_agg(rolname, ', ' ORDER BY rolname), '') FROM pg_roles WHERE rolname LIKE 'walrelay%'",
	} {
		fmt.Fprintln(&b, testkit.Query(e.t, e.postgresURL, query))
	}
	names := e.jetstream().StreamNames(e.t.Context())
	for name := range names.Name() {
		fmt.Fprintln(&b, name)
	}
	if err := names.Err(); err != nil {
		e.t.Fatal(err)
	}
	return b.String()
}

// awaitBench waits until a bench is at work, by what it says.
func awaitBench(t *testing.T, logs *child.Log, text string) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, fmt.Sprintf("bench says %q", text), func() error {
		if !strings.Contains(logs.String(), text) {
			return fmt.Errorf("it said:\n%s", logs.String())
		}
		return nil
	})
}

func TestBench_LeavesNothingBehind(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.environ = append(e.environ, "TMPDIR="+e.dir) // for the one that is killed
	before := e.belongings()
	nothing := func(when string) {
		t.Helper()
		if after := e.belongings(); after != before {
			t.Errorf("%s, there is\n%s\nand before there was\n%s", when, after, before)
		}
	}
	checkBench(t, runBench(t, e.command(smallBench("--json")...)))
	nothing("after a bench")

	begin := func(awaited string, args ...string) (*exec.Cmd, *child.Log) {
		cmd, logs := e.command(append([]string{"bench"}, args...)...), &child.Log{}
		cmd.Stdout, cmd.Stderr = logs, logs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitBench(t, logs, awaited)
		return cmd, logs
	}
	const live = "writing 1000 events a second"
	for _, args := range [][]string{
		{"writing 5000000 events", "--events", "5000000"},
		{live, "--only", "live", "--duration", "1m"},
	} {
		cmd, logs := begin(args[0], args[1:]...)
		_ = cmd.Process.Signal(syscall.SIGINT)
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(logs.String(), "walrelay: interrupted") {
			t.Errorf("want it to end with 1 and to say that it was interrupted; got %s:\n%s", cmd.ProcessState, logs.String())
		}
		nothing("after a bench was interrupted while " + args[0])
	}

	cmd, _ := begin(live, "--only", "live", "--duration", "1m")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if e.belongings() == before {
		t.Fatal("a bench that was killed has removed everything; this test shows nothing")
	}
	if out, code := e.walrelay("bench", "--only", "live", "--duration", "1s"); code != 0 {
		t.Errorf("a bench after one that was killed ended with %d:\n%s", code, out)
	}
	nothing("after a bench after one that was killed")
}

func TestBench_LeavesARelayAlone(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	e.init()
	r := e.run()
	e.insert(10)
	e.awaitMessages("EVENTS", 10)
	before := e.belongings()
	if out, code := e.walrelay(smallBench("--only", "live")...); code != 0 {
		t.Fatalf("bench ended with %d:\n%s", code, out)
	}
	if after := e.belongings(); after != before {
		t.Errorf("after the bench there is\n%s\nand before there was\n%s", after, before)
	}
	if slots := testkit.Query(t, e.postgresURL, "SELECT string_agg(slot, ', ') FROM walrelay.progress"); slots != e.slot {
		t.Errorf("walrelay.progress has rows of %s, want only %s", slots, e.slot)
	}
	e.insert(10)
	e.awaitMessages("EVENTS", 20)
	if n := e.messages("EVENTS"); n != 20 {
		t.Errorf("the relay's stream has %d messages, want its own 20", n)
	}
	if code := r.stop(); code != 0 {
		t.Errorf("the relay ended with %d", code)
	}
}

func TestBench_SlotInUse(t *testing.T) {
	t.Parallel()
	e := newEnv(t, own)
	testkit.Exec(t, e.postgresURL, "SELECT pg_create_logical_replication_slot('walrelay_bench', 'pgoutput')")
	config, err := pgconn.ParseConfig(e.postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	config.RuntimeParams["application_name"] = "somebody"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	err = pglogrepl.StartReplication(t.Context(), conn, "walrelay_bench", 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names 'x'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	before := e.belongings()
	out, code := e.walrelay(smallBench()...)
	if code != 1 || !strings.Contains(out, `slot "walrelay_bench" is in use by process`) || !strings.Contains(out, "somebody") {
		t.Errorf("want an error that says who uses the slot, got %d:\n%s", code, out)
	}
	if after := e.belongings(); after != before {
		t.Errorf("a bench that refused has changed\n%s\ninto\n%s", before, after)
	}
}
