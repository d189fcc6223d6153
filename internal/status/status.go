// Package status says how a relay and what it works on stand, in one document.
//
// Input: connections to both servers, and the configuration. Output: a [Document], whose
// JSON form is documented and versioned, and a screen for a person. Promises: it works
// whether or not a relay runs; what cannot be asked is named, and the rest is there;
// nothing is changed. The package must not import what runs a relay.
package status

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/retry"
	"github.com/walrelay/walrelay/sql"
)

// Version is that of the document. It grows when something is taken away or changes its
// meaning; what is new does not change it.
const Version = 1

// Document is how things stand at a time. Times are in UTC. What is null or missing is
// not there, or not known: then Unknown says why.
type Document struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	// Relay is what the process says of itself that serves the document; missing in what
	// the command prints.
	Relay any `json:"relay,omitempty"`

	Database *Database `json:"database,omitempty"`
	Slot     *Slot     `json:"slot,omitempty"`
	Delayed  *Delayed  `json:"delayed,omitempty"`
	Streams  []Stream  `json:"streams"`
	// Handlers are those of package inbox whose tables are in this database.
	Handlers []inbox.HandlerState `json:"handlers,omitempty"`
	// Problems are the results of checks that warn or fail.
	Problems check.Results `json:"problems"`
	// Unknown says what could not be asked, and why.
	Unknown []string `json:"unknown,omitempty"`
}

// Database is the server.
type Database struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// SchemaVersion is that of the schema walrelay; 0 without one.
	SchemaVersion int `json:"schema_version"`
}

// Slot is the replication slot and who reads it.
type Slot struct {
	Name string `json:"name"`
	// Present says that the slot exists; nothing else is known if it does not.
	Present            bool   `json:"present"`
	WALStatus          string `json:"wal_status,omitempty"`
	InvalidationReason string `json:"invalidation_reason,omitempty"`
	ConfirmedFlushLSN  string `json:"confirmed_flush_lsn,omitempty"`
	// Holder is the session that streams from the slot; Standbys wait for it.
	Holder   *Session  `json:"holder,omitempty"`
	Standbys []Session `json:"standbys"`
	// LagBytes of WAL come after what the slot has confirmed, and RetainedBytes are kept
	// for it. SafeBytes may be written before it is lost; missing without
	// max_slot_wal_keep_size.
	LagBytes      *int64 `json:"lag_bytes,omitempty"`
	RetainedBytes *int64 `json:"retained_bytes,omitempty"`
	SafeBytes     *int64 `json:"safe_bytes,omitempty"`
	// WALBytesPerSecond is how fast WAL is written in the whole cluster at present, and
	// RunwaySeconds after how long the slot is lost at that rate if nothing is confirmed.
	WALBytesPerSecond *float64 `json:"wal_bytes_per_second,omitempty"`
	RunwaySeconds     *float64 `json:"runway_seconds,omitempty"`
}

// Session is a walsender of a relay.
type Session struct {
	PID    int32     `json:"pid"`
	Role   string    `json:"role"`
	Client string    `json:"client"`
	Since  time.Time `json:"since"`
}

// Delayed is the delay table.
type Delayed struct {
	Scheduled int64 `json:"scheduled"`
	Retrying  int64 `json:"retrying"`
	Held      int64 `json:"held"`
	Failed    int64 `json:"failed"`
	// OverdueSeconds is how long the oldest event that is due has been; 0 if none is.
	OverdueSeconds float64 `json:"overdue_seconds"`
	// NextDue is when the next event is due.
	NextDue *time.Time `json:"next_due,omitempty"`
	// BlockedKeys are keys behind whose events later ones are held.
	BlockedKeys int64 `json:"blocked_keys"`
	// Reasons are why events have failed, the most frequent first.
	Reasons []retry.Reason `json:"reasons,omitempty"`
}

// Stream is a stream of the configuration.
type Stream struct {
	Name    string `json:"name"`
	Present bool   `json:"present"`
	Shared  bool   `json:"shared,omitempty"`

	Messages      uint64 `json:"messages"`
	Bytes         uint64 `json:"bytes"`
	FirstSequence uint64 `json:"first_sequence"`
	LastSequence  uint64 `json:"last_sequence"`
	// LastTime is when the last message was stored.
	LastTime *time.Time `json:"last_time,omitempty"`
	// EventsPerSecond is how fast messages are stored at present.
	EventsPerSecond *float64 `json:"events_per_second,omitempty"`
	// Limits; missing if there is none. Discard says what becomes of messages past them.
	MaxMessages   int64   `json:"max_messages,omitempty"`
	MaxBytes      int64   `json:"max_bytes,omitempty"`
	MaxAgeSeconds float64 `json:"max_age_seconds,omitempty"`
	Discard       string  `json:"discard,omitempty"`
	Retention     string  `json:"retention,omitempty"`
	Replicas      int     `json:"replicas,omitempty"`
	Leader        string  `json:"leader,omitempty"`
	// Behind are replicas that are not current.
	Behind []string `json:"replicas_behind,omitempty"`
	// AckDurability says what an acknowledgement stands for.
	AckDurability string `json:"ack_durability,omitempty"`
	// Consumers are the first hundred; NumConsumers is how many there are.
	Consumers    []Consumer `json:"consumers,omitempty"`
	NumConsumers int        `json:"num_consumers"`
}

// Consumer is a consumer of a stream.
type Consumer struct {
	Name string `json:"name"`
	// Pending messages wait to be delivered, and AckPending were delivered and not
	// acknowledged.
	Pending    uint64 `json:"pending"`
	AckPending int    `json:"ack_pending"`
	// Removed messages are gone by the limits of the stream, and the consumer has not
	// acknowledged them; not known of one that wants only some subjects.
	Removed uint64 `json:"removed,omitempty"`
}

// maxConsumers is how many consumers of a stream are listed.
const maxConsumers = 100

// patience bounds one round of questions.
const patience = 4 * time.Second

// Reader reads documents, one after the other. Rates are those since the one before.
// Safe for concurrent use.
type Reader struct {
	cfg config.Config

	mu     sync.Mutex
	before sample
	last   Document
}

// NewReader returns a reader. The configuration is valid.
func NewReader(cfg config.Config) *Reader { return &Reader{cfg: cfg.WithDefaults()} }

// freshness is for how long a document is not read again, however often it is asked for.
const freshness = time.Second

// Read asks both sides, over connections of its own. It blocks for 8 s at most. What
// cannot be asked is in Document.Unknown.
func (r *Reader) Read(ctx context.Context) Document {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.before.at) < freshness {
		return r.last
	}
	sources, unknown := r.connect(ctx)
	defer sources.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := Document{Version: Version, Time: time.Now().UTC().Truncate(time.Millisecond), Unknown: unknown, Streams: []Stream{}, Problems: check.Results{}}
	q := reader{cfg: r.cfg, sources: sources, document: &d}
	q.facts(ctx)
	if sources.Postgres != nil {
		q.try("the sessions of the slot", func() error { return q.holders(ctx) })
		q.try("the delay table", func() error { return q.delayed(ctx) })
		q.try("the handlers", func() error { return q.handlers(ctx) })
	}
	if sources.NATS != nil {
		q.try("the consumers", func() error { return q.consumers(ctx) })
	}
	now := q.sample(ctx)
	d.rates(r.before, now)
	r.before, r.last = now, d
	return d
}

// connect connects to both sides, and says what cannot be reached.
func (r *Reader) connect(ctx context.Context) (sources check.Sources, unknown []string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sources, postgresErr, natsErr := check.ConnectEach(ctx, r.cfg)
	if postgresErr != nil {
		unknown = append(unknown, "Postgres: "+postgresErr.Error())
	}
	if natsErr != nil {
		unknown = append(unknown, "NATS: "+natsErr.Error())
	}
	return sources, unknown
}

// reader fills in a document.
type reader struct {
	cfg      config.Config
	sources  check.Sources
	read     check.Facts
	document *Document
}

// try notes why something is unknown.
func (r *reader) try(what string, do func() error) {
	if err := do(); err != nil {
		r.document.Unknown = append(r.document.Unknown, what+": "+err.Error())
	}
}

// facts reads what checks go by, and what they find.
func (r *reader) facts(ctx context.Context) {
	scope := check.Scope(0)
	if r.sources.Postgres != nil {
		scope |= check.ScopeDatabase
	}
	if r.sources.NATS != nil {
		scope |= check.ScopeNATS
	}
	version, err := sql.SchemaVersion()
	if err == nil && scope != 0 {
		r.read, err = check.Read(ctx, r.sources, r.cfg, scope)
	}
	if err != nil {
		r.document.Unknown = append(r.document.Unknown, err.Error())
	}
	for _, result := range check.Judge(&r.read, r.cfg, version) {
		if result.Status >= check.Warn {
			r.document.Problems = append(r.document.Problems, result)
		}
	}
	if r.read.Scope&check.ScopePostgres != 0 {
		r.document.Database = &Database{Name: r.read.Server.Database, Version: r.read.Server.VersionText, SchemaVersion: r.read.Schema.Version}
	}
	if r.read.Scope&check.ScopeSlot != 0 {
		r.document.Slot = r.slot(r.read.Slot)
	}
	if r.read.Scope&check.ScopeNATS != 0 {
		for n, info := range r.read.Streams {
			r.document.Streams = append(r.document.Streams, r.stream(&r.cfg.Streams[n], info))
		}
	}
}

func (r *reader) slot(s *check.Slot) *Slot {
	slot := &Slot{Name: r.cfg.Slot, Standbys: []Session{}}
	if s == nil {
		return slot
	}
	slot.Present, slot.WALStatus, slot.InvalidationReason, slot.ConfirmedFlushLSN = true, s.WALStatus, s.InvalidationReason, s.ConfirmedFlush
	slot.LagBytes, slot.RetainedBytes, slot.SafeBytes = s.LagBytes, s.RetainedBytes, s.SafeBytes
	return slot
}

func (r *reader) stream(c *config.Stream, info *jetstream.StreamInfo) Stream {
	s := Stream{Name: c.Name, Shared: c.Shared}
	if info == nil {
		return s
	}
	s.Present = true
	s.Messages, s.Bytes, s.FirstSequence, s.LastSequence, s.NumConsumers = info.State.Msgs, info.State.Bytes, info.State.FirstSeq, info.State.LastSeq, info.State.Consumers
	if !info.State.LastTime.IsZero() {
		last := info.State.LastTime.UTC()
		s.LastTime = &last
	}
	s.MaxMessages, s.MaxBytes, s.MaxAgeSeconds = max(info.Config.MaxMsgs, 0), max(info.Config.MaxBytes, 0), info.Config.MaxAge.Seconds()
	s.Discard, s.Retention, s.Replicas = discard(info.Config.Discard), retention(info.Config.Retention), info.Config.Replicas
	if info.Cluster != nil {
		s.Leader = info.Cluster.Leader
		for _, replica := range info.Cluster.Replicas {
			if !replica.Current {
				s.Behind = append(s.Behind, replica.Name)
			}
		}
	}
	s.AckDurability = check.AckDurability(info, c.Shared, r.cfg.Outbox.RepairWindow)
	return s
}

func discard(p jetstream.DiscardPolicy) string {
	if p == jetstream.DiscardNew {
		return "new"
	}
	return "old"
}

func retention(p jetstream.RetentionPolicy) string {
	switch p {
	case jetstream.WorkQueuePolicy:
		return "workqueue"
	case jetstream.InterestPolicy:
		return "interest"
	case jetstream.LimitsPolicy:
	}
	return "limits"
}

// holders asks who streams from the slot, and who waits.
func (r *reader) holders(ctx context.Context) error {
	if r.document.Slot == nil || !r.document.Slot.Present {
		return nil
	}
	return check.AtSlot(ctx, r.sources.Postgres, r.cfg.Postgres, func(at *pgx.Conn) error { return r.holdersAt(ctx, at) })
}

func (r *reader) holdersAt(ctx context.Context, at *pgx.Conn) error {
	rows, err := at.Query(ctx, sql.StatusHolder, r.read.Server.ApplicationName, r.cfg.Slot)
	if err != nil {
		return err
	}
	var s Session
	var active bool
	_, err = pgx.ForEachRow(rows, []any{&s.PID, &active, &s.Role, &s.Client, &s.Since}, func() error {
		found := s
		found.Since = found.Since.UTC()
		if active {
			r.document.Slot.Holder = &found
		} else {
			r.document.Slot.Standbys = append(r.document.Slot.Standbys, found)
		}
		return nil
	})
	return err
}

// delayed asks for the events in the delay table.
func (r *reader) delayed(ctx context.Context) error {
	if !r.read.Schema.Readable {
		return nil
	}
	counts, err := retry.CountStates(ctx, r.sources.Postgres, r.cfg.Slot)
	if err != nil {
		return err
	}
	d := &Delayed{
		Scheduled: counts.States[retry.Scheduled], Retrying: counts.States[retry.Retrying], Held: counts.States[retry.Held], Failed: counts.States[retry.Failed],
		OverdueSeconds: counts.OverdueSeconds,
	}
	if err := r.sources.Postgres.QueryRow(ctx, sql.StatusDue, r.cfg.Slot).Scan(&d.NextDue, &d.BlockedKeys); err != nil {
		return err
	}
	if d.NextDue != nil {
		*d.NextDue = d.NextDue.UTC()
	}
	if d.Failed > 0 {
		if d.Reasons, err = retry.Reasons(ctx, r.sources.Postgres, r.cfg.Slot); err != nil {
			return err
		}
	}
	r.document.Delayed = d
	return nil
}

// handlers asks for the handlers, if their tables are in this database, in a schema that the role may use.
func (r *reader) handlers(ctx context.Context) (err error) {
	const statement = `SELECT count(*) = 2
		FROM pg_catalog.pg_class AS c
		JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
		WHERE n.nspname = 'walrelay' AND has_schema_privilege(n.oid, 'USAGE') AND c.relname IN ('handlers', 'parked')`
	var there bool
	if err := r.sources.Postgres.QueryRow(ctx, statement).Scan(&there); err != nil || !there {
		return err
	}
	r.document.Handlers, err = inbox.ListHandlers(ctx, r.sources.Postgres)
	return err
}

// consumers asks for the consumers of the streams.
func (r *reader) consumers(ctx context.Context) error {
	var errs []error
	for i := range r.document.Streams {
		s := &r.document.Streams[i]
		if !s.Present || s.NumConsumers == 0 {
			continue
		}
		infos, err := r.sources.NATS.ConsumerInfos(ctx, s.Name, maxConsumers)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, info := range infos {
			s.Consumers = append(s.Consumers, Consumer{
				Name: info.Name, Pending: info.NumPending, AckPending: info.NumAckPending, Removed: check.Removed(r.read.Streams[i], info),
			})
		}
		slices.SortFunc(s.Consumers, func(a, b Consumer) int { return strings.Compare(a.Name, b.Name) })
	}
	return errors.Join(errs...)
}

// sample is what rates are computed from.
type sample struct {
	at      time.Time
	wal     *int64 // bytes
	streams map[string]uint64
}

func (r *reader) sample(ctx context.Context) sample {
	s := sample{at: time.Now(), streams: make(map[string]uint64)}
	if r.sources.Postgres != nil {
		if err := r.sources.Postgres.QueryRow(ctx, sql.StatusWAL).Scan(&s.wal); err != nil {
			s.wal = nil // why is said elsewhere
		}
	}
	for _, stream := range r.document.Streams {
		if stream.Present {
			s.streams[stream.Name] = stream.LastSequence
		}
	}
	return s
}

// rates says how fast things went between two samples.
func (d *Document) rates(before, after sample) {
	if before.at.IsZero() {
		return
	}
	seconds := after.at.Sub(before.at).Seconds()
	for i := range d.Streams {
		s := &d.Streams[i]
		was, known := before.streams[s.Name]
		if is, still := after.streams[s.Name]; known && still && is >= was {
			rate := float64(is-was) / seconds
			s.EventsPerSecond = &rate
		}
	}
	if slot := d.Slot; slot != nil && before.wal != nil && after.wal != nil {
		rate := float64(*after.wal-*before.wal) / seconds
		slot.WALBytesPerSecond = &rate
		if slot.SafeBytes != nil && rate > 0 {
			runway := float64(*slot.SafeBytes) / rate
			slot.RunwaySeconds = &runway
		}
	}
}

// Attention says in one word how things stand: ok, warning, failing or unknown.
func (d *Document) Attention() string {
	switch {
	case d.Problems.Worst() == check.Fail:
		return "failing"
	case len(d.Unknown) > 0:
		return "unknown"
	case d.Problems.Worst() == check.Warn, d.Slot != nil && d.Slot.Holder == nil:
		return "warning"
	}
	return "ok"
}
