package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/inbox"
)

// childEnv tells the test binary to run handlers: the database, and the server.
const childEnv = "WALRELAY_TEST_INBOX"

// handleInChild runs the handlers of a process that is killed.
func handleInChild(database, server string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pool, err := pgxpool.New(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	nc, err := nats.Connect(server, nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true))
	if err != nil {
		return err
	}
	defer nc.Close()
	var r inbox.Registry
	inbox.On(&r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		if ev.Data.Number%100 == 7 && ev.Attempt < 3 {
			return inbox.RetryAfter(100*time.Millisecond, errors.New("later"))
		}
		return effect(ctx, tx, ev.CloudEvent)
	}, inbox.Lanes(8), inbox.Batch(4))
	inbox.OnAtLeastOnce(&r, "audit", inbox.All(), func(ctx context.Context, ev inbox.Event[order]) error {
		_, err := pool.Exec(ctx, "INSERT INTO calls (id, key) VALUES ($1, $2)", ev.ID, ev.Key)
		return err
	}, inbox.Lanes(8))
	return inbox.Run(ctx, inbox.Config{NATS: nc, Pool: pool}, &r)
}

// killable is a process that runs handlers.
type killable struct {
	t    testing.TB
	w    *world
	cmd  *exec.Cmd
	done chan struct{}
}

func (w *world) spawn() *killable {
	w.t.Helper()
	k := &killable{t: w.t, w: w}
	k.launch()
	w.t.Cleanup(k.kill)
	return k
}

func (k *killable) launch() {
	k.t.Helper()
	k.cmd = exec.Command(os.Args[0], "-test.run", "^$")
	k.cmd.Env = append(os.Environ(), childEnv+"="+k.w.url+" "+k.w.server.URL())
	k.cmd.Stderr = logWriter{k.t}
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		defer close(done)
		_ = cmd.Wait() // it is killed
	}(k.cmd, k.done)
}

func (k *killable) kill() {
	_ = k.cmd.Process.Kill() // it may have ended
	<-k.done
}

func (k *killable) signal(s syscall.Signal) { _ = k.cmd.Process.Signal(s) }

func TestProcesses_KilledAndFrozenHandleEachEventOnceAndInOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 15 seconds")
	}
	t.Parallel()
	w := newWorld(t)
	w.exec("CREATE TABLE calls (n bigint GENERATED ALWAYS AS IDENTITY, id text, key text)")
	processes := []*killable{w.spawn(), w.spawn()}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stop := make(chan struct{})
	var faults sync.WaitGroup
	faults.Go(func() {
		ticker := time.NewTicker(1500 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			k := processes[random.IntN(len(processes))]
			switch random.IntN(4) {
			case 0:
				k.kill()
				k.launch()
			case 1:
				k.signal(syscall.SIGSTOP)
				<-ticker.C
				<-ticker.C
				k.signal(syscall.SIGCONT)
			case 2:
				w.server.CutClients("")
			case 3:
				k.signal(syscall.SIGTERM)
				<-k.done
				k.launch()
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		faults.Wait()
	})
	t.Cleanup(end)
	const n = 1200
	for i, m := range numbered(n, 40) {
		w.publish(m)
		if i%50 == 0 {
			time.Sleep(200 * time.Millisecond) // the rate at which events come
		}
	}
	end()
	defer w.explain("billing")
	eventually(t, "all effects", func() bool { return w.count("SELECT count(DISTINCT id) FROM effects") == n })
	eventually(t, "all calls", func() bool { return w.count("SELECT count(DISTINCT id) FROM calls") == n })
	for _, k := range processes {
		k.kill()
	}
	w.inOrder(n)
	// At least once: the first call of each event is in order.
	if wrong := w.texts(`SELECT id FROM (SELECT id, lag(id) OVER (PARTITION BY key ORDER BY n) AS before
		FROM (SELECT id, key, min(n) AS n FROM calls GROUP BY id, key) AS first) AS x WHERE before > id`); len(wrong) > 0 {
		t.Errorf("called for the first time after a later event of their key: %v", wrong)
	}
	t.Log(fmt.Sprint(w.count("SELECT count(*) FROM calls")-n), " calls were repeated")
}
