package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// toxics is what a network can do.
func toxics(rng *rand.Rand) []toxic {
	one := func(kind string, attributes map[string]any) toxic { return toxic{kind, rng.IntN(2) == 0, attributes} }
	return []toxic{
		one("latency", map[string]any{"latency": 50 + rng.IntN(200), "jitter": 50}),
		one("bandwidth", map[string]any{"rate": 20 + rng.IntN(200)}), // KB/s
		one("slicer", map[string]any{"average_size": 1 + rng.IntN(50), "size_variation": 1, "delay": 10}),
		{"reset_peer", true, map[string]any{"timeout": rng.IntN(500)}},
		{"reset_peer", false, map[string]any{"timeout": rng.IntN(500)}},
		{"timeout", true, map[string]any{"timeout": 0}},                     // what the relay sends disappears
		{"timeout", false, map[string]any{"timeout": 0}},                    // what it should get disappears
		one("limit_data", map[string]any{"bytes": 1000 + rng.IntN(200000)}), // cut in the middle of something
	}
}

func networkFaults() []fault { //nolint:gocognit // a table
	bad := func(link func(w *World) []string) func(context.Context, *World, *rand.Rand) error {
		return func(ctx context.Context, w *World, rng *rand.Rand) error {
			kinds := toxics(rng)
			for _, i := range rng.Perm(len(kinds))[:4] {
				for _, name := range link(w) {
					w.hist.Add("harness", "the network is bad", "link", name, "how", kinds[i])
					if err := w.net.poison(ctx, name, kinds[i]); err != nil {
						return err
					}
				}
				sleep(ctx, between(rng, 2*time.Second, 4*time.Second))
				if err := w.net.heal(ctx); err != nil {
					return err
				}
				if err := w.flowing(ctx, 50); err != nil {
					return err
				}
			}
			return nil
		}
	}
	toPostgres := func(*World) []string { return []string{"postgres"} }
	toNATS := func(w *World) []string {
		var names []string
		for _, s := range w.nats {
			names = append(names, s.name)
		}
		return names
	}
	return []fault{
		{
			name: "postgres-link-bad", settings: everywhere,
			what: "the network to Postgres is slow, cuts, swallows one direction, or ends in the middle of a message, in four ways",
			then: "the relay connects again, and goes on after what it has published",
			do:   bad(toPostgres),
		},
		{
			name: "nats-link-bad", settings: everywhere, short: onSingle,
			what: "the same with the network to NATS: acknowledgements are lost, or messages",
			then: "the stream says what it has",
			do:   bad(toNATS),
		},
		{
			name: "nats-link-flaps", settings: []string{onSingle, onPair, onCluster, onQueue},
			what: "the network to NATS comes and goes, ten times",
			then: "the same",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				for range 10 {
					for _, name := range toNATS(w) {
						if err := w.net.cut(ctx, name, true); err != nil {
							return err
						}
					}
					sleep(ctx, between(rng, 0, 100*time.Millisecond))
					if err := w.net.heal(ctx); err != nil {
						return err
					}
					sleep(ctx, between(rng, 0, 400*time.Millisecond))
				}
				return nil
			},
		},
		{
			name: "garbage-from-postgres", settings: []string{onSingle},
			what: "in the middle of what Postgres sends there is something else, eight times",
			then: "the relay does not confirm it, does not run out of memory, and connects again; or it ends with 1, if a message is whole and cannot be understood, and goes on when it is started again",
			do: func(ctx context.Context, w *World, rng *rand.Rand) error {
				g, err := newGarbler(w.pg.Port(), rng)
				if err != nil {
					return err
				}
				defer g.close()
				r := w.relays[0]
				r.ends = true
				for _, port := range append(slices.Repeat([]int{g.port()}, 8), w.pg.Port()) {
					if err := w.net.turnPostgres(ctx, port); err != nil {
						return err
					}
					sleep(ctx, time.Second)
					if err := r.startAgain("cannot be decoded, and nothing of it is confirmed"); err != nil {
						return err
					}
				}
				r.ends = false
				return nil
			},
		},
	}
}

// garbler is a proxy that puts random bytes into what the server sends, once in
// each connection, and a message of another length than it says.
type garbler struct {
	listener net.Listener
	upstream string
	group    sync.WaitGroup

	mu    sync.Mutex
	rng   *rand.Rand
	conns []net.Conn
}

func newGarbler(to int, rng *rand.Rand) (*garbler, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("making a garbler: %w", err)
	}
	g := &garbler{listener: l, upstream: "127.0.0.1:" + strconv.Itoa(to), rng: rng}
	g.group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.group.Go(func() { g.serve(conn) })
		}
	})
	return g, nil
}

func (g *garbler) port() int { return g.listener.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // a TCP listener

func (g *garbler) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", g.upstream)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	g.mu.Lock()
	g.conns = append(g.conns, client, server)
	after := 3000 + g.rng.IntN(30000)
	garbage := make([]byte, 5+g.rng.IntN(100))
	for i := range garbage {
		garbage[i] = byte(g.rng.UintN(256))
	}
	if g.rng.IntN(2) == 0 {
		copy(garbage, []byte{'d', 0x3F, 0xFF, 0xFF, 0xFF}) // a CopyData of a gigabyte
	}
	g.mu.Unlock()
	g.group.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	if _, err := io.CopyN(client, server, int64(after)); err != nil {
		return
	}
	if _, err := client.Write(garbage); err != nil {
		return
	}
	_, _ = io.Copy(client, server)
}

func (g *garbler) close() {
	_ = g.listener.Close()
	g.mu.Lock()
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.mu.Unlock()
	g.group.Wait()
}
