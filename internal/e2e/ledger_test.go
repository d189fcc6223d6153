package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/testkit"
)

// payload is what the writers of these tests put into an event, so that a
// reader of the stream can tell what is missing, doubled or out of order.
type payload struct {
	Writer int `json:"writer"`
	Tx     int `json:"tx"`    // of the writer, from 0, committed ones only
	Index  int `json:"index"` // in the transaction, from 0
	Of     int `json:"of"`    // events in the transaction
	// Serial is from a row that the transaction locked until its commit, so
	// transactions that have one commit in its order; 0 without.
	Serial int  `json:"serial"`
	Ghost  bool `json:"ghost,omitempty"` // of a rolled back transaction or savepoint
}

// stored is a message that a stream has.
type stored struct {
	id       string
	subject  string
	position string
	payload  payload
	header   nats.Header
	data     []byte
}

// readStream reads every message of a stream, in its order.
func readStream(t testing.TB, nc *nats.Conn, name string) []stored {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, name)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	info, err := stream.Info(ctx)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	var all []stored
	last := uint64(0)
	for failures := 0; uint64(len(all)) < info.State.Msgs; {
		// A consumer of its own from where the last one stopped: a leader
		// that has just changed may leave one without an answer.
		consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: last + 1,
		})
		n := len(all)
		if err == nil {
			err = readBatches(consumer, int(info.State.Msgs), &all, &last)
		}
		if len(all) > n {
			failures = 0
		} else if failures++; failures > 5 {
			t.Fatalf("reading stream %s: %d of %d messages, then none (%v)", name, n, info.State.Msgs, err)
		}
	}
	return all
}

// readBatches appends what a consumer delivers, until there are want messages
// or it delivers none.
func readBatches(consumer jetstream.Consumer, want int, all *[]stored, last *uint64) error {
	for len(*all) < want {
		batch, err := consumer.Fetch(min(5000, want-len(*all)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return err
		}
		n := len(*all)
		for msg := range batch.Messages() {
			s := stored{
				id:      msg.Headers().Get("ce-id"),
				subject: msg.Subject(),
				header:  msg.Headers(),
				data:    msg.Data(),
			}
			s.position, _, _ = strings.Cut(msg.Headers().Get("Walrelay-Position"), " ")
			_ = json.Unmarshal(msg.Data(), &s.payload)
			if meta, err := msg.Metadata(); err == nil {
				*last = meta.Sequence.Stream
			}
			*all = append(*all, s)
		}
		if len(*all) == n {
			return batch.Error()
		}
	}
	return nil
}

// writers are goroutines that write transactions until stopped, over errors
// and crashes of the server. A commit without an answer is resolved by asking
// the database afterwards, not by guessing.
type writers struct {
	t     testing.TB
	url   string
	stop  context.CancelFunc
	group sync.WaitGroup
}

// startWriters starts n of them on the database, each with commits, rollbacks
// and savepoints.
func startWriters(t testing.TB, url string, n int, pause time.Duration) *writers {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w := &writers{t: t, url: url, stop: stop}
	testkit.Exec(t, url, "CREATE TABLE IF NOT EXISTS serial (n int); INSERT INTO serial SELECT 0 WHERE NOT EXISTS (SELECT FROM serial)")
	for i := range n {
		w.group.Go(func() { w.write(ctx, i, pause) })
	}
	t.Cleanup(w.end)
	return w
}

// end stops the writers and waits for them.
func (w *writers) end() {
	w.stop()
	w.group.Wait()
}

func (w *writers) write(ctx context.Context, writer int, pause time.Duration) {
	random := rand.New(rand.NewPCG(uint64(writer), 7))
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	for tx := 0; ctx.Err() == nil; {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, w.url); err != nil {
				conn = nil
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			// After a crash only the database knows whether the last commit
			// went through.
			row := conn.QueryRow(ctx, "SELECT coalesce(max((data->>'tx')::int) + 1, 0) FROM public.outbox WHERE (data->>'writer')::int = $1 AND NOT data ? 'ghost'", writer)
			if err := row.Scan(&tx); err != nil {
				_ = conn.Close(context.Background())
				continue
			}
		}
		// The writer's context ends between transactions, not inside them.
		committed, err := writeTransaction(context.WithoutCancel(ctx), conn, random, writer, tx)
		if err != nil {
			_ = conn.Close(context.Background())
			continue
		}
		if committed {
			tx++
		}
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

var errRollback = errors.New("rolled back on purpose")

func writeTransaction(ctx context.Context, conn *pgx.Conn, random *rand.Rand, writer, tx int) (committed bool, err error) {
	err = pgx.BeginFunc(ctx, conn, func(sql pgx.Tx) error {
		p := payload{Writer: writer, Tx: tx, Of: 1 + random.IntN(5)}
		if random.IntN(3) == 0 {
			if err := sql.QueryRow(ctx, "UPDATE serial SET n = n + 1 RETURNING n").Scan(&p.Serial); err != nil {
				return err
			}
		}
		insert := func(q pgx.Tx, p payload) error {
			data, err := json.Marshal(p)
			if err != nil {
				return err
			}
			_, err = q.Exec(ctx, "INSERT INTO public.outbox (event_type, source, data, partition_key) VALUES ($1, '/e2e', $2, $3)",
				fmt.Sprintf("order.w%d", writer), string(data), fmt.Sprint(writer))
			return err
		}
		rollback := random.IntN(5) == 0
		for p.Index = range p.Of {
			if random.IntN(6) == 0 {
				ghost := p
				ghost.Ghost = true
				err := pgx.BeginFunc(ctx, sql, func(savepoint pgx.Tx) error {
					if err := insert(savepoint, ghost); err != nil {
						return err
					}
					return errRollback
				})
				if !errors.Is(err, errRollback) {
					return err
				}
			}
			row := p
			row.Ghost = rollback
			if err := insert(sql, row); err != nil {
				return err
			}
		}
		if rollback {
			return errRollback
		}
		return nil
	})
	if errors.Is(err, errRollback) {
		return false, nil
	}
	return err == nil, err
}

// awaitLedger waits until everything is published, and checks that the stream
// has what was committed.
func (e *env) awaitLedger() {
	e.t.Helper()
	e.awaitCaughtUp()
	checkLedger(e.t, e.postgresURL, readStream(e.t, e.nats(), "EVENTS"))
}

// checkLedger compares what a stream has with what the outbox table has: each
// committed event once, nothing else, transactions whole and in commit order.
func checkLedger(t testing.TB, url string, messages []stored) {
	t.Helper()
	committed := outboxIDs(t, url)
	if len(committed) == 0 {
		t.Fatal("nothing was written; this test shows nothing")
	}
	seen := make(map[string]int, len(messages))
	type at struct{ tx, index, of int }
	last := map[int]at{}
	serial, ghosts, doubled, swapped, torn := 0, 0, 0, 0, 0
	lastPosition := ""
	current := payload{}
	for i, m := range messages {
		seen[m.id]++
		if seen[m.id] == 2 {
			doubled++
			t.Logf("event %s is in the stream again at message %d of %d", m.id, i+1, len(messages))
		}
		p := m.payload
		if p.Ghost {
			ghosts++
		}
		if m.position <= lastPosition {
			swapped++
			t.Logf("message %d has position %s after %s", i+1, m.position, lastPosition)
		}
		lastPosition = m.position
		if prev, ok := last[p.Writer]; ok {
			follows := p.Tx == prev.tx && p.Index == prev.index+1 || p.Tx == prev.tx+1 && p.Index == 0 && prev.index == prev.of-1
			if !follows {
				swapped++
				t.Logf("message %d: writer %d: transaction %d event %d follows transaction %d event %d of %d",
					i+1, p.Writer, p.Tx, p.Index, prev.tx, prev.index, prev.of)
			}
		}
		last[p.Writer] = at{p.Tx, p.Index, p.Of}
		if p.Index > 0 && (p.Writer != current.Writer || p.Tx != current.Tx) {
			torn++
		}
		current = p
		if p.Serial > 0 && p.Index == 0 {
			if p.Serial <= serial {
				swapped++
				t.Logf("message %d: the transaction with serial %d stands after the one with %d", i+1, p.Serial, serial)
			}
			serial = p.Serial
		}
	}
	missing := 0
	for id := range committed {
		if seen[id] == 0 {
			missing++
			if missing <= 5 {
				t.Logf("event %s (%s) is missing", id, committed[id])
			}
		}
	}
	phantoms := 0
	for id := range seen {
		if _, ok := committed[id]; !ok {
			phantoms++
		}
	}
	if missing+phantoms+ghosts+doubled+swapped+torn > 0 {
		t.Errorf("of %d committed events %d are missing, %d doubled, %d out of order, %d in torn transactions; %d messages are of no committed event, %d of a rolled back one",
			len(committed), missing, doubled, swapped, torn, phantoms, ghosts)
	} else {
		t.Logf("%d events: each once, in order", len(committed))
	}
}

func outboxIDs(t testing.TB, url string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	conn := testkit.Connect(t, url)
	rows, err := conn.Query(t.Context(), "SELECT id::text, coalesce(data::text, '') FROM public.outbox")
	if err != nil {
		t.Fatal(err)
	}
	var id, data string
	if _, err := pgx.ForEachRow(rows, []any{&id, &data}, func() error { ids[id] = data; return nil }); err != nil {
		t.Fatal(err)
	}
	return ids
}

// execScript runs statements one by one, so that each that is not between
// BEGIN and COMMIT is a transaction of its own.
func execScript(t testing.TB, url, script string) {
	t.Helper()
	conn := testkit.Connect(t, url)
	for statement := range strings.SplitSeq(strings.TrimSuffix(script, ";"), ";") {
		if _, err := conn.PgConn().Exec(context.Background(), statement).ReadAll(); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
