package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/relay/relaytest"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// other is a database of another cluster whose relay writes into the same streams.
func other(t *testing.T, w *relaytest.World) *relaytest.World {
	t.Helper()
	cfg := w.Config
	cfg.Postgres.URL = testkit.Database(t, testkit.Postgres(t))
	return w.With(cfg)
}

// writers commit events, of four keys, to the first database that takes them.
type writers struct {
	t         *testing.T
	databases []string
	written   atomic.Int64
	stop      context.CancelFunc
	group     sync.WaitGroup
}

func write(t *testing.T, worlds ...*relaytest.World) *writers {
	t.Helper()
	w := &writers{t: t}
	for _, world := range worlds {
		w.databases = append(w.databases, world.Config.Postgres.URL)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	for key := range 4 {
		w.group.Go(func() { w.run(ctx, key) })
	}
	return w
}

func (w *writers) run(ctx context.Context, key int) {
	var conn *pgx.Conn
	at := 0
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	for n := 1; ctx.Err() == nil; {
		var err error
		if conn == nil {
			if conn, err = pgx.Connect(context.Background(), w.databases[at]); err != nil {
				w.t.Errorf("connecting: %v", err)
				return
			}
		}
		// Every fifth event is scheduled: it is in the delay table for a moment.
		_, err = conn.Exec(context.Background(), `INSERT INTO public.outbox (event_type, source, data, partition_key, scheduled_at)
			VALUES ('a', '/s', jsonb_build_object('key', $1::int, 'n', $2::int), 'k' || $1::int, CASE WHEN $2::int % 5 = 0 THEN now() + interval '300 ms' END)`, key, n)
		if err == nil {
			w.written.Add(1)
			n++
			continue
		}
		// Closed, or not open yet: the application goes to the next one.
		_ = conn.Close(context.Background())
		conn, at = nil, (at+1)%len(w.databases)
		time.Sleep(20 * time.Millisecond) // as an application would
	}
}

// end ends the writers and returns how many events they have committed.
func (w *writers) end() int {
	w.stop()
	w.group.Wait()
	return int(w.written.Load())
}

// await waits until so many events more are in the stream.
func (w *writers) await(world *relaytest.World, more int) {
	w.t.Helper()
	want := world.Count("EVENTS") + more
	testkit.Eventually(w.t, time.Minute, fmt.Sprintf("%d events are in the stream", want), func() error {
		if n := world.Count("EVENTS"); n < want {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}

// move hands over from one world to the other, interrupted at each step and called again.
func move(t *testing.T, from, to *relaytest.World, stop func(), interrupt bool) {
	t.Helper()
	broken := errors.New("interrupted")
	seen := make(map[string]bool)
	hook := func(name string) error {
		if interrupt && !seen[name] {
			seen[name] = true
			return broken
		}
		return nil
	}
	stopOnce := sync.OnceFunc(stop)
	for {
		report, err := Close(t.Context(), from.Config, CloseOptions{Stopping: stopOnce, step: hook})
		if errors.Is(err, broken) {
			continue
		}
		if err != nil {
			t.Fatalf("closing: %v", err)
		}
		t.Logf("closed: %+v", report)
		break
	}
	for {
		report, err := Open(t.Context(), to.Config, OpenOptions{From: &from.Config, step: hook})
		if errors.Is(err, broken) {
			continue
		}
		if err != nil {
			t.Fatalf("opening: %v", err)
		}
		t.Logf("opened: %+v", report)
		break
	}
	if want := 6; interrupt && len(seen) != want {
		t.Errorf("it was interrupted at %v", seen)
	}
}

// Under load, to another cluster and back: nothing is lost, nothing comes twice, and each
// key keeps its order.
func TestHandover_UnderLoad(t *testing.T) {
	t.Parallel()
	for _, interrupt := range []bool{false, true} {
		t.Run(fmt.Sprintf("interrupted=%v", interrupt), func(t *testing.T) {
			t.Parallel()
			a := relaytest.New(t, config.Config{}, "")
			b := other(t, a)
			load := write(t, a, b)
			stop := a.Start()
			load.await(a, 200)
			move(t, a, b, stop, interrupt)
			stop = b.Start()
			load.await(a, 200)
			move(t, b, a, stop, interrupt)
			stop = a.Start()
			load.await(a, 200)
			total := load.end()
			testkit.Eventually(t, time.Minute, fmt.Sprintf("%d events are in the stream", total), func() error {
				if n := a.Count("EVENTS"); n < total {
					return fmt.Errorf("%d are", n)
				}
				return nil
			})
			a.AwaitSettled()
			stop()
			last := make(map[int]int)
			seen := make(map[string]bool)
			for i, data := range a.Data("EVENTS") {
				var key, n int
				if _, err := fmt.Sscanf(data, `{"n": %d, "key": %d}`, &n, &key); err != nil {
					t.Fatalf("message %d is %s: %v", i+1, data, err)
				}
				if seen[data] {
					t.Errorf("message %d is event %d of key %d again", i+1, n, key)
				}
				seen[data] = true
				if n%5 == 0 {
					continue
				}
				if n <= last[key] {
					t.Errorf("message %d is event %d of key %d, after %d", i+1, n, key, last[key])
				}
				last[key] = n
			}
			if got := a.Count("EVENTS"); got != total {
				t.Errorf("the stream has %d messages of %d events", got, total)
			}
		})
	}
}
