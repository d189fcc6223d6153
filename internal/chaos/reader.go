package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// reader reads the stream as a consumer does, and notes every message: some
// are gone again by the end. In a work queue it takes them out.
type reader struct {
	js    jetstream.JetStream
	queue bool

	mu       sync.Mutex
	messages []stored
	seen     map[uint64]bool // sequences, in a work queue
	last     uint64
	stopped  bool // takes nothing out, for a while
	begun    int  // how often it began at the start of the stream
}

// again forgets everything, and begins at the start of the stream.
func (r *reader) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages, r.last = nil, 0
	r.begun++
}

const fetchBatch = 1000

// run reads until the context ends. Whatever fails is tried again.
func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.read(ctx); err != nil {
			sleep(ctx, 50*time.Millisecond)
		}
	}
}

func (r *reader) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if r.queue {
		return r.js.CreateOrUpdateConsumer(ctx, streamName, jetstream.ConsumerConfig{
			Durable: "reader", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second, MaxAckPending: -1,
		})
	}
	r.mu.Lock()
	start := r.last + 1
	r.mu.Unlock()
	return r.js.CreateConsumer(ctx, streamName, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: start,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: 10 * time.Second,
	})
}

var errGap = errors.New("messages are missing in between")

// read reads with one consumer, until it fails.
func (r *reader) read(ctx context.Context) error {
	r.mu.Lock()
	begun := r.begun
	r.mu.Unlock()
	consumer, err := r.consumer(ctx)
	if err != nil {
		return err
	}
	first := true
	for ctx.Err() == nil {
		r.mu.Lock()
		stopped := r.stopped
		r.mu.Unlock()
		if stopped {
			sleep(ctx, 20*time.Millisecond)
			continue
		}
		batch, err := consumer.Fetch(fetchBatch, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		for msg := range batch.Messages() {
			meta, err := msg.Metadata()
			if err != nil {
				return err
			}
			if err := r.take(msg, meta, first, begun); err != nil {
				return err
			}
			first = false
			if r.queue {
				if err := msg.Ack(); err != nil {
					return err
				}
			}
		}
		if err := batch.Error(); err != nil {
			return err
		}
	}
	return nil
}

// take notes a message. A consumer whose answers were lost on the way is given
// up: a new one begins where they are missing. What a new one does not get
// either is not in the stream any more.
func (r *reader) take(msg jetstream.Msg, meta *jetstream.MsgMetadata, first bool, begun int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if begun != r.begun {
		return errGap
	}
	sequence := meta.Sequence.Stream
	if r.queue {
		if r.seen[sequence] {
			return nil
		}
		r.seen[sequence] = true
	} else {
		if sequence != r.last+1 && !first {
			return errGap
		}
		r.last = sequence
	}
	h := msg.Headers()
	r.messages = append(r.messages, stored{
		sequence: sequence, at: meta.Timestamp, id: h.Get("ce-id"), position: firstField(h.Get("Walrelay-Position")),
	})
	return nil
}

func firstField(s string) string {
	for i := range len(s) {
		if s[i] == ' ' {
			return s[:i]
		}
	}
	return s
}

// count is how many messages were read.
func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.messages)
}

// through is the sequence up to which everything was read.
func (r *reader) through() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *reader) stop(stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = stopped
}

// all returns the messages in the order of the stream.
func (r *reader) all() []stored {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]stored(nil), r.messages...)
}
