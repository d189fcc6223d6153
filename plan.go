package walrelay

import (
	"fmt"
	"strings"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/replication"
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

// router is what a router needs that publishes what was read from the system,
// whose write-ahead log ends at wal.
func (p *plan) router(cfg Config, system replication.System, wal replication.LSN) router.Config {
	ended := make(map[int32]uint64, len(system.Ended))
	for timeline, lsn := range system.Ended {
		ended[timeline] = uint64(lsn)
	}
	return router.Config{
		Streams: p.streams,
		Rules:   p.rules,
		Origin: router.Origin{
			SystemID: system.ID, Slot: cfg.Slot, Timeline: system.Timeline, Ended: ended, WAL: uint64(wal),
		},
		MaxInFlight:      cfg.Publish.MaxInFlight,
		MaxInFlightBytes: cfg.Publish.MaxInFlightBytes,
		AckTimeout:       cfg.Publish.AckTimeout,
		Domain:           cfg.NATS.Domain,
	}
}

func policy(c RetryConfig) retry.Policy {
	return retry.Policy{Initial: c.Initial, Factor: float64(c.Factor), Max: c.Max, MaxRetries: max(0, c.MaxRetries)}
}
