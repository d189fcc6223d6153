package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/localpg"
)

// setting is what a world is made of.
type setting struct {
	name   string
	what   string
	nodes  int // nats-servers; 1 unless said
	relays int // 1 unless said
	// pgBin are the server binaries; those that are found unless said.
	pgBin      string
	pgSettings map[string]string
	// queue makes the stream a work queue, which a consumer empties; with interest,
	// one of the retention policy of that name.
	queue, interest bool
	// standby has a second Postgres, with failover slots (17 and newer).
	standby bool
	// storeSize is how many MiB the disk of nats-server has, and walSize that of
	// the write-ahead log; no volume of their own unless said.
	storeSize, walSize int
	// handlers is how many processes of handlers there are, and partitions the placeholder of
	// their partitions; none unless said.
	handlers   int
	partitions string
	// configuration is added to walrelay.yaml, and publish to that key of it.
	configuration, publish string
	// pause of the writers between two transactions.
	pause time.Duration
}

// World is everything that runs: two or more relays, their servers, the network
// between them, the applications, and who watches.
type World struct {
	setting  setting
	programs programs
	dir      string
	hist     *History
	seed     uint64

	mu     sync.Mutex // guards pg, which a failover changes
	pg     *localpg.Cluster
	spare  *localpg.Cluster
	pgLink int
	nats   []*natsServer
	net    *network
	relays []*relay
	// handlers is nil in a setting without them.
	handlers *handlers
	logs     []*logFile

	nc      *nats.Conn
	js      jetstream.JetStream
	reader  *reader
	writers *writers
	ledger  *ledger

	watching sync.WaitGroup
	cancel   context.CancelFunc
	seenMu   sync.Mutex // guards what is seen of Postgres
	flushes  []flushed
	// published is of which events it was said, and when first.
	published map[string]time.Time

	// reorders says that events were brought back after later ones, judged that
	// there is nothing more to check, foreign that others wrote into the stream.
	reorders, judged, foreign bool
	// lost are events of which a repair says that it cannot bring them back, and
	// why; repairedBelow is where the write-ahead log was then.
	lost          map[string]string
	repairedBelow uint64
	volumes       []string // mounted
}

// memoryLimit is what a relay may take: its windows (16 MiB in flight, 8 MiB
// staged), the largest event, twice for the garbage collector, and the program.
const memoryLimit = 160 << 20

// newWorld starts everything.
func newWorld(ctx context.Context, p programs, s setting, seed uint64, dir string) (w *World, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the folder of a run: %w", err)
	}
	w = &World{setting: s, programs: p, dir: dir, seed: seed, ledger: &ledger{}}
	if w.setting.nodes == 0 {
		w.setting.nodes = 1
	}
	if w.setting.relays == 0 {
		w.setting.relays = 1
	}
	if w.setting.pause == 0 {
		w.setting.pause = 20 * time.Millisecond
	}
	if w.hist, err = NewHistory(filepath.Join(dir, "history.jsonl")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	return w, errors.Join(w.startServers(ctx), w.startRelaysAndWatchers(ctx))
}

func (w *World) newLog(name string) (*logFile, error) {
	log, err := newLogFile(w.dir, name)
	if err == nil {
		w.logs = append(w.logs, log)
	}
	return log, err
}

func (w *World) startServers(ctx context.Context) (err error) {
	settings := map[string]string{"wal_sender_timeout": "3s", "max_wal_size": "4GB", "autovacuum_naptime": "5s"}
	maps.Copy(settings, w.setting.pgSettings)
	options := localpg.Options{BinDir: w.setting.pgBin, Settings: settings}
	if w.setting.walSize > 0 {
		dir, err := os.MkdirTemp("/tmp", "walrelay-wal-")
		if err != nil {
			return fmt.Errorf("making a volume: %w", err)
		}
		if err := w.mount(dir, w.setting.walSize); err != nil {
			return err
		}
		options.WALDir = filepath.Join(dir, "wal")
		if err := os.Mkdir(options.WALDir, 0o700); err != nil {
			return fmt.Errorf("making a volume: %w", err)
		}
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the server's user must get there
			return fmt.Errorf("making a volume: %w", err)
		}
	}
	if w.setting.standby {
		if w.pg, w.spare, err = startPair(ctx, options); err != nil {
			return err
		}
	} else if w.pg, err = localpg.Start(ctx, options); err != nil {
		return err
	}
	log, err := w.newLog("toxiproxy")
	if err != nil {
		return err
	}
	if w.net, err = startNetwork(ctx, w.programs.toxiproxy, log); err != nil {
		return err
	}
	ports, err := freePorts(1 + w.setting.nodes*(3+w.setting.nodes))
	if err != nil {
		return err
	}
	w.pgLink = ports[0]
	if err := w.net.link(ctx, "postgres", w.pgLink, w.pg.Port()); err != nil {
		return err
	}
	if err := w.prepareNATS(ctx, ports[1:]); err != nil {
		return err
	}
	if err := w.connectNATS(); err != nil {
		return err
	}
	if err := w.writeConfiguration(); err != nil {
		return err
	}
	if w.setting.queue {
		retention := jetstream.WorkQueuePolicy
		if w.setting.interest {
			retention = jetstream.InterestPolicy
		}
		if _, err := w.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: streamName, Subjects: []string{w.setting.subjects()}, Retention: retention, Duplicates: 100 * time.Millisecond,
		}); err != nil {
			return fmt.Errorf("making a work queue: %w", err)
		}
		// Without a consumer, nothing of interest is kept.
		if _, err := (&reader{js: w.js, queue: true}).consumer(ctx); err != nil {
			return fmt.Errorf("making the consumer of a work queue: %w", err)
		}
	}
	return until(ctx, 30*time.Second, "walrelay init succeeds", func(ctx context.Context) error {
		_, err := w.command(ctx, "init") // a cluster may still elect its leader
		return err
	})
}

// prepareNATS makes the servers and starts them.
func (w *World) prepareNATS(ctx context.Context, ports []int) error {
	n := w.setting.nodes
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		log, err := w.newLog(name)
		if err != nil {
			return err
		}
		dir := filepath.Join(w.dir, name)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("making a folder for %s: %w", name, err)
		}
		s := &natsServer{
			name: name, binary: w.programs.nats, dir: dir, store: filepath.Join(dir, "store"), log: log,
			port: ports[i], link: ports[n+i], cluster: ports[2*n+i], settings: make(map[string]string),
		}
		if w.setting.storeSize > 0 {
			s.store = filepath.Join(dir, "volume")
			if err := w.mount(s.store, w.setting.storeSize); err != nil {
				return err
			}
		}
		if err := w.net.link(ctx, name, s.link, s.port); err != nil {
			return err
		}
		w.nats = append(w.nats, s)
	}
	// Each way between two servers can be cut alone.
	ways := ports[3*n:]
	for i, from := range w.nats {
		for j, to := range w.nats {
			if i == j {
				continue
			}
			from.routes = append(from.routes, ways[i*n+j])
			if err := w.net.link(ctx, route(from, to), ways[i*n+j], to.cluster); err != nil {
				return err
			}
		}
	}
	errs := make(chan error, n)
	for _, s := range w.nats {
		go func() { errs <- s.start(ctx) }()
	}
	var all []error
	for range w.nats {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func (w *World) startRelaysAndWatchers(ctx context.Context) error {
	if w.js == nil {
		return nil
	}
	conn, err := pgx.Connect(ctx, w.pgURL())
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := prepareWitness(ctx, conn, w.setting.standby); err != nil {
		return err
	}
	if w.spare != nil {
		if err := w.synchronise(ctx, conn); err != nil {
			return err
		}
	}
	for i := range w.setting.relays {
		r, err := w.newRelay(fmt.Sprintf("relay-%c", 'a'+i))
		if err != nil {
			return err
		}
		w.relays = append(w.relays, r)
		if err := r.start(""); err != nil {
			return err
		}
	}
	if _, err := w.active(ctx); err != nil {
		return err
	}
	if w.setting.handlers > 0 {
		if err := w.startHandlers(ctx); err != nil {
			return err
		}
	}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	w.reader = &reader{js: w.js, queue: w.setting.queue, seen: make(map[uint64]bool)}
	w.watching.Go(func() { w.reader.run(watching) })
	w.watching.Go(func() { w.watch(watching, 20*time.Millisecond, w.sample) })
	w.published = make(map[string]time.Time)
	w.watching.Go(func() { w.watch(watching, 25*time.Millisecond, w.askStatus) })
	w.writers = startWriters(ctx, w.seed, w.setting.pause, w.pgURL, w.hist, w.ledger)
	return nil
}

// pgURL is how to reach the primary, past the proxy.
func (w *World) pgURL() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pg.URL("postgres")
}

// exec runs statements past the proxy.
func (w *World) exec(ctx context.Context, statements ...string) error {
	return execAt(ctx, w.pgURL(), statements...)
}

// execAt runs statements in a database.
func execAt(ctx context.Context, url string, statements ...string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// query reads one value past the proxy.
func (w *World) query(ctx context.Context, to any, statement string, args ...any) error {
	return queryAt(ctx, w.pgURL(), to, statement, args...)
}

// queryAt reads one value from a database.
func queryAt(ctx context.Context, url string, to any, statement string, args ...any) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := conn.QueryRow(ctx, statement, args...).Scan(to); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// watch asks Postgres again and again, past the proxy, until the context ends.
func (w *World) watch(ctx context.Context, every time.Duration, ask func(context.Context, *pgx.Conn) error) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		sleep(ctx, every)
		if conn == nil || conn.IsClosed() {
			connecting, cancel := context.WithTimeout(ctx, time.Second)
			conn, _ = pgx.Connect(connecting, w.pgURL())
			cancel()
			if conn == nil {
				continue
			}
		}
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(asking, conn)
		cancel()
		if err != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
			conn = nil
		}
	}
}

// sample notes what the slot has confirmed.
func (w *World) sample(ctx context.Context, conn *pgx.Conn) error {
	var text string
	err := conn.QueryRow(ctx, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", slotName).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	lsn, err := pglogrepl.ParseLSN(text)
	if err != nil {
		return err
	}
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	w.flushes = append(w.flushes, flushed{time.Now(), uint64(lsn)})
	return nil
}

// askStatus notes of which events walrelay says that they are published.
func (w *World) askStatus(ctx context.Context, conn *pgx.Conn) error {
	const statement = "SELECT i.id FROM unnest($1::text[]) AS i (id), walrelay.event_status(i.id) AS s WHERE s.state = 'published'"
	rows, err := conn.Query(ctx, statement, w.ledger.doubtful(time.Now()))
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	w.seenMu.Lock()
	defer w.seenMu.Unlock()
	for _, id := range ids {
		if _, ok := w.published[id]; !ok {
			w.published[id] = time.Now()
		}
	}
	return err
}

// flowing waits until the reader has got more messages.
func (w *World) flowing(ctx context.Context, more int) error {
	start := w.reader.count()
	return until(ctx, 60*time.Second, fmt.Sprintf("%d more events arrive", more), func(context.Context) error {
		if n := w.reader.count(); n < start+more {
			return fmt.Errorf("%d have", n-start)
		}
		return nil
	})
}

// caughtUp waits until the slot has confirmed everything that is committed now.
func (w *World) caughtUp(ctx context.Context, limit time.Duration) error {
	var target string
	if err := until(ctx, 10*time.Second, "Postgres answers", func(ctx context.Context) error {
		return w.query(ctx, &target, "SELECT pg_current_wal_lsn()::text")
	}); err != nil {
		return err
	}
	err := until(ctx, limit, "the slot has confirmed everything that is committed", func(ctx context.Context) error {
		for _, r := range w.relays {
			if !r.process.Running() && !r.ends {
				return fmt.Errorf("%w: %s ended with %d:\n%s", errHopeless, r.name, r.process.Code(), r.log.Tail(5))
			}
		}
		var behind int64
		if err := w.query(ctx, &behind, "SELECT ($1::text::pg_lsn - confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $2", target, slotName); err != nil {
			return err
		}
		if behind > 0 {
			return fmt.Errorf("it is %d bytes behind", behind)
		}
		return nil
	})
	if err != nil {
		var why []string
		for _, r := range w.relays {
			why = append(why, r.name+" said last:\n"+r.log.Tail(5))
		}
		return fmt.Errorf("%w\n%s", err, strings.Join(why, "\n"))
	}
	return nil
}

// heal takes away whatever a fault has left, and starts what does not run.
func (w *World) heal(ctx context.Context) error {
	w.writers.resume()
	w.reader.stop(false)
	if err := w.net.heal(ctx); err != nil {
		return err
	}
	for _, r := range w.relays {
		r.process.Signal(syscall.SIGCONT)
		if !r.process.Running() && r.ends {
			if err := r.start(""); err != nil {
				return err
			}
		}
	}
	if w.handlers != nil {
		return w.handlers.heal(ctx)
	}
	return nil
}

// suffer does what the fault says while events flow, and waits until all is well
// again.
func (w *World) suffer(ctx context.Context, f fault, rng *rand.Rand) error {
	if err := w.flowing(ctx, 30); err != nil {
		return err
	}
	marks := make([]int, len(w.relays))
	for i, r := range w.relays {
		marks[i] = r.log.Mark()
	}
	w.hist.Add("harness", "fault: "+f.name)
	if err := f.do(ctx, w, rng); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	w.hist.Add("harness", "healing")
	if w.judged {
		return nil
	}
	if err := w.heal(ctx); err != nil {
		return err
	}
	if err := w.caughtUp(ctx, 60*time.Second); err != nil {
		return fmt.Errorf("after %s: %w", f.name, err)
	}
	if w.handlers != nil {
		if err := w.handlers.handling(ctx, 100); err != nil {
			return fmt.Errorf("after %s: %w", f.name, err)
		}
	}
	for _, pattern := range f.says {
		if !w.said(marks, pattern) {
			return fmt.Errorf("%s: no relay said anything like %q", f.name, pattern)
		}
	}
	return nil
}

// said reports whether a relay has logged something like the pattern.
func (w *World) said(marks []int, pattern string) bool {
	re := regexp.MustCompile(pattern)
	for i, r := range w.relays {
		mark := 0
		if i < len(marks) {
			mark = marks[i]
		}
		if re.MatchString(r.log.Since(mark)) {
			return true
		}
	}
	return false
}

// judge lets everything come to its end, and says which promises were broken.
func (w *World) judge(ctx context.Context) ([]string, error) {
	w.writers.stop()
	if w.judged {
		return nil, nil
	}
	if err := w.heal(ctx); err != nil {
		return nil, err
	}
	if err := w.commitPrepared(ctx); err != nil {
		return nil, err
	}
	if err := w.quiet(ctx); err != nil {
		return nil, err
	}
	if err := w.readToTheEnd(ctx); err != nil {
		return nil, err
	}
	var found []string
	if w.handlers != nil {
		var err error
		if found, err = w.handlers.judge(ctx); err != nil {
			return nil, err
		}
	}
	for _, r := range w.relays {
		if err := r.stop(ctx); err != nil {
			found = append(found, err.Error())
		}
		for _, bad := range []string{"panic:", "DATA RACE", "fatal error:"} {
			if strings.Contains(r.log.Since(0), bad) {
				found = append(found, r.name+" has a "+bad+" in its log")
			}
		}
	}
	w.cancel()
	w.watching.Wait()
	s, err := w.story(ctx)
	if err != nil {
		return nil, err
	}
	found = append(found, s.violations()...)
	if len(found) > 0 {
		err = s.write(filepath.Join(w.dir, "story.txt"))
	}
	return found, err
}

// quiet waits until everything is settled for good: what is committed may
// go to the delay table, what that gives back may fail again, and in between it
// is only in the write-ahead log.
func (w *World) quiet(ctx context.Context) error {
	const enough = 10
	return until(ctx, 120*time.Second, "everything is settled", func(ctx context.Context) error {
		for range enough {
			if err := w.nothingWaits(ctx); err != nil {
				return err
			}
			if err := w.caughtUp(ctx, 60*time.Second); err != nil {
				return err
			}
			sleep(ctx, 30*time.Millisecond)
		}
		return nil
	})
}

// nothingWaits looks for events in the delay table that are neither failed nor
// discarded.
func (w *World) nothingWaits(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.pgURL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var n int
	var ids string
	if err := conn.QueryRow(ctx, `
		SELECT count(*), coalesce(left(string_agg(id || ' ' || state, ', '), 300), '') FROM walrelay.delayed
		WHERE state NOT IN ('failed', 'discarded')`).Scan(&n, &ids); err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%d events do: %s", n, ids)
	}
	return nil
}

// commitPrepared ends what a crash has left between its two phases.
func (w *World) commitPrepared(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.pgURL())
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	return commitPrepared(ctx, conn, "chaos-")
}

// readToTheEnd waits until the reader has everything that is in the stream.
func (w *World) readToTheEnd(ctx context.Context) error {
	return until(ctx, 60*time.Second, "the stream is read", func(ctx context.Context) error {
		info, err := w.streamInfo(ctx)
		if err != nil {
			return err
		}
		if w.setting.queue {
			if info.State.Msgs > 0 {
				return fmt.Errorf("%d messages are in the queue", info.State.Msgs)
			}
			return nil
		}
		if through := w.reader.through(); through < info.State.LastSeq && info.State.Msgs > 0 {
			return fmt.Errorf("it is read to %d of %d", through, info.State.LastSeq)
		}
		return nil
	})
}

// story collects what there is to judge by.
func (w *World) story(ctx context.Context) (*story, error) {
	conn, err := pgx.Connect(ctx, w.pgURL())
	if err != nil {
		return nil, fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	s := &story{
		transactions: w.ledger.transactions, stream: w.reader.all(), flushes: w.flushes, published: w.published,
		peaks: make(map[string]int64), memoryLimit: memoryLimit, reorders: w.reorders,
		lost: w.lost, repairedBelow: w.repairedBelow,
	}
	if w.foreign {
		s.stream = slices.DeleteFunc(s.stream, func(m stored) bool { return m.id == "" || strings.HasPrefix(m.id, forgedPrefix) })
	}
	if w.setting.queue {
		slices.SortFunc(s.stream, func(a, b stored) int { return cmp.Compare(a.sequence, b.sequence) })
	}
	for _, r := range w.relays {
		s.peaks[r.name] = r.peak
	}
	if s.witness, err = readWitness(ctx, conn); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, "SELECT id, state, coalesce(last_error, '') FROM walrelay.delayed")
	if err != nil {
		return nil, fmt.Errorf("reading the delay table: %w", err)
	}
	if s.delayed, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d delayed, err error) {
		return d, row.Scan(&d.id, &d.state, &d.lastError)
	}); err != nil {
		return nil, fmt.Errorf("reading the delay table: %w", err)
	}
	return s, nil
}

// close ends everything that runs.
func (w *World) close() error {
	if w.writers != nil {
		w.writers.stop()
	}
	if w.cancel != nil {
		w.cancel()
	}
	w.watching.Wait()
	for _, r := range w.relays {
		if r.process != nil {
			r.process.Kill()
		}
		r.log.close()
	}
	var errs []error
	if w.handlers != nil {
		errs = append(errs, w.handlers.close())
	}
	if w.nc != nil {
		w.nc.Close()
	}
	for _, s := range w.nats {
		if s.process != nil {
			s.process.Kill()
		}
	}
	if w.net != nil {
		w.net.Kill()
	}
	for i, pg := range []*localpg.Cluster{w.pg, w.spare} {
		if pg != nil {
			errs = append(errs, os.WriteFile(filepath.Join(w.dir, fmt.Sprintf("postgres-%d.log", i)), []byte(pg.LogTail(5000)), 0o600), pg.Close())
		}
	}
	for _, dir := range w.volumes {
		errs = append(errs, unmount(dir))
	}
	for _, log := range w.logs {
		log.close()
	}
	return errors.Join(append(errs, w.hist.Close())...)
}
