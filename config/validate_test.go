package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// minimal is the smallest configuration that is valid.
func minimal() Config {
	return Config{Postgres: Postgres{URL: "postgres://localhost/app"}, NATS: NATS{URL: "nats://localhost"}}
}

func TestAConfigurationOfTwoURLsIsValid(t *testing.T) {
	if err := minimal().Validate(); err != nil {
		t.Fatalf("only the two URLs are required, but: %v", err)
	}
}

func TestWithDefaults_LeavesTheOriginal(t *testing.T) {
	original := minimal()
	original.Streams = []Stream{{Name: DefaultStream, MaxAge: time.Second}, {Name: "OTHER"}, {Name: "SHARED", Shared: true}}
	got := original.WithDefaults()
	if original.Streams[0].Replicas != 0 {
		t.Error("WithDefaults wrote into the streams of the configuration it was called on")
	}
	first, second := got.Streams[0], got.Streams[1]
	if first.DuplicateWindow != time.Second {
		t.Errorf("a duplicate window longer than max_age is refused by the server; got %v with max_age 1s", first.DuplicateWindow)
	}
	if len(first.Subjects) != 1 || first.Subjects[0] != "events.>" {
		t.Errorf("the default stream takes events.>, got %v", first.Subjects)
	}
	if len(second.Subjects) != 0 || second.DuplicateWindow != 10*time.Second || second.Replicas != 1 {
		t.Errorf("another stream has no default subjects, but a window and replicas: %+v", second)
	}
	if window := got.Streams[2].DuplicateWindow; window != 2*time.Minute {
		t.Errorf("a shared stream, where nothing else keeps duplicates away, has a window of %v", window)
	}
}

func TestValidate_NamesTheKey(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no Postgres", func(c *Config) { c.Postgres.URL = "" }, "postgres.url: must be set"},
		{"bad sslmode", func(c *Config) { c.Postgres.URL += "?sslmode=nonsense" }, "postgres.url: cannot be used: "},
		{"two standbys", func(c *Config) { c.Postgres.Standby = "a,b" }, "postgres.standby: must be one host"},
		{"standby URL", func(c *Config) { c.Postgres.Standby = "postgres://replica" }, "postgres.standby: must be one host"},
		{"standby and failover", func(c *Config) { c.Postgres.Standby, c.Failover = "replica", true }, "failover: a slot on a standby"},
		{"no NATS", func(c *Config) { c.NATS.URL = "" }, "nats.url: must be set"},
		{"wrong scheme", func(c *Config) { c.NATS.URL = "http://x" }, `nats.url: the scheme "http" is not one of nats, tls, ws, wss`},
		{"no host", func(c *Config) { c.NATS.URL = "nats://a,nats://" }, "nats.url: has a URL without a host"},
		{"two credentials", func(c *Config) { c.NATS.User, c.NATS.Token = "u", "t" }, "nats.token: cannot be used together with nats.user"},
		{"password alone", func(c *Config) { c.NATS.Password = "p" }, "nats.password: needs nats.user"},
		{"certificate alone", func(c *Config) { c.NATS.TLS.CertFile = "c" }, "nats.tls.cert_file: needs nats.tls.key_file"},
		{"key alone", func(c *Config) { c.NATS.TLS.KeyFile = "k" }, "nats.tls.key_file: needs nats.tls.cert_file"},
		{"domain", func(c *Config) { c.NATS.Domain = "a.b" }, "nats.domain: "},
		{"slot", func(c *Config) { c.Slot = "My-Slot" }, `slot: "My-Slot" is not a valid slot name`},
		{"publication", func(c *Config) { c.Publication = strings.Repeat("p", 64) }, "must not be longer than 63 bytes"},
		{"table without schema", func(c *Config) { c.Outbox.Tables = []string{"outbox"} }, `outbox.tables[0]: "outbox": write the table with its schema, such as public.outbox`},
		{"quoted table", func(c *Config) { c.Outbox.Tables = []string{`public."outbox"`} }, "outbox.tables[0]: "},
		{"own schema", func(c *Config) { c.Outbox.Tables = []string{"walrelay.progress"} }, "the schema walrelay is walrelay's own"},
		{"table twice", func(c *Config) { c.Outbox.Tables = []string{"a.b", "a.b"} }, `outbox.tables[1]: "a.b" is listed twice`},
		{"mapping without table", func(c *Config) { c.Outbox.Mappings = []Mapping{{}} }, "outbox.mappings[0].table: must be set"},
		{"mapping of another table", func(c *Config) { c.Outbox.Mappings = []Mapping{{Table: "a.b"}} }, `outbox.mappings[0].table: "a.b" is not one of outbox.tables`},
		{"two mappings", func(c *Config) {
			c.Outbox.Mappings = []Mapping{{Table: "public.outbox"}, {Table: "public.outbox"}}
		}, "outbox.mappings[1].table: "},
		{"preset", func(c *Config) { c.Outbox.Mappings = []Mapping{{Table: "public.outbox", Preset: "kafka"}} }, "outbox.mappings[0].preset: "},
		{"mapped attribute", func(c *Config) {
			c.Outbox.Mappings = []Mapping{{Table: "public.outbox", Columns: map[string]string{"bogus": "x"}}}
		}, "outbox.mappings[0]: "},
		{"stream without name", func(c *Config) { c.Streams = []Stream{{}} }, "streams[0].name: must be set"},
		{"stream name", func(c *Config) { c.Streams = []Stream{{Name: "a.b"}} }, "streams[0].name: "},
		{"stream twice", func(c *Config) { c.Streams = []Stream{{Name: "A"}, {Name: "A"}} }, `streams[1].name: "A" is listed twice`},
		{"empty token", func(c *Config) { c.Streams = []Stream{{Name: "A", Subjects: []string{"a..b"}}} }, `streams[0].subjects[0]: "a..b" must not have empty tokens`},
		{"system subject", func(c *Config) { c.Streams = []Stream{{Name: "A", Subjects: []string{"$JS.>"}}} }, "must not begin with $"},
		{"early >", func(c *Config) { c.Streams = []Stream{{Name: "A", Subjects: []string{"a.>.b"}}} }, "may have > only as its last token"},
		{"overlap", func(c *Config) {
			c.Streams = []Stream{{Name: "A", Subjects: []string{"a.>"}}, {Name: "B", Subjects: []string{"b.>", "*.x"}}}
		}, `streams[1].subjects[1]: "*.x" overlaps with "a.>" of stream "A"`},
		{"replicas", func(c *Config) { c.Streams = []Stream{{Name: "A", Replicas: 7}} }, "streams[0].replicas: 7 is not between 1 and 5"},
		{"window", func(c *Config) { c.Streams = []Stream{{Name: "A", DuplicateWindow: time.Millisecond}} }, "streams[0].duplicate_window: 1ms is shorter than 100ms"},
		{"age", func(c *Config) { c.Streams = []Stream{{Name: "A", MaxAge: -1}} }, "streams[0].max_age: "},
		{"bytes", func(c *Config) { c.Streams = []Stream{{Name: "A", MaxBytes: -1}} }, "streams[0].max_bytes: must not be negative"},
		{"subject", func(c *Config) { c.Publish.Subject = "events.*" }, "publish.subject: "},
		{"mode", func(c *Config) { c.Publish.Mode = "batch" }, "publish.mode: "},
		{"in flight", func(c *Config) { c.Publish.MaxInFlight = -1 }, "publish.max_in_flight: must be greater than zero"},
		{"longest batch", func(c *Config) { c.Publish.AtomicMaxEvents = 10_001 }, "publish.atomic_max_events: 10001 is not between 1 and 10000"},
		{"batch and window", func(c *Config) { c.Publish.Atomic, c.Publish.MaxInFlight = true, 500 }, "publish.atomic_max_events: 1000 is more than publish.max_in_flight (500)"},
		{"overflow", func(c *Config) { c.Publish.AtomicOverflow = "drop" }, `publish.atomic_overflow: "drop" must be delay or split`},
		{"batches in a shared stream", func(c *Config) {
			c.Publish.Atomic, c.Streams = true, []Stream{{Name: DefaultStream, Shared: true}}
		}, "streams[0].shared: must not be true with publish.atomic"},
		{"bytes in flight", func(c *Config) { c.Publish.MaxInFlightBytes = -1 }, "publish.max_in_flight_bytes: must be greater than zero"},
		{"ack timeout", func(c *Config) { c.Publish.AckTimeout = -1 }, "publish.ack_timeout: must be greater than zero"},
		{"route's stream", func(c *Config) { c.Routes = []Route{{}, {Stream: "X"}} }, `routes[1].stream: "X" is not one of streams`},
		{"route's table", func(c *Config) { c.Routes = []Route{{Table: "a.b"}} }, `routes[0].table: "a.b" is not one of outbox.tables`},
		{"route's subject", func(c *Config) { c.Routes = []Route{{Subject: "a.>"}} }, "routes[0].subject: "},
		{"route's mode", func(c *Config) { c.Routes = []Route{{Mode: "x"}} }, "routes[0].mode: "},
		{"drop and subject", func(c *Config) { c.Routes = []Route{{Drop: true, Subject: "a"}} }, "routes[0].subject: has no meaning together with drop"},
		{"address", func(c *Config) { c.HTTP.Addr = "8080" }, `http.addr: "8080" is neither host:port nor "off"`},
		{"level", func(c *Config) { c.Log.Level = "loud" }, `log.level: "loud" is not one of debug, info, warn, error`},
		{"format", func(c *Config) { c.Log.Format = "xml" }, `log.format: "xml" is not one of auto, json, console`},
		{"shutdown", func(c *Config) { c.ShutdownTimeout = -1 }, "shutdown_timeout: must be greater than zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := minimal()
			tt.change(&cfg)
			err := cfg.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("want an error with %q, got %v", tt.want, err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("one fault was made, but several are reported: %v", err)
			}
		})
	}
}

func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	err := Config{Slot: "A", HTTP: HTTP{Addr: "x"}}.Validate()
	for _, key := range []string{"postgres.url", "nats.url", "slot", "http.addr"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s is wrong too, but is not reported: %v", key, err)
		}
	}
}

func TestNoFaultQuotesAPassword(t *testing.T) {
	for _, tt := range []struct{ postgres, nats string }{
		{"postgres://user:hunter2/x@host/db", "nats://user:hunter2/x@host"},
		{"postgres://user:hunter2%zz@host/db", "nats://user:hunter2%zz@host"},
		{"postgres://user:hunter2@host:port/db", "nats://user:hunter2@host:port"},
		{"host=localhost password='hunter2", "nats://user:hunter2@"},
		{"postgres://user:hunter2@host/db?sslmode=bogus", "http://user:hunter2@host"},
	} {
		cfg := Config{Postgres: Postgres{URL: tt.postgres}, NATS: NATS{URL: tt.nats}}
		err := cfg.Validate()
		if err == nil {
			t.Errorf("%q and %q are accepted", tt.postgres, tt.nats)
			continue
		}
		if text := err.Error() + cfg.NATS.Address(); strings.Contains(text, "hunter") {
			t.Errorf("the password is in: %s", text)
		}
	}
}

func TestASubjectTemplateStandsForAPattern(t *testing.T) {
	for _, tt := range []struct{ template, eventType, want string }{
		{"events.{type}", "", "events.>"},
		{"events.{type}", "order.created", "events.order.created"},
		{"events.{type}", "order.*", "events.>"},
		{"events.{type}", "order created", "events.>"},
		{"events.{type}", "order..created", "events.>"},
		{"{schema}.{table}.x", "", "*.*.x"},
		{"a.{type}.{partition_key}", "t", "a.t.*"},
		{"a.{type}.{partition_key}", "", "a.>"},
		{"a-{table}.b", "", "*.b"},
		{"fixed", "", "fixed"},
	} {
		if got := TemplatePattern(tt.template, tt.eventType); got != tt.want {
			t.Errorf("template %s for type %q: want %s, got %s", tt.template, tt.eventType, tt.want, got)
		}
	}
}

func TestNATS_AddressShowsNoSecret(t *testing.T) {
	got := NATS{URL: "nats://user:hunter2@one:4333, tls://token@two"}.Address()
	if want := "one:4333,two:4222"; got != want {
		t.Errorf("want %s, got %s", want, got)
	}
}

func TestAtHost(t *testing.T) {
	for _, tt := range []struct{ url, host, want string }{
		{"postgres://relay:s%40@a:5433/app?sslmode=disable", "b", "b 5433"},
		{"postgres://relay:s%40@a:5433,c:5434/app?sslmode=disable&target_session_attrs=read-write", "b:5435", "b 5435"},
		{"postgres://relay:s%40@/app?host=/run&port=5433&sslmode=disable", "[::1]:5435", "::1 5435"},
		{"postgres://relay:s%40@a/app?sslmode=disable", "/run:5435", "/run 5435"},
		{"host=a,c port=5433,5434 user=relay password='s@' dbname=app sslmode=disable target_session_attrs=primary", "b", "b 5433"},
	} {
		text, err := AtHost(tt.url, tt.host)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParsePostgres(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if at := fmt.Sprint(got.Host, " ", got.Port); at != tt.want || got.User != "relay" || got.Password != "s@" || got.Database != "app" || len(got.Fallbacks) > 0 || got.ValidateConnect != nil {
			t.Errorf("%s at %s is %s: %s, %d fallbacks", tt.url, tt.host, text, at, len(got.Fallbacks))
		}
	}
}
