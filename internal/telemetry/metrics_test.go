package telemetry

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/inbox/inboxmetrics"
)

// row is a line of a table of docs/metrics.md: name, type, labels.
var row = regexp.MustCompile("(?m)^\\| `(walrelay_[a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*)\\|")

// documented has what docs/metrics.md says: by name, the type and the labels.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		all[m[1]] = m[2] + " " + strings.NewReplacer("`", "", " ", "").Replace(m[3])
	}
	return all
}

// served has what is served, in the same form.
func served(t *testing.T) map[string]string {
	t.Helper()
	none := func() float64 { return 0 }
	m := New(none, none, none)
	m.Paused.WithLabelValues("EVENTS")
	handlers := inboxmetrics.New()
	handlers.Observe(inbox.Status{Handler: "billing"})
	m.Registry.MustRegister(handlers)
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "walrelay_") {
			continue
		}
		var labels []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, label.GetName())
		}
		slices.Sort(labels)
		all[family.GetName()] = strings.ToLower(family.GetType().String()) + " " + strings.Join(labels, ",")
	}
	return all
}

func TestDocs_HaveEveryMetric(t *testing.T) {
	docs, code := documented(t), served(t)
	for name, is := range code {
		if docs[name] != is {
			t.Errorf("%s is a %s, and docs/metrics.md says %q", name, is, docs[name])
		}
	}
	for name := range docs {
		if code[name] == "" {
			t.Errorf("docs/metrics.md has %s, which is not served", name)
		}
	}
	if len(code) < 30 {
		t.Errorf("only %d metrics: this test shows little", len(code))
	}
}

// Names by Prometheus's conventions ("Metric and label naming").
func TestMetrics_AreNamedByConvention(t *testing.T) {
	for name, is := range served(t) {
		if counter := strings.HasPrefix(is, "counter"); counter != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s", name, is)
		}
		if strings.HasPrefix(is, "histogram") && !strings.HasSuffix(name, "_seconds") {
			t.Errorf("%s has no unit", name)
		}
	}
}

// Alerts and the dashboard ask for what there is.
func TestDeploy_AsksForMetricsThatExist(t *testing.T) {
	code := served(t)
	asked := regexp.MustCompile(`walrelay_[a-z_]+`)
	for _, path := range []string{"prometheus/walrelay.rules.yaml", "prometheus/walrelay.rules.test.yaml", "grafana/walrelay.json"} {
		text, err := os.ReadFile("../../deploy/" + path)
		if err != nil {
			t.Fatal(err)
		}
		found := asked.FindAllString(string(text), -1)
		if len(found) < 10 {
			t.Errorf("%s asks for %d metrics: this test shows little", path, len(found))
		}
		for _, name := range found {
			if base := strings.TrimSuffix(name, "_bucket"); code[base] == "" || base != name && !strings.HasPrefix(code[base], "histogram") {
				t.Errorf("%s asks for %s, which is not served", path, name)
			}
		}
	}
	// The dashboard shows everything.
	text, err := os.ReadFile("../../deploy/grafana/walrelay.json")
	if err != nil {
		t.Fatal(err)
	}
	hidden := []string{"walrelay_flush_lsn", "walrelay_handler_active", "walrelay_handler_overdue_calls", "walrelay_handler_pending_events", "walrelay_handler_removed_total", "walrelay_handler_stuck", "walrelay_handler_unreachable"}
	for name := range code {
		if strings.Contains(string(text), name) == slices.Contains(hidden, name) {
			t.Errorf("the dashboard and this test do not agree on %s", name)
		}
	}
}
