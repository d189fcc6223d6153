package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/internal/localpg"
)

// forgedPrefix begins the ids of events that somebody else publishes into the stream.
const forgedPrefix = "forged-"

var withHandlers = []string{onHandlers, onHandlersCluster}

// handlerFaults are what handlers may suffer.
func handlerFaults() []fault { //nolint:gocognit // a table
	some := func(w *World, rng *rand.Rand) *handlerProcess {
		return w.handlers.processes[rng.IntN(len(w.handlers.processes))]
	}
	return []fault{
		{
			name: "handlers-killed", settings: withHandlers, short: onHandlers,
			what: "a process of handlers is killed, four times, and started again",
			then: "another one takes over; each event has its effect once, in order",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 4 {
					p := some(w, rng)
					p.kill()
					sleep(ctx, between(rng, 0, 2*time.Second))
					if err := p.start(); err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, 2*time.Second))
				}
				return nil
			},
		},
		{
			name: "handlers-frozen", settings: withHandlers, short: onHandlers,
			what: "a process of handlers is frozen, for less and for more than it takes another one to take over, and goes on",
			then: "what it still has takes no effect a second time",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for _, longest := range []time.Duration{3 * time.Second, 9 * time.Second} {
					p := some(w, rng)
					p.process.Signal(syscall.SIGSTOP)
					sleep(ctx, between(rng, longest/2, longest))
					p.process.Signal(syscall.SIGCONT)
					sleep(ctx, between(rng, 0, time.Second))
				}
				return nil
			},
		},
		{
			name: "handlers-stopped", settings: withHandlers,
			what: "processes of handlers get SIGTERM, and are started again",
			then: "they end with 0; another one takes over at once",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 4 {
					p := some(w, rng)
					if err := p.stop(ctx); err != nil {
						return err
					}
					if err := p.start(); err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, time.Second))
				}
				return nil
			},
		},
		{
			name: "handlers-unpinned", settings: withHandlers, short: onHandlers,
			what: "somebody unpins the consumers again and again",
			then: "another process takes over, in order",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 8 {
					consumers, err := w.handlers.consumers(ctx)
					if err != nil {
						return err
					}
					stream, err := w.js.Stream(ctx, streamName)
					if err != nil {
						return err
					}
					for _, c := range consumers {
						_ = stream.UnpinConsumer(ctx, c.Name, "walrelay") // it may be unpinned
					}
					sleep(ctx, between(rng, 0, 600*time.Millisecond))
				}
				return nil
			},
		},
		{
			name: "handlers-cut-off", settings: withHandlers, short: onHandlers,
			what: "the connections of the handlers to NATS and to their database are cut, and refused for a while",
			then: "what was under way takes effect once",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				links := []string{"handlers-postgres"}
				for _, s := range w.nats {
					links = append(links, "handlers-"+s.name)
				}
				for range 4 {
					first, last := rng.IntN(len(links)), between(rng, 0, 2*time.Second)
					for i := range links {
						if i == first || rng.IntN(2) == 0 {
							if err := w.net.cut(ctx, links[i], true); err != nil {
								return err
							}
						}
					}
					sleep(ctx, last)
					for _, link := range links {
						if err := w.net.cut(ctx, link, false); err != nil {
							return err
						}
					}
					sleep(ctx, between(rng, 0, time.Second))
				}
				return nil
			},
		},
		{
			name: "handlers-database-crashes", settings: withHandlers, short: onHandlers,
			what: "the handlers' database crashes, twice",
			then: "nothing is parked for that; what was not committed is handled again",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 2 {
					if err := w.handlers.pg.Kill(); err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, time.Second))
					if err := restart(ctx, w.handlers.pg); err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, 2*time.Second))
				}
				if err := w.handlers.pg.Stop(ctx, localpg.Fast); err != nil {
					return err
				}
				return restart(ctx, w.handlers.pg)
			},
		},
		{
			name: "handlers-consumer-deleted", settings: withHandlers,
			what: "the consumers of the handlers are deleted",
			then: "they are made again; what was handled takes no effect again",
			do: func(ctx context.Context, w *World, _ *rand.Rand) error {
				consumers, err := w.handlers.consumers(ctx)
				if err != nil {
					return err
				}
				for _, c := range consumers {
					if err := w.js.DeleteConsumer(ctx, streamName, c.Name); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "forged-events", settings: withHandlers, short: onHandlers,
			what: "somebody else publishes events with the keys in use, the relay's headers, and positions far ahead",
			then: "they are handled as events of others, and hide none of the relay's, also of those whose place they took",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				w.reorders, w.foreign = true, true
				for range 30 {
					stream, err := w.js.Stream(ctx, streamName)
					if err != nil {
						return err
					}
					last, err := stream.GetLastMsgForSubject(ctx, strings.Replace(w.setting.subjects(), ".>", ".plain.>", 1))
					if err != nil {
						return err
					}
					writer := strings.SplitN(last.Header.Get("Walrelay-Position"), " ", 2)
					if len(writer) != 2 {
						return fmt.Errorf("message %d has the position %q", last.Sequence, writer)
					}
					header := nats.Header{
						"ce-specversion": {"1.0"}, "ce-id": {fmt.Sprint(forgedPrefix, rng.Uint64())}, "ce-source": {"/chaos"}, "ce-type": {"chaos.plain.w0"},
						"ce-partitionkey":   {fmt.Sprintf("key-%d", rng.IntN(8))},
						"Walrelay-Position": {"00FFFFFFFFFFFFFF.00000000 " + writer[1]}, "Walrelay-Digest": {last.Header.Get("Walrelay-Digest")},
					}
					if _, err := w.js.PublishMsg(ctx, &nats.Msg{Subject: last.Subject, Header: header, Data: []byte("{}")}); err != nil {
						return err
					}
					if rng.IntN(6) == 0 {
						w.relays[0].kill()
						if err := w.relays[0].start(""); err != nil {
							return err
						}
					}
					sleep(ctx, between(rng, 0, 100*time.Millisecond))
				}
				return nil
			},
		},
	}
}
