package status

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/relay/relaytest"
	"github.com/walrelay/walrelay/internal/testkit"
	"github.com/walrelay/walrelay/retry"
)

var update = flag.Bool("update", false, "write the golden files") // go test ./internal/status -update

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// full has something in every field.
func full() *Document {
	at := time.Date(2026, 11, 27, 20, 30, 0, 0, time.UTC)
	ptr := func(t time.Time) *time.Time { return &t }
	lag, retained, safe, wal, runway, rate := int64(81_920), int64(16<<20), int64(1<<30), 2.5e6, 429.5, 1234.4
	return &Document{
		Version:  Version,
		Time:     at,
		Database: &Database{Name: "shop", Version: "17.2", SchemaVersion: 12},
		Slot: &Slot{
			Name: "walrelay", Present: true, WALStatus: "reserved", ConfirmedFlushLSN: "0/19D5328",
			Holder:   &Session{PID: 4711, Role: "walrelay", Client: "10.0.0.3", Since: at.Add(-time.Hour)},
			Standbys: []Session{{PID: 4712, Role: "walrelay", Since: at.Add(-time.Minute)}},
			LagBytes: &lag, RetainedBytes: &retained, SafeBytes: &safe, WALBytesPerSecond: &wal, RunwaySeconds: &runway,
		},
		Delayed: &Delayed{
			Scheduled: 12_345, Retrying: 1, Held: 7, Failed: 3, NextDue: ptr(at.Add(5 * time.Minute)), BlockedKeys: 2,
			Reasons: []retry.Reason{{Reason: "nats: maximum payload exceeded: the event has * bytes", Events: 2, Example: "5c5da8e6"}, {Reason: "column \x1b[31mdata_bytes\n", Events: 1, Example: "7"}},
		},
		Streams: []Stream{
			{
				Name: "EVENTS", Present: true, Messages: 1_234_567, Bytes: 900 << 20, FirstSequence: 1, LastSequence: 1_234_567, LastTime: ptr(at.Add(-3 * time.Second)),
				EventsPerSecond: &rate, MaxMessages: 2_000_000, MaxBytes: 1 << 30, MaxAgeSeconds: 86_400, Discard: "old", Retention: "limits", Replicas: 3, Leader: "n1",
				Behind: []string{"n2"}, AckDurability: "acknowledged events are on 2 of 3 servers",
				Consumers: []Consumer{{Name: "billing", Pending: 12, AckPending: 3, Removed: 4}}, NumConsumers: 2,
			},
			{Name: "AUDIT"},
		},
		Handlers: []inbox.HandlerState{{Handler: "billing", Stream: "EVENTS", Types: []string{"order.placed"}, Mode: "once", SeenAt: ptr(at.Add(-2 * time.Second)), Lag: 12, Parked: 3, BlockedKeys: 1}},
		Problems: check.Results{{ID: "slot_wal_limit", Status: check.Warn, What: "max_slot_wal_keep_size is not set", Fix: "set it"}},
		Unknown:  []string{"NATS: no servers available for connection"},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (write it anew with -update if that is meant):\n%s", path, got)
	}
}

// What scripts read must not change by accident.
func TestDocument_JSON(t *testing.T) {
	t.Parallel()
	d := full()
	got, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "full.json", string(got)+"\n")
	var back Document
	if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(&back, d) {
		t.Errorf("a document that is read is not what was written: %+v, %v", back, err)
	}
	// A newer relay may say more.
	if err := json.Unmarshal([]byte(`{"version": 1, "new": {}, "slot": {"name": "a", "newer": 1}}`), &back); err != nil || back.Slot.Name != "a" {
		t.Errorf("a document with more in it: %+v, %v", back, err)
	}
	got, err = json.MarshalIndent(&Document{Version: Version, Streams: []Stream{}, Problems: check.Results{}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "empty.json", string(got)+"\n")
}

func TestDocument_Write(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := full().Write(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "full.txt", b.String())
	for _, r := range b.String() {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("it writes %q", r)
		}
	}
}

func TestSpanAndBytes(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0 s": Span(-1), "119 s": Span(119), "2 min": Span(120), "2 h": Span(7200), "3 d": Span(3 * 86400),
		"10000 B": Bytes(10_000), "10 kB": Bytes(10_240), "12 MB": Bytes(12 << 20), "100000 TB": Bytes(100_000 * (1 << 40)),
		"999": Count(999), "1 000": Count(1000), "-1 234 567": Count(-1_234_567),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, cfg config.Config) Document {
		t.Helper()
		return NewReader(cfg).Read(t.Context())
	}

	t.Run("a relay runs", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		defer w.Start()()
		for n := 1; n <= 3; n++ {
			w.Insert(n, "max_retries, extensions", `0, '{"Bad": 1}'`)
		}
		w.Insert(4, "scheduled_at", "now() + interval '1 hour'")
		w.Insert(5, "", "")
		w.AwaitSettled()
		if _, err := w.JS.CreateConsumer(t.Context(), "EVENTS", jetstream.ConsumerConfig{Durable: "billing"}); err != nil {
			t.Fatal(err)
		}
		reader := NewReader(w.Config)
		d := reader.Read(t.Context())
		if len(d.Unknown) > 0 || d.Slot == nil || d.Slot.Holder == nil || d.Slot.Holder.Since.IsZero() || len(d.Slot.Standbys) != 0 || d.Slot.LagBytes == nil {
			t.Fatalf("%+v, slot %+v", d, d.Slot)
		}
		if d.Delayed.Failed != 3 || d.Delayed.Scheduled != 1 || len(d.Delayed.Reasons) != 1 || d.Delayed.Reasons[0].Events != 3 || d.Delayed.NextDue == nil {
			t.Errorf("delayed: %+v", d.Delayed)
		}
		if s := d.Streams[0]; s.Messages != 1 || s.LastTime == nil || len(s.Consumers) != 1 || s.Consumers[0].Pending != 1 || s.AckDurability == "" {
			t.Errorf("stream: %+v", s)
		}
		if again := reader.Read(t.Context()); !again.Time.Equal(d.Time) {
			t.Error("the document is read again at once")
		}
		time.Sleep(freshness) // it is read again after that
		w.Insert(6, "", "")
		w.AwaitSettled()
		if d = reader.Read(t.Context()); d.Streams[0].EventsPerSecond == nil || *d.Streams[0].EventsPerSecond <= 0 || d.Slot.WALBytesPerSecond == nil || *d.Slot.WALBytesPerSecond <= 0 {
			t.Errorf("rates: %+v, %+v", d.Streams[0].EventsPerSecond, d.Slot.WALBytesPerSecond)
		}
		// A second relay waits.
		defer w.Start()()
		testkit.Eventually(t, 20*time.Second, "a standby waits", func() error {
			if d := read(t, w.Config); len(d.Slot.Standbys) != 1 || d.Slot.Holder == nil {
				return fmt.Errorf("the slot is %+v", *d.Slot)
			}
			return nil
		})
	})

	t.Run("no relay runs", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		d := read(t, w.Config)
		if len(d.Unknown) > 0 || !d.Slot.Present || d.Slot.Holder != nil || d.Attention() != "warning" || !d.Streams[0].Present {
			t.Errorf("%+v", d)
		}
	})

	t.Run("nothing was set up", func(t *testing.T) {
		t.Parallel()
		d := read(t, config.Config{
			Postgres: config.Postgres{URL: testkit.Database(t, testkit.Shared(t))}, NATS: config.NATS{URL: testkit.NATS(t).URL()}, Slot: "no_slot_of_this_name",
		})
		if len(d.Unknown) > 0 || d.Slot.Present || d.Delayed != nil || d.Streams[0].Present || d.Attention() != "failing" {
			t.Errorf("%+v", d)
		}
		ids := map[string]bool{}
		for _, p := range d.Problems {
			ids[p.ID] = true
		}
		for _, id := range []string{"schema_missing", "outbox_missing", "publication_missing", "slot_missing", "stream_missing"} {
			if !ids[id] {
				t.Errorf("there is no problem %s", id)
			}
		}
	})

	t.Run("NATS is away", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		cfg := w.Config
		cfg.NATS.URL = "nats://127.0.0.1:1"
		d := read(t, cfg)
		if len(d.Unknown) != 1 || !strings.HasPrefix(d.Unknown[0], "NATS: ") || d.Slot == nil || d.Delayed == nil || len(d.Streams) != 0 || d.Attention() != "unknown" {
			t.Errorf("%+v", d)
		}
	})

	t.Run("Postgres is away", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		cfg := w.Config
		cfg.Postgres.URL = "postgres://postgres:hunter2@127.0.0.1:1/postgres"
		d := read(t, cfg)
		if len(d.Unknown) != 1 || !strings.HasPrefix(d.Unknown[0], "Postgres: ") || strings.Contains(d.Unknown[0], "hunter2") || d.Slot != nil || len(d.Streams) != 1 {
			t.Errorf("%+v", d)
		}
	})

	t.Run("a role without rights", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, "")
		role := "nobody_" + w.Config.Slot
		w.Exec("CREATE ROLE " + role + " LOGIN")
		defer w.Exec("DROP ROLE " + role)
		cfg := w.Config
		cfg.Postgres.URL = strings.Replace(cfg.Postgres.URL, "postgres@", role+"@", 1)
		d := read(t, cfg)
		if d.Slot == nil || !d.Slot.Present || d.Delayed != nil || d.Attention() != "failing" || len(d.Unknown) > 0 { // schema_rights says it
			t.Errorf("%+v", d)
		}
	})
}
