// Package inboxmetrics has the metrics of handlers of package inbox, for Prometheus.
//
// Input: the states that [inbox.Config] hands to its Observe. Output: a collector. It is a package of its own so
// that handlers without Prometheus do not depend on it.
//
//	metrics := inboxmetrics.New()
//	prometheus.MustRegister(metrics)
//	err := inbox.Run(ctx, inbox.Config{NATS: nc, Pool: pool, Observe: metrics.Observe}, &handlers)
package inboxmetrics

import (
	"cmp"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walrelay/walrelay/inbox"
)

// Metrics are those of the handlers of a process. Safe for concurrent use.
type Metrics struct {
	mu     sync.Mutex
	states map[key]inbox.Status
}

type key struct {
	handler   string
	partition int
}

// New returns metrics of no handlers yet.
func New() *Metrics { return &Metrics{states: make(map[key]inbox.Status)} }

// Observe takes the state of a handler.
func (m *Metrics) Observe(s inbox.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[key{s.Handler, s.Partition}] = s
}

// States returns the last state of each handler and partition, in their order.
func (m *Metrics) States() []inbox.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]inbox.Status, 0, len(m.states))
	for _, s := range m.states {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b inbox.Status) int {
		return cmp.Or(cmp.Compare(a.Handler, b.Handler), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

// metric is one number of a state.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*inbox.Status) float64
}

func gauge(name, help string, value func(*inbox.Status) float64) metric {
	return metric{desc(name, help), prometheus.GaugeValue, value}
}

func counter(name, help string, value func(*inbox.Status) uint64) metric {
	return metric{desc(name, help), prometheus.CounterValue, func(s *inbox.Status) float64 { return float64(value(s)) }}
}

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("walrelay_handler_"+name, help, []string{"handler", "partition"}, nil)
}

func flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// all lists the metrics; docs/metrics.md describes them.
func all() []metric {
	return []metric{
		gauge("active", "1 if this process handles the events, 0 if it stands by.", func(s *inbox.Status) float64 { return flag(s.Active) }),
		gauge("unreachable", "1 while NATS does not say how the consumer is doing.", func(s *inbox.Status) float64 { return flag(s.Trouble == "unreachable") }),
		gauge("stuck", "1 while as many events are unacknowledged as may be, and none gets done.", func(s *inbox.Status) float64 { return flag(s.Trouble == "stuck") }),
		gauge("lag_events", "Events that wait in the stream, those that were delivered and not acknowledged included.", func(s *inbox.Status) float64 { return float64(s.Lag) }),
		gauge("pending_events", "Events that were delivered and not acknowledged.", func(s *inbox.Status) float64 { return float64(s.Pending) }),
		gauge("overdue_calls", "Calls that take longer than the handler's time-out.", func(s *inbox.Status) float64 { return float64(len(s.Running)) }),
		counter("handled_total", "Events that this process has handled.", func(s *inbox.Status) uint64 { return s.Handled }),
		counter("repeated_total", "Events that came again and had been handled before.", func(s *inbox.Status) uint64 { return s.Repeated }),
		counter("parked_total", "Events that this process has parked.", func(s *inbox.Status) uint64 { return s.Parked }),
		counter("failures_total", "Calls that failed.", func(s *inbox.Status) uint64 { return s.Failures }),
		counter("removed_total", "Events that the stream has removed before the handler had them.", func(s *inbox.Status) uint64 { return s.Removed }),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, one := range all() {
		to <- one.desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	states, metrics := m.States(), all()
	for i := range states {
		s := &states[i]
		partition := ""
		if s.Partition >= 0 {
			partition = strconv.Itoa(s.Partition)
		}
		for _, one := range metrics {
			to <- prometheus.MustNewConstMetric(one.desc, one.kind, one.value(s), s.Handler, partition)
		}
	}
}
