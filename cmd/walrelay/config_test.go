package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
)

// load reads a configuration from a file's text, variables and flags, in a
// folder of its own.
func load(t *testing.T, file string, environ, args []string) (walrelay.Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if file != "" {
		if err := os.WriteFile(defaultFile, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := &cobra.Command{}
	source := addConfigFlags(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return walrelay.Config{}, err
	}
	cfg, err := source.load(environ)
	if err != nil {
		return cfg, err
	}
	return cfg, source.explain(cfg.Validate())
}

const everything = `
postgres: {url: postgres://file/app}
nats:
  url: nats://file
  user: relay
  password: 12345
  tls:
    ca_file: ca.pem
slot: file_slot
failover: true
outbox:
  tables: [public.outbox, app.events]
  mappings:
    - table: app.events
      preset: debezium
      columns: {subject: topic, time: ""}
      values: {source: "/app"}
streams:
  - name: EVENTS
    replicas: 3
    duplicate_window: 10m
    max_bytes: 2GiB
  - {name: AUDIT, subjects: [audit.>], shared: true}
publish:
  max_in_flight: 100
  max_in_flight_bytes: 4 MiB
  max_event_size: 2 MiB
  message_id: false
routes:
  - {type: "audit.*", stream: AUDIT, subject: "audit.{type}"}
  - {type: noise, drop: true}
http:
shutdown_timeout: 1m30s
`

func TestAFileSetsEveryKindOfKey(t *testing.T) {
	cfg, err := load(t, everything, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	mapping := cfg.Outbox.Mappings[0]
	for name, ok := range map[string]bool{
		"a URL":                 cfg.Postgres.URL == "postgres://file/app",
		"a number as text":      cfg.NATS.Password == "12345",
		"two levels":            cfg.NATS.TLS.CAFile == "ca.pem",
		"a truth":               cfg.Failover,
		"a list":                slices.Equal(cfg.Outbox.Tables, []string{"public.outbox", "app.events"}),
		"a mapping":             mapping.Columns["subject"] == "topic" && mapping.Values["source"] == "/app",
		"an empty column":       len(mapping.Columns) == 2 && mapping.Columns["time"] == "",
		"a list of sections":    len(cfg.Streams) == 2 && cfg.Streams[0].Replicas == 3 && cfg.Streams[1].Shared,
		"a duration":            cfg.Streams[0].DuplicateWindow == 10*time.Minute && cfg.ShutdownTimeout == 90*time.Second,
		"a size":                cfg.Streams[0].MaxBytes == 2<<30 && cfg.Publish.MaxInFlightBytes == 4<<20 && cfg.Publish.MaxEventSize == 2<<20,
		"a truth that is false": cfg.Publish.MessageID != nil && !*cfg.Publish.MessageID,
		"a rule":                cfg.Routes[1].Drop && cfg.Routes[0].Stream == "AUDIT",
		"nothing for a blank":   cfg.HTTP.Addr == "",
	} {
		if !ok {
			t.Errorf("%s is not what the file says: %+v", name, cfg)
		}
	}
}

// What config.Environ writes is read as the same configuration, but for what a file alone can say.
func TestTheEnvironmentOfAConfiguration(t *testing.T) {
	want, err := load(t, everything, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	environ := config.Environ(want)
	want.Streams, want.Routes, want.Outbox.Mappings = nil, nil, nil
	got, err := load(t, "", environ, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(environ, "\n"))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it is read as\n%+v\nwant\n%+v\nof\n%s", got, want, strings.Join(environ, "\n"))
	}
}

func TestFlagsGoOverEnvironmentOverFile(t *testing.T) {
	environ := []string{"WALRELAY_NATS_URL=nats://env", "WALRELAY_SLOT=env_slot", "WALRELAY_OUTBOX_TABLES=a.b, app.events", "WALRELAY_PUBLICATION=", "HOME=/x", "WALRELAY_TEST_PG_BIN=/y", "WALRELAY_PG_BIN=/z",
		// What Kubernetes sets for a Service that is called walrelay.
		"WALRELAY_SERVICE_HOST=10.0.0.1", "WALRELAY_SERVICE_PORT=8080", "WALRELAY_SERVICE_PORT_HTTP=8080", "WALRELAY_PORT=tcp://10.0.0.1:8080",
		"WALRELAY_PORT_8080_TCP=tcp://10.0.0.1:8080", "WALRELAY_PORT_8080_TCP_PROTO=tcp", "WALRELAY_PORT_8080_TCP_PORT=8080", "WALRELAY_PORT_8080_TCP_ADDR=10.0.0.1"}
	cfg, err := load(t, everything, environ, []string{"--slot=flag_slot", "--failover=false", "--publish-ack-timeout", "9s"})
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"the file where nothing else speaks":   cfg.Postgres.URL == "postgres://file/app" && cfg.NATS.User == "relay",
		"the environment over the file":        cfg.NATS.URL == "nats://env" && slices.Equal(cfg.Outbox.Tables, []string{"a.b", "app.events"}),
		"flags over both":                      cfg.Slot == "flag_slot" && !cfg.Failover && cfg.Publish.AckTimeout == 9*time.Second,
		"an empty variable counts as none set": cfg.Publication == "",
	} {
		if !ok {
			t.Errorf("want %s: %+v", name, cfg)
		}
	}
}

func TestTheFileIsTheOneThatIsNamed(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("slot: "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	urls := []string{"WALRELAY_POSTGRES_URL=postgres://h/d", "WALRELAY_NATS_URL=nats://h"}
	env := slices.Concat(urls, []string{"WALRELAY_CONFIG=" + write("env")})
	for _, tt := range []struct {
		environ, args []string
		want          string
	}{
		{urls, nil, "standard"},
		{env, nil, "env"},
		{env, []string{"--config", write("flag")}, "flag"},
	} {
		cfg, err := load(t, "slot: standard", tt.environ, tt.args)
		if err != nil || cfg.Slot != tt.want {
			t.Errorf("want the file %s, got %q, %v", tt.want, cfg.Slot, err)
		}
	}
	if _, err := load(t, "", urls, []string{"--config", "missing.yaml"}); err == nil || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("a file that is named must exist, got %v", err)
	}
}

func TestEveryFaultSaysWhereItIs(t *testing.T) {
	const urls = "postgres: {url: postgres://h/d}\nnats: {url: nats://h}\n"
	for _, tt := range []struct {
		name    string
		file    string // after two lines with the URLs
		environ []string
		args    []string
		want    string
	}{
		{"a word for a number", "streams:\n- name: A\n  replicas: three", nil, nil, `walrelay.yaml:5: streams[0].replicas: "three" is not a whole number`},
		{"a typing error", "sloot: x", nil, nil, "walrelay.yaml:3: sloot: unknown key; did you mean slot?"},
		{"a typing error below", "http:\n  adr: x", nil, nil, "walrelay.yaml:4: http.adr: unknown key; did you mean http.addr?"},
		{"a typing error in a list", "routes:\n- type: a\n  sbuject: x", nil, nil, "walrelay.yaml:5: routes[0].sbuject: unknown key; did you mean routes[0].subject?"},
		{"the name of a variable", "postgres_url: x", nil, nil, "walrelay.yaml:3: postgres_url: unknown key; did you mean postgres.url?"},
		{"a foreign key", "kafka: x", nil, nil, "walrelay.yaml:3: kafka: unknown key; the keys here are postgres, nats, slot"},
		{"twice", "slot: a\nslot: b", nil, nil, "walrelay.yaml:4: slot: is set twice"},
		{"no unit", "shutdown_timeout: 5", nil, nil, `walrelay.yaml:3: shutdown_timeout: "5" is not a duration, such as 500ms, 5s, 2m or 1h30m`},
		{"neither true nor false", "failover: yes", nil, nil, `walrelay.yaml:3: failover: "yes" is neither true nor false`},
		{"a size", "publish:\n  max_in_flight_bytes: 5 apples", nil, nil, `walrelay.yaml:4: publish.max_in_flight_bytes: "5 apples" is not a size in bytes`},
		{"a list for a value", "slot: [a]", nil, nil, "walrelay.yaml:3: slot: wants one value, and this is a list"},
		{"a value for a list", "streams: EVENTS", nil, nil, "walrelay.yaml:3: streams: wants a list, and this is a single value"},
		{"a value for a section", "publish: x", nil, nil, "walrelay.yaml:3: publish: wants keys and values below it, and this is a single value"},
		{"an empty element", "outbox:\n  tables:\n  - ", nil, nil, "walrelay.yaml:5: outbox.tables[0]: is empty"},
		{"an alias", "slot: &a x\npublication: *a", nil, nil, "walrelay.yaml:4: publication: aliases are not supported"},
		{"no YAML", "a: b: c", nil, nil, "walrelay.yaml:3: mapping values are not allowed in this context"},
		{"two documents", "---\nslot: x", nil, nil, "walrelay.yaml:3: only one YAML document is expected"},
		{"a value that means nothing", "slot: Bad", nil, nil, `walrelay.yaml:3: slot: "Bad" is not a valid slot name`},
		{"a stream without name", "streams:\n- replicas: 1", nil, nil, "walrelay.yaml:4: streams[0].name: must be set"},
		{"an element", "outbox:\n  tables:\n  - a.b\n  - c", nil, nil, `walrelay.yaml:6: outbox.tables[1]: "c": write the table with its schema`},
		{"a mapped attribute", "outbox:\n  mappings:\n  - table: public.outbox\n    columns: {bogus: x}", nil, nil, `walrelay.yaml:5: outbox.mappings[0]: no attribute is called "bogus"`},
		{"an unknown variable", "", []string{"WALRELAY_POSTGRES_ULR=x"}, nil, "WALRELAY_POSTGRES_ULR: unknown variable; did you mean WALRELAY_POSTGRES_URL?"},
		{"a foreign variable", "", []string{"WALRELAY_KAFKA=x"}, nil, "WALRELAY_KAFKA: unknown variable"},
		{"a variable for a section list", "", []string{"WALRELAY_STREAMS=x"}, nil, "WALRELAY_STREAMS: streams can be set in the configuration file only"},
		{"a variable for a list below", "", []string{"WALRELAY_OUTBOX_MAPPINGS=x"}, nil, "WALRELAY_OUTBOX_MAPPINGS: outbox.mappings can be set in the configuration file only"},
		{"a variable's type", "", []string{"WALRELAY_SHUTDOWN_TIMEOUT=5"}, nil, `WALRELAY_SHUTDOWN_TIMEOUT: "5" is not a duration`},
		{"a variable's value", "slot: good", []string{"WALRELAY_SLOT=Bad"}, nil, `WALRELAY_SLOT: "Bad" is not a valid slot name`},
		{"a variable's element", "outbox:\n  tables: [a.b]", []string{"WALRELAY_OUTBOX_TABLES=c"}, nil, `WALRELAY_OUTBOX_TABLES: outbox.tables[0]: "c": write the table with its schema`},
		{"a flag's type", "", nil, []string{"--shutdown-timeout=5"}, `invalid argument "5" for "--shutdown-timeout" flag: "5" is not a duration`},
		{"a flag's value", "slot: good", []string{"WALRELAY_SLOT=good"}, []string{"--slot=Bad"}, `--slot: "Bad" is not a valid slot name`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, urls+tt.file, tt.environ, tt.args)
			if err == nil {
				t.Fatal("nothing is reported")
			}
			got := lines(err)
			if len(got) != 1 || !strings.HasPrefix(got[0], tt.want) {
				t.Errorf("want one line that begins with %q, got %q", tt.want, got)
			}
		})
	}
}

func TestARequiredKeySaysHowItCanBeSet(t *testing.T) {
	_, err := load(t, "", nil, nil)
	want := []string{
		"postgres.url: must be set (WALRELAY_POSTGRES_URL, --postgres-url)",
		"nats.url: must be set (WALRELAY_NATS_URL, --nats-url)",
	}
	if err == nil || !slices.Equal(lines(err), want) {
		t.Errorf("want %q, got %v", want, err)
	}
}

func TestFaultsOfAllLayersAreReportedAtOnce(t *testing.T) {
	_, err := load(t, "slto: a\nfailover: 7", []string{"WALRELAY_SLTO=a"}, nil)
	if err == nil || len(lines(err)) != 3 {
		t.Errorf("want three lines, got %v", err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "5B": 5, "16MiB": 16 << 20, "16MB": 16e6, "1 kB": 1000, "1KiB": 1024, "2gib": 2 << 30, "1TB": 1e12,
		"": -1, "MiB": -1, "-1": -1, "1.5MiB": -1, "16M": -1, "1 1": -1, "9223372036854775807KiB": -1,
	} {
		got, err := parseSize(text)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("size %q: want %d, got %d, %v", text, want, got, err)
		}
	}
}

func TestEveryKeyThatOneValueCanSayHasAFlag(t *testing.T) {
	var keys, flags []string
	for _, n := range configSchema().scalars() {
		keys = append(keys, n.path)
	}
	for _, usage := range usages() {
		flags = append(flags, usage[0])
	}
	slices.Sort(keys)
	slices.Sort(flags)
	if !slices.Equal(keys, flags) {
		t.Errorf("the configuration has the keys\n%v\nand there are flags for\n%v", keys, flags)
	}
}
