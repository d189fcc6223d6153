package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/internal/pgparam"
	"github.com/walrelay/walrelay/router"
	"github.com/walrelay/walrelay/sql"
)

// DefaultStream is the stream that is used when none is configured.
const DefaultStream = "EVENTS"

// Error says what is wrong with one key of the configuration.
type Error struct {
	// Key as in the configuration file, such as routes[2].subject.
	Key     string
	Problem string
}

func (e *Error) Error() string { return e.Key + ": " + e.Problem }

// WithDefaults returns the configuration with every zero value that has a
// default replaced by it. What the receiver refers to is not changed.
func (c Config) WithDefaults() Config {
	defaults(&c.Slot, "walrelay")
	defaults(&c.Publication, "walrelay")
	defaults(&c.Postgres.RolePrefix, "walrelay")
	if len(c.Outbox.Tables) == 0 {
		c.Outbox.Tables = []string{"public.outbox"}
	}
	c.Streams = slices.Clone(c.Streams)
	if len(c.Streams) == 0 {
		c.Streams = []Stream{{Name: DefaultStream}}
	}
	for i := range c.Streams {
		s := &c.Streams[i]
		if s.Name == DefaultStream && len(s.Subjects) == 0 {
			s.Subjects = []string{"events.>"}
		}
		defaults(&s.Replicas, 1)
		window := 10 * time.Second
		if s.Shared {
			window = 2 * time.Minute
		}
		defaults(&s.DuplicateWindow, window)
		// The server refuses a window longer than messages live.
		if s.MaxAge > 0 {
			s.DuplicateWindow = min(s.DuplicateWindow, s.MaxAge)
		}
	}
	defaults(&c.Publish.Subject, "events.{type}")
	defaults(&c.Publish.Mode, "binary")
	if c.Publish.MessageID == nil {
		c.Publish.MessageID = new(true)
	}
	defaults(&c.Publish.MaxInFlight, 8192)
	defaults(&c.Publish.MaxInFlightBytes, 16<<20)
	defaults(&c.Publish.AckTimeout, 5*time.Second)
	defaults(&c.Publish.AtomicMaxEvents, 1000)
	defaults(&c.Publish.AtomicOverflow, OverflowDelay)
	defaults(&c.Outbox.AfterPublish, "delete")
	defaults(&c.Outbox.RepairWindow, time.Hour)
	defaults(&c.Retry.Initial, 5*time.Second)
	defaults(&c.Retry.Factor, 2)
	defaults(&c.Retry.Max, time.Hour)
	defaults(&c.Retry.MaxRetries, 15)
	c.Routes = slices.Clone(c.Routes)
	for i := range c.Routes {
		r := &c.Routes[i].Retry
		defaults(&r.Initial, c.Retry.Initial)
		defaults(&r.Factor, c.Retry.Factor)
		defaults(&r.Max, c.Retry.Max)
		defaults(&r.MaxRetries, c.Retry.MaxRetries)
	}
	defaults(&c.HTTP.Addr, "127.0.0.1:8080")
	if c.Console.Enabled == nil {
		c.Console.Enabled = new(true)
	}
	defaults(&c.Log.Level, "info")
	defaults(&c.Log.Format, "auto")
	defaults(&c.ShutdownTimeout, 5*time.Second)
	return c
}

// StagedEvents and StagedBytes bound what waits for one write to the delay
// table.
const (
	StagedEvents = 1000
	StagedBytes  = 8 << 20
)

// eventOverhead is what an event that is kept takes beside its bytes, near
// enough: the [event.Event], its place in the window, and what they refer to.
const eventOverhead = 512

// MaxBuffered is how many bytes of memory a relay keeps events in at most: in
// the windows of its streams, and before a write to the delay table. One event
// that is larger than these passes too, and is not counted.
func (c Config) MaxBuffered() int64 {
	c = c.WithDefaults()
	window := int64(c.Publish.MaxInFlightBytes) + int64(c.Publish.MaxInFlight)*eventOverhead
	return int64(len(c.Streams))*window + StagedBytes + StagedEvents*eventOverhead
}

func defaults[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

// Validate reports everything that is wrong with the configuration, without
// connecting to anything: nil, or *[Error] values that are joined. A zero
// value counts as its default.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var v validator
	v.postgres(c.Postgres)
	v.nats(c.NATS)
	v.database(c)
	v.streams(c.Streams)
	v.publish(c.Publish, c.Streams)
	v.retry("retry", c.Retry)
	for i, route := range c.Routes {
		v.route(fmt.Sprintf("routes[%d]", i), route, c)
	}
	v.http(c.HTTP)
	v.console(c.Console)
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		v.problem("log.level", "%q is not one of debug, info, warn, error", c.Log.Level)
	}
	if !slices.Contains([]string{"auto", "json", "console"}, c.Log.Format) {
		v.problem("log.format", "%q is not one of auto, json, console", c.Log.Format)
	}
	v.positive("shutdown_timeout", int64(c.ShutdownTimeout))
	if c.Failover && c.Postgres.Standby != "" {
		v.problem("failover", "a slot on a standby (postgres.standby) has no failover: it stays when the standby is promoted")
	}
	return errors.Join(v.problems...)
}

// rolePrefixes leaves room for what follows a prefix in a name of 63 bytes.
var rolePrefixes = regexp.MustCompile(`^[a-z][a-z0-9_]{0,49}$`) //nolint:gochecknoglobals // never written

type validator struct{ problems []error }

func (v *validator) problem(key, format string, args ...any) {
	v.problems = append(v.problems, &Error{Key: key, Problem: fmt.Sprintf(format, args...)})
}

func (v *validator) positive(key string, n int64) {
	if n <= 0 {
		v.problem(key, "must be greater than zero")
	}
}

func (v *validator) postgres(c Postgres) {
	if c.PasswordFile != "" && len(c.PasswordCommand) > 0 {
		v.problem("postgres.password_command", "cannot be used together with postgres.password_file")
	}
	if len(c.PasswordCommand) > 0 && c.PasswordCommand[0] == "" {
		v.problem("postgres.password_command", "must begin with a program")
	}
	if strings.ContainsAny(c.Standby, ",@ '\\?") || strings.Contains(c.Standby, "//") {
		v.problem("postgres.standby", "must be one host, with or without a port: replica.example.com:5432")
	}
	switch {
	case c.URL != "" && c.URLFile != "":
		v.problem("postgres.url_file", "cannot be used together with postgres.url")
	case !c.Given():
		v.problem("postgres.url", "must be set")
	case c.URL != "":
		if _, err := ParsePostgres(c.URL); err != nil {
			v.problem("postgres.url", "%v", err)
		}
	}
}

// Given reports whether there is a database to connect to.
func (c Postgres) Given() bool { return c.URL != "" || c.URLFile != "" }

// ParsePostgres reads a libpq URL or keyword string. Its errors quote no part of a
// string that may be a password: which part of a malformed URL that is, nobody
// can tell.
func ParsePostgres(text string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(text)
	if err == nil {
		_, err := pgparam.Clean(config.RuntimeParams)
		return config, err
	}
	cause := errors.Unwrap(err)
	if _, urlErr := url.Parse(text); urlErr == nil && cause != nil {
		return nil, fmt.Errorf("cannot be used: %w", cause)
	}
	return nil, errors.New("cannot be read as a URL (postgres://user@host:5432/database) or keyword string (host=… dbname=…); " +
		"in a URL, characters of the password such as / : @ % # must be percent-encoded")
}

// AtHost returns a connection string for another host, with all else as it was: user,
// database, TLS. The host has a port, or that of the connection string, and may be a standby.
func AtHost(text, host string) (string, error) {
	parsed, err := ParsePostgres(text)
	if err != nil {
		return "", err
	}
	port := strconv.Itoa(int(parsed.Port))
	if name, number, err := net.SplitHostPort(host); err == nil {
		host, port = name, number
	}
	host = strings.Trim(host, "[]")
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		// The last value of a keyword counts.
		return fmt.Sprintf("%s host='%s' port='%s' target_session_attrs=any", text, host, port), nil
	}
	at, err := url.Parse(text)
	if err != nil {
		return "", errors.New("cannot be read as a URL")
	}
	query := at.Query()
	for _, name := range []string{"hostaddr", "host", "port"} {
		query.Del(name)
	}
	query.Set("target_session_attrs", "any")
	at.Host = net.JoinHostPort(host, port)
	if strings.HasPrefix(host, "/") {
		at.Host = ""
		query.Set("host", host)
		query.Set("port", port)
	}
	at.RawQuery = query.Encode()
	return at.String(), nil
}

func (v *validator) nats(c NATS) {
	switch {
	case c.URL != "" && c.URLFile != "":
		v.problem("nats.url_file", "cannot be used together with nats.url")
	case c.URL == "" && c.URLFile == "":
		v.problem("nats.url", "must be set")
	case c.URL != "":
		if err := c.CheckURLs(); err != nil {
			v.problem("nats.url", "%v", err)
		}
	}
	var ways []string
	for _, way := range []struct {
		key string
		set bool
	}{
		{"nats.user", c.User != ""},
		{"nats.token", c.Token != ""},
		{"nats.token_file", c.TokenFile != ""},
		{"nats.creds_file", c.CredsFile != ""},
		{"nats.nkey_file", c.NKeyFile != ""},
	} {
		if way.set {
			ways = append(ways, way.key)
		}
	}
	if len(ways) > 1 {
		v.problem(ways[1], "cannot be used together with %s", ways[0])
	}
	if c.Password != "" && c.User == "" {
		v.problem("nats.password", "needs nats.user")
	}
	if c.PasswordFile != "" && c.User == "" {
		v.problem("nats.password_file", "needs nats.user")
	}
	if c.PasswordFile != "" && c.Password != "" {
		v.problem("nats.password_file", "cannot be used together with nats.password")
	}
	if c.TLS.CertFile != "" && c.TLS.KeyFile == "" {
		v.problem("nats.tls.cert_file", "needs nats.tls.key_file")
	}
	if c.TLS.KeyFile != "" && c.TLS.CertFile == "" {
		v.problem("nats.tls.key_file", "needs nats.tls.cert_file")
	}
	if strings.ContainsAny(c.Domain, ".*> \t") {
		v.problem("nats.domain", "%q must not contain dots, wildcards or spaces", c.Domain)
	}
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// ValidateDatabase is [Config.Validate] for what concerns objects in the
// database, and the connection to it if there is one: what is needed to print
// SQL. The configuration has its defaults.
func (c Config) ValidateDatabase() error {
	var v validator
	v.database(c)
	if c.Postgres.Given() {
		v.postgres(c.Postgres)
	}
	return errors.Join(v.problems...)
}

func (v *validator) database(c Config) {
	if !slotName.MatchString(c.Slot) {
		v.problem("slot", "%q is not a valid slot name (1–63 of a-z, 0-9, _)", c.Slot)
	}
	if !rolePrefixes.MatchString(c.Postgres.RolePrefix) {
		v.problem("postgres.role_prefix", "%q is not 1–50 of a-z, 0-9, _, beginning with a letter; \"none\" makes no roles", c.Postgres.RolePrefix)
	}
	if problem := identifierProblem(c.Publication); problem != "" {
		v.problem("publication", "%q %s", c.Publication, problem)
	}
	if !slices.Contains([]string{"delete", "mark", "keep"}, c.Outbox.AfterPublish) {
		v.problem("outbox.after_publish", "%q is unknown; there are delete, mark and keep", c.Outbox.AfterPublish)
	}
	v.positive("outbox.repair_window", int64(c.Outbox.RepairWindow))
	for i, text := range c.Outbox.Tables {
		key := fmt.Sprintf("outbox.tables[%d]", i)
		table, err := ParseTable(text)
		switch {
		case err != nil:
			v.problem(key, "%v", err)
		case table.Schema == sql.OwnSchema:
			v.problem(key, "%q: the schema %s is walrelay's own", text, sql.OwnSchema)
		case slices.Contains(c.Outbox.Tables[:i], text):
			v.problem(key, "%q is listed twice", text)
		}
	}
	seen := map[string]bool{}
	for i, m := range c.Outbox.Mappings {
		key := fmt.Sprintf("outbox.mappings[%d]", i)
		switch {
		case m.Table == "":
			v.problem(key+".table", "must be set")
		case !slices.Contains(c.Outbox.Tables, m.Table):
			v.problem(key+".table", "%q is not one of outbox.tables", m.Table)
		case seen[m.Table]:
			v.problem(key+".table", "%q has two mappings", m.Table)
		}
		seen[m.Table] = true
		mapping, err := decode.Preset(m.Preset)
		if err != nil {
			v.problem(key+".preset", "%v", err)
			continue
		}
		if _, err := mapping.With(m.Columns, m.Values); err != nil {
			for text := range strings.Lines(err.Error()) { // one for each attribute
				v.problem(key, "%s", strings.TrimSpace(text))
			}
		}
	}
}

// ParseTable splits schema.table. Both are taken as they are, like quoted
// identifiers.
func ParseTable(text string) (sql.Table, error) {
	schema, name, ok := strings.Cut(text, ".")
	if !ok {
		return sql.Table{}, fmt.Errorf("%q: write the table with its schema, such as public.%s", text, text)
	}
	for _, part := range []string{schema, name} {
		if problem := identifierProblem(part); problem != "" {
			return sql.Table{}, fmt.Errorf("%q: each of schema and table %s", text, problem)
		}
	}
	if strings.ContainsAny(name, `."`) || strings.Contains(schema, `"`) {
		return sql.Table{}, fmt.Errorf("%q: write schema.table, without quotes", text)
	}
	return sql.Table{Schema: schema, Name: name}, nil
}

// identifierProblem says what is wrong with a Postgres identifier, or nothing.
// Longer ones would be truncated to NAMEDATALEN-1 bytes, silently.
func identifierProblem(name string) string {
	switch {
	case name == "":
		return "must not be empty"
	case len(name) > 63:
		return "must not be longer than 63 bytes"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "must not contain control characters"
	}
	return ""
}

func (v *validator) publish(c Publish, streams []Stream) {
	if _, err := router.ParseSubject(c.Subject); err != nil {
		v.problem("publish.subject", "%v", err)
	}
	if _, err := router.ParseMode(c.Mode); err != nil {
		v.problem("publish.mode", "%v", err)
	}
	v.positive("publish.max_in_flight", int64(c.MaxInFlight))
	v.positive("publish.max_in_flight_bytes", int64(c.MaxInFlightBytes))
	if c.MaxEventSize < 0 {
		v.problem("publish.max_event_size", "%d is not a size; leave it out for max_payload of the server", c.MaxEventSize)
	}
	v.positive("publish.ack_timeout", int64(c.AckTimeout))
	if c.AtomicMaxEvents < 1 || c.AtomicMaxEvents > longestBatch {
		v.problem("publish.atomic_max_events", "%d is not between 1 and %d", c.AtomicMaxEvents, longestBatch)
	} else if c.Atomic && c.AtomicMaxEvents > c.MaxInFlight {
		v.problem("publish.atomic_max_events", "%d is more than publish.max_in_flight (%d)", c.AtomicMaxEvents, c.MaxInFlight)
	}
	if c.AtomicOverflow != OverflowDelay && c.AtomicOverflow != OverflowSplit {
		v.problem("publish.atomic_overflow", "%q must be delay or split", c.AtomicOverflow)
	}
	if !c.Atomic {
		return
	}
	for i, s := range streams {
		if s.Shared {
			v.problem(fmt.Sprintf("streams[%d].shared", i), "must not be true with publish.atomic: only in a stream of its own does walrelay know that a batch is stored")
		}
	}
}

// longestBatch is how many events a batch may have at most: while they are
// collected they are not settled, and the number of such events is bounded.
const longestBatch = 10_000

func (v *validator) retry(key string, c Retry) {
	v.positive(key+".initial", int64(c.Initial))
	v.positive(key+".factor", int64(c.Factor))
	v.positive(key+".max", int64(c.Max))
	if c.MaxRetries < -1 || c.MaxRetries > math.MaxInt32 {
		v.problem(key+".max_retries", "%d must be -1 (never) or the number of retries", c.MaxRetries)
	}
}

func (v *validator) route(key string, r Route, c Config) {
	v.retry(key+".retry", r.Retry)
	if r.Retry.FailedHoldsKey {
		v.problem(key+".retry.failed_holds_key", "holds for all events; set it in retry")
	}
	if r.Table != "" && !slices.Contains(c.Outbox.Tables, r.Table) {
		v.problem(key+".table", "%q is not one of outbox.tables", r.Table)
	}
	if r.Drop {
		for _, unused := range [][2]string{{"stream", r.Stream}, {"subject", r.Subject}, {"mode", r.Mode}} {
			if unused[1] != "" {
				v.problem(key+"."+unused[0], "has no meaning together with drop")
			}
		}
		return
	}
	if r.Stream != "" && !slices.ContainsFunc(c.Streams, func(s Stream) bool { return s.Name == r.Stream }) {
		v.problem(key+".stream", "%q is not one of streams", r.Stream)
	}
	if r.Subject != "" {
		if _, err := router.ParseSubject(r.Subject); err != nil {
			v.problem(key+".subject", "%v", err)
		}
	}
	if _, err := router.ParseMode(r.Mode); err != nil {
		v.problem(key+".mode", "%v", err)
	}
}

func (v *validator) http(c HTTP) {
	if c.TLS.CertFile != "" && c.TLS.KeyFile == "" {
		v.problem("http.tls.key_file", "must be set together with http.tls.cert_file")
	}
	if c.TLS.KeyFile != "" && c.TLS.CertFile == "" {
		v.problem("http.tls.cert_file", "must be set together with http.tls.key_file")
	}
	if c.Addr == "off" {
		return
	}
	_, port, err := net.SplitHostPort(c.Addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		v.problem("http.addr", `%q is neither host:port nor "off"`, c.Addr)
	}
}

func (v *validator) console(c Console) {
	if c.Token != "" && c.TokenFile != "" {
		v.problem("console.token_file", "cannot be used together with console.token")
	}
	if c.Token != "" && len(c.Token) < MinToken {
		v.problem("console.token", "it has %d characters, and needs at least %d", len(c.Token), MinToken)
	}
}
