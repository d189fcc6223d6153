package walrelay

import (
	"fmt"
	"strings"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
)

// plan is the configuration in the form that the parts take.
type plan struct {
	decode  decode.Config
	streams []router.Stream
	rules   *router.Rules
}

// newPlan compiles a valid configuration.
func newPlan(cfg Config) (plan, error) {
	var p plan
	p.decode.Prefix = retry.Prefix(cfg.Slot)
	mappings := make(map[string]MappingConfig, len(cfg.Outbox.Mappings))
	for _, m := range cfg.Outbox.Mappings {
		mappings[m.Table] = m
	}
	for _, name := range cfg.Outbox.Tables {
		schema, table, _ := strings.Cut(name, ".")
		m := mappings[name]
		mapping, err := decode.Preset(m.Preset)
		if err == nil {
			mapping, err = mapping.With(m.Columns, m.Values)
		}
		if err != nil {
			return plan{}, fmt.Errorf("the mapping of table %s: %w", name, err)
		}
		p.decode.Tables = append(p.decode.Tables, decode.Table{Schema: schema, Name: table, Mapping: mapping})
	}
	for _, s := range cfg.Streams {
		p.streams = append(p.streams, router.Stream{Name: s.Name, Shared: s.Shared})
	}
	rules := make([]router.Rule, 0, len(cfg.Routes))
	for _, r := range cfg.Routes {
		rules = append(rules, router.Rule{
			Type: r.Type, Source: r.Source, Table: r.Table,
			Stream: r.Stream, Subject: r.Subject, Mode: r.Mode, Drop: r.Drop, Retry: policy(r.Retry),
		})
	}
	var err error
	p.rules, err = router.NewRules(rules, router.Rule{
		Stream: cfg.Streams[0].Name, Subject: cfg.Publish.Subject, Mode: cfg.Publish.Mode, Retry: policy(cfg.Retry),
	})
	if err != nil {
		return plan{}, err
	}
	return p, nil
}

func policy(c RetryConfig) retry.Policy {
	return retry.Policy{Initial: c.Initial, Factor: float64(c.Factor), Max: c.Max, MaxRetries: max(0, c.MaxRetries)}
}
