package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/localpg"
)

// handlers are the handlers of an application: its database, and its processes.
type handlers struct {
	world     *World
	pg        *localpg.Cluster
	link      int // the port by which processes reach the database
	natsLinks []int
	processes []*handlerProcess
}

// handlerProcess is one place where handlers run.
type handlerProcess struct {
	name    string
	of      *handlers
	log     *logFile
	process *child.Process
}

// onceModes are the handlers of which each event has one effect, and allModes all of them.
var (
	onceModes = []string{"once", "batch"}
	allModes  = []string{"once", "batch", "atleast"}
)

// startHandlers starts the database and the processes.
func (w *World) startHandlers(ctx context.Context) error {
	h := &handlers{world: w}
	w.handlers = h
	var err error
	if h.pg, err = localpg.Start(ctx, localpg.Options{BinDir: w.setting.pgBin, Settings: map[string]string{"autovacuum_naptime": "5s"}}); err != nil {
		return err
	}
	ports, err := freePorts(1 + len(w.nats))
	if err != nil {
		return err
	}
	h.link, h.natsLinks = ports[0], ports[1:]
	if err := w.net.link(ctx, "handlers-postgres", h.link, h.pg.Port()); err != nil {
		return err
	}
	for i, s := range w.nats {
		if err := w.net.link(ctx, "handlers-"+s.name, h.natsLinks[i], s.port); err != nil {
			return err
		}
	}
	if _, err := run(ctx, w.dir, []string{"CHAOS_DATABASE=" + h.pg.URL("postgres")}, w.programs.handlers, "migrate"); err != nil {
		return err
	}
	if err := h.exec(ctx, "CREATE TABLE mended (at timestamptz)",
		"CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, handler text, id text, key text, position text, at timestamptz DEFAULT clock_timestamp())"); err != nil {
		return err
	}
	for i := range w.setting.handlers {
		log, err := w.newLog(fmt.Sprintf("handlers-%c", 'a'+i))
		if err != nil {
			return err
		}
		p := &handlerProcess{name: fmt.Sprintf("handlers-%c", 'a'+i), of: h, log: log}
		h.processes = append(h.processes, p)
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

func (h *handlers) exec(ctx context.Context, statements ...string) error {
	return execAt(ctx, h.pg.URL("postgres"), statements...)
}

func (h *handlers) count(ctx context.Context, query string) (n int, err error) {
	err = queryAt(ctx, h.pg.URL("postgres"), &n, query)
	return n, err
}

func (p *handlerProcess) start() error {
	h := p.of
	links := make([]string, len(h.natsLinks))
	for i, port := range h.natsLinks {
		links[i] = fmt.Sprintf("nats://127.0.0.1:%d", port)
	}
	cmd := exec.Command(h.world.programs.handlers)
	cmd.Dir, cmd.Env = h.world.dir, append(os.Environ(),
		fmt.Sprintf("CHAOS_DATABASE=postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=2&pool_max_conns=12", h.link),
		fmt.Sprintf("CHAOS_OUTBOX=postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=2", h.world.pgLink),
		"CHAOS_NATS="+strings.Join(links, ","), "CHAOS_SUBJECT="+h.world.setting.template())
	var err error
	p.process, err = child.Start(p.name, cmd, child.Options{Log: &p.log.Log})
	h.world.hist.Add("harness", p.name+" are started")
	return err
}

func (p *handlerProcess) kill() {
	p.of.world.hist.Add("harness", p.name+" are killed")
	p.process.Kill()
}

// stop ends the process in order.
func (p *handlerProcess) stop(ctx context.Context) error {
	p.of.world.hist.Add("harness", p.name+" are asked to end")
	p.process.Signal(syscall.SIGCONT)
	p.process.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	code, err := p.process.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s ended with %d after SIGTERM:\n%s", p.name, code, p.log.Tail(5))
	}
	return err
}

// heal starts what does not run.
func (h *handlers) heal(ctx context.Context) error {
	for _, p := range h.processes {
		p.process.Signal(syscall.SIGCONT)
		if !p.process.Running() {
			return fmt.Errorf("%s ended by themselves:\n%s", p.name, p.log.Tail(10))
		}
	}
	return restart(ctx, h.pg)
}

// handling waits until there are more effects of each handler.
func (h *handlers) handling(ctx context.Context, more int) error {
	for _, handler := range allModes {
		query := "SELECT count(*) FROM effects WHERE handler = '" + handler + "'"
		start := -1
		if err := until(ctx, 60*time.Second, fmt.Sprintf("handler %s handles %d more events", handler, more), func(ctx context.Context) error {
			n, err := h.count(ctx, query)
			if err != nil {
				return err
			}
			if start < 0 {
				start = n
			}
			if n < start+more {
				return fmt.Errorf("it has handled %d", n-start)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("P10: %w\n%s", err, h.lastLines())
		}
	}
	return nil
}

func (h *handlers) lastLines() string {
	var all []string
	for _, p := range h.processes {
		all = append(all, p.name+" said last:\n"+p.log.Tail(5))
	}
	return strings.Join(all, "\n")
}

// consumers are those of the handlers.
func (h *handlers) consumers(ctx context.Context) ([]*jetstream.ConsumerInfo, error) {
	stream, err := h.world.js.Stream(ctx, streamName)
	if err != nil {
		return nil, err
	}
	var all []*jetstream.ConsumerInfo
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		if slices.Contains(allModes, inbox.HandlerOf(info.Name)) {
			all = append(all, info)
		}
	}
	return all, list.Err()
}

// finish mends what fails, redrives what is parked, and waits until everything is handled.
func (h *handlers) finish(ctx context.Context) error {
	if err := h.exec(ctx, "INSERT INTO mended VALUES (now())"); err != nil {
		return err
	}
	// How long it takes depends on how much is to be handled again: as long as that gets less.
	const patience = 60 * time.Second
	least, since := -1, time.Now()
	return until(ctx, 15*time.Minute, "everything is handled", func(ctx context.Context) error {
		if err := h.exec(ctx, "SELECT walrelay.redrive_parked(number) FROM walrelay.parked WHERE state = 'failed'"); err != nil {
			return err
		}
		consumers, err := h.consumers(ctx)
		if err != nil {
			return err
		}
		if len(consumers) < len(allModes) {
			return fmt.Errorf("there are %d consumers", len(consumers))
		}
		parked, err := h.count(ctx, "SELECT count(*) FROM walrelay.parked")
		if err != nil {
			return err
		}
		waiting := 0
		for _, c := range consumers {
			waiting += int(c.NumPending) + c.NumAckPending
		}
		if waiting+parked == 0 {
			return nil
		}
		if left := 2*waiting + parked; least < 0 || left < least { // what waits may be parked first
			least, since = left, time.Now()
		}
		err = fmt.Errorf("P10: %d events wait, and %d are parked\n%s", waiting, parked, h.lastLines())
		if time.Since(since) > patience {
			err = fmt.Errorf("%w, for %s no fewer: %w", errHopeless, patience, err)
		}
		return err
	})
}

// effect is what a handler did.
type effect struct {
	handler, id, key, position string
}

// effects returns what the handlers did, in order.
func (h *handlers) effects(ctx context.Context) ([]effect, error) {
	conn, err := pgx.Connect(ctx, h.pg.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connecting to the handlers' database: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT handler, id, key, position FROM effects ORDER BY n")
	if err != nil {
		return nil, fmt.Errorf("reading effects: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e effect, err error) {
		return e, row.Scan(&e.handler, &e.id, &e.key, &e.position)
	})
	if err != nil {
		return nil, fmt.Errorf("reading effects: %w", err)
	}
	return all, nil
}

// judge lets everything be handled, ends the processes, and says which promises were broken.
func (h *handlers) judge(ctx context.Context) ([]string, error) {
	if err := h.finish(ctx); err != nil {
		return nil, err
	}
	var found []string
	for _, p := range h.processes {
		if err := p.stop(ctx); err != nil {
			found = append(found, err.Error())
		}
		for _, bad := range []string{"panic:", "fatal error:"} {
			if strings.Contains(p.log.Since(0), bad) {
				found = append(found, p.name+" have a "+bad+" in their log")
			}
		}
	}
	effects, err := h.effects(ctx)
	if err != nil {
		return nil, err
	}
	found = append(found, handlerViolations(h.world.reader.all(), effects, h.world.reorders)...)
	if len(found) > 0 {
		var b strings.Builder
		for _, e := range effects {
			fmt.Fprintf(&b, "%-8s %s key=%-6s %s\n", e.handler, e.position, e.key, e.id)
		}
		err = os.WriteFile(filepath.Join(h.world.dir, "effects.txt"), []byte(b.String()), 0o600)
	}
	return found, err
}

// handlerViolations says which promises the handlers broke: of each message of the stream, a once
// handler had one effect, and another one at least one; those of a key were in the order of
// positions, or, if messages of somebody else took the places of some, of the stream.
func handlerViolations(stream []stored, effects []effect, reorders bool) []string {
	v := &verdict{}
	place := make(map[string]string, len(stream))
	for _, m := range stream {
		if _, ok := place[m.id]; !ok {
			place[m.id] = fmt.Sprintf("%020d", m.sequence)
		}
	}
	at := func(e effect) string {
		if reorders {
			return place[e.id]
		}
		return e.position
	}
	for _, handler := range allModes {
		once := slices.Contains(onceModes, handler)
		times := make(map[string]int)
		last := make(map[string]effect)
		for _, e := range effects {
			if e.handler != handler {
				continue
			}
			times[e.id]++
			switch {
			case times[e.id] > 1 && once:
				v.say("P10: event %s of key %q took effect again in handler %s", e.id, e.key, handler)
			case times[e.id] > 1 || e.key == "" || at(e) == "" || strings.HasPrefix(e.id, forgedPrefix):
			case at(last[e.key]) > at(e):
				v.say("P10: event %s of key %q, at %s, took effect in handler %s after event %s, at %s", e.id, e.key, at(e), handler, last[e.key].id, at(last[e.key]))
			default:
				last[e.key] = e
			}
		}
		for _, m := range stream {
			if m.id != "" && times[m.id] == 0 {
				v.say("P10: event %s, message %d, at %s, had no effect in handler %s", m.id, m.sequence, m.position, handler)
			}
		}
	}
	return v.found()
}

// close ends everything.
func (h *handlers) close() error {
	for _, p := range h.processes {
		if p.process != nil {
			p.process.Kill()
		}
	}
	if h.pg == nil {
		return nil
	}
	return errors.Join(os.WriteFile(filepath.Join(h.world.dir, "postgres-handlers.log"), []byte(h.pg.LogTail(5000)), 0o600), h.pg.Close())
}

// template is that of subjects.
func (s setting) template() string {
	if s.partitions == "" {
		return inbox.DefaultSubject
	}
	return "events." + s.partitions + ".{type}"
}

// subjects are the stream's.
func (s setting) subjects() string {
	if s.partitions == "" {
		return "events.chaos.>"
	}
	return "events.*.chaos.>"
}
