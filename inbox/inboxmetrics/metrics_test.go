package inboxmetrics_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/inbox/inboxmetrics"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := inboxmetrics.New()
	m.Observe(inbox.Status{Handler: "billing", Partition: 3, Lag: 1})
	m.Observe(inbox.Status{Handler: "audit", Partition: -1, Active: true, Lag: 7, Pending: 2, Handled: 5, Failures: 1, Trouble: "stuck", Running: []string{"message 1"}})
	m.Observe(inbox.Status{Handler: "billing", Partition: 3, Lag: 2})
	want := `
# HELP walrelay_handler_lag_events Events that wait in the stream, those that were delivered and not acknowledged included.
# TYPE walrelay_handler_lag_events gauge
walrelay_handler_lag_events{handler="audit",partition=""} 7
walrelay_handler_lag_events{handler="billing",partition="3"} 2
# HELP walrelay_handler_stuck 1 while as many events are unacknowledged as may be, and none gets done.
# TYPE walrelay_handler_stuck gauge
walrelay_handler_stuck{handler="audit",partition=""} 1
walrelay_handler_stuck{handler="billing",partition="3"} 0
# HELP walrelay_handler_handled_total Events that this process has handled.
# TYPE walrelay_handler_handled_total counter
walrelay_handler_handled_total{handler="audit",partition=""} 5
walrelay_handler_handled_total{handler="billing",partition="3"} 0
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), "walrelay_handler_lag_events", "walrelay_handler_stuck", "walrelay_handler_handled_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(m); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	if states := m.States(); len(states) != 2 || states[0].Handler != "audit" {
		t.Errorf("the states are %+v", states)
	}
}
