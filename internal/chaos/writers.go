package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// writers are the applications: each writes one transaction after the other,
// of every sort, over a connection of its own that is past the proxy.
type writers struct {
	url    func() string
	hist   *History
	ledger *ledger
	pause  time.Duration // between two transactions of a writer

	group  sync.WaitGroup
	cancel context.CancelFunc

	mu      sync.Mutex
	paused  chan struct{} // closed when writing goes on; nil while it does
	waiting int           // how many writers do
}

// writerCount is how many applications there are.
const writerCount = 4

// startWriters begins to write; what is written depends on the seed alone, when
// and in which order it is committed does not.
func startWriters(ctx context.Context, seed uint64, pause time.Duration, url func() string, hist *History, ledger *ledger) *writers {
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{url: url, hist: hist, ledger: ledger, pause: pause, cancel: cancel}
	for n := range writerCount {
		rng := newRand(seed, uint64(n))
		w.group.Go(func() { w.write(ctx, n, rng) })
	}
	return w
}

// stop ends the writing; a transaction under way is finished.
func (w *writers) stop() {
	w.resume()
	w.cancel()
	w.group.Wait()
}

// hold makes the writers wait before their next transaction.
func (w *writers) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused == nil {
		w.paused = make(chan struct{})
	}
}

func (w *writers) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused != nil {
		close(w.paused)
		w.paused = nil
	}
}

func (w *writers) wait(ctx context.Context) {
	w.mu.Lock()
	paused := w.paused
	if paused != nil {
		w.waiting++
	}
	w.mu.Unlock()
	if paused == nil {
		return
	}
	select {
	case <-paused:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting--
}

// idle waits until all writers wait: no transaction is under way.
func (w *writers) idle(ctx context.Context) error {
	return until(ctx, 30*time.Second, "no writer has a transaction under way", func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.waiting < writerCount {
			return fmt.Errorf("%d wait", w.waiting)
		}
		return nil
	})
}

// write is one writer.
func (w *writers) write(ctx context.Context, number int, rng *rand.Rand) {
	a := &application{number: number, rng: rng}
	// A transaction under way is finished when the context ends.
	working := context.WithoutCancel(ctx)
	defer a.disconnect(working)
	for ctx.Err() == nil {
		w.wait(ctx)
		if a.conn == nil || a.conn.IsClosed() {
			if err := a.connect(working, w.url()); err != nil {
				sleep(ctx, 50*time.Millisecond)
				continue
			}
		}
		t, err := a.transaction(working)
		if len(t.events) > 0 {
			w.ledger.add(t)
		}
		w.hist.Add("writer", a.name, "writer", number, "n", a.n, "events", len(t.events), "outcome", [...]string{"unknown", "committed", "rolled back"}[t.outcome])
		if err != nil {
			a.disconnect(working)
		}
		sleep(ctx, w.pause/2+time.Duration(rng.Int64N(int64(w.pause)+1)))
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// application is one writer's state.
type application struct {
	number int
	n      int // transactions so far
	name   string
	rng    *rand.Rand
	conn   *pgx.Conn
}

// statementTimeout ends a transaction whose server has died without a word.
const statementTimeout = 20 * time.Second

func (a *application) connect(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	a.conn = conn
	// What a crash has left between its two phases keeps its locks.
	return commitPrepared(ctx, conn, fmt.Sprintf("chaos-%d-", a.number))
}

// commitPrepared commits the prepared transactions whose names begin so.
func commitPrepared(ctx context.Context, conn *pgx.Conn, prefix string) error {
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, $1)", prefix)
	if err != nil {
		return fmt.Errorf("reading prepared transactions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("reading prepared transactions: %w", err)
	}
	for _, name := range names {
		if _, err := conn.Exec(ctx, "COMMIT PREPARED '"+name+"'"); err != nil {
			return fmt.Errorf("committing %s: %w", name, err)
		}
	}
	return nil
}

func (a *application) disconnect(ctx context.Context) {
	if a.conn != nil {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_ = a.conn.Close(ctx)
		a.conn = nil
	}
}

var errRollback = errors.New("the application rolls back")

// transaction writes one transaction. An error says that the connection is not
// to be used again.
func (a *application) transaction(ctx context.Context) (*transaction, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	a.n++
	sorts := []struct {
		weight int
		name   string
		write  func(context.Context, pgx.Tx, *transaction) error
	}{
		{60, "one event", func(ctx context.Context, tx pgx.Tx, t *transaction) error {
			return a.insert(ctx, tx, t, a.event(plain))
		}},
		{20, "several events", a.several},
		{5, "copied", a.copied},
		{8, "rolled back", a.abandoned},
		{8, "savepoints", a.savepoints},
		{8, "scheduled", func(ctx context.Context, tx pgx.Tx, t *transaction) error {
			return a.insert(ctx, tx, t, a.event(scheduled))
		}},
		{5, "poison", a.poisonous},
		{6, "emitted", a.emitted},
		{4, "inserted and deleted", a.deleted},
		{2, "slow", a.slow},
		{3, "patient", func(ctx context.Context, tx pgx.Tx, t *transaction) error {
			return a.insert(ctx, tx, t, a.event(patient))
		}},
	}
	total := 0
	for _, s := range sorts {
		total += s.weight
	}
	pick := a.rng.IntN(total)
	i := 0
	for ; pick >= sorts[i].weight; i++ {
		pick -= sorts[i].weight
	}
	a.name = sorts[i].name
	t := &transaction{}
	if a.rng.IntN(20) == 0 {
		a.name += ", prepared"
		return t, a.prepared(ctx, t, sorts[i].write)
	}
	tx, err := a.conn.Begin(ctx)
	if err != nil {
		return t, err
	}
	if err := sorts[i].write(ctx, tx, t); err != nil {
		t.outcome = rolledBack
		return t, errors.Join(tx.Rollback(ctx), notRollback(err))
	}
	if err := tx.Commit(ctx); err != nil {
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code[:2] != "57" {
			t.outcome = rolledBack
		}
		return t, err
	}
	t.outcome = committed
	return t, nil
}

func notRollback(err error) error {
	if errors.Is(err, errRollback) {
		return nil
	}
	return err
}

// prepared writes a transaction in two phases. A crash between them leaves it
// prepared: the harness commits what is left at the end.
func (a *application) prepared(ctx context.Context, t *transaction, write func(context.Context, pgx.Tx, *transaction) error) error {
	tx, err := a.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if err := write(ctx, tx, t); err != nil {
		t.outcome = rolledBack
		return errors.Join(tx.Rollback(ctx), notRollback(err))
	}
	name := fmt.Sprintf("'chaos-%d-%d'", a.number, a.n)
	if _, err := tx.Exec(ctx, "PREPARE TRANSACTION "+name); err != nil {
		return err
	}
	_ = tx.Rollback(ctx) // there is none any more
	sleep(ctx, time.Duration(a.rng.IntN(300))*time.Millisecond)
	if a.rng.IntN(4) == 0 {
		if _, err := a.conn.Exec(ctx, "ROLLBACK PREPARED "+name); err != nil {
			return err
		}
		t.outcome = rolledBack
		return nil
	}
	if _, err := a.conn.Exec(ctx, "COMMIT PREPARED "+name); err != nil {
		return err
	}
	t.outcome = committed
	return nil
}

// row is an event's row.
type row struct {
	*expected
	eventType   string
	data        []byte
	dataBytes   []byte
	contentType *string
	extensions  *string
	retries     *int32
}

// event makes an event. Some have a key, of which few have poison, too.
func (a *application) event(k kind) row {
	e := row{
		expected:  &expected{id: a.uuid(), what: k.String(), kind: k, writer: a.number},
		eventType: fmt.Sprintf("chaos.%s.w%d", k, a.number),
		data:      fmt.Appendf(nil, `{"writer": %d, "n": %d, "pad": %q}`, a.number, a.n, strings.Repeat("x", a.rng.IntN(400))),
	}
	switch pick := a.rng.IntN(10); {
	case pick < 4:
		e.key = fmt.Sprintf("key-%d", a.rng.IntN(8))
	case pick == 4:
		e.key = fmt.Sprintf("bad-%d", a.rng.IntN(2))
	}
	switch k {
	case scheduled:
		e.due = time.Now().Add(time.Duration(a.rng.IntN(2000)) * time.Millisecond)
	case patient:
		// Large, but not too large for the server as it usually is.
		e.key = ""
		e.data = fmt.Appendf(nil, `{"pad": %q}`, strings.Repeat("y", maxPayload/2))
		e.retries = new(int32)
		*e.retries = 100000
	case plain, poison:
	}
	return e
}

// uuid makes an id that the seed decides.
func (a *application) uuid() string {
	var b [16]byte
	for i := range b {
		b[i] = byte(a.rng.UintN(256))
	}
	return uuid.UUID(b).String()
}

func (a *application) insert(ctx context.Context, tx pgx.Tx, t *transaction, e row) error {
	t.events = append(t.events, e.expected)
	var due *time.Time
	if !e.due.IsZero() {
		due = &e.due
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO public.outbox (id, event_type, source, data, data_bytes, content_type, extensions, partition_key, scheduled_at, max_retries)
		VALUES ($1, $2, '/chaos', $3, $4, $5, $6, nullif($7, ''), $8, $9)`,
		e.id, e.eventType, e.data, e.dataBytes, e.contentType, e.extensions, e.key, due, e.retries)
	return err
}

func (a *application) several(ctx context.Context, tx pgx.Tx, t *transaction) error {
	for range 2 + a.rng.IntN(20) {
		if err := a.insert(ctx, tx, t, a.event(plain)); err != nil {
			return err
		}
	}
	return nil
}

// copied writes rows that share a place in the write-ahead log.
func (a *application) copied(ctx context.Context, tx pgx.Tx, t *transaction) error {
	var rows [][]any
	for range 50 + a.rng.IntN(200) {
		e := a.event(plain)
		e.key = ""
		t.events = append(t.events, e.expected)
		rows = append(rows, []any{uuid.MustParse(e.id), e.eventType, "/chaos", e.data})
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"public", "outbox"}, []string{"id", "event_type", "source", "data"}, pgx.CopyFromRows(rows))
	return err
}

func (a *application) abandoned(ctx context.Context, tx pgx.Tx, t *transaction) error {
	if err := a.several(ctx, tx, t); err != nil {
		return err
	}
	return errRollback
}

// savepoints rolls a part of the transaction back.
func (a *application) savepoints(ctx context.Context, tx pgx.Tx, t *transaction) error {
	if err := a.insert(ctx, tx, t, a.event(plain)); err != nil {
		return err
	}
	inner := &transaction{}
	sub, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	if err := a.several(ctx, sub, inner); err != nil {
		return err
	}
	if err := sub.Rollback(ctx); err != nil {
		return err
	}
	if sub, err = tx.Begin(ctx); err != nil {
		return err
	}
	if err := a.insert(ctx, sub, t, a.event(plain)); err != nil {
		return err
	}
	if err := sub.Commit(ctx); err != nil {
		return err
	}
	return a.insert(ctx, tx, t, a.event(plain))
}

// deleted leaves no row behind.
func (a *application) deleted(ctx context.Context, tx pgx.Tx, t *transaction) error {
	e := a.event(plain)
	e.rowless = true
	if err := a.insert(ctx, tx, t, e); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "DELETE FROM public.outbox WHERE id = $1", e.id)
	return err
}

// slow commits long after others that began later.
func (a *application) slow(ctx context.Context, tx pgx.Tx, t *transaction) error {
	if err := a.several(ctx, tx, t); err != nil {
		return err
	}
	sleep(ctx, time.Duration(300+a.rng.IntN(1200))*time.Millisecond)
	return a.insert(ctx, tx, t, a.event(plain))
}

// emitted writes no row at all.
func (a *application) emitted(ctx context.Context, tx pgx.Tx, t *transaction) error {
	e := a.event(plain)
	e.rowless = true
	t.events = append(t.events, e.expected)
	_, err := tx.Exec(ctx, "SELECT walrelay.emit_event($1, '/chaos', $2, partition_key => nullif($3, ''), id => $4, slot => $5)",
		e.eventType, e.data, e.key, e.id, slotName)
	return err
}

// poisonous writes an event that cannot be published, among others.
func (a *application) poisonous(ctx context.Context, tx pgx.Tx, t *transaction) error {
	bad := a.event(poison)
	if bad.key != "" {
		bad.key = fmt.Sprintf("bad-%d", a.rng.IntN(2))
	}
	text := func(s string) *string { return &s }
	switch a.rng.IntN(7) {
	case 0:
		bad.what += ": larger than max_payload"
		bad.data = fmt.Appendf(nil, `{"pad": %q}`, strings.Repeat("z", 2*maxPayload))
	case 1:
		bad.what += ": a header of more than 64 KB"
		bad.extensions = text(fmt.Sprintf(`{"long": %q}`, strings.Repeat("h", 70<<10)))
	case 2:
		bad.what += ": a type too long for a subject"
		bad.eventType = "chaos." + strings.Repeat("t", 5000)
	case 3:
		bad.what += ": a line break in an attribute"
		bad.eventType = "chaos.bad\r\nNats-Msg-Id: x"
	case 4:
		bad.what += ": no JSON"
		bad.data, bad.dataBytes, bad.contentType = nil, []byte(`{"half": `), text("application/json")
	case 5:
		bad.what += ": an illegal name of an extension"
		bad.extensions = text(`{"Not-Allowed": "x"}`)
	case 6:
		bad.what += ": no stream takes it"
		bad.eventType = "nowhere"
	}
	if err := a.insert(ctx, tx, t, a.event(plain)); err != nil {
		return err
	}
	if err := a.insert(ctx, tx, t, bad); err != nil {
		return err
	}
	return a.insert(ctx, tx, t, a.event(plain))
}
