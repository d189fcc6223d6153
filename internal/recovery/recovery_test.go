package recovery

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/relay/relaytest"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// early is an outbox table with events 1 to 4, created on four days.
const early = `CREATE TABLE public.outbox (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_type text NOT NULL, source text NOT NULL, subject text, data jsonb, data_bytes bytea,
	content_type text, data_schema text, extensions jsonb, partition_key text, scheduled_at timestamptz, max_retries integer,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp());
	INSERT INTO public.outbox (id, event_type, source, created_at)
	SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'a', '/s', timestamptz '2026-11-01 12:00+00' + n * interval '1 day'
	FROM generate_series(4, 1, -1) AS n`

func TestRecover(t *testing.T) {
	t.Parallel()
	ids := func(numbers ...int) (all []string) {
		for _, n := range numbers {
			all = append(all, relaytest.ID(n))
		}
		return all
	}
	// recovery runs a recovery beside a relay.
	recovery := func(t *testing.T, w *relaytest.World, options Options) (Report, error) {
		t.Helper()
		defer w.Start()()
		report, err := Recover(t.Context(), w.Config, options)
		w.AwaitSettled()
		return report, err
	}

	t.Run("rows from before the slot", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, early)
		w.Insert(5, "", "")
		report, err := Recover(t.Context(), w.Config, Options{DryRun: true})
		found := report.Tables
		if err != nil || len(found) != 1 || found[0].Rows != 4 || found[0].Emitted != 0 || !slices.Equal(found[0].Examples, ids(1, 2, 3, 4)) ||
			found[0].Oldest.UTC().Day() != 2 || found[0].Newest.UTC().Day() != 5 {
			t.Errorf("a dry run: %+v, %v", found, err)
		}
		confirmed := 0
		report, err = recovery(t, w, Options{Confirm: func(r Report) error { confirmed = r.Rows(); return nil }})
		if err != nil || report.Rows() != 4 || report.Tables[0].Emitted != 4 || confirmed != 4 {
			t.Errorf("%+v, %v, and %d were confirmed", report, err, confirmed)
		}
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(5, 1, 2, 3, 4)) {
			t.Errorf("the stream has %v", got)
		}
		if report, err = recovery(t, w, Options{}); err != nil || report.Rows() != 0 {
			t.Errorf("again: %+v, %v", report, err)
		}
	})

	t.Run("what is not confirmed is not emitted", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, early)
		no := errors.New("no")
		if _, err := recovery(t, w, Options{Confirm: func(Report) error { return no }}); !errors.Is(err, no) {
			t.Errorf("the error is %v", err)
		}
		if got := w.Stream("EVENTS"); len(got) != 0 {
			t.Errorf("the stream has %v", got)
		}
	})

	t.Run("since", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{Outbox: config.Outbox{AfterPublish: "keep"}}, early)
		_, err := Recover(t.Context(), w.Config, Options{})
		if found, ok := problem.Find(err); !ok || found.ID != "recover_since" {
			t.Errorf("where published rows are kept, the error is %v", err)
		}
		since := time.Date(2026, 11, 4, 0, 0, 0, 0, time.UTC)
		if report, err := recovery(t, w, Options{Since: since}); err != nil || report.Rows() != 2 {
			t.Errorf("%+v, %v", report, err)
		}
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(3, 4)) {
			t.Errorf("the stream has %v", got)
		}
	})

	// The slot is dropped while events are committed that it has not sent. Those that were
	// published, are delayed or have failed are not touched.
	t.Run("a slot that was lost", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{Outbox: config.Outbox{RepairWindow: time.Hour}}, "")
		w.Insert(1, "", "")
		w.Insert(2, "scheduled_at", "now() + interval '1 hour'")
		w.Insert(3, "max_retries, extensions", `0, '{"Bad": 1}'`)
		w.Publish()
		w.Insert(4, "partition_key, data_bytes", `'k', '\x00ff'`)
		w.Exec(fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", w.Config.Slot))
		w.Insert(5, "", "")
		w.Init()
		w.Insert(6, "", "")
		report, err := recovery(t, w, Options{})
		if err != nil || report.Rows() != 2 || !slices.Equal(report.Tables[0].Examples, ids(4, 5)) {
			t.Errorf("%+v, %v", report, err)
		}
		if got := w.Stream("EVENTS"); !slices.Equal(got, ids(1, 6, 4, 5)) {
			t.Errorf("the stream has %v", got)
		}
	})

	t.Run("a second recovery", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{}, early)
		_, err := recovery(t, w, Options{Confirm: func(Report) error {
			_, err := Recover(t.Context(), w.Config, Options{})
			if found, ok := problem.Find(err); !ok || found.ID != "recover_running" {
				t.Errorf("the error of the second one is %v", err)
			}
			return nil
		}})
		if err != nil {
			t.Error(err)
		}
	})

	t.Run("a table without a time", func(t *testing.T) {
		t.Parallel()
		w := relaytest.New(t, config.Config{Outbox: config.Outbox{Tables: []string{"public.bare"}, Mappings: []config.Mapping{{Table: "public.bare", Columns: map[string]string{"time": ""}}}}},
			"CREATE TABLE public.bare (id bigint PRIMARY KEY, event_type text, source text); INSERT INTO public.bare VALUES (1, 'a', '/s'), (2, 'b', '/s')")
		_, err := Recover(t.Context(), w.Config, Options{Since: time.Now()})
		if found, ok := problem.Find(err); !ok || found.ID != "recover_since" {
			t.Errorf("the error is %v", err)
		}
		if report, err := recovery(t, w, Options{}); err != nil || report.Rows() != 2 || report.Tables[0].Oldest != nil {
			t.Errorf("%+v, %v", report, err)
		}
		if got := w.Stream("EVENTS"); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("the stream has %v", got)
		}
	})
}
