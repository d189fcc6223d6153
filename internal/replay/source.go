package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/outboxrows"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/tail"
)

// source has the events of a stream or a table, in order. next blocks; ok is false after the
// last one.
type source interface {
	next(ctx context.Context) (e entry, ok bool, err error)
	close()
}

func (r *replay) source(ctx context.Context) (source, error) {
	if r.options.Table != "" {
		return r.rows(ctx)
	}
	return r.messages(ctx)
}

// messages has the messages that are in the stream now.
type messages struct {
	options *Options
	from    jetstream.MessagesContext
	stop    func() bool
	last    uint64 // sequence
	left    bool
}

func (r *replay) messages(ctx context.Context) (*messages, error) {
	o := &r.options
	stream, err := tail.Stream(ctx, r.js, o.Stream)
	if err != nil {
		return nil, err
	}
	info := stream.CachedInfo()
	if info.Config.Retention == jetstream.WorkQueuePolicy {
		return nil, &problem.Problem{
			ID: "replay_queue", What: fmt.Sprintf("stream %q is a work queue", o.Stream), Why: "what was taken out of it is not there any more, and nobody may look at the rest",
			Fix: "replay the rows of the outbox table: --table",
		}
	}
	from := o.From
	if from == (tail.From{}) {
		from.Start = true
	}
	opened, consumer, err := tail.Open(ctx, stream, jetstream.OrderedConsumerConfig{}, from)
	if err != nil {
		return nil, err
	}
	return &messages{options: o, from: opened, stop: context.AfterFunc(ctx, opened.Stop), last: info.State.LastSeq, left: consumer.NumPending > 0}, nil
}

func (m *messages) next(ctx context.Context) (e entry, ok bool, err error) {
	if !m.left {
		return e, false, nil
	}
	msg, err := m.from.Next()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return e, false, fmt.Errorf("reading stream %q: %w", m.options.Stream, err)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return e, false, fmt.Errorf("reading stream %q: %w", m.options.Stream, err)
	}
	until := m.options.Until
	if meta.Sequence.Stream > m.last || until.Sequence > 0 && meta.Sequence.Stream >= until.Sequence || !until.Time.IsZero() && !meta.Timestamp.Before(until.Time) {
		return e, false, nil
	}
	m.left = meta.NumPending > 0 && meta.Sequence.Stream < m.last
	e = entry{at: meta.Timestamp.UTC(), mark: strconv.FormatUint(meta.Sequence.Stream, 10)}
	ev, fault := inbox.Decode(msg)
	if fault == nil {
		e.ev = tail.Event(&ev)
		bare(e.ev, msg.Data())
	}
	return e, true, nil
}

// bare notes which extensions of a message in structured mode are no strings.
func bare(ev *event.Event, data []byte) {
	var members map[string]json.RawMessage
	if len(ev.Extensions) == 0 || json.Unmarshal(data, &members) != nil || members["specversion"] == nil {
		return
	}
	for i := range ev.Extensions {
		raw := members[ev.Extensions[i].Name]
		ev.Extensions[i].Bare = len(raw) > 0 && raw[0] != '"'
	}
}

func (m *messages) close() {
	m.stop()
	m.from.Stop()
}

// rows has the rows of an outbox table.
type rows struct {
	ctx    context.Context //nolint:containedctx // for closing
	reader *outboxrows.Reader
	scan   *outboxrows.Scan
}

func (r *replay) rows(ctx context.Context) (*rows, error) {
	name, err := config.ParseTable(r.options.Table)
	if err != nil {
		return nil, err
	}
	plan, err := r.cfg.Compile()
	if err != nil {
		return nil, err
	}
	reader, err := outboxrows.New(r.cfg, plan.Decode)
	if err != nil {
		return nil, err
	}
	scan, err := reader.Scan(ctx, name, r.options.From.Time, r.options.Until.Time)
	if err != nil {
		return nil, err
	}
	return &rows{ctx: ctx, reader: reader, scan: scan}, nil
}

func (r *rows) next(context.Context) (e entry, ok bool, err error) {
	ev, ok, err := r.scan.Next()
	if _, unreadable := errors.AsType[*decode.RowError](err); unreadable {
		return e, true, nil
	}
	if !ok || err != nil {
		return e, false, err
	}
	e = entry{ev: ev, mark: ev.ID}
	e.at, _ = time.Parse(time.RFC3339Nano, ev.Time) // as the decoder writes it
	return e, true, nil
}

func (r *rows) close() {
	r.scan.Close(r.ctx)
	r.reader.Close(r.ctx)
}
