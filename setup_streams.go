package walrelay

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/sql"
)

// readStreams asks for the configured streams; nil stands for one that does
// not exist.
func (i *inspector) readStreams(ctx context.Context) ([]*jetstream.StreamInfo, error) {
	infos := make([]*jetstream.StreamInfo, len(i.cfg.Streams))
	for n, s := range i.cfg.Streams {
		var err error
		if infos[n], err = i.js.Stream(ctx, s.Name); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

// createStreams makes those that are missing.
func (i *inspector) createStreams(ctx context.Context, infos []*jetstream.StreamInfo, report *Report) error {
	for n, s := range i.cfg.Streams {
		if infos[n] != nil {
			report.add("stream", s.Name, AlreadyThere, "subjects "+strings.Join(infos[n].Config.Subjects, ", "))
			continue
		}
		info, err := i.js.Create(ctx, streamConfig(s, i.cfg.Publish.Atomic))
		if err != nil {
			return err
		}
		if i.cfg.Publish.Atomic && !info.Config.AllowAtomicPublish {
			return noAtomicBatches(s.Name)
		}
		report.add("stream", s.Name, Created, "subjects "+strings.Join(s.Subjects, ", "))
	}
	return nil
}

// noAtomicBatches says that a stream does not take what publish.atomic sends.
func noAtomicBatches(stream string) *problem.Problem {
	return &problem.Problem{
		ID:   "stream_atomic",
		What: fmt.Sprintf("stream %q does not allow atomic batches", stream),
		Why:  "publish.atomic publishes each transaction as one",
		Fix:  fmt.Sprintf("nats stream edit %s --allow-batch (nats-server 2.12 and newer), or set publish.atomic to false", stream),
	}
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

// streams judges the streams, and whether they take what is published to them.
func (f *findings) streams(infos []*jetstream.StreamInfo, cfg Config) {
	subjects := make(map[string][]string, len(infos))
	for n, s := range cfg.Streams {
		info := infos[n]
		switch {
		case info != nil:
			f.stream(info.Config, s)
			if cfg.Publish.Atomic && !info.Config.AllowAtomicPublish {
				f.faults = append(f.faults, noAtomicBatches(s.Name))
			}
			subjects[s.Name] = info.Config.Subjects
		case f.creating && len(s.Subjects) == 0:
			f.fault(fmt.Sprintf("stream %q does not exist", s.Name), "init cannot create it without subjects",
				fmt.Sprintf("set streams[%d].subjects", n))
		default:
			f.missing(fmt.Sprintf("stream %q does not exist", s.Name))
			subjects[s.Name] = s.Subjects
		}
	}
	for n, route := range cfg.Routes {
		if route.Drop {
			continue
		}
		if route.Stream == "" {
			route.Stream = cfg.Streams[0].Name
		}
		key := fmt.Sprintf("routes[%d].subject", n)
		if route.Subject == "" {
			key, route.Subject = fmt.Sprintf("publish.subject for routes[%d]", n), cfg.Publish.Subject
		}
		f.coverage(key, config.TemplatePattern(route.Subject, route.Type), route.Stream, subjects[route.Stream])
	}
	first := cfg.Streams[0].Name
	f.coverage("publish.subject", config.TemplatePattern(cfg.Publish.Subject, ""), first, subjects[first])
}

// stream judges one stream. What would write into it besides walrelay, or take
// back an acknowledgement, is a fault.
func (f *findings) stream(c jetstream.StreamConfig, s config.Stream) {
	what := fmt.Sprintf("stream %q", c.Name)
	const change = "change the stream, or use another"
	if c.Storage != jetstream.FileStorage {
		f.fault(what+" is kept in memory", "acknowledged events would be lost with the server", "use a stream with file storage")
	}
	if c.NoAck {
		f.fault(what+" has no_ack", "walrelay would wait for acknowledgements for ever", change)
	}
	if c.Sealed {
		f.fault(what+" is sealed", "it takes no messages", "use another stream")
	}
	if c.Mirror != nil {
		f.fault(what+" is a mirror", "it takes no messages", fmt.Sprintf("publish to the stream it mirrors (%s)", c.Mirror.Name))
	}
	if c.PersistMode == jetstream.AsyncPersistMode {
		f.fault(what+" has persist_mode async", "it acknowledges events before they are written", "use a stream without it")
	}
	if c.Retention != jetstream.LimitsPolicy {
		f.warn("%s has %s retention: consumers take events out of it, so duplicates are told by the row in %s.progress alone, and an event that no consumer wants is dropped",
			what, strings.ToLower(c.Retention.String()), sql.OwnSchema)
	}
	if c.Replicas < s.Replicas {
		f.warn("%s has %d replicas, and the configuration says %d", what, c.Replicas, s.Replicas)
	}
	for _, subject := range s.Subjects {
		if !covered(subject, c.Subjects) {
			f.warn("%s does not have the subject %q of the configuration", what, subject)
		}
	}
	if s.Shared {
		return
	}
	const alone = "only walrelay may write into a stream, unless it is configured as shared"
	if len(c.Sources) > 0 {
		f.fault(what+" has sources", alone, change)
	}
	if c.AllowMsgSchedules {
		f.fault(what+" allows message schedules", alone, change)
	}
	if c.SubjectDeleteMarkerTTL > 0 {
		f.fault(what+" writes delete markers (subject_delete_marker_ttl)", alone, change)
	}
}

// coverage judges whether a stream takes the subjects that a template can
// give, as far as can be told without the events.
func (f *findings) coverage(key, pattern, stream string, subjects []string) {
	switch {
	case len(subjects) == 0 || covered(pattern, subjects):
	case slices.ContainsFunc(subjects, func(s string) bool { return config.PatternsOverlap(s, pattern) }):
		f.warn("stream %q takes only some of the subjects of %s (%s): other events will fail (its subjects: %s)",
			stream, key, pattern, strings.Join(subjects, ", "))
	default:
		f.fault(fmt.Sprintf("stream %q does not take the subjects of %s (%s)", stream, key, pattern),
			"its subjects are "+strings.Join(subjects, ", "), "correct the subject, or the stream's subjects")
	}
}

func covered(pattern string, subjects []string) bool {
	return slices.ContainsFunc(subjects, func(s string) bool { return config.PatternCovers(s, pattern) })
}
