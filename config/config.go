// Package config says what a relay is told.
//
// Input: values that a caller has read from flags, environment and file, by the
// keys that the tags name. Output: a [Config] with its defaults, every problem
// of it at once ([Config.Validate]), and the [Plan] that the components take
// ([Config.Compile]). The package connects to nothing, and must not import what
// runs a relay.
package config

import "time"

// Config says everything that a relay needs to know. The zero value of a field
// means its default, which [Config.WithDefaults] fills in; only Postgres.URL
// and NATS.URL have none. The tags name the keys of the configuration file.
type Config struct {
	Postgres Postgres `koanf:"postgres"`
	NATS     NATS     `koanf:"nats"`
	// Slot is the logical replication slot; default "walrelay".
	Slot string `koanf:"slot"`
	// Publication is the publication that the slot reads; default "walrelay".
	Publication string `koanf:"publication"`
	// Failover asks init to create the slot with the failover property
	// (Postgres 17 and newer).
	Failover bool     `koanf:"failover"`
	Outbox   Outbox   `koanf:"outbox"`
	Streams  []Stream `koanf:"streams"`
	Publish  Publish  `koanf:"publish"`
	Retry    Retry    `koanf:"retry"`
	Routes   []Route  `koanf:"routes"`
	HTTP     HTTP     `koanf:"http"`
	Console  Console  `koanf:"console"`
	Log      Log      `koanf:"log"`
	// ShutdownTimeout bounds the draining of in-flight publishes at the end of
	// a run; default 5s.
	ShutdownTimeout time.Duration `koanf:"shutdown_timeout"`
}

// Postgres says how to reach the database.
type Postgres struct {
	// URL is a libpq URL or keyword string; required. Everything that libpq's
	// PG… environment variables and .pgpass say applies too.
	URL string `koanf:"url"`
	// URLFile is a file with the URL, in place of it. It, and the password, are read each
	// time that a connection is made.
	URLFile string `koanf:"url_file"`
	// PasswordFile is a file with the password, and PasswordCommand a program and its
	// arguments that prints it, such as a token that is valid for minutes. One of them, or
	// neither.
	PasswordFile    string   `koanf:"password_file"`
	PasswordCommand []string `koanf:"password_command"`
	// Standby is the host and port of a standby that has the slot (Postgres 16 and newer): the
	// WAL is read there, and kept there, with the user, the database and the password of the
	// URL, which is the primary's. A host with a port after a colon, or a directory of
	// sockets; empty for a slot on the primary.
	Standby string `koanf:"standby"`
	// RolePrefix begins the names of the roles that init makes. Roles belong to the
	// cluster: relays of several of its databases need one each. [NoRoles]: none are
	// made.
	RolePrefix string `koanf:"role_prefix"`
}

// NoRoles is the RolePrefix by which init makes no roles.
const NoRoles = "none"

// NATS says how to reach the NATS servers.
type NATS struct {
	// URL is one NATS URL or several, separated by commas; required.
	URL string `koanf:"url"`
	// URLFile is a file with the URLs, in place of them, read when the first connection is
	// made.
	URLFile  string `koanf:"url_file"`
	User     string `koanf:"user"`
	Password string `koanf:"password"`
	Token    string `koanf:"token"`
	// PasswordFile and TokenFile are files with the password and the token, read each time
	// that a connection is made.
	PasswordFile string `koanf:"password_file"`
	TokenFile    string `koanf:"token_file"`
	// CredsFile is a file with a user JWT and its nkey seed.
	CredsFile string `koanf:"creds_file"`
	// NKeyFile is a file with an nkey seed.
	NKeyFile string  `koanf:"nkey_file"`
	TLS      NATSTLS `koanf:"tls"`
	// Domain is the JetStream domain, if not the server's own.
	Domain string `koanf:"domain"`
	// InboxPrefix begins the subjects on which answers come; default _INBOX. A user
	// who may subscribe to subjects of its own only needs one.
	InboxPrefix string `koanf:"inbox_prefix"`
	// Service answers with the status over NATS, as a micro service: who may publish to its
	// subjects can ask.
	Service bool `koanf:"service"`
}

// NATSTLS has the files of a TLS connection to NATS, in PEM.
type NATSTLS struct {
	CAFile   string `koanf:"ca_file"`
	CertFile string `koanf:"cert_file"`
	KeyFile  string `koanf:"key_file"`
	// HandshakeFirst begins with the TLS handshake, before the server says anything:
	// for servers that are configured so (handshake_first).
	HandshakeFirst bool `koanf:"handshake_first"`
}

// Outbox says which tables are outboxes and how their columns map.
type Outbox struct {
	// Tables are schema-qualified; default ["public.outbox"].
	Tables []string `koanf:"tables"`
	// Mappings override, for some of the tables, which column is what.
	Mappings []Mapping `koanf:"mappings"`
	// AfterPublish says what becomes of rows whose event is settled:
	// "delete" (default), once RepairWindow has passed since they were published;
	// "mark", in the column published_at; or "keep".
	AfterPublish string `koanf:"after_publish"`
	// RepairWindow is how long rows are kept before they are deleted, marked or
	// not; default 1h. Discarded events stay visible for as long.
	RepairWindow time.Duration `koanf:"repair_window"`
}

// Retry says when an event that could not be published, for a reason of
// its own, is tried again. In a route, what is not set is as for all.
type Retry struct {
	// Initial is the delay after the first attempt; default 5s.
	Initial time.Duration `koanf:"initial"`
	// Factor is by how much each delay is longer than the one before; default 2.
	Factor int `koanf:"factor"`
	// Max is the longest delay; default 1h.
	Max time.Duration `koanf:"max"`
	// MaxRetries is how often an event is tried again, unless its row says
	// otherwise; default 15, -1 for never.
	MaxRetries int `koanf:"max_retries"`
	// FailedHoldsKey says that an event out of retries goes on holding the later
	// events of its key, until somebody redrives or discards it. Not in a route.
	FailedHoldsKey bool `koanf:"failed_holds_key"`
}

// Mapping says which columns of one table make an event.
type Mapping struct {
	Table string `koanf:"table"`
	// Preset is "walrelay" (default), "debezium" or "django-broadcaster".
	Preset string `koanf:"preset"`
	// Columns maps attribute to column and overrides the preset: id, type,
	// source, subject, time, data, data_bytes, datacontenttype, dataschema,
	// extensions, partition_key, scheduled_at, max_retries. An empty column
	// name unmaps the attribute.
	Columns map[string]string `koanf:"columns"`
	// Values gives attributes a constant instead of a column: source, type,
	// subject, datacontenttype, dataschema. {column} inserts a column's value.
	Values map[string]string `koanf:"values"`
}

// Stream is one JetStream stream to publish to.
type Stream struct {
	// Name of the stream; required.
	Name string `koanf:"name"`
	// Subjects that init creates the stream with; default ["events.>"] for the
	// default stream.
	Subjects []string `koanf:"subjects"`
	// Shared says that others write into the stream too: then no fence is
	// kept, and only the stream's duplicate window guards against duplicates.
	Shared bool `koanf:"shared"`
	// Replicas that init creates the stream with; default 1.
	Replicas int `koanf:"replicas"`
	// DuplicateWindow that init creates the stream with; default 10s, or 2m for a
	// shared stream.
	DuplicateWindow time.Duration `koanf:"duplicate_window"`
	// MaxAge and MaxBytes that init creates the stream with; default no limit.
	MaxAge   time.Duration `koanf:"max_age"`
	MaxBytes int64         `koanf:"max_bytes"`
}

// Publish says how events are published.
type Publish struct {
	// Subject is the template of subjects; default "events.{type}".
	Subject string `koanf:"subject"`
	// Mode is "binary" (default) or "structured" (CloudEvents content modes).
	Mode string `koanf:"mode"`
	// MaxInFlight bounds, per stream, the events sent and not yet
	// acknowledged; default 8192.
	MaxInFlight int `koanf:"max_in_flight"`
	// MaxInFlightBytes bounds their bytes; default 16 MiB. One event larger
	// than this passes alone.
	MaxInFlightBytes int `koanf:"max_in_flight_bytes"`
	// MessageID says whether messages of owned streams have a Nats-Msg-Id; default
	// true.
	MessageID *bool `koanf:"message_id"`
	// MaxEventSize is how many bytes an event may have; default the server's
	// max_payload, but at least 1 MiB. A larger one fails at once, and its content
	// stays in its row.
	MaxEventSize int `koanf:"max_event_size"`
	// AckTimeout is how long an acknowledgement may take before the stream is
	// asked what it has; default 5s.
	AckTimeout time.Duration `koanf:"ack_timeout"`
	// Atomic publishes the events of a transaction as one atomic batch, so that
	// no consumer sees some of them before all are stored (nats-server 2.12 and
	// newer, streams with allow_atomic).
	Atomic bool `koanf:"atomic"`
	// AtomicMaxEvents is how many events a batch may have; default 1000, which
	// is nats-server's limit unless it is configured otherwise.
	AtomicMaxEvents int `koanf:"atomic_max_events"`
	// AtomicOverflow says what becomes of a transaction that cannot be one
	// batch: with "delay" (default) its events fail and wait in the delay table
	// for a person; with "split" they are published one by one, and marked.
	AtomicOverflow string `koanf:"atomic_overflow"`
}

// What becomes of a transaction that cannot be one batch.
const (
	OverflowDelay = "delay"
	OverflowSplit = "split"
)

// Route is a rule; the first whose conditions all match decides.
type Route struct {
	// Conditions; an empty one matches everything. Type and Source may contain
	// * for any run of characters. Table is schema-qualified.
	Type   string `koanf:"type"`
	Source string `koanf:"source"`
	Table  string `koanf:"table"`
	// Stream to publish to; default the first stream.
	Stream string `koanf:"stream"`
	// Subject template; default publish.subject.
	Subject string `koanf:"subject"`
	// Mode overrides publish.mode.
	Mode string `koanf:"mode"`
	// Drop says that the event is not published at all.
	Drop bool `koanf:"drop"`
	// Retry overrides retry.
	Retry Retry `koanf:"retry"`
}

// HTTP says where health and metrics are served.
type HTTP struct {
	// Addr to listen on; default "127.0.0.1:8080"; "off" serves nothing.
	Addr string  `koanf:"addr"`
	TLS  HTTPTLS `koanf:"tls"`
}

// HTTPTLS has the files of a TLS server, in PEM; without them HTTP is plain.
type HTTPTLS struct {
	CertFile string `koanf:"cert_file"`
	KeyFile  string `koanf:"key_file"`
}

// Console says who may see and use the pages at /console/ of the HTTP address.
type Console struct {
	// Enabled says whether there are any; default true.
	Enabled *bool `koanf:"enabled"`
	// Token signs in: without one nobody may change anything, and the pages are served on
	// loopback addresses only.
	Token string `koanf:"token"`
	// TokenFile is a file with the token, in place of it, read at each request.
	TokenFile string `koanf:"token_file"`
	// BehindProxy says that all requests come from a proxy, which ends TLS.
	BehindProxy bool `koanf:"behind_proxy"`
}

// MinToken is how many characters a token of the console has at least: nobody guesses it.
const MinToken = 16

// Log says what is logged, and how.
type Log struct {
	// Level is debug, info (default), warn or error.
	Level string `koanf:"level"`
	// Format is json, console, or auto (default): console on a terminal.
	Format string `koanf:"format"`
}
