package config

import (
	"fmt"
	"strings"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

// Plan is a configuration in the form that the components take.
type Plan struct {
	Decode  decode.Config
	Streams []router.Stream
	Rules   *router.Rules
}

// Compile returns the plan of a valid configuration that has its defaults.
func (c Config) Compile() (*Plan, error) {
	p := &Plan{}
	p.Decode.Slot = c.Slot
	for _, name := range c.Outbox.Tables {
		schema, table, _ := strings.Cut(name, ".")
		mapping, err := c.Mapping(name)
		if err != nil {
			return nil, err
		}
		p.Decode.Tables = append(p.Decode.Tables, decode.Table{Schema: schema, Name: table, Mapping: mapping})
	}
	for _, s := range c.Streams {
		p.Streams = append(p.Streams, router.Stream{Name: s.Name, Shared: s.Shared})
	}
	rules := make([]router.Rule, 0, len(c.Routes))
	for _, r := range c.Routes {
		rules = append(rules, router.Rule{
			Type: r.Type, Source: r.Source, Table: r.Table,
			Stream: r.Stream, Subject: r.Subject, Mode: r.Mode, Drop: r.Drop, Retry: r.Retry.policy(),
		})
	}
	var err error
	p.Rules, err = router.NewRules(rules, router.Rule{
		Stream: c.Streams[0].Name, Subject: c.Publish.Subject, Mode: c.Publish.Mode, Retry: c.Retry.policy(),
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Mapping returns the mapping of an outbox table.
func (c Config) Mapping(table string) (decode.Mapping, error) {
	var m Mapping
	for _, configured := range c.Outbox.Mappings {
		if configured.Table == table {
			m = configured
		}
	}
	mapping, err := decode.Preset(m.Preset)
	if err == nil {
		mapping, err = mapping.With(m.Columns, m.Values)
	}
	if err != nil {
		return decode.Mapping{}, fmt.Errorf("the mapping of table %s: %w", table, err)
	}
	return mapping, nil
}

// Router returns what a router needs that publishes what comes from an origin.
func (p *Plan) Router(c Config, origin router.Origin) router.Config {
	return router.Config{
		Streams:          p.Streams,
		Rules:            p.Rules,
		Origin:           origin,
		MaxInFlight:      c.Publish.MaxInFlight,
		MaxInFlightBytes: c.Publish.MaxInFlightBytes,
		AckTimeout:       c.Publish.AckTimeout,
		OmitMessageID:    c.Publish.MessageID != nil && !*c.Publish.MessageID,
		Domain:           c.NATS.Domain,
	}
}

func (c Retry) policy() retry.Policy {
	return retry.Policy{Initial: c.Initial, Factor: float64(c.Factor), Max: c.Max, MaxRetries: max(0, c.MaxRetries)}
}

// OwnForm reports whether a table is of walrelay's own form, so that init can
// create it.
func (c Config) OwnForm(table string) bool {
	for _, m := range c.Outbox.Mappings {
		if m.Table == table && (m.Preset != "" && m.Preset != "walrelay" || len(m.Columns) > 0) {
			return false
		}
	}
	return true
}

// Outboxes returns the outbox tables, and the column of the id of each.
func (c Config) Outboxes() (sql.Covered, error) {
	covered := sql.Covered{Slot: c.Slot, Publication: c.Publication, Standby: c.Postgres.Standby != ""}
	plan, err := c.Compile()
	if err != nil {
		return covered, err
	}
	for _, t := range plan.Decode.Tables {
		covered.Tables = append(covered.Tables, sql.Table{Schema: t.Schema, Name: t.Name})
		covered.IDs = append(covered.IDs, t.Mapping.Column(event.ColumnID))
	}
	return covered, nil
}
