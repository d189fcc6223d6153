package relay

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/telemetry"
	"github.com/walrelay/walrelay/replication"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// frontier takes tickets back.
type frontier interface {
	Settle(ticket replication.Ticket)
}

// settler settles events, and says in metrics, logs and readiness what becomes of
// them. Safe for concurrent use; it does not block.
type settler struct {
	frontier frontier
	metrics  *telemetry.Metrics
	health   *health
	log      zerolog.Logger
	limits   limits
	burst    *burst
	tracer   *tracer // nil for none

	settled atomic.Uint64 // counts events
	// lastCommit is when the transaction of the last event that was settled committed, in
	// nanoseconds of Unix time; of the first one that was read as long as none is.
	lastCommit atomic.Int64
}

// Outcomes that the router does not know.
const (
	outcomeAlreadyStored  = "already_stored"
	outcomeAlreadyDelayed = "already_delayed"
	outcomeMoved          = "moved"
)

// Settled implements [router.Observer].
func (s *settler) Settled(ticket uint64, outcome router.Outcome, ev *event.Event, stream string, took time.Duration) {
	s.metrics.Outcomes[outcome].Inc()
	if outcome == router.Published {
		s.metrics.Published(took, ev.CommittedAt)
		if s.tracer != nil {
			s.tracer.published(ev, stream, took)
		}
	}
	s.done(ticket, ev)
}

// read says that an event was read.
func (s *settler) read(ev *event.Event) {
	if s.lastCommit.Load() == 0 {
		s.lastCommit.CompareAndSwap(0, ev.CommittedAt.UnixNano())
	}
}

// settle settles an event that the router does not get.
func (s *settler) settle(ticket uint64, outcome string, ev *event.Event) {
	s.metrics.Events.WithLabelValues(outcome).Inc()
	s.done(ticket, ev)
}

func (s *settler) done(ticket uint64, ev *event.Event) {
	s.settled.Add(1)
	s.lastCommit.Store(ev.CommittedAt.UnixNano())
	s.frontier.Settle(replication.Ticket(ticket))
}

// Paused implements [router.Observer].
func (s *settler) Paused(stream string, reason error) {
	s.health.setPaused(stream, reason)
	gauge := s.metrics.Paused.WithLabelValues(stream)
	if reason == nil {
		gauge.Set(0)
		s.log.Info().Str("stream", stream).Msg("stream resumed")
		return
	}
	gauge.Set(1)
	text := "stream paused; trying again"
	if _, ok := errors.AsType[*router.Loss](reason); ok {
		text = "stream paused; verifying that events are lost"
	}
	s.log.Warn().Str("stream", stream).Err(reason).Msg(text)
}

// Split implements [router.Observer].
func (s *settler) Split(string) { s.metrics.Split.WithLabelValues(router.SplitRefused).Inc() }

// failed says that an event could not be published.
func (s *settler) failed(entry *retry.Entry, reason error) {
	class := telemetry.FailureRefused
	if entry.Kind != "" && !errors.Is(reason, decode.ErrTooLarge) {
		class = telemetry.FailureMalformed
	}
	s.metrics.Failures.WithLabelValues(class).Inc()
	s.limits.refused(reason)
	ev := entry.Event
	if !s.burst.admit(failureKind{ev.Schema + "." + ev.Table, clip(ev.Type), entry.State}, oneLine(reason)) {
		return
	}
	line := s.log.Warn()
	text := "event could not be published; trying again"
	if entry.State == retry.Failed {
		line = s.log.Error()
		text = `event failed; see "walrelay delayed show", and redrive or discard it`
	}
	line = line.Str("id", clip(ev.ID)).Str("type", clip(ev.Type)).
		Str("table", ev.Schema+"."+ev.Table).Str("lsn", ev.Position.LSN()).Int("attempts", entry.Attempts).Str("reason", oneLine(reason))
	if entry.State == retry.Retrying {
		line = line.Stringer("in", entry.Wait.Round(time.Millisecond))
	}
	line.Msg(text)
}

// batchSplit says that a transaction is published event by event, why in the
// router's word and in a sentence.
func (s *settler) batchSplit(at event.Position, split string, reason error) {
	s.metrics.Split.WithLabelValues(split).Inc()
	s.log.Warn().Str("lsn", at.LSN()).Str("reason", oneLine(reason)).
		Msg("transaction cannot be one batch; publishing its events one by one")
}

// batchFailed says that a transaction cannot be published as one batch, and its
// events, of which there are some as yet, fail.
func (s *settler) batchFailed(at event.Position, split string, reason error, events int) {
	s.metrics.Split.WithLabelValues(split).Inc()
	s.metrics.Failures.WithLabelValues(telemetry.FailureRefused).Add(float64(events))
	s.log.Error().Str("lsn", at.LSN()).Str("reason", oneLine(reason)).
		Msg(`transaction cannot be one batch, and its events failed; see "walrelay delayed list", and redrive or discard them`)
}

// batchFailedMore says that so many events more of that transaction fail.
func (s *settler) batchFailedMore(events int) {
	s.metrics.Failures.WithLabelValues(telemetry.FailureRefused).Add(float64(events))
}

// longestText is how many bytes of a value a log line has.
const longestText = 500

// clip shortens a value for a log line: a row may have hundreds of megabytes.
func clip(text string) string {
	if len(text) <= longestText {
		return text
	}
	return strings.ToValidUTF8(text[:longestText], "") + "…"
}

// oneLine puts the text of an error that lists several attempts on one line.
func oneLine(err error) string {
	text := err.Error()
	if len(text) > 8*longestText {
		text = text[:8*longestText]
	}
	return clip(strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " "))
}
