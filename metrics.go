package walrelay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// metrics are what /metrics serves. Their names are part of the interface;
// docs/operations.md lists them.
type metrics struct {
	registry *prometheus.Registry

	events         *prometheus.CounterVec
	outcomes       [router.Dropped + 1]prometheus.Counter // of events, for the hot path
	failures       *prometheus.CounterVec
	apart          *prometheus.CounterVec
	delayed        *prometheus.GaugeVec
	heldKeys       prometheus.Gauge
	oldestDue      prometheus.Gauge
	lateness       prometheus.Histogram
	blocked        *prometheus.GaugeVec
	cleaned        prometheus.Counter
	cleanUps       prometheus.Counter
	refusedRows    prometheus.Gauge
	publishLatency prometheus.Histogram
	commitLatency  prometheus.Histogram
	lagBytes       prometheus.Gauge
	retainedBytes  prometheus.Gauge
	safeBytes      prometheus.Gauge
	flushLSN       prometheus.Gauge
	reconnects     *prometheus.CounterVec
	held           *prometheus.GaugeVec
}

// newMetrics registers the metrics; those that are read when asked for come
// from the functions.
func newMetrics(inFlight func() float64, lagSeconds func() float64, ready func() float64) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		publishLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walrelay_publish_latency_seconds",
			Help:    "Time from sending an event to its acknowledgement by JetStream.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16),
		}),
		commitLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walrelay_commit_latency_seconds",
			Help:    "Time from the commit of an event's transaction, by the database's clock, to its acknowledgement by JetStream.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 20),
		}),
		lagBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_lag_bytes",
			Help: "Bytes of write-ahead log that the slot has not confirmed.",
		}),
		retainedBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_slot_retained_bytes",
			Help: "Bytes of write-ahead log that the server keeps for the slot.",
		}),
		safeBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_slot_safe_wal_bytes",
			Help: "Bytes of write-ahead log that may still be written before max_slot_wal_keep_size invalidates the slot; -1 without that limit.",
		}),
		flushLSN: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_flush_lsn",
			Help: "The LSN, as a number, before which every event has an outcome and which the slot was told.",
		}),
		reconnects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_reconnects_total",
			Help: "Connections made again after they were lost.",
		}, []string{"peer"}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walrelay_stream_held",
			Help: "1 while a stream is held in place, 0 while it flows.",
		}, []string{"stream"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_events_total",
			Help: "Events by outcome: published; scheduled, retrying, held or failed (in the delay table); dropped (by a route); already_stored or already_delayed (by a run before).",
		}, []string{"outcome"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_failures_total",
			Help: "Attempts to publish an event that failed for a reason of its own, by class: malformed (it cannot become an event) or refused (by NATS, or by what a subject may be).",
		}, []string{"class"}),
		apart: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walrelay_transactions_apart_total",
			Help: "Transactions that could not be published as one batch (publish.atomic), by reason: events (too many), bytes (too large), streams (they go to several) or refused (by the stream, or for one of the events).",
		}, []string{"reason"}),
		delayed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walrelay_delayed",
			Help: "Events in the delay table, by state; counted every ten seconds.",
		}, []string{"state"}),
		heldKeys: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_held_keys",
			Help: "Keys whose later events are held.",
		}),
		oldestDue: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_delayed_oldest_due_seconds",
			Help: "For how long the oldest event in the delay table that is due has been due; 0 when none is.",
		}),
		blocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walrelay_delay_table_blocked",
			Help: "1 while somebody's locks on the delay table keep emission, or publishing, waiting.",
		}, []string{"waiting"}),
		cleaned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walrelay_rows_cleaned_total",
			Help: "Rows of published events that were marked or deleted.",
		}),
		refusedRows: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walrelay_rows_refused",
			Help: "Rows of published events that the database refused to delete or mark in the last round, for a foreign key or a trigger.",
		}),
		cleanUps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walrelay_cleanups_total",
			Help: "Times that the outbox tables were looked through for rows to mark or delete.",
		}),
		lateness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walrelay_delay_lateness_seconds",
			Help:    "Time from when an event in the delay table was due until it was emitted.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 18),
		}),
	}
	for o := range m.outcomes {
		m.outcomes[o] = m.events.WithLabelValues(router.Outcome(o).String())
	}
	for _, state := range retry.States() {
		m.events.WithLabelValues(string(state))
		m.delayed.WithLabelValues(string(state))
	}
	for _, waiting := range []string{"emission", "publishing"} {
		m.blocked.WithLabelValues(waiting)
	}
	for _, class := range []string{failureMalformed, failureRefused} {
		m.failures.WithLabelValues(class)
	}
	for _, reason := range []string{router.SplitEvents, router.SplitBytes, router.SplitStreams, router.SplitRefused} {
		m.apart.WithLabelValues(reason)
	}
	for _, peer := range []string{"postgres", "nats"} {
		m.reconnects.WithLabelValues(peer)
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.events, m.failures, m.blocked, m.apart, m.delayed, m.heldKeys, m.oldestDue, m.lateness, m.cleaned, m.cleanUps, m.refusedRows, m.publishLatency, m.commitLatency, m.lagBytes, m.retainedBytes, m.safeBytes, m.flushLSN, m.reconnects, m.held,
		gauge("walrelay_in_flight", "Events that are sent and have no outcome.", inFlight),
		gauge("walrelay_lag_seconds", "Age of the last published event while others wait; 0 when none does.", lagSeconds),
		gauge("walrelay_ready", "1 while the relay streams, is connected to NATS and holds no stream.", ready),
	)
	return m
}

func (m *metrics) published(took time.Duration, committed time.Time) {
	m.publishLatency.Observe(took.Seconds())
	if !committed.IsZero() {
		m.commitLatency.Observe(max(0, time.Since(committed)).Seconds())
	}
}

// Emitted implements [retry.Observer].
func (m *metrics) Emitted(late []time.Duration) {
	for _, d := range late {
		m.lateness.Observe(max(0, d.Seconds()))
	}
}

// Counted implements [retry.Observer].
func (m *metrics) Counted(states map[retry.State]int64, keys int, oldest float64) {
	for _, state := range retry.States() {
		m.delayed.WithLabelValues(string(state)).Set(float64(states[state]))
	}
	m.heldKeys.Set(float64(keys))
	m.oldestDue.Set(oldest)
}

// Cleaned implements [retention.Observer].
func (m *metrics) Cleaned(rows int) { m.cleaned.Add(float64(rows)) }

// Round implements [retention.Observer].
func (m *metrics) Round(refused int) {
	m.cleanUps.Inc()
	m.refusedRows.Set(float64(refused))
}
