package provision

import (
	"fmt"
	"slices"
	"strings"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/sql"
)

// PrintSQL returns the SQL by which somebody with the rights for it makes
// everything in the database that [Setup] would: a script for psql, which may
// be run again. It connects to nothing; of the connection settings it uses
// only the role of postgres.url, if that is set, to whom it grants what a
// relay needs. The error joins *[config.Error] values.
func PrintSQL(cfg config.Config) (string, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.ValidateDatabase(); err != nil {
		return "", err
	}
	migrations, err := sql.Migrations()
	if err != nil {
		return "", err
	}
	var s script
	s.add(`-- Everything that walrelay needs in this database. Run it in the database of the
-- outbox, as a superuser or as the owner of the outbox tables with the rights
-- CREATE on the database and REPLICATION. It may be run again.
-- The server needs wal_level = logical.

-- No function or table of another schema takes the place of one of the server's.
SET search_path = pg_catalog, pg_temp;

BEGIN;`, nil)
	for _, m := range migrations {
		s.add(m.SQL, nil)
		s.add(fmt.Sprintf("INSERT INTO walrelay.migrations (version, name)\nVALUES (%d, %s)\nON CONFLICT (version) DO NOTHING;",
			m.Version, sql.Literal(m.Name)), nil)
	}
	for _, text := range cfg.Outbox.Tables {
		if cfg.OwnForm(text) {
			s.add(outboxSQL(text, cfg))
		}
	}
	covered, err := cfg.Outboxes()
	if err != nil {
		return "", err
	}
	// Nobody knows here whether the standby has the slot: what it read before is unknown.
	before := covered
	before.Standby = false
	s.add(sql.Uncover(before))
	s.add(publicationSQL(cfg.Publication, append(slices.Clone(cfg.Outbox.Tables), sql.OwnSchema+".emitted")))
	s.add(rolesSQL(cfg))
	if cfg.Postgres.Given() {
		url, err := connect.PostgresURL(cfg.Postgres)
		if err != nil {
			return "", err
		}
		parsed, err := config.ParsePostgres(url)
		if err != nil {
			return "", &config.Error{Key: "postgres.url", Problem: err.Error()}
		}
		prefix := cfg.Postgres.RolePrefix
		if prefix == config.NoRoles {
			prefix = ""
		}
		s.add(sql.Grants(prefix, parsed.User))
	}
	s.add("COMMIT;", nil)
	if covered.Standby {
		s.add("-- The following statement is for the standby, once it has replayed what is above. Meanwhile run\n"+
			"-- SELECT pg_log_standby_snapshot(); on the primary, or wait until the server does what that does.", nil)
	}
	s.add(sql.Slot(cfg.Slot, cfg.Publication, cfg.Failover))
	if covered.Standby {
		s.add("-- The rest is for the primary, when the slot is there.", nil)
	}
	s.add(sql.Cover(covered))
	return strings.Join(s.parts, "\n\n") + "\n", s.err
}

// script collects parts of a script, and the first error in making one.
type script struct {
	parts []string
	err   error
}

func (s *script) add(part string, err error) {
	if part = strings.TrimSpace(part); part != "" {
		s.parts = append(s.parts, part)
	}
	if s.err == nil {
		s.err = err
	}
}

func outboxSQL(text string, cfg config.Config) (string, error) {
	table, err := config.ParseTable(text)
	if err != nil {
		return "", err
	}
	statements, err := sql.Outbox(table)
	if err == nil {
		var slim string
		slim, err = sql.Slim(table)
		statements += "\n" + slim
	}
	if err != nil || cfg.Outbox.AfterPublish != "mark" {
		return statements, err
	}
	mark, err := sql.Mark(table)
	return statements + "\n" + mark, err
}

func publicationSQL(name string, texts []string) (string, error) {
	tables, err := parseTables(texts)
	if err != nil {
		return "", err
	}
	return sql.Publication(name, tables)
}

func rolesSQL(cfg config.Config) (string, error) {
	tables, err := parseTables(cfg.Outbox.Tables)
	if err != nil {
		return "", err
	}
	if cfg.Postgres.RolePrefix == config.NoRoles {
		return "", nil
	}
	return sql.Roles(cfg.Postgres.RolePrefix, tables)
}

func parseTables(texts []string) (tables []sql.Table, err error) {
	tables = make([]sql.Table, len(texts))
	for i, text := range texts {
		if tables[i], err = config.ParseTable(text); err != nil {
			return nil, err
		}
	}
	return tables, nil
}
