//go:build !windows

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestBenchRefusesBadFlags(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"events", []string{"--events", "0"}, "--events: 0 is not between 2 and "},
		{"not a number", []string{"--events", "many"}, `invalid argument "many" for "--events" flag`},
		{"part", []string{"--only", "sleep"}, `--only: "sleep" is none of drain, live and takeover`},
		{"duration", []string{"--duration", "1ms"}, "--duration: 1ms is not between 1s and 24h"},
		{"rate", []string{"--rate", "-5"}, "--rate: -5 is not between 0 and "},
		{"payload", []string{"--payload", "1"}, "--payload: 1 is not between 40 and "},
		{"one URL", []string{"--nats-url", "nats://x"}, "postgres.url: must be set as well; with neither URL, or with --private, bench uses throw-away servers"},
		{"a wrong URL", []string{"--nats-url", "http://x", "--postgres-url", "postgres://x"}, "--nats-url: the scheme"},
		{"plot", []string{"--plot", "nowhere/x.svg", "--postgres-url", "postgres://x", "--nats-url", "nats://x"}, "--plot: open nowhere/x.svg: "},
		{"a key that it does not use", []string{"--slot", "x"}, "unknown flag: --slot"},
		{"an argument", []string{"x"}, `unknown command "x" for "walrelay bench"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := invoke(t, append([]string{"bench"}, tt.args...)...)
			if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "walrelay: "+tt.want) {
				t.Errorf("want exit code 2 and %q, got %d and %q", tt.want, code, stderr)
			}
		})
	}
}

// What runs beside a production database has no nats-server in it.
func TestServers_AreInTheirOwnBuild(t *testing.T) {
	if serverCommand != "" {
		t.Skip("this is the build with servers")
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(out)) {
		if strings.Contains(name, "nats-server") {
			t.Errorf("the program has %s", name)
		}
	}
	for _, args := range [][]string{{"demo", "--pause", "1s"}, {"bench"}} {
		if code, _, stderr := invoke(t, args...); code == exitDone || !strings.Contains(stderr, "built without a nats-server") || !strings.Contains(stderr, "TAGS=servers") {
			t.Errorf("walrelay %s ends with %d and says %q", args, code, stderr)
		}
	}
}

func TestBenchReportsAllFaultsAtOnce(t *testing.T) {
	code, _, stderr := invoke(t, "bench", "--events", "0", "--writers", "0", "--postgres-url", "postgres://x")
	if code != exitUsage || strings.Count(stderr, "\n") != 3 {
		t.Errorf("want three faults, got %d and %s", code, stderr)
	}
}

func TestBenchThatFailsLeavesNoPlot(t *testing.T) {
	code, _, _ := invoke(t, "bench", "--plot", "x.svg", "--postgres-url", "postgres://127.0.0.1:1/x", "--nats-url", "nats://127.0.0.1:1")
	if _, err := os.Stat("x.svg"); code != exitFailed || err == nil {
		t.Errorf("want exit code 1 and no plot, got %d and %v", code, err)
	}
}

func TestTheServerOfBenchIsHidden(t *testing.T) {
	_, stdout, _ := invoke(t, "help")
	if !strings.Contains(stdout, "bench ") || strings.Contains(stdout, "bench-nats-server") {
		t.Errorf("the help should list bench, and not its server:\n%s", stdout)
	}
}
