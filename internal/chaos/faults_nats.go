package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func natsFaults() []fault { //nolint:gocognit // a table
	return []fault{
		{
			name: "nats-killed", settings: []string{onSingle, onPair, onQueue, onInterest, onFailover, onHandlers}, short: onSingle,
			what: "nats-server is killed and started again, three times",
			then: "the stream says what it has, and the relay goes on after it",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 3 {
					w.nats[0].process.Kill()
					sleep(ctx, between(rng, 0, 500*time.Millisecond))
					if err := w.nats[0].start(ctx); err != nil {
						return err
					}
					if err := w.flowing(ctx, 50); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "nats-restarted", settings: []string{onSingle, onQueue},
			what: "nats-server is stopped in order, stays away for a while, and comes back",
			then: "the slot waits; nothing goes to the delay table",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				w.nats[0].stop()
				sleep(ctx, between(rng, time.Second, 4*time.Second))
				return w.nats[0].start(ctx)
			},
		},
		{
			name: "nats-frozen", settings: []string{onSingle, onQueue, onPair, onHandlers},
			what: "nats-server is frozen for longer than ack_timeout and answers late",
			then: "late answers are void; the stream is read",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 2 {
					w.nats[0].process.Signal(syscall.SIGSTOP)
					sleep(ctx, between(rng, 1500*time.Millisecond, 3500*time.Millisecond))
					w.nats[0].process.Signal(syscall.SIGCONT)
					if err := w.flowing(ctx, 50); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "nats-ingest-overload", settings: []string{onSingle, onQueue}, short: onSingle,
			what: "the server takes at most 50 messages at a time, refuses others, and gets thousands",
			then: "what was refused is not overtaken by what follows",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				w.nats[0].limits = map[string]string{"max_buffered_msgs": "50"}
				w.nats[0].stop()
				if err := w.nats[0].start(ctx); err != nil {
					return err
				}
				for range 3 {
					if err := w.writeHuge(ctx, 1500, rng); err != nil {
						return err
					}
				}
				if err := w.caughtUp(ctx, 60*time.Second); err != nil {
					return err
				}
				w.nats[0].limits = nil
				w.nats[0].stop()
				return w.nats[0].start(ctx)
			},
		},
		{
			name: "stream-full", settings: []string{onSingle, onPair, onCluster, onQueue}, short: onSingle,
			what: "the stream has no room for more messages, and gets some after a while",
			then: "the stream is paused and said to be; nothing goes to the delay table",
			says: []string{"stream paused|maximum messages exceeded", "stream resumed"},
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				if w.setting.queue {
					w.reader.stop(true) // or it would never be full
				}
				info, err := w.streamInfo(ctx)
				if err != nil {
					return err
				}
				if err := w.changeStream(ctx, func(c *jetstream.StreamConfig) {
					c.Discard, c.MaxMsgs = jetstream.DiscardNew, int64(info.State.Msgs)+100
				}); err != nil {
					return err
				}
				sleep(ctx, 4*time.Second)
				w.reader.stop(false)
				return w.changeStream(ctx, func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, -1 })
			},
		},
		{
			name: "stream-purged", settings: []string{onSingle, onPair, onCluster},
			what: "the stream is purged, also of its last message, again and again, and the relay is killed",
			then: "what was purged is not published again",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 3 {
					// Only of what the reader has: the rest could not be judged.
					w.writers.hold()
					if err := w.caughtUp(ctx, 30*time.Second); err != nil {
						return err
					}
					if err := w.readToTheEnd(ctx); err != nil {
						return err
					}
					stream, err := w.js.Stream(ctx, streamName)
					if err != nil {
						return err
					}
					if err := stream.Purge(ctx, jetstream.WithPurgeSequence(w.reader.through()+1)); err != nil {
						return err
					}
					if rng.IntN(2) == 0 {
						r, err := w.active(ctx)
						if err != nil {
							return err
						}
						r.kill()
						if err := r.start(""); err != nil {
							return err
						}
					}
					w.writers.resume()
					if err := w.flowing(ctx, 50); err != nil {
						return err
					}
					// And of all but the last, under load.
					if stream, err = w.js.Stream(ctx, streamName); err != nil {
						return err
					}
					if err := stream.Purge(ctx, jetstream.WithPurgeSequence(w.reader.through())); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "max-payload-lowered", settings: []string{onSingle, onQueue},
			what: "the server takes smaller messages from now on, and larger ones again later",
			then: "events that are too large go to the delay table and are published later; the others flow",
			says: []string{"max_payload of the NATS server is|trying again"},
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				if err := w.limitPayload(ctx, maxPayload/4); err != nil {
					return err
				}
				a := &application{number: writerCount, rng: rng, n: int(rng.Int32())}
				for range 20 {
					if err := w.writeOne(ctx, a, patient); err != nil {
						return err
					}
				}
				if err := w.flowing(ctx, 300); err != nil {
					return err
				}
				return w.limitPayload(ctx, maxPayload)
			},
		},
		{
			name: "refused-then-taken", settings: []string{onSingle, onQueue}, short: onSingle,
			what: "events that the server refuses, as too large, go to the delay table; the relay is killed before the slot has passed them, and the next one could publish them",
			then: "it knows that they are in the table, and publishes them once",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 3 {
					if err := w.refuseAndKill(ctx, rng); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "permission-revoked", settings: []string{onSingle, onPair},
			what: "the relay's NATS user may not publish events any more, and may again later",
			then: "the stream is paused, the reason is in the log, and nothing goes to the delay table",
			says: []string{"(?i)permissions violation", "stream resumed|streaming"},
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				w.nats[0].settings["authorization"] = authorization(`publish: { deny: ["events.>"] }`)
				if err := w.nats[0].reload(ctx); err != nil {
					return err
				}
				sleep(ctx, 5*time.Second)
				w.nats[0].settings["authorization"] = authorization("")
				return w.nats[0].reload(ctx)
			},
		},
		{
			name: "nats-disk-full", settings: []string{onSmall}, root: true,
			what: "the disk of nats-server is full for a while; the server has to be restarted then",
			then: "the stream is paused, and goes on after what it has",
			says: []string{"stream paused"},
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				if err := fillVolume(w.nats[0].store); err != nil {
					return err
				}
				if err := w.writeHuge(ctx, 9000, newRand(w.seed, 99)); err != nil {
					return err
				}
				sleep(ctx, 6*time.Second)
				if err := emptyVolume(w.nats[0].store); err != nil {
					return err
				}
				w.nats[0].stop()
				return w.nats[0].start(ctx)
			},
		},
	}
}

// refuseAndKill has events refused, kills the relay as soon as they are in the
// delay table, and starts one that has nothing against them.
func (w *World) refuseAndKill(ctx context.Context, rng *rand.Rand) error {
	if err := w.limitPayload(ctx, maxPayload/4); err != nil {
		return err
	}
	var before, after int
	const count = "SELECT count(*) FROM walrelay.delayed WHERE state = 'retrying' AND event_type LIKE 'chaos.patient%'"
	if err := w.query(ctx, &before, count); err != nil {
		return err
	}
	a := &application{number: writerCount, rng: rng, n: int(rng.Int32())}
	for range 5 {
		if err := w.writeOne(ctx, a, patient); err != nil {
			return err
		}
	}
	if err := until(ctx, 20*time.Second, "they are in the delay table", func(ctx context.Context) error {
		err := w.query(ctx, &after, count)
		if err == nil && after < before+5 {
			err = fmt.Errorf("%d of 5 are", after-before)
		}
		return err
	}); err != nil {
		return err
	}
	w.relays[0].kill()
	if err := w.limitPayload(ctx, maxPayload); err != nil {
		return err
	}
	if err := w.relays[0].start(""); err != nil {
		return err
	}
	return w.flowing(ctx, 50)
}

// limitPayload changes max_payload of the running server.
func (w *World) limitPayload(ctx context.Context, limit int) error {
	w.nats[0].settings["max_payload"] = strconv.Itoa(limit)
	return w.nats[0].reload(ctx)
}

// authorization lets relays in without a password, with these permissions.
func authorization(permissions string) string {
	return `{ users: [ { user: relay, password: relay, permissions: { ` + permissions + ` } }, { user: observer, password: observer } ] }`
}

// writeOne writes one event in a transaction.
func (w *World) writeOne(ctx context.Context, a *application, k kind) error {
	if a.conn == nil {
		if err := a.connect(ctx, w.pgURL()); err != nil {
			return err
		}
	}
	t := &transaction{}
	tx, err := a.conn.Begin(ctx)
	if err == nil {
		err = a.insert(ctx, tx, t, a.event(k))
	}
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err == nil {
		t.outcome = committed
	}
	w.ledger.add(t)
	return err
}

func clusterFaults() []fault { //nolint:gocognit // a table
	return []fault{
		{
			name: "leader-killed", settings: []string{onCluster, onAtomic, onHandlersCluster},
			what: "the server that leads the stream is killed, four times, and started again",
			then: "nothing is lost, doubled or reordered at the next leader",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 4 {
					leader, err := w.streamLeader(ctx)
					if err != nil {
						return err
					}
					leader.process.Kill()
					w.hist.Add("harness", leader.name+" is killed, the leader")
					if err := w.flowing(ctx, 50); err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, time.Second))
					if err := leader.start(ctx); err != nil {
						return err
					}
					if err := w.replicated(ctx); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "leader-steps-down", settings: []string{onCluster, onAtomic, onHandlersCluster},
			what: "the leader of the stream steps down, ten times",
			then: "the same",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 10 {
					if err := until(ctx, 20*time.Second, "the leader has been asked to step down", func(ctx context.Context) error {
						ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
						defer cancel()
						_, err := w.nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+streamName, nil)
						return err
					}); err != nil {
						return err
					}
					if err := w.flowing(ctx, 20+rng.IntN(50)); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "rolling-restart", settings: []string{onCluster, onAtomic, onHandlersCluster},
			what: "the servers are restarted in turn, twice, as for an upgrade: each is stopped in order, and the next one when the stream has all its replicas again",
			then: "the same; events flow all the time",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				for range 2 {
					for _, s := range w.nats {
						w.hist.Add("harness", s.name+" is restarted")
						s.stop()
						if err := w.flowing(ctx, 50); err != nil {
							return err
						}
						if err := s.start(ctx); err != nil {
							return err
						}
						if err := w.replicated(ctx); err != nil {
							return err
						}
					}
				}
				return nil
			},
		},
		{
			name: "leader-frozen", settings: []string{onCluster, onAtomic, onHandlersCluster},
			what: "the leader is frozen until another is elected, and wakes up",
			then: "what the old one still has is not stored",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				leader, err := w.streamLeader(ctx)
				if err != nil {
					return err
				}
				leader.process.Signal(syscall.SIGSTOP)
				sleep(ctx, between(rng, 6*time.Second, 9*time.Second))
				leader.process.Signal(syscall.SIGCONT)
				if err := w.flowing(ctx, 50); err != nil {
					return err
				}
				return w.replicated(ctx)
			},
		},
		{
			name: "quorum-lost", settings: []string{onCluster, onAtomic},
			what: "two of three servers are killed, and come back",
			then: "the stream is paused until it has a leader",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				first := rng.IntN(3)
				for i := range 2 {
					w.nats[(first+i)%3].process.Kill()
				}
				sleep(ctx, between(rng, 3*time.Second, 6*time.Second))
				for i := range 2 {
					if err := w.nats[(first+i)%3].start(ctx); err != nil {
						return err
					}
				}
				if err := w.flowing(ctx, 50); err != nil {
					return err
				}
				return w.replicated(ctx)
			},
		},
		{
			name: "node-cut-off", settings: []string{onCluster, onAtomic},
			what: "the leader is cut off from the other servers, but not from the relay, and then joins them again",
			then: "what it could not replicate is not acknowledged, and comes once",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				leader, err := w.streamLeader(ctx)
				if err != nil {
					return err
				}
				w.hist.Add("harness", leader.name+" is cut off")
				if err := w.cutRoutes(ctx, leader, true); err != nil {
					return err
				}
				sleep(ctx, between(rng, 5*time.Second, 9*time.Second))
				if err := w.cutRoutes(ctx, leader, false); err != nil {
					return err
				}
				if err := w.flowing(ctx, 50); err != nil {
					return err
				}
				return w.replicated(ctx)
			},
		},
		{
			name: "everything-killed", settings: []string{onCluster, onAtomic, onHandlersCluster},
			what: "all three servers are killed at once, and the relay too",
			then: "everything comes back by itself",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				for _, s := range w.nats {
					s.process.Kill()
				}
				for _, r := range w.relays {
					r.kill()
				}
				for _, s := range w.nats {
					if err := s.start(ctx); err != nil {
						return err
					}
				}
				for _, r := range w.relays {
					if err := r.start(""); err != nil {
						return err
					}
				}
				if err := w.flowing(ctx, 50); err != nil {
					return err
				}
				return w.replicated(ctx)
			},
		},
	}
}

// replicated waits until every server has the stream: another fault before that
// would take the quorum.
func (w *World) replicated(ctx context.Context) error {
	return until(ctx, 60*time.Second, "every server has the stream", func(ctx context.Context) error {
		info, err := w.streamInfo(ctx)
		if err != nil {
			return err
		}
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) < 2 {
			return errors.New("it has no leader")
		}
		for _, r := range info.Cluster.Replicas {
			if r.Offline || !r.Current {
				return fmt.Errorf("%s is behind", r.Name)
			}
		}
		return nil
	})
}

// route is the name of the way between two servers.
func route(from, to *natsServer) string { return from.name + "-" + to.name }

// cutRoutes cuts a server off from the others, or joins it again.
func (w *World) cutRoutes(ctx context.Context, node *natsServer, cut bool) error {
	for _, other := range w.nats {
		if other == node {
			continue
		}
		for _, name := range []string{route(node, other), route(other, node)} {
			if err := w.net.cut(ctx, name, cut); err != nil {
				return err
			}
		}
	}
	return nil
}
