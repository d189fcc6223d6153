package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/sql"
)

// streams judges the streams, and whether they take what is published to them.
func (j *judge) streams(infos []*jetstream.StreamInfo) {
	subjects := make(map[string][]string, len(infos))
	for n, s := range j.cfg.Streams {
		info := infos[n]
		switch {
		case info != nil:
			j.stream(&info.Config, &s)
			if j.cfg.Publish.Atomic {
				r := NoAtomicBatches(s.Name)
				j.check(!info.Config.AllowAtomicPublish, r, fmt.Sprintf("stream %q allows atomic batches", s.Name))
			}
			subjects[s.Name] = info.Config.Subjects
		case len(s.Subjects) == 0:
			j.fail(Result{
				ID: "stream_missing", Subject: s.Name, What: fmt.Sprintf("stream %q does not exist", s.Name),
				Why: "init cannot create it without subjects", Fix: fmt.Sprintf("set streams[%d].subjects, and run \"walrelay init\"", n),
			})
		default:
			j.missing("stream_missing", s.Name, fmt.Sprintf("stream %q does not exist", s.Name))
			subjects[s.Name] = s.Subjects
		}
	}
	for _, s := range j.subjects() {
		j.coverage(s.key, s.pattern, s.stream, subjects[s.stream])
	}
}

// subjects are the patterns of the subjects to which events are published, by the keys of
// the configuration, with their streams.
func (j *judge) subjects() (all []struct{ key, pattern, stream string }) {
	first := j.cfg.Streams[0].Name
	add := func(key, template, eventType, stream string) {
		all = append(all, struct{ key, pattern, stream string }{key, config.TemplatePattern(template, eventType), cmp.Or(stream, first)})
	}
	for n, route := range j.cfg.Routes {
		switch {
		case route.Drop:
		case route.Subject == "":
			add(fmt.Sprintf("publish.subject for routes[%d]", n), j.cfg.Publish.Subject, route.Type, route.Stream)
		default:
			add(fmt.Sprintf("routes[%d].subject", n), route.Subject, route.Type, route.Stream)
		}
	}
	add("publish.subject", j.cfg.Publish.Subject, "", "")
	return all
}

// editStream is the command that changes a stream.
func editStream(name string) string { return "nats stream edit " + problem.ShellWord(name) }

// NoAtomicBatches is the result for a stream that does not take what
// publish.atomic sends.
func NoAtomicBatches(stream string) Result {
	return Result{
		ID: "stream_atomic", Subject: stream, Status: Fail, What: fmt.Sprintf("stream %q does not allow atomic batches", stream),
		Why: "publish.atomic publishes each transaction as one",
		Fix: editStream(stream) + " --allow-batch (nats-server 2.12 and newer), or set publish.atomic to false",
	}
}

// stream judges one stream. What would write into it besides walrelay, or take
// back an acknowledgement, fails.
func (j *judge) stream(c *jetstream.StreamConfig, s *config.Stream) {
	what := fmt.Sprintf("stream %q", c.Name)
	j.check(c.Storage != jetstream.FileStorage, Result{
		ID: "stream_memory", Subject: c.Name, What: what + " is kept in memory", Why: "acknowledged events would be lost with the server",
		Fix: "use a stream with file storage",
	}, what+" is kept in files")
	if c.NoAck {
		j.fail(Result{ID: "stream_no_ack", Subject: c.Name, What: what + " has no_ack", Why: "walrelay would wait for acknowledgements for ever", Fix: editStream(c.Name) + " --ack, or use another stream"})
	}
	if c.Sealed {
		j.fail(Result{ID: "stream_sealed", Subject: c.Name, What: what + " is sealed", Why: "it takes no messages", Fix: "use another stream"})
	}
	if c.Mirror != nil {
		j.fail(Result{
			ID: "stream_mirror", Subject: c.Name, What: what + " is a mirror", Why: "it takes no messages",
			Fix: fmt.Sprintf("publish to the stream it mirrors (%s)", c.Mirror.Name),
		})
	}
	if c.PersistMode == jetstream.AsyncPersistMode {
		j.fail(Result{
			ID: "stream_async", Subject: c.Name, What: what + " has persist_mode async",
			Why: "it acknowledges events before they are written", Fix: "use a stream without it",
		})
	}
	if c.Retention != jetstream.LimitsPolicy {
		j.warn(Result{
			ID: "stream_retention", Subject: c.Name, What: fmt.Sprintf("%s has %s retention", what, strings.ToLower(c.Retention.String())),
			Why: "consumers take events out of it, so duplicates are told by the row in " + sql.OwnSchema + ".progress alone, and an event that no consumer wants is dropped",
			Fix: "if that is not wanted, use a stream with limits retention",
		})
	}
	if c.Replicas < s.Replicas {
		j.warn(Result{
			ID: "stream_replicas", Subject: c.Name, What: fmt.Sprintf("%s has %d replicas, and the configuration says %d", what, c.Replicas, s.Replicas),
			Why: "it tolerates the loss of fewer servers", Fix: fmt.Sprintf("%s --replicas %d, or correct replicas of the stream in the configuration", editStream(c.Name), s.Replicas),
		})
	}
	for _, subject := range s.Subjects {
		if !covered(subject, c.Subjects) {
			j.warn(Result{
				ID: "stream_subjects", Subject: c.Name, What: fmt.Sprintf("%s does not have the subject %q of the configuration", what, subject),
				Fix: fmt.Sprintf("%s --subjects %s, or correct subjects of the stream in the configuration", editStream(c.Name), problem.ShellWord(strings.Join(append(slices.Clone(c.Subjects), subject), ","))),
			})
		}
	}
	if s.Shared {
		return
	}
	const alone = "only walrelay may write into a stream, unless it is configured as shared"
	if len(c.Sources) > 0 {
		j.fail(Result{ID: "stream_sources", Subject: c.Name, What: what + " has sources", Why: alone, Fix: "take its sources away, or use another stream"})
	}
	if c.AllowMsgSchedules {
		j.fail(Result{ID: "stream_schedules", Subject: c.Name, What: what + " allows message schedules", Why: alone, Fix: "use another stream (a server does not take that back)"})
	}
	if c.SubjectDeleteMarkerTTL > 0 {
		j.fail(Result{
			ID: "stream_delete_markers", Subject: c.Name, What: what + " writes delete markers (subject_delete_marker_ttl)", Why: alone, Fix: "set subject_delete_marker_ttl to 0, or use another stream",
		})
	}
}

// coverage judges whether a stream takes the subjects that a template can
// give, as far as can be told without the events.
func (j *judge) coverage(key, pattern, stream string, subjects []string) {
	const correct = "correct the subject, or the stream's subjects"
	switch {
	case len(subjects) == 0:
	case covered(pattern, subjects):
		j.check(false, Result{ID: "subject_coverage", Subject: key}, fmt.Sprintf("stream %q takes the subjects of %s (%s)", stream, key, pattern))
	case slices.ContainsFunc(subjects, func(s string) bool { return event.PatternsOverlap(s, pattern) }):
		j.warn(Result{
			ID: "subject_coverage", Subject: key, What: fmt.Sprintf("stream %q takes only some of the subjects of %s (%s), and other events will fail", stream, key, pattern),
			Why: "its subjects are " + strings.Join(subjects, ", "), Fix: correct,
		})
	default:
		j.fail(Result{
			ID: "subject_coverage", Subject: key, What: fmt.Sprintf("stream %q does not take the subjects of %s (%s)", stream, key, pattern),
			Why: "its subjects are " + strings.Join(subjects, ", "), Fix: correct,
		})
	}
}

func covered(pattern string, subjects []string) bool {
	return slices.ContainsFunc(subjects, func(s string) bool { return event.PatternCovers(s, pattern) })
}
