// Chaos tries to break walrelay's promises.
//
// It runs relays, Postgres, nats-servers and the network between them as real
// processes, lets applications write events of every sort, makes things go wrong
// by a plan that a seed decides, and then compares what is in the stream with
// what Postgres itself says was committed. Nothing of the relay's own code
// judges: the witness is a second replication slot, read with another decoder.
//
//	make chaos                 every fault, in every setting
//	make chaos SEED=42         the same plan again
//	make chaos ARGS="--fault nats-killed --setting pair --rounds 20"
//
// The plan, what is written and how long things last are the seed's; the
// operating system decides the rest, so a failure may need several runs to come
// again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options of a run.
type options struct {
	seed     uint64
	fault    string
	setting  string
	rounds   int
	short    bool
	controls bool
	list     bool
	keep     bool
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "decides the plan; 0 takes one from the clock")
	flag.StringVar(&o.fault, "fault", "", "only these faults, separated by commas")
	flag.StringVar(&o.setting, "setting", "", "only in this setting")
	flag.IntVar(&o.rounds, "rounds", 1, "how often everything is done")
	flag.BoolVar(&o.short, "short", false, "only a few faults")
	flag.BoolVar(&o.controls, "controls", false, "run relays that break a promise, and fail if that is not found; with --short after the faults, otherwise instead of them")
	flag.BoolVar(&o.list, "list", false, "list the faults and settings")
	flag.BoolVar(&o.keep, "keep", false, "keep logs and histories also of what went well")
	flag.Parse()
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	if o.list {
		list(os.Stdout)
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := chaos(ctx, o, os.Stdout)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// settings is where faults happen.
func settings() []setting {
	return []setting{
		{name: onSingle, what: "one relay, one nats-server"},
		{name: onPair, what: "two relays, of which one is a standby", relays: 2},
		{name: onCluster, what: "three nats-servers, a stream with three replicas, two relays", nodes: 3, relays: 2},
		{name: onQueue, what: "a work queue, which a consumer empties", queue: true},
		{name: onInterest, what: "a stream that keeps what a consumer has still to take (interest)", queue: true, interest: true},
		{name: onFailover, what: "a primary and a standby with failover slots (Postgres 17)", standby: true, relays: 2, configuration: "failover: true\n"},
		{name: onAtomic, what: "each transaction one atomic batch, in a stream with three replicas, and two relays", nodes: 3, relays: 2, publish: ", atomic: true, atomic_overflow: split"},
		{name: onHandlers, what: "one relay, one nats-server, two processes of handlers, and a database of their own", handlers: 2},
		{
			name: onHandlersCluster, what: "three nats-servers, and handlers with four partitions, in three processes", nodes: 3, handlers: 3,
			partitions: "{partition:4}", publish: `, subject: "events.{partition:4}.{type}"`,
		},
		{name: onSmall, what: "little room on the disks", storeSize: 24, walSize: 160},
	}
}

func list(out io.Writer) {
	fmt.Fprintln(out, "settings:")
	for _, s := range settings() {
		fmt.Fprintf(out, "  %-36s %s\n", s.name, s.what)
	}
	fmt.Fprintln(out, "\nfaults:")
	for _, f := range faults() {
		fmt.Fprintf(out, "  %-36s %s\n%39s→ %s\n%39s(%s)\n", f.name, f.what, "", f.then, "", strings.Join(f.settings, ", "))
	}
}

// step is faults of one world, in order.
type step struct {
	setting setting
	faults  []fault
}

// plan orders the faults: those that need a world for themselves, and the
// others, shuffled, one world a setting.
func plan(o options, rng *rand.Rand) ([]step, error) {
	only := strings.FieldsFunc(o.fault, func(r rune) bool { return r == ',' })
	for _, name := range only {
		if !slices.ContainsFunc(faults(), func(f fault) bool { return f.name == name }) {
			return nil, fmt.Errorf("there is no fault called %q; see --list", name)
		}
	}
	var planned []step
	for _, s := range settings() {
		if o.setting != "" && s.name != o.setting {
			continue
		}
		together := step{setting: s}
		for _, f := range faults() {
			switch {
			case !slices.Contains(f.settings, s.name), len(only) > 0 && !slices.Contains(only, f.name), o.short && f.short != s.name:
			case f.root && os.Geteuid() != 0:
			case f.alone:
				planned = append(planned, step{s, []fault{f}})
			default:
				together.faults = append(together.faults, f)
			}
		}
		rng.Shuffle(len(together.faults), func(i, j int) {
			together.faults[i], together.faults[j] = together.faults[j], together.faults[i]
		})
		if len(together.faults) > 0 {
			planned = append(planned, together)
		}
	}
	if len(planned) == 0 {
		return nil, errors.New("there is nothing to do in this setting; see --list")
	}
	return planned, nil
}

// chaos runs everything that the options ask for.
func chaos(ctx context.Context, o options, out io.Writer) error {
	dir, err := os.MkdirTemp("", "walrelay-chaos-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	keep := true
	defer func() {
		if !keep && !o.keep {
			_ = os.RemoveAll(dir)
		}
	}()
	fmt.Fprintf(out, "seed %d, logs and histories in %s\n", o.seed, dir)
	programs, err := buildPrograms(ctx, dir)
	if err != nil {
		return err
	}
	h := &harness{options: o, dir: dir, out: out, programs: programs}
	if o.short || !o.controls {
		err = h.faults(ctx)
	}
	if o.controls {
		err = errors.Join(err, h.controls(ctx))
	}
	keep = err != nil
	return err
}

// harness runs worlds.
type harness struct {
	options
	dir      string
	out      io.Writer
	programs programs
	worlds   int
}

func (h *harness) faults(ctx context.Context) error {
	rng := newRand(h.seed, 0)
	done, failed := 0, 0
	for range h.rounds {
		steps, err := plan(h.options, rng)
		if err != nil {
			return err
		}
		for _, s := range steps {
			if s.setting.standby {
				bin, err := failoverBinaries(ctx)
				if err != nil {
					return err
				}
				s.setting.pgBin = bin
			}
			broken, dir, err := h.world(ctx, s, rng.Uint64(), h.programs)
			if err == nil && len(broken) > 0 {
				err = errors.New("promises are broken:\n  " + strings.Join(broken, "\n  "))
			}
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				names := make([]string, len(s.faults))
				for i, f := range s.faults {
					names[i] = f.name
				}
				failed++
				fmt.Fprintf(h.out, "FAILED: %v\n\nsetting %s; logs and history: %s\nagain: make chaos SEED=%d ARGS=\"--setting %s --fault %s\"\n\n",
					err, s.setting.name, dir, h.seed, s.setting.name, strings.Join(names, ","))
			}
			done += len(s.faults)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d worlds failed; seed %d", failed, h.seed)
	}
	fmt.Fprintf(h.out, "%d faults, and every promise was kept\n", done)
	return nil
}

// world runs faults in a new world, and judges it.
func (h *harness) world(ctx context.Context, s step, seed uint64, p programs) (broken []string, dir string, err error) {
	h.worlds++
	dir = filepath.Join(h.dir, fmt.Sprintf("%02d-%s", h.worlds, s.setting.name))
	w, err := newWorld(ctx, p, s.setting, seed, dir)
	if err != nil {
		return nil, dir, err
	}
	fmt.Fprintf(h.out, "%s\n", s.setting.name)
	defer func() {
		if err != nil || len(broken) > 0 {
			fmt.Fprintln(h.out, "what happened last:")
			w.hist.Tail(h.out)
		}
		err = errors.Join(err, w.close())
	}()
	for _, f := range s.faults {
		started, before := time.Now(), w.ledger.events()
		if err := w.suffer(ctx, f, newRand(seed, hash(f.name))); err != nil {
			fmt.Fprintf(h.out, "  %-36s failed\n", f.name)
			return nil, dir, err
		}
		fmt.Fprintf(h.out, "  %-36s ok  %5.1fs  %6d events\n", f.name, time.Since(started).Seconds(), w.ledger.events()-before)
	}
	broken, err = w.judge(ctx)
	return broken, dir, err
}

func hash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return h.Sum64()
}

// controls runs the relays that break promises.
func (h *harness) controls(ctx context.Context) error {
	var missed []string
	for _, c := range controls() {
		if h.fault != "" && h.fault != c.name || h.short && c.long {
			continue
		}
		binary, err := buildVariant(ctx, h.dir, c.variant)
		if err != nil {
			return err
		}
		p := h.programs
		who := "relay"
		if c.pkg == handlersPackage {
			who, p.handlers = "handler", binary
		} else {
			p.relay = binary
		}
		found, err := h.control(ctx, c, who, p)
		if err != nil {
			return err
		}
		if !found {
			missed = append(missed, c.name)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("the harness did not find what these break: %s", strings.Join(missed, ", "))
	}
	fmt.Fprintln(h.out, "the harness finds what each of these breaks")
	return nil
}

// control runs one of them, some times if need be: what it breaks may depend on
// luck.
func (h *harness) control(ctx context.Context, c control, who string, p programs) (found bool, err error) {
	for attempt := range max(6, h.rounds) {
		fmt.Fprintf(h.out, "a %s that %s: ", who, strings.ReplaceAll(c.name, "-", " "))
		s := step{}
		for _, candidate := range settings() {
			if candidate.name == c.setting {
				s.setting = candidate
			}
		}
		for _, f := range faults() {
			if slices.Contains(c.faults, f.name) {
				s.faults = append(s.faults, f)
			}
		}
		quiet := *h
		quiet.out = io.Discard
		quiet.worlds = h.worlds
		broken, dir, err := quiet.world(ctx, s, h.seed+uint64(attempt), p)
		h.worlds = quiet.worlds
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			broken = append(broken, err.Error())
		}
		for _, b := range broken {
			if strings.HasPrefix(b, c.promise) {
				fmt.Fprintf(h.out, "found: %s\n", b)
				return true, nil
			}
		}
		fmt.Fprintf(h.out, "not found in %s (%d other findings: %.300s)\n", dir, len(broken), strings.Join(broken, "; "))
	}
	return false, nil
}

// failoverBinaries are those of a Postgres that has failover slots.
func failoverBinaries(ctx context.Context) (string, error) {
	if dir := os.Getenv("CHAOS_PG17"); dir != "" {
		return dir, nil
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	cache := os.Getenv("PG_CACHE")
	if cache == "" {
		cache = "/var/tmp/walrelay-pg"
	}
	out, err := run(ctx, root, nil, filepath.Join(root, "scripts", "fetch-postgres.sh"), "17", cache)
	if err != nil {
		return "", err
	}
	found := strings.Split(strings.TrimSpace(out), "\n")
	return found[len(found)-1], nil
}

// newRand returns numbers that the seed and the stream decide.
func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
