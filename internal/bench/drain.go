package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/walrelay/walrelay/internal/child"
)

// noProgress is after how long without another event a relay is given up.
const noProgress = time.Minute

// drain measures round after round: a backlog is written while no relay runs,
// the limits are measured on it, and then a relay drains it.
func (b *bench) drain(ctx context.Context) (*Drain, error) {
	load := newWorkload(b.opts.Parameters)
	d := &Drain{}
	for i := range b.opts.Parameters.Rounds {
		round, err := b.round(ctx, load, i)
		if err != nil {
			return nil, err
		}
		d.Rounds = append(d.Rounds, round)
	}
	d.summarise()
	return d, nil
}

func (b *bench) round(ctx context.Context, load *workload, number int) (r Round, err error) {
	p := b.opts.Parameters
	before := b.usage(nil)
	// The relay's slot is past the backlogs before; the other is not yet.
	if err := b.awaitUnused(ctx, bareSlot); err != nil {
		return r, err
	}
	if _, err := b.conn.Exec(ctx, "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", bareSlot); err != nil {
		return r, fmt.Errorf("advancing slot %q: %w", bareSlot, err)
	}
	first := number * p.Events
	say := func(format string, args ...any) {
		b.opts.progress("round %d of %d: "+format, append([]any{number + 1, p.Rounds}, args...)...)
	}
	say("writing %d events …", p.Events)
	taken, err := b.writeBacklog(ctx, load, first, p.Events)
	if err != nil {
		return r, err
	}
	r.WritePerS = rate(p.Events, taken)
	if b.cluster != nil {
		// Or it comes by itself, at some time.
		if _, err := b.conn.Exec(ctx, "CHECKPOINT"); err != nil {
			return r, fmt.Errorf("making a checkpoint: %w", err)
		}
	}
	say("reading them with a bare reader …")
	reading := b.usage(nil)
	if r.BareReaderPerS, err = b.bareReader(ctx, p.Events); err != nil {
		return r, err
	}
	publishing := b.usage(nil)
	reader := publishing.since(reading)
	say("publishing them with a bare publisher …")
	if r.BarePublisherPerS, err = b.barePublisher(ctx, load, first, p.Events); err != nil {
		return r, err
	}
	publisher := b.usage(nil).since(publishing)
	r.limits(reader, publisher, p.Events)
	synchronous := min(p.SyncEvents, p.Events)
	say("relaying %d of them one by one …", synchronous)
	if r.SynchronousPerS, err = b.synchronous(ctx, synchronous); err != nil {
		return r, err
	}
	if err := b.js.DeleteStream(ctx, bareStream); err != nil {
		return r, fmt.Errorf("deleting stream %q: %w", bareStream, err)
	}
	say("draining them with walrelay …")
	if err := b.relayBacklog(ctx, &r); err != nil {
		return r, err
	}
	r.StealRatio = b.usage(nil).since(before).steal()
	r.RelayToBareReader = r.RelayPerS / r.BareReaderPerS
	r.RelayToBarePublisher = r.RelayPerS / r.BarePublisherPerS
	r.RelayToSynchronous = r.RelayPerS / r.SynchronousPerS
	return r, nil
}

// limits says what processor time the two limits took, each for itself.
func (r *Round) limits(reader, publisher usage, events int) {
	r.BareReaderCPUPerEventUs = perEvent(reader.own, events)
	r.BareReaderPostgresCPUPerEventUs = perEvent(reader.postgres, events)
	r.BarePublisherCPUPerEventUs = perEvent(publisher.own, events)
	r.BarePublisherNATSCPUPerEventUs = perEvent(publisher.nats, events)
}

// relayBacklog runs a relay until it has published the backlog.
func (b *bench) relayBacklog(ctx context.Context, r *Round) (err error) {
	events := b.opts.Parameters.Events
	behind, err := b.lastSequence(ctx)
	if err != nil {
		return err
	}
	before := b.usage(nil)
	relay, err := b.startRelay()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Stop(relay.Terminate, relayStop)) }()
	if err := b.awaitSequence(ctx, relay, behind+uint64(events)); err != nil {
		return err
	}
	used := b.usage(relay).since(before)
	r.RelayPeakMemoryBytes = float64(child.PeakMemory(relay.PID()))
	r.RelayCPUPerEventUs = perEvent(used.relay, events)
	r.PostgresCPUPerEventUs = perEvent(used.postgres, events)
	r.NATSCPUPerEventUs = perEvent(used.nats, events)
	if used.postgres > 0 && used.nats > 0 {
		r.ServersPerS = float64(runtime.NumCPU()) * 1e6 / perEvent(used.postgres+used.nats, events)
	}
	r.RelayPerS, err = b.storedRate(ctx, stream, behind, events)
	return err
}

func (b *bench) lastSequence(ctx context.Context) (uint64, error) {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("asking NATS for stream %q: %w", stream, err)
	}
	return s.CachedInfo().State.LastSeq, nil
}

// awaitSequence waits until the relay's stream has come so far. When that was
// is not measured here, so there is no hurry to see it.
func (b *bench) awaitSequence(ctx context.Context, relay *child.Process, want uint64) error {
	last, since := uint64(0), time.Now()
	for {
		now, err := b.lastSequence(ctx)
		if err != nil {
			return err
		}
		if now >= want {
			return nil
		}
		if err := relay.Ended(); err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > noProgress {
			return fmt.Errorf("the relay has published nothing for %v; stream %q is at %d of %d, and the relay said: %s", noProgress, stream, now, want, relay.Words())
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
