// Package connect opens connections to Postgres and NATS: nothing else does.
//
// Input: the configuration of each side. Output: connections whose session
// settings are walrelay's own, whatever a role or a database sets; and a
// [problem.Problem] where the server refuses for a reason that only a person can
// mend. No error quotes a secret. The package must not import what uses the
// connections.
package connect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/sqlstate"
	"github.com/walrelay/walrelay/replication"
)

// ApplicationName is what connections call themselves, unless the connection
// string says otherwise.
const ApplicationName = "walrelay"

// settings are those of every ordinary connection. What ALTER ROLE and ALTER
// DATABASE set for others must not change what walrelay's statements mean, nor
// whether they run: names resolve in pg_catalog alone, so that no function or
// table of another schema takes their place; texts come in one form; nothing
// times out or turns read-only on its own. With row_security off, a policy that
// would hide rows is an error and not silence.
func settings() map[string]string {
	return map[string]string{
		"search_path":                         "pg_catalog, pg_temp",
		"client_encoding":                     "UTF8",
		"bytea_output":                        "hex",
		"datestyle":                           "ISO, YMD",
		"intervalstyle":                       "postgres",
		"timezone":                            "UTC",
		"extra_float_digits":                  "1",
		"standard_conforming_strings":         "on",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"default_transaction_deferrable":      "off",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
		"row_security":                        "off",
	}
}

// prepare sets what not every server or role may set at the start of a session.
// Statements of a process that was killed end soon, unless the server's platform cannot
// tell (before it had the setting, and where poll knows no POLLRDHUP).
const prepare = `
	SELECT
		(SELECT set_config(name, '5s', false) FROM pg_catalog.pg_settings
		WHERE name = 'client_connection_check_interval' AND pg_catalog.version() ~ 'linux'),
		CASE WHEN current_setting('server_version_num')::integer >= 140000
			THEN set_config('idle_session_timeout', '0', false) END,
		CASE WHEN current_setting('server_version_num')::integer >= 170000
			THEN set_config('transaction_timeout', '0', false) END,
		-- Only a superuser may; messages are told apart by code all the same.
		CASE WHEN rolsuper THEN set_config('lc_messages', 'C', false) END
	FROM pg_catalog.pg_roles
	WHERE rolname = current_user`

// Postgres opens an ordinary connection. It blocks until the server has
// answered, the connection string's connect_timeout has passed, or the context
// has ended. The caller closes it.
func Postgres(ctx context.Context, cfg config.Postgres) (*pgx.Conn, error) {
	return PostgresWith(ctx, cfg, nil)
}

// PostgresWith does so for a session in which some settings are others.
func PostgresWith(ctx context.Context, cfg config.Postgres, others map[string]string) (*pgx.Conn, error) {
	parsed, err := parse(ctx, cfg, others)
	if err != nil {
		return nil, err
	}
	return open(ctx, parsed)
}

func open(ctx context.Context, parsed *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, parsed)
	if err != nil {
		return nil, refusedByPostgres(err)
	}
	if _, err := conn.Exec(ctx, prepare); err != nil {
		ClosePostgres(conn)
		return nil, fmt.Errorf("preparing a connection to Postgres: %w", err)
	}
	return conn, nil
}

// Slot opens such a connection to the server that has the slot: the standby, if it is there.
func Slot(ctx context.Context, cfg config.Postgres) (*pgx.Conn, error) {
	if cfg.Standby == "" {
		return Postgres(ctx, cfg)
	}
	url, password, err := SlotSecrets(ctx, cfg)
	if err != nil {
		return nil, err
	}
	parsed, err := withSettings(url, password, nil)
	if err != nil {
		return nil, err
	}
	conn, err := open(ctx, parsed)
	if err != nil {
		return nil, fmt.Errorf("the standby of postgres.standby: %w", err)
	}
	return conn, nil
}

// parse reads the connection string, and adds the settings of sessions.
func parse(ctx context.Context, cfg config.Postgres, others map[string]string) (*pgx.ConnConfig, error) {
	url, password, err := PostgresSecrets(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return withSettings(url, password, others)
}

func withSettings(url, password string, others map[string]string) (*pgx.ConnConfig, error) {
	parsed, err := config.ParsePostgres(url)
	if err != nil {
		return nil, &config.Error{Key: "postgres.url", Problem: err.Error()}
	}
	if password != "" {
		parsed.Password = password
	}
	if parsed.RuntimeParams["application_name"] == "" {
		parsed.RuntimeParams["application_name"] = ApplicationName
	}
	maps.Copy(parsed.RuntimeParams, settings())
	maps.Copy(parsed.RuntimeParams, others)
	return parsed, nil
}

// hostTimeout bounds the connection to one host.
const hostTimeout = 3 * time.Second

// EachHost connects to each host of the connection string, whatever it is, and calls do with
// the connection, or why there is none. It blocks for 3 s for each host at most, and closes
// the connections.
func EachHost(ctx context.Context, cfg config.Postgres, do func(host string, conn *pgx.Conn, err error)) error {
	parsed, err := parse(ctx, cfg, nil)
	if err != nil {
		return err
	}
	parsed.ValidateConnect = nil // target_session_attrs
	// A host may be there twice, with TLS and without.
	var hosts []string
	ways := make(map[string][]*pgconn.FallbackConfig)
	for _, way := range append([]*pgconn.FallbackConfig{{Host: parsed.Host, Port: parsed.Port, TLSConfig: parsed.TLSConfig}}, parsed.Fallbacks...) {
		name := net.JoinHostPort(way.Host, strconv.Itoa(int(way.Port)))
		if ways[name] == nil {
			hosts = append(hosts, name)
		}
		ways[name] = append(ways[name], way)
	}
	for _, name := range hosts {
		each := parsed.Copy()
		each.Host, each.Port, each.TLSConfig, each.Fallbacks = ways[name][0].Host, ways[name][0].Port, ways[name][0].TLSConfig, ways[name][1:]
		asking, cancel := context.WithTimeout(ctx, hostTimeout)
		conn, err := pgx.ConnectConfig(asking, each)
		if err != nil {
			err = refusedByPostgres(err)
		}
		do(name, conn, err)
		cancel()
		if conn != nil {
			ClosePostgres(conn)
		}
	}
	return nil
}

// Pool returns a pool of up to n such connections. It opens none yet. The caller closes it.
func Pool(ctx context.Context, cfg config.Postgres, n int32) (*pgxpool.Pool, error) {
	parsed, err := parse(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	pooled, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, fmt.Errorf("making a pool of connections: %w", err)
	}
	pooled.ConnConfig, pooled.MaxConns = parsed, n
	pooled.BeforeConnect = func(ctx context.Context, each *pgx.ConnConfig) error {
		_, password, err := PostgresSecrets(ctx, cfg)
		if err == nil && password != "" {
			each.Password = password
		}
		return err
	}
	pooled.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, prepare)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, pooled)
	if err != nil {
		return nil, fmt.Errorf("making a pool of connections: %w", err)
	}
	return pool, nil
}

// Durable opens an ordinary connection whose commits are on disk when they
// return, and whose transactions end when they are idle: a relay that is frozen
// in the middle of one must not keep the next relay from taking over.
func Durable(ctx context.Context, cfg config.Postgres) (*pgx.Conn, error) {
	conn, err := Postgres(ctx, cfg)
	if err != nil {
		return nil, err
	}
	const statement = `
		SELECT set_config('idle_in_transaction_session_timeout', '3s', false),
		       set_config('synchronous_commit',
		           CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)`
	if _, err := conn.Exec(ctx, statement); err != nil {
		ClosePostgres(conn)
		return nil, fmt.Errorf("preparing a connection to Postgres: %w", err)
	}
	return conn, nil
}

// ClosePostgres closes a connection on which nothing is under way. It blocks for
// a second at most.
func ClosePostgres(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing is under way, so nothing can be lost
}

// refusedByPostgres turns what only a person can mend into a [problem.Problem].
func refusedByPostgres(err error) error {
	if p := replication.Pooler(err); p != nil {
		return p
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
	case pgErr.Code == sqlstate.InvalidCatalogName:
		return &problem.Problem{ID: "database_missing", What: "Postgres refuses the connection", Err: pgErr, Fix: "correct postgres.url or create the database"}
	case pgErr.Code == sqlstate.UndefinedObject, pgErr.Code == sqlstate.InvalidParameterValue:
		return &problem.Problem{ID: "postgres_parameter", What: "Postgres refuses a parameter of postgres.url", Err: pgErr, Fix: "leave it out of postgres.url"}
	case pgErr.Code == sqlstate.InsufficientPrivilege, strings.HasPrefix(pgErr.Code, sqlstate.ClassInvalidAuthorization):
		return &problem.Problem{
			ID:   "postgres_refused",
			What: "Postgres refuses the connection",
			Err:  pgErr,
			Fix:  "correct postgres.url, or give the role LOGIN and pg_hba.conf a line for it and this database",
		}
	}
	return fmt.Errorf("connecting to Postgres: %w", &unreachableError{err})
}

// unreachableError tells each of the attempts that the client made once, on one line: it tries a
// host with TLS and without.
type unreachableError struct{ err error }

func (e *unreachableError) Unwrap() error { return e.err }

func (e *unreachableError) Error() string {
	var said []string
	for line := range strings.Lines(e.err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	if len(said) < 2 {
		return strings.Join(said, "")
	}
	return said[0] + " " + strings.Join(said[1:], "; ")
}
