// Package telemetry has the metrics of a relay.
//
// Input: what the parts of the relay say that they do. Output: Prometheus metrics,
// in a registry of each relay's own; docs/operations.md lists their names, which
// are part of the interface. The package must not import what runs a relay.
package telemetry

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// Metrics are what /metrics serves. Their names are part of the interface;
// docs/operations.md lists them.
type Metrics struct {
	Registry *prometheus.Registry

	Events         *prometheus.CounterVec
	Outcomes       [router.Outcomes]prometheus.Counter // of events, for the hot path
	Failures       *prometheus.CounterVec
	Split          *prometheus.CounterVec
	DelayedEvents  *prometheus.GaugeVec
	BlockedKeys    prometheus.Gauge
	OldestDue      prometheus.Gauge
	Lateness       prometheus.Histogram
	TableBlocked   *prometheus.GaugeVec
	CleanedRows    prometheus.Counter
	CleanUps       prometheus.Counter
	RefusedRows    prometheus.Gauge
	PublishLatency prometheus.Histogram
	CommitLatency  prometheus.Histogram
	LagBytes       prometheus.Gauge
	RetainedBytes  prometheus.Gauge
	SafeBytes      prometheus.Gauge
	FlushLSN       prometheus.Gauge
	Reconnects     *prometheus.CounterVec
	Paused         *prometheus.GaugeVec
}

// New registers the metrics; those that are read when asked for come
// from the functions.
func New(inFlight func() float64, lagSeconds func() float64, ready func() float64) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		PublishLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walrelay_publish_latency_seconds",
			Help:    "Time from sending an event to its acknowledgement by JetStream.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16),
		}),
		CommitLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walrelay_commit_latency_seconds",
			Help:    "Time from the commit of an event's transaction, by the database's clock, to its acknowledgement by JetStream.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 20),
		}),
		LagBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_lag_bytes",
			Help: "Bytes of write-ahead log that the slot has not confirmed.",
		}),
		RetainedBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_slot_retained_bytes",
			Help: "Bytes of write-ahead log that the server keeps for the slot.",
		}),
		SafeBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_slot_safe_wal_bytes",
			Help: "Bytes of write-ahead log that may still be written before max_slot_wal_keep_size invalidates the slot; -1 without that limit.",
		}),
		FlushLSN: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_flush_lsn",
			Help: "The LSN, as a number, before which every event is settled and which the slot was told.",
		}),
		Reconnects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_reconnects_total",
			Help: "Connections made again after they were lost.",
		}, []string{"peer"}),
		Paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walrelay_stream_paused",
			Help: "1 while a stream is paused, 0 while it flows.",
		}, []string{"stream"}),
		Events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_events_total",
			Help: "Events by outcome: published; scheduled, retrying, held or failed (in the delay table); dropped (by a route); duplicate (the stream has another event with that source and id); already_stored or already_delayed (by a run before); moved (the row of an event that was read before, in another partition).",
		}, []string{"outcome"}),
		Failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_failures_total",
			Help: "Attempts to publish an event that failed for a reason of its own, by class: malformed (it cannot become an event) or refused (by NATS, or by what a subject may be).",
		}, []string{"class"}),
		Split: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_transactions_split_total",
			Help: "Transactions that could not be published as one batch (publish.atomic), by reason: events (too many), bytes (too large), streams (they go to several) or refused (by the stream, or for one of the events).",
		}, []string{"reason"}),
		DelayedEvents: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walrelay_delayed",
			Help: "Events in the delay table, by state; counted every ten seconds.",
		}, []string{"state"}),
		BlockedKeys: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_blocked_keys",
			Help: "Keys whose later events are held.",
		}),
		OldestDue: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_delayed_oldest_due_seconds",
			Help: "For how long the oldest event in the delay table that is due has been due; 0 when none is.",
		}),
		TableBlocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walrelay_delay_table_blocked",
			Help: "1 while somebody's locks on the delay table keep emission, or publishing, waiting.",
		}, []string{"waiting"}),
		CleanedRows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walrelay_rows_cleaned_total",
			Help: "Rows of published events that were marked or deleted.",
		}),
		RefusedRows: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_rows_refused",
			Help: "Rows of published events that the database refused to delete or mark in the last round, for a foreign key or a trigger.",
		}),
		CleanUps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walrelay_cleanups_total",
			Help: "Times that the outbox tables were looked through for rows to mark or delete.",
		}),
		Lateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walrelay_delay_lateness_seconds",
			Help:    "Time from when an event in the delay table was due until it was emitted.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 18),
		}),
	}
	for o := range m.Outcomes {
		m.Outcomes[o] = m.Events.WithLabelValues(router.Outcome(o).String())
	}
	for _, state := range retry.States() {
		m.Events.WithLabelValues(string(state))
		m.DelayedEvents.WithLabelValues(string(state))
	}
	for _, waiting := range []string{"emission", "publishing"} {
		m.TableBlocked.WithLabelValues(waiting)
	}
	for _, class := range []string{FailureMalformed, FailureRefused} {
		m.Failures.WithLabelValues(class)
	}
	for _, reason := range []string{router.SplitEvents, router.SplitBytes, router.SplitStreams, router.SplitRefused} {
		m.Split.WithLabelValues(reason)
	}
	for _, peer := range []string{"postgres", "nats"} {
		m.Reconnects.WithLabelValues(peer)
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m.Registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.Events, m.Failures, m.TableBlocked, m.Split, m.DelayedEvents, m.BlockedKeys, m.OldestDue, m.Lateness, m.CleanedRows, m.CleanUps, m.RefusedRows, m.PublishLatency, m.CommitLatency, m.LagBytes, m.RetainedBytes, m.SafeBytes, m.FlushLSN, m.Reconnects, m.Paused,
		gauge("walrelay_in_flight", "Events that are sent and are not settled.", inFlight),
		gauge("walrelay_lag_seconds", "Age of the last event that was settled while others wait; of the first that waits, if none was since the session began; 0 when none waits.", lagSeconds),
		gauge("walrelay_ready", "1 while the relay streams, is connected to NATS and holds no stream.", ready),
	)
	return m
}

// Sample is what some metrics say at a moment.
type Sample struct {
	// Published events, and how many of them took up to how many seconds from commit to
	// acknowledgement: each bucket has those of the buckets before.
	Published float64
	Latency   []Bucket
}

// Bucket counts what took up to a number of seconds.
type Bucket struct {
	Seconds float64
	Count   uint64
}

// Sample reads some metrics. Safe for concurrent use.
func (m *Metrics) Sample() Sample {
	var s Sample
	s.Published = value(m.Outcomes[router.Published])
	var read dto.Metric
	if m.CommitLatency.Write(&read) == nil {
		for _, b := range read.GetHistogram().GetBucket() {
			s.Latency = append(s.Latency, Bucket{b.GetUpperBound(), b.GetCumulativeCount()})
		}
		s.Latency = append(s.Latency, Bucket{math.Inf(1), read.GetHistogram().GetSampleCount()})
	}
	return s
}

func value(counter prometheus.Counter) float64 {
	var read dto.Metric
	_ = counter.Write(&read) // it never fails
	return read.GetCounter().GetValue()
}

// Published says that an event was acknowledged.
func (m *Metrics) Published(took time.Duration, committed time.Time) {
	m.PublishLatency.Observe(took.Seconds())
	if !committed.IsZero() {
		m.CommitLatency.Observe(max(0, time.Since(committed)).Seconds())
	}
}

// Emitted implements [retry.Observer].
func (m *Metrics) Emitted(late []time.Duration) {
	for _, d := range late {
		m.Lateness.Observe(max(0, d.Seconds()))
	}
}

// Counted implements [retry.Observer].
func (m *Metrics) Counted(states map[retry.State]int64, keys int, oldest float64) {
	for _, state := range retry.States() {
		m.DelayedEvents.WithLabelValues(string(state)).Set(float64(states[state]))
	}
	m.BlockedKeys.Set(float64(keys))
	m.OldestDue.Set(oldest)
}

// Cleaned implements [retention.Observer].
func (m *Metrics) Cleaned(rows int) { m.CleanedRows.Add(float64(rows)) }

// Round implements [retention.Observer].
func (m *Metrics) Round(refused int) {
	m.CleanUps.Inc()
	m.RefusedRows.Set(float64(refused))
}

// The classes of failures.
const (
	FailureMalformed = "malformed"
	FailureRefused   = "refused"
)
