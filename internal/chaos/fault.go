package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fault is something that goes wrong, and how a relay is expected to take it.
type fault struct {
	name string
	// what happens, and what the relay does about it, in a sentence each.
	what, then string
	// settings in which it makes sense.
	settings []string
	// alone says that the fault needs a world for itself: it ends the relay, or
	// has its own idea of how to go on.
	alone bool
	// root says that only root can do it (mounting a volume).
	root bool
	// short is the setting in which it is part of the short run; empty for none.
	short string
	// does it, and leaves at most what World.heal takes away.
	do func(ctx context.Context, w *World, rng *rand.Rand) error
	// says are patterns of what a relay must have logged.
	says []string
}

// The settings of which a world can be.
const (
	onSingle   = "single"
	onPair     = "pair"
	onCluster  = "cluster"
	onQueue    = "queue"
	onFailover = "failover"
	onSmall    = "small"
	onAtomic   = "atomic"
	onInterest = "interest"
	onHandlers = "handlers"

	onHandlersCluster = "handlers-cluster"
)

// faults is everything that can go wrong.
func faults() []fault {
	return slices.Concat(relayFaults(), postgresFaults(), natsFaults(), clusterFaults(), networkFaults(), repairFaults(), hostileFaults(), handlerFaults(), endings())
}

// between returns a random duration.
func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)+1))
}

var everywhere = []string{onSingle, onPair, onCluster, onQueue, onFailover, onAtomic, onInterest, onHandlers, onHandlersCluster}

func relayFaults() []fault { //nolint:gocognit // a table
	return []fault{
		{
			name: "relay-killed", settings: everywhere, short: onSingle,
			what: "the relay that streams is killed, four times, and started again",
			then: "the next one, or the standby, goes on after what the stream has",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 4 {
					r, err := w.active(ctx)
					if err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, 300*time.Millisecond))
					r.kill()
					sleep(ctx, between(rng, 0, 200*time.Millisecond))
					if err := r.start(""); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "relay-dies-at-a-step", settings: []string{onSingle, onQueue}, short: onSingle,
			what: "the relay dies between any two steps: received, sent, acknowledged, delayed, written down, reported, emitted",
			then: "the next run does each thing once",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for _, i := range rng.Perm(len(steps)) {
					if err := w.dieAt(ctx, steps[i], rng); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "relay-stopped", settings: everywhere,
			what: "the relay gets SIGTERM under load, and is started again",
			then: "it ends with 0 within its shutdown_timeout",
			says: []string{`"message":"stopped"`},
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 3 {
					r, err := w.active(ctx)
					if err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, 300*time.Millisecond))
					if err := r.stop(ctx); err != nil {
						return err
					}
					if err := r.start(""); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "relay-frozen", settings: []string{onSingle, onCluster, onQueue},
			what: "the relay is frozen for longer than wal_sender_timeout and ack_timeout, and goes on",
			then: "it connects again and goes on after what the stream has",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				r, err := w.active(ctx)
				if err != nil {
					return err
				}
				r.process.Signal(syscall.SIGSTOP)
				sleep(ctx, between(rng, 4*time.Second, 5*time.Second))
				r.process.Signal(syscall.SIGCONT)
				return w.flowing(ctx, 50)
			},
		},
		{
			name: "relay-wakes-after-takeover", settings: []string{onPair}, short: onPair,
			what: "the relay is frozen, its walsender is ended, the standby takes over, and the first one wakes up",
			then: "nothing of what the first one still has is stored; it waits as a standby",
			says: []string{"waiting as a standby"},
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 2 {
					r, err := w.active(ctx)
					if err != nil {
						return err
					}
					// What it reads when it wakes up is already on its way to it.
					r.process.Signal(syscall.SIGSTOP)
					sleep(ctx, between(rng, 500*time.Millisecond, time.Second))
					if err := w.endWalsender(ctx); err != nil {
						return err
					}
					if err := w.flowing(ctx, 100); err != nil {
						return err
					}
					mark := r.log.Mark()
					r.process.Signal(syscall.SIGCONT)
					if err := w.flowing(ctx, 100); err != nil {
						return err
					}
					if err := until(ctx, 30*time.Second, "the relay that wakes up is a standby", func(context.Context) error {
						if !strings.Contains(r.log.Since(mark), "waiting as a standby") {
							return errors.New("it says nothing of it")
						}
						return nil
					}); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "relay-clock-jumps", settings: []string{onSingle},
			what: "the clock of the relay jumps an hour ahead, then an hour back",
			then: "scheduled events are due by the database's clock, and none is early",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				r, err := w.active(ctx)
				if err != nil {
					return err
				}
				if err := r.stop(ctx); err != nil {
					return err
				}
				if err := r.start("nowhere:1"); err != nil {
					return err
				}
				if _, err := w.active(ctx); err != nil {
					return err
				}
				for _, jump := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGUSR2, syscall.SIGUSR1} {
					r.process.Signal(jump)
					if err := w.flowing(ctx, 150); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "many-overdue", settings: []string{onSingle, onPair},
			what: "5000 events become due while no relay runs",
			then: "they are published, and live events are not kept waiting for them",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				if err := w.schedule(ctx, 5000, time.Second, rng); err != nil {
					return err
				}
				if err := w.caughtUp(ctx, 30*time.Second); err != nil {
					return err
				}
				for _, r := range w.relays {
					r.kill()
				}
				sleep(ctx, 1500*time.Millisecond)
				for _, r := range w.relays {
					if err := r.start(""); err != nil {
						return err
					}
				}
				return w.flowing(ctx, 1000)
			},
		},
	}
}

// dieAt runs a relay that kills itself at a step, and then the usual one.
func (w *World) dieAt(ctx context.Context, step string, rng *rand.Rand) error {
	most := map[string]int{"received": 3000, "sent": 1000, "acked": 500, "delaying": 4, "delayed": 4, "saved": 4, "reported": 4, "emitting": 4, "emitted": 4}[step]
	r, err := w.active(ctx)
	if err != nil {
		return err
	}
	if err := r.stop(ctx); err != nil {
		return err
	}
	sleep(ctx, between(rng, 0, 2*time.Second)) // so that there is something to read
	if err := r.start(stepAfter(step, 1+rng.IntN(max(1, most)))); err != nil {
		return err
	}
	limit := time.After(15 * time.Second)
	cut := time.NewTicker(700 * time.Millisecond)
	defer cut.Stop()
	for waiting := true; waiting; {
		select {
		case <-r.process.Done():
			waiting = false
			if r.process.Code() != -1 {
				return fmt.Errorf("the relay ended with %d instead of killing itself:\n%s", r.process.Code(), r.log.Tail(5))
			}
			w.hist.Add("harness", r.name+" has died", "step", step)
		case <-limit:
			w.hist.Add("harness", "it has not come to the step", "step", step)
			r.kill()
			waiting = false
		case <-cut.C:
			if step == "resync" {
				if err := w.net.cut(ctx, w.nats[0].name, true); err != nil {
					return err
				}
				if err := w.net.cut(ctx, w.nats[0].name, false); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.start("")
}
