package inbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/wait"
)

const (
	// membersBucket is the key-value bucket in which processes say that they run a handler, membersStream its stream.
	membersBucket = "walrelay_inbox"
	membersStream = "KV_" + membersBucket
	// A process says so each memberInterval; it counts for memberTTL.
	memberInterval = time.Second
	memberTTL      = 4 * time.Second
	// shareInterval is how often a consumer that may not stand by asks again, and the least
	// time between two partitions that a process gives back; stayOff is how long it does not
	// stand by for one that it gave back.
	shareInterval = 500 * time.Millisecond
	stayOff       = 4 * time.Second
	// unpartitioned is the partition of a consumer that has all of them.
	unpartitioned = -1
)

// partitionsOf returns the number of partitions of a template of subjects, and its
// placeholder; 0 if it has none.
func partitionsOf(template string) (n int, placeholder string, err error) {
	typed := false
	for token := range strings.SplitSeq(template, ".") {
		typed = typed || strings.Contains(token, "{type}")
		name, isPlaceholder := strings.CutPrefix(token, "{")
		name, closed := strings.CutSuffix(name, "}")
		if !isPlaceholder || !closed {
			continue
		}
		if n, err = event.ParsePartitions(name); n > 0 && typed {
			return 0, "", errors.New("{partition:N} must stand before {type}, which is several tokens")
		}
		if n > 0 || err != nil {
			return n, token, err
		}
	}
	return 0, "", nil
}

// durable returns the name of a handler's consumer.
func durable(handler string, partition int) string {
	if partition == unpartitioned {
		return handler
	}
	return handler + "@" + strconv.Itoa(partition)
}

// HandlerOf returns the name of the handler whose consumer it is, of all partitions or of one.
func HandlerOf(consumer string) string {
	handler, _, _ := strings.Cut(consumer, "@")
	return handler
}

// members spreads the partitions of a handler over the processes that run it: each
// takes up to its share, and gives back what it has beyond that. When it is not known how many processes
// there are, each takes what it can get. Safe for concurrent use.
type members struct {
	c          *consumer // any of the handler's
	partitions int
	subject    string // of this process's key

	mu     sync.Mutex
	most   int
	active map[int]bool
	off    map[int]time.Time
	back   time.Time // when one was given back
}

func newMembers(c *consumer, partitions int) *members {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.stream)) // it never fails
	return &members{
		c: c, partitions: partitions, most: partitions, active: make(map[int]bool), off: make(map[int]time.Time),
		subject: fmt.Sprintf("$KV.%s.%016x.%s.", membersBucket, h.Sum64(), c.h.name),
	}
}

// run counts the processes until the context ends.
func (m *members) run(ctx context.Context) {
	own := m.subject + rand.Text()
	for {
		n, err := m.count(ctx, own)
		switch {
		case ctx.Err() != nil:
			m.leave(ctx, own)
			return
		case err != nil:
			n = 1
			m.c.warn("processes are not counted: partitions may be spread unevenly", "bucket", membersBucket, "error", err)
		}
		m.mu.Lock()
		m.most = (m.partitions + n - 1) / max(n, 1)
		m.mu.Unlock()
		_ = wait.For(ctx, memberInterval) // the next turn asks the context
	}
}

// count says that this process is there, and returns how many are.
func (m *members) count(ctx context.Context, own string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	js := m.c.cfg.js
	_, err := js.Publish(ctx, own, []byte(m.c.cfg.Process))
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: membersBucket, Description: "processes that run handlers of walrelay", TTL: memberTTL, Storage: jetstream.MemoryStorage, History: 1,
		})
		if err == nil || errors.Is(err, jetstream.ErrBucketExists) {
			_, err = js.Publish(ctx, own, []byte(m.c.cfg.Process))
		}
	}
	if err != nil {
		return 0, fmt.Errorf("writing %s: %w", own, err)
	}
	stream, err := js.Stream(ctx, membersStream)
	if err != nil {
		return 0, fmt.Errorf("asking for stream %s: %w", membersStream, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(m.subject+"*"))
	if err != nil {
		return 0, fmt.Errorf("asking for stream %s: %w", membersStream, err)
	}
	return len(info.State.Subjects), nil
}

// leave says that this process does not run the handler any more; others would see that by themselves.
func (m *members) leave(ctx context.Context, own string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	if stream, err := m.c.cfg.js.Stream(ctx, membersStream); err == nil {
		_ = stream.Purge(ctx, jetstream.WithPurgeSubject(own)) // it ends by itself, too
	}
}

// activate and deactivate say that a partition is handled by this process, or no more.
func (m *members) activate(partition int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active[partition] = true
}

func (m *members) deactivate(partition int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.active, partition)
}

// mayStand reports whether the process may stand by for a partition.
func (m *members) mayStand(partition int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.most == m.partitions || len(m.active) < m.most && !time.Now().Before(m.off[partition])
}

// giveBack reports whether the process is to leave a partition, which it handles, to
// others.
func (m *members) giveBack(partition int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if len(m.active) <= m.most || now.Sub(m.back) < shareInterval {
		return false
	}
	m.back, m.off[partition] = now, now.Add(stayOff)
	return true
}
