package bench

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/child"
)

// durations are 1 ms, 2 ms, … n ms.
func durations(n int) []time.Duration {
	d := make([]time.Duration, n)
	for i := range d {
		d[i] = time.Duration(i+1) * time.Millisecond
	}
	return d
}

func TestPercentile(t *testing.T) {
	for _, tt := range []struct {
		samples int
		percent float64
		want    time.Duration
	}{
		{0, 50, 0},
		{1, 0, time.Millisecond},
		{1, 99.9, time.Millisecond},
		{2, 50, time.Millisecond},
		{2, 50.1, 2 * time.Millisecond},
		{3, 50, 2 * time.Millisecond},
		{100, 0, time.Millisecond},
		{100, 90, 90 * time.Millisecond},
		{100, 99, 99 * time.Millisecond},
		{100, 99.9, 100 * time.Millisecond},
		{1000, 99.9, 999 * time.Millisecond},
		{1000, 100, 1000 * time.Millisecond},
	} {
		if got := percentile(durations(tt.samples), tt.percent); got != tt.want {
			t.Errorf("percentile %v of %d values: want %v, got %v", tt.percent, tt.samples, tt.want, got)
		}
	}
}

func TestDistribution_Sorts(t *testing.T) {
	samples := durations(1000)
	slices.Reverse(samples)
	d := distribution(samples)
	if d.Samples != 1000 || d.P50Us != 500e3 || d.P90Us != 900e3 || d.P99Us != 990e3 || d.P999Us != 999e3 || d.MaxUs != 1000e3 {
		t.Errorf("of 1 to 1000 ms, got %+v", d)
	}
	if !slices.IsSortedFunc(d.Curve, func(a, b Point) int { return int(a.Us - b.Us) }) {
		t.Errorf("the curve falls: %v", d.Curve)
	}
}

func TestSummary_OfRounds(t *testing.T) {
	d := Drain{Rounds: []Round{{RelayPerS: 3, BareReaderPerS: 10}, {RelayPerS: 1, BareReaderPerS: 20}, {RelayPerS: 2, BareReaderPerS: 60}}}
	d.summarise()
	if d.Median.RelayPerS != 2 || d.Min.RelayPerS != 1 || d.Max.RelayPerS != 3 || d.Median.BareReaderPerS != 20 || d.Max.BareReaderPerS != 60 {
		t.Errorf("got median %+v, min %+v, max %+v", d.Median, d.Min, d.Max)
	}
	d = Drain{Rounds: []Round{{RelayPerS: 1}, {RelayPerS: 4}}}
	if d.summarise(); d.Median.RelayPerS != 2.5 {
		t.Errorf("the median of 1 and 4: got %v", d.Median.RelayPerS)
	}
}

func TestOptions_Validate(t *testing.T) {
	urls := func(o *Options) {
		o.Config.Postgres.URL, o.Config.NATS.URL = "postgres://127.0.0.1/x", "nats://127.0.0.1"
	}
	for _, tt := range []struct {
		name   string
		change func(*Options)
		want   string // "" for no fault
	}{
		{"defaults", func(*Options) {}, ""},
		{"servers", urls, ""},
		{"events", func(o *Options) { o.Parameters.Events = 1 }, "events: 1 is not between 2 and 1000000000"},
		{"per-tx", func(o *Options) { o.Parameters.PerTx = 0 }, "per-tx: 0 is not between 1"},
		{"payload", func(o *Options) { o.Parameters.PayloadBytes = 39 }, "payload: 39 is not between 40 and 524288"},
		{"writers", func(o *Options) { o.Parameters.Writers = 65 }, "writers: 65 is not between 1 and 64"},
		{"subjects", func(o *Options) { o.Parameters.Subjects = -1 }, "subjects: -1 is not between 1"},
		{"sync-events", func(o *Options) { o.Parameters.SyncEvents = 0 }, "sync-events: 0 is not between 2"},
		{"rounds", func(o *Options) { o.Parameters.Rounds = 0 }, "rounds: 0 is not between 1 and 100"},
		{"rate", func(o *Options) { o.Parameters.RatePerS = -1 }, "rate: -1 is not between 0"},
		{"no rate", func(o *Options) { o.Parameters.RatePerS = 0 }, ""},
		{"live-per-tx", func(o *Options) { o.Parameters.LivePerTx = 0 }, "live-per-tx: 0 is not between 1"},
		{"duration", func(o *Options) { o.Parameters.DurationS = 0.5 }, "duration: 500ms is not between 1s and 24h"},
		{"parts", func(o *Options) { o.Drain, o.Live = false, false }, "only: nothing is left"},
		{"replicas", func(o *Options) { urls(o); o.Parameters.Replicas = 6 }, "replicas: 6 is not between 1 and 5"},
		{"replicas of servers", func(o *Options) { urls(o); o.Parameters.Replicas = 3 }, ""},
		{"replicas of one server", func(o *Options) { o.Parameters.Replicas = 3 }, "replicas: the throw-away nats-server is a single one"},
		{"one URL", func(o *Options) { o.Config.NATS.URL = "nats://127.0.0.1" }, "postgres.url: must be set as well"},
		{"the other URL", func(o *Options) { o.Config.Postgres.URL = "postgres://x" }, "nats.url: must be set as well"},
		{"one URL, private", func(o *Options) { o.Config.NATS.URL, o.Private = "nats://127.0.0.1", true }, ""},
		{"a wrong URL", func(o *Options) { urls(o); o.Config.NATS.URL = "http://x" }, "nats.url: the scheme"},
		{"window", func(o *Options) { urls(o); o.Config.Publish.MaxInFlight = -1 }, "publish.max_in_flight: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := Options{ServerCommand: "server", Drain: true, Live: true, Parameters: DefaultParameters()}
			tt.change(&opts)
			err := opts.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
				t.Errorf("want %q, got %v", tt.want, err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("one fault was made, but several are reported: %v", err)
			}
		})
	}
}

func TestPayload_SizeAndJSON(t *testing.T) {
	for _, size := range []int{leastPayload, 300, 100_000} {
		load := newWorkload(Parameters{PayloadBytes: size, Subjects: 3})
		for _, n := range []int{0, 1, 999_999_999} {
			text := load.data(n)
			var data struct {
				N int `json:"n"`
			}
			if err := json.Unmarshal([]byte(text), &data); err != nil || data.N != n || len(text) != size {
				t.Errorf("payload %d of %d bytes: got %d bytes, number %d, %v", n, size, len(text), data.N, err)
			}
		}
	}
}

func TestSubject_TimeAndNumber(t *testing.T) {
	now := time.Now().Round(0)
	sent, n, ok := parseSubject(subject(now, 42))
	if !ok || n != 42 || !sent.Equal(now) {
		t.Errorf("want %v and 42, got %v, %d, %v", now, sent, n, ok)
	}
	for _, text := range []string{"", "17", ready, "x-1", "1-x", "1--1"} {
		if _, _, ok := parseSubject(text); ok {
			t.Errorf("%q passes for the subject of a live event", text)
		}
	}
}

func TestRelayConfig_IgnoresTheEnvironment(t *testing.T) {
	opts := Options{ServerCommand: "server", Parameters: DefaultParameters()}
	opts.Config.Publish.MaxInFlight = 100
	env := relayEnvironment([]string{"HOME=/x", "WALRELAY_SLOT=orders", "WALRELAY_CONFIG=/x.yaml"}, relayConfig(opts, "postgres://p", config.NATS{URL: "nats://n"}))
	for _, want := range []string{"HOME=/x", "WALRELAY_SLOT=walrelay_bench", "WALRELAY_OUTBOX_TABLES=walrelay_bench.outbox", "WALRELAY_PUBLISH_MAX_IN_FLIGHT=100", "WALRELAY_HTTP_ADDR=off"} {
		if !slices.Contains(env, want) {
			t.Errorf("the environment lacks %s: %q", want, env)
		}
	}
	for _, entry := range env {
		if entry == "WALRELAY_SLOT=orders" || strings.HasPrefix(entry, "WALRELAY_CONFIG") {
			t.Errorf("%s is the user's", entry)
		}
	}
}

func TestPlot_IsXML(t *testing.T) {
	load := distribution(durations(500))
	drain := Drain{Rounds: []Round{{RelayPerS: 5, BareReaderPerS: 10}, {RelayPerS: 6, BareReaderPerS: 9}}}
	drain.summarise()
	live := Live{AchievedPerS: 1000, Commit: load, CommitToStream: load, CommitToConsumer: load}
	for name, result := range map[string]Result{
		"both":      {Drain: &drain, Live: &live, Environment: Environment{Postgres: `15 <"&'>`, CPUModel: "a & b"}},
		"drain":     {Drain: &drain},
		"live":      {Live: &live},
		"no sample": {Live: &Live{Commit: distribution(nil), CommitToStream: distribution(nil), CommitToConsumer: distribution(nil)}},
	} {
		var b strings.Builder
		if err := result.WriteSVG(&b); err != nil {
			t.Fatal(err)
		}
		decoder := xml.NewDecoder(strings.NewReader(b.String()))
		for {
			_, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v in\n%s", name, err, b.String())
			}
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("%s: something is drawn nowhere:\n%s", name, b.String())
		}
	}
}

func TestAProcessIsMeasuredAndStopped(t *testing.T) {
	cmd := exec.Command("sh", "-c", "echo trouble >&2; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := &firstLine{line: make(chan string, 1)}
	cmd.Stdout = said
	p, err := child.Start("a shell", cmd, child.Options{})
	if err != nil {
		t.Fatal(err)
	}
	<-said.line
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		if cpu := child.ProcessorTime(p.PID(), false); cpu <= 0 || cpu > time.Minute {
			t.Errorf("the shell counted, and used %v", cpu)
		}
		if all, stolen := machineTime(); all <= 0 || stolen < 0 || stolen > all {
			t.Errorf("the machine had %v, of which others took %v", all, stolen)
		}
		if peak := child.PeakMemory(p.PID()); peak < 100<<10 || peak > 1<<30 {
			t.Errorf("the shell had %d bytes", peak)
		}
		if own, all := child.ProcessorTime(os.Getpid(), false), child.ProcessorTime(os.Getpid(), true); all <= own {
			t.Errorf("with the shell, the test has used %v, and without it %v", all, own)
		}
	}
	if err := p.Stop(stdin.Close, 10*time.Second); err != nil {
		t.Errorf("the shell ends with its input, but: %v", err)
	}
	if err := p.Stop(p.Terminate, time.Second); err == nil || !strings.Contains(err.Error(), "trouble") {
		t.Errorf("a process that has ended should say its last words, got %v", err)
	}
}

func TestText_SaysWhatIsWrong(t *testing.T) {
	result := Result{
		Parameters: DefaultParameters(),
		Live:       &Live{Events: 10, Missing: 3, AchievedPerS: 500, WritersLateMaxUs: 2e6},
		LeftBehind: []string{"role walrelay_app: in use"},
	}
	var b strings.Builder
	if err := result.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 events are missing", "could not keep the rate, and were up to 2s late", "left behind: role walrelay_app"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
			t.Errorf("a line ends with spaces: %s", strconv.Quote(line))
		}
	}
}
