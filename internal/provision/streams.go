package provision

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
)

// streams makes those that are missing.
func (m *maker) streams(ctx context.Context, infos []*jetstream.StreamInfo) error {
	for n, s := range m.cfg.Streams {
		if infos[n] != nil {
			m.report.add("stream", s.Name, AlreadyThere, "subjects "+strings.Join(infos[n].Config.Subjects, ", "))
			continue
		}
		info, err := m.js.Create(ctx, streamConfig(s, m.cfg.Publish.Atomic))
		if err != nil {
			return err
		}
		if m.cfg.Publish.Atomic && !info.Config.AllowAtomicPublish {
			result := check.NoAtomicBatches(s.Name)
			return result.Problem()
		}
		m.report.add("stream", s.Name, Created, "subjects "+strings.Join(s.Subjects, ", "))
	}
	return nil
}

// streamConfig is what init creates a stream with.
func streamConfig(s config.Stream, atomic bool) jetstream.StreamConfig {
	config := jetstream.StreamConfig{
		Name:        s.Name,
		Description: "Events from Postgres, published by walrelay",
		Subjects:    s.Subjects,
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    s.Replicas,
		Duplicates:  s.DuplicateWindow,
		MaxAge:      s.MaxAge,
		MaxBytes:    -1,
		AllowDirect: true,
		// Servers older than 2.12 do not know it, and leave it out.
		AllowAtomicPublish: atomic,
	}
	if s.MaxBytes > 0 {
		// A full stream refuses new events, which then wait in Postgres,
		// rather than drop old ones that nobody may have read.
		config.MaxBytes = s.MaxBytes
		config.Discard = jetstream.DiscardNew
	}
	return config
}
