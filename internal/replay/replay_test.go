package replay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/relay/relaytest"
	"github.com/walrelay/walrelay/internal/tail"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// message is what the tests look at of a message.
func message(t *testing.T, w *relaytest.World, name string) (all []string) {
	t.Helper()
	stream, err := w.JS.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := inbox.DecodeParts(msg.Header, msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%s %s %s %s %s ", ev.ID[len(ev.ID)-1:], msg.Subject, ev.Key, ev.Extensions["tenant"], ev.Data)
		if strings.Contains(string(msg.Data), `"tenant":"`) {
			t.Errorf("message %d lost the type of an extension: %s", seq, msg.Data)
		}
		all = append(all, text+ev.Extensions["walrelayreplay"])
	}
	return all
}

// world has six events, published: types a and b in turn, keys k0 to k2.
func world(t *testing.T, cfg config.Config) *relaytest.World {
	t.Helper()
	w := relaytest.New(t, cfg, "")
	w.Exec(`INSERT INTO public.outbox (id, event_type, source, data, extensions, partition_key, created_at)
		SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, CASE n % 2 WHEN 0 THEN 'b' ELSE 'a' END, '/s', jsonb_build_object('n', n),
			jsonb_build_object('tenant', n), 'k' || n % 3, timestamptz '2026-11-01 12:00+00' + n * interval '1 hour'
		FROM generate_series(1, 6) AS n`)
	w.Publish()
	return w
}

func TestReplay_ThroughTheWAL(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options Options
		want    string // numbers of the events
		config  config.Config
	}{
		"the stream":             {Options{}, "1 2 3 4 5 6", config.Config{}},
		"a structured stream":    {Options{}, "1 2 3 4 5 6", config.Config{Publish: config.Publish{Mode: "structured"}}},
		"sequences of it":        {Options{From: tail.From{Sequence: 2}, Until: tail.From{Sequence: 4}}, "2 3", config.Config{}},
		"a type":                 {Options{Types: inbox.Types("b")}, "2 4 6", config.Config{}},
		"a key":                  {Options{Keys: []string{"k1"}}, "1 4", config.Config{}},
		"ids":                    {Options{IDs: []string{relaytest.ID(5), relaytest.ID(2), "none"}}, "2 5", config.Config{}},
		"a time that is not yet": {Options{From: tail.From{Time: time.Now().Add(time.Hour)}}, "", config.Config{}},
		"rows":                   {Options{Table: "public.outbox"}, "1 2 3 4 5 6", config.Config{}},
		"rows of a time": {Options{
			Table: "public.outbox", From: tail.From{Time: time.Date(2026, 11, 1, 14, 0, 0, 0, time.UTC)}, Until: tail.From{Time: time.Date(2026, 11, 1, 16, 0, 0, 0, time.UTC)},
		}, "2 3", config.Config{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world(t, tt.config)
			want := strings.Fields(tt.want)
			options := tt.options
			options.Name, options.DryRun = "again", true
			before := message(t, w, "EVENTS")
			report, err := Run(t.Context(), w.Config, options)
			if err != nil || report.Events != len(want) || report.Replayed != 0 {
				t.Errorf("a dry run: %+v, %v", report, err)
			}
			options.DryRun = false
			if report, err = Run(t.Context(), w.Config, options); err != nil || report.Replayed != len(want) {
				t.Errorf("%+v, %v", report, err)
			}
			w.Publish()
			after := message(t, w, "EVENTS")
			if !slices.Equal(after[:len(before)], before) {
				t.Errorf("what was there is now %v", after)
			}
			var got []string
			for i, text := range after[len(before):] {
				got = append(got, text[:1])
				var n int
				if _, err := fmt.Sscan(text[:1], &n); err != nil || text != before[n-1]+"again" {
					t.Errorf("message %d is %q (%v)", i, text, err)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("replayed were %v, want %v", got, want)
			}
			if state := w.Query("SELECT state FROM walrelay.event_status($1::text)", relaytest.ID(2)); state != "published" {
				t.Errorf("the original is %s", state)
			}
		})
	}
}

// audit makes a stream that no relay writes to.
func audit(t *testing.T, w *relaytest.World, cfg jetstream.StreamConfig) {
	t.Helper()
	cfg.Name, cfg.Subjects, cfg.Storage = "AUDIT", []string{"audit.>"}, jetstream.MemoryStorage
	if _, err := w.JS.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func TestReplay_IntoAnotherStream(t *testing.T) {
	t.Parallel()
	w := world(t, config.Config{})
	audit(t, w, jetstream.StreamConfig{MaxMsgs: 4, Discard: jetstream.DiscardNew})
	options := Options{Name: "again", To: "AUDIT", Subject: "audit.{type}", Types: inbox.All()}
	// The stream is full in the middle: what is there is in order, and has no gap.
	report, err := Run(t.Context(), w.Config, options)
	if err == nil || report.Replayed != 4 || !strings.Contains(err.Error(), `--name "again"`) {
		t.Errorf("into a full stream: %+v, %v", report, err)
	}
	if _, err := w.JS.UpdateStream(t.Context(), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"audit.>"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	report, err = Run(t.Context(), w.Config, options)
	if err != nil || report.Events != 6 || report.Skipped != 4 || report.Replayed != 2 {
		t.Errorf("again: %+v, %v", report, err)
	}
	var got []string
	for i, text := range message(t, w, "AUDIT") {
		got = append(got, text[:1])
		if want := fmt.Sprintf("%d audit.%s k%d %d", i+1, "ba"[(i+1)%2:(i+1)%2+1], (i+1)%3, i+1); !strings.HasPrefix(text, want) || !strings.HasSuffix(text, " again") {
			t.Errorf("message %d is %q, want %q", i, text, want)
		}
	}
	if strings.Join(got, " ") != "1 2 3 4 5 6" {
		t.Errorf("the stream has %v", got)
	}
	if report, err = Run(t.Context(), w.Config, options); err != nil || report.Replayed != 0 || report.Skipped != 6 {
		t.Errorf("once more: %+v, %v", report, err)
	}
	options.Name, options.Table = "rows", "public.outbox"
	if report, err = Run(t.Context(), w.Config, options); err != nil || report.Replayed != 6 || len(message(t, w, "AUDIT")) != 12 {
		t.Errorf("rows: %+v, %v", report, err)
	}
	if got := len(message(t, w, "EVENTS")); got != 6 {
		t.Errorf("the relay's stream has %d messages", got)
	}
}

func TestReplay_Refuses(t *testing.T) {
	t.Parallel()
	w := world(t, config.Config{})
	audit(t, w, jetstream.StreamConfig{})
	byTable := w.Config
	byTable.Routes = []config.Route{{Table: "public.outbox", Subject: "events.x"}}
	other := w.Config
	other.Streams = []config.Stream{{Name: "OTHER", Subjects: []string{"other.>"}}}
	for name, tt := range map[string]struct {
		cfg     config.Config
		options Options
		id      string // of a problem, or
		says    string
	}{
		"the relay's own stream":          {w.Config, Options{To: "EVENTS", Subject: "events.{type}"}, "replay_owned", ""},
		"a stream of another relay":       {other, Options{Stream: "EVENTS", To: "EVENTS", Subject: "events.{type}"}, "replay_owned", ""},
		"a stream that does not exist":    {w.Config, Options{To: "NONE", Subject: "none"}, "replay_stream", ""},
		"a subject that it does not take": {w.Config, Options{To: "AUDIT", Subject: "nowhere.{type}"}, "", "no stream takes the subject nowhere.a"},
		"no subject":                      {w.Config, Options{To: "AUDIT"}, "", "--subject"},
		"a subject with the table":        {w.Config, Options{To: "AUDIT", Subject: "audit.{table}"}, "", "have no table"},
		"a broken subject":                {w.Config, Options{To: "AUDIT", Subject: "audit.{nothing"}, "", `"audit.{nothing"`},
		"sequences of a table":            {w.Config, Options{Table: "public.outbox", From: tail.From{Sequence: 1}}, "", "no sequence"},
		"a table that is no outbox":       {w.Config, Options{Table: "public.other"}, "outbox_unknown", ""},
		"a table and a stream":            {w.Config, Options{Table: "public.outbox", Stream: "EVENTS"}, "", "either"},
		"a route by table":                {byTable, Options{}, "replay_table", ""},
		"a name with a line feed":         {w.Config, Options{Name: "a\nb"}, "", "the name"},
		"a source that does not exist":    {w.Config, Options{Stream: "NONE"}, "", `"NONE"`},
		"what is not confirmed":           {w.Config, Options{Confirm: func(Report) error { return errors.New("no, thanks") }}, "", "no, thanks"},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := Run(t.Context(), tt.cfg, tt.options)
			found, ok := problem.Find(err)
			if err == nil || tt.id != "" && (!ok || found.ID != tt.id) || !strings.Contains(err.Error(), tt.says) || report.Replayed != 0 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
	w.Publish()
	if got := len(message(t, w, "EVENTS")); got != 6 {
		t.Errorf("the relay's stream has %d messages", got)
	}
}

// A replay that is interrupted has replayed nothing.
func TestReplay_AllOrNothing(t *testing.T) {
	t.Parallel()
	w := world(t, config.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	to := &throughWAL{cfg: w.Config.WithDefaults()}
	if err := to.begin(ctx); err != nil {
		t.Fatal(err)
	}
	r := &replay{cfg: w.Config.WithDefaults(), js: w.JS, options: Options{Stream: "EVENTS", Types: inbox.All()}, report: Report{Types: make(map[string]int)}}
	err := r.each(ctx, "", func(e entry) error {
		if e.mark == "4" {
			cancel()
		}
		return to.put(ctx, e)
	})
	if err == nil {
		err = to.end(ctx)
	}
	to.close()
	if !errors.Is(err, context.Canceled) || to.done() != 0 {
		t.Errorf("it ended with %v", err)
	}
	if n := w.Query("SELECT count(*)::text FROM walrelay.emitted WHERE kind = 'event'"); n != "0" {
		t.Errorf("%s events were emitted", n)
	}
}
