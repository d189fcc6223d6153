package replay

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/router"
)

// header of a message of a replay: where its original stands, and the replay's name.
const header = "Walrelay-Replay"

// window is how many messages are sent before the acknowledgement of the first is there.
const window = 256

// otherStream publishes events into a stream that no relay writes to. Each message expects
// the one before it to be the last of the stream, so that none overtakes another.
type otherStream struct {
	js       jetstream.JetStream
	name     string
	replay   string
	subject  *router.SubjectTemplate
	last     uint64 // sequence that the next message expects
	resume   string
	pending  []jetstream.PubAckFuture
	acked    int
	encoder  router.Encoder
	subjects []byte
}

func openStream(ctx context.Context, js jetstream.JetStream, o *Options) (*otherStream, error) {
	subject, err := router.ParseSubject(o.Subject)
	if err != nil {
		return nil, fmt.Errorf("the subject %q: %w", o.Subject, err)
	}
	if usesTable(o.Subject) {
		return nil, fmt.Errorf("the subject %q: replayed events have no table", o.Subject)
	}
	stream, err := js.Stream(ctx, o.To)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, &problem.Problem{ID: "replay_stream", What: fmt.Sprintf("stream %q does not exist", o.To), Fix: "make it, or name another one"}
	}
	if err != nil {
		return nil, fmt.Errorf("asking for stream %q: %w", o.To, err)
	}
	t := &otherStream{js: js, name: o.To, replay: o.Name, subject: &subject, last: stream.CachedInfo().State.LastSeq}
	if stream.CachedInfo().State.Msgs == 0 {
		return t, nil
	}
	msg, err := stream.GetMsg(ctx, t.last)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the last message of stream %q: %w", o.To, err)
	}
	if msg.Header.Get(event.PositionHeader) != "" {
		return nil, owned(fmt.Sprintf("a relay writes to stream %q", o.To))
	}
	if mark, name, _ := strings.Cut(msg.Header.Get(header), " "); name == o.Name {
		t.resume = mark
	}
	return t, nil
}

func (t *otherStream) mark() string { return t.resume }

func (*otherStream) begin(context.Context) error { return nil }

func (t *otherStream) put(ctx context.Context, e entry) error {
	var err error
	if t.subjects, err = t.subject.Append(t.subjects[:0], e.ev); err != nil {
		return fmt.Errorf("event %q: %w", event.Clip(e.ev.ID), err)
	}
	// The client keeps the message until it is acknowledged.
	msg := &nats.Msg{Subject: string(t.subjects)}
	t.encoder = router.Encoder{}
	t.encoder.Encode(msg, e.ev, router.Binary)
	t.encoder.Finish(msg)
	msg.Header.Set(header, e.mark+" "+t.replay)
	future, err := t.js.PublishMsgAsync(msg, jetstream.WithExpectStream(t.name), jetstream.WithExpectLastSequence(t.last))
	if err != nil {
		return fmt.Errorf("publishing to stream %q: %w", t.name, err)
	}
	t.last++
	t.pending = append(t.pending, future)
	if len(t.pending) < window {
		return nil
	}
	return t.await(ctx)
}

// await waits for the acknowledgement of the oldest message.
func (t *otherStream) await(ctx context.Context) error {
	future := t.pending[0]
	select {
	case <-future.Ok():
		t.acked++
		t.pending = t.pending[1:]
		return nil
	case err := <-future.Err():
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
			err = fmt.Errorf("no stream takes the subject %s: %w", future.Msg().Subject, err)
		}
		return fmt.Errorf("publishing to stream %q, after %d events: %w; run it again with --name %q, and nobody else writing to the stream", t.name, t.acked, err, t.replay)
	case <-ctx.Done():
		return fmt.Errorf("publishing to stream %q, after %d events: %w", t.name, t.acked, context.Cause(ctx))
	}
}

func (t *otherStream) end(ctx context.Context) error {
	for len(t.pending) > 0 {
		if err := t.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (t *otherStream) done() int { return t.acked }

func (*otherStream) close() {}
