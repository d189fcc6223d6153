package inbox_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/inbox"
)

const partitionedSubjects = "events.{partition:8}.{type}"

func partitioned(cfg *inbox.Config) { cfg.Subject = partitionedSubjects }

func effects() *inbox.Registry {
	r := &inbox.Registry{}
	inbox.On(r, "billing", inbox.All(), func(ctx context.Context, tx pgx.Tx, ev inbox.Event[order]) error {
		return effect(ctx, tx, ev.CloudEvent)
	}, inbox.Lanes(2))
	return r
}

// active counts the partitions that a process handles.
func (p *process) active() int {
	n := 0
	p.status.Range(func(_, value any) bool {
		if s, ok := value.(inbox.Status); ok && s.Active {
			n++
		}
		return true
	})
	return n
}

func TestPartitions_AreSpreadOverTheProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 20 seconds")
	}
	t.Parallel()
	w := newWorld(t)
	w.partitions = 8
	stop := make(chan struct{})
	published := 0
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for _, m := range numbered(9999, 50) {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			w.publish(m)
			published++
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		publishing.Wait()
	})
	defer end()
	var processes []*process
	spread := func() []int {
		var counts []int
		for _, p := range processes {
			counts = append(counts, p.active())
		}
		slices.Sort(counts)
		return counts
	}
	for range 3 {
		processes = append(processes, w.start(effects(), partitioned))
	}
	defer func() {
		if t.Failed() {
			t.Log(spread())
		}
	}()
	eventually(t, "three processes have 2, 3 and 3", func() bool { return slices.Equal(spread(), []int{2, 3, 3}) })
	processes[0].stop()
	processes = processes[1:]
	eventually(t, "two processes have 4 and 4", func() bool { return slices.Equal(spread(), []int{4, 4}) })
	processes = append(processes, w.start(effects(), partitioned))
	eventually(t, "a new process gets its share", func() bool { return slices.Equal(spread(), []int{2, 3, 3}) })
	end()
	eventually(t, "all effects", func() bool { return w.count("SELECT count(*) FROM effects") >= published })
	for _, p := range processes {
		p.stop()
	}
	w.inOrder(published)
}

// The keys of one partition are worked on by all lanes, and have marks of their own.
func TestPartitions_HaveMarksOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(sent{id: "before", kind: "order.placed", key: "k1", data: order{}})
	w.partitions = 8
	w.publish(numbered(300, 300)...)
	p := w.start(effects(), partitioned)
	eventually(t, "all effects", func() bool { return w.count("SELECT count(*) FROM effects") == 300 })
	if n := w.count("SELECT count(DISTINCT bucket % 64) FROM walrelay.marks WHERE position <> '' AND bucket BETWEEN 64 AND 127"); n < 20 {
		t.Errorf("the keys of partition 0 have %d buckets", n)
	}
	p.stop()
	// Back to the former layout: the marks of the partitions hide nothing.
	w.start(effects())
	eventually(t, "what was left is handled", func() bool { return w.count("SELECT count(*) FROM effects WHERE id = 'before'") == 1 })
}

func TestPartitions_WithoutTheBucketOfMembersAreHandled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.partitions = 8
	// Somebody's stream has the bucket's subjects.
	if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"$KV.walrelay_inbox.>"}, Sealed: false, MaxMsgSize: 1, NoAck: true}); err != nil {
		t.Fatal(err)
	}
	w.publish(numbered(100, 20)...)
	w.start(effects(), partitioned)
	eventually(t, "all effects", func() bool { return w.count("SELECT count(*) FROM effects") == 100 })
}

func TestPartitions_TemplatesThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, template := range []string{"events.{partition:0}.{type}", "events.{partition:257}.{type}", "events.{type}.{partition:8}"} {
		err := inbox.Run(t.Context(), inbox.Config{NATS: w.nc, Pool: w.pool, Subject: template}, effects())
		if err == nil {
			t.Errorf("%s is accepted", template)
		} else {
			t.Log(err)
		}
	}
}
