package bench

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// insert is a transaction of any number of events: one statement, whose COMMIT
// is a part of it.
const insert = `
	INSERT INTO ` + table + ` (event_type, source, subject, data)
	SELECT e.type, '` + source + `', e.subject, e.data::jsonb
	FROM unnest($1::text[], $2::text[], $3::text[]) AS e (type, subject, data)`

const source = "/walrelay/bench"

// workload makes the events: numbered, of several types, with payloads of one
// size that neither Postgres nor NATS can compress. Safe for concurrent use.
type workload struct {
	payload int
	types   []string
	noise   string
}

func newWorkload(p Parameters) *workload {
	w := &workload{payload: p.PayloadBytes, types: make([]string, p.Subjects)}
	for i := range w.types {
		w.types[i] = "bench.type" + strconv.Itoa(i)
	}
	// The same every time, so that runs can be compared.
	random := rand.NewChaCha8([32]byte{})
	bytes := make([]byte, 2*p.PayloadBytes+(64<<10))
	_, _ = random.Read(bytes) // never fails
	w.noise = base64.RawURLEncoding.EncodeToString(bytes)
	return w
}

func (w *workload) eventType(n int) string { return w.types[n%len(w.types)] }

// data is the payload of event n, as Postgres prints jsonb.
func (w *workload) data(n int) string {
	const before, between, after = `{"n": `, `, "pad": "`, `"}`
	number := strconv.Itoa(n)
	size := max(0, w.payload-len(before)-len(number)-len(between)-len(after))
	from := n * 61 % (len(w.noise) - size)
	return before + number + between + w.noise[from:from+size] + after
}

// batch has the columns of a transaction, for [insert].
type batch struct{ types, subjects, data []string }

// fill makes the batch that of events first to first+n-1. The subjects are for
// the caller to set.
func (w *workload) fill(b *batch, first, n int) {
	b.types, b.subjects, b.data = b.types[:0], b.subjects[:0], b.data[:0]
	for i := first; i < first+n; i++ {
		b.types = append(b.types, w.eventType(i))
		b.subjects = append(b.subjects, "")
		b.data = append(b.data, w.data(i))
	}
}

func (b *batch) write(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, insert, b.types, b.subjects, b.data); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}

// writers runs write on as many connections as there are writers, and returns
// when all have returned.
func (b *bench) writers(ctx context.Context, write func(ctx context.Context, writer int, conn *pgx.Conn) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range b.opts.Parameters.Writers {
		conn, err := pgx.Connect(ctx, b.postgres)
		if err != nil {
			return fmt.Errorf("connecting a writer: %w", err)
		}
		group.Go(func() error {
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			return write(ctx, i, conn)
		})
	}
	return group.Wait()
}

// writeBacklog writes events first to first+n-1, as fast as the writers can,
// and returns how long they took.
func (b *bench) writeBacklog(ctx context.Context, load *workload, first, n int) (time.Duration, error) {
	var next atomic.Int64
	per := b.opts.Parameters.PerTx
	started := time.Now()
	err := b.writers(ctx, func(ctx context.Context, _ int, conn *pgx.Conn) error {
		var tx batch
		for {
			at := int(next.Add(int64(per))) - per
			if at >= n {
				return nil
			}
			load.fill(&tx, first+at, min(per, n-at))
			for i := range tx.subjects {
				tx.subjects[i] = strconv.Itoa(first + at + i)
			}
			if err := tx.write(ctx, conn); err != nil {
				return err
			}
		}
	})
	return time.Since(started), err
}
