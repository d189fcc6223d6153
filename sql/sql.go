// Package sql has walrelay's SQL: the migrations of its schema, the statements
// that init runs and prints, and the queries of its checks.
//
// In come names of Postgres objects; out goes text, with the names quoted. The
// package opens no connection and knows no configuration. Its migrations go
// forward only, and each may be run again without harm.
package sql

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/walrelay/walrelay/event"
)

//go:embed *.sql queries inbox
var files embed.FS

// OwnSchema is where walrelay keeps its own tables.
const OwnSchema = "walrelay"

// Migration is a step of the schema walrelay.
type Migration struct {
	// Version counts from 1 without gaps.
	Version int
	Name    string
	// SQL is one or more statements that may run in a transaction, and may be
	// run again.
	SQL string
}

// Migrations returns all migrations, in the order in which they are applied.
func Migrations() ([]Migration, error) {
	names, err := fs.Glob(files, "[0-9]*.sql")
	if err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	migrations := make([]Migration, 0, len(names))
	for i, name := range names {
		digits, title, ok := strings.Cut(strings.TrimSuffix(name, ".sql"), "_")
		version, err := strconv.Atoi(digits)
		if !ok || err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s: want a name such as %04d_title.sql", name, i+1)
		}
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading migration: %w", err)
		}
		migrations = append(migrations, Migration{Version: version, Name: title, SQL: string(text)})
	}
	return migrations, nil
}

// SchemaVersion returns the version of the newest migration.
func SchemaVersion() (int, error) {
	migrations, err := Migrations()
	return len(migrations), err
}

// Table is a table's name, unquoted.
type Table struct{ Schema, Name string }

// Ident returns the name as SQL: quoted, with its schema.
func (t Table) Ident() string { return Ident(t.Schema) + "." + Ident(t.Name) }

// String returns the name as people write it.
func (t Table) String() string { return t.Schema + "." + t.Name }

// Outbox returns the statements that create an outbox table, if it is not there, and
// add the optional columns that it lacks.
func Outbox(table Table) (string, error) {
	if strings.Contains(table.Ident(), "$walrelay$") { // the quote of the DO block
		return "", fmt.Errorf("name %q: must not contain $walrelay$", table.String())
	}
	return render("outbox.sql", table)
}

// Mark returns the statements that prepare an outbox table whose published rows
// are marked.
func Mark(table Table) (string, error) { return render("mark.sql", table) }

// Roles returns the statements that create walrelay's roles, as far as that is
// allowed, and give them their rights. Their names begin with the prefix.
func Roles(prefix string, tables []Table) (string, error) {
	const quote = "$walrelay$" // of the DO block
	for _, table := range append(slices.Clip(tables), Table{Name: prefix}) {
		if strings.Contains(table.Ident(), quote) {
			return "", fmt.Errorf("name %q: must not contain %s", table.String(), quote)
		}
	}
	return render("roles.sql", struct {
		Prefix string
		Tables []Table
	}{prefix, tables})
}

// RoleNames returns the names of the roles that [Roles] makes.
func RoleNames(prefix string) []string {
	return []string{prefix + "_app", prefix + "_operator", prefix + "_relay", prefix + "_owner"}
}

// Slim returns the statements that drop what earlier versions had in an outbox
// table of walrelay's own form.
func Slim(table Table) (string, error) { return render("slim.sql", table) }

// Covered are the outbox tables that a slot reads, and the column of the id of
// each.
type Covered struct {
	Slot, Publication string
	// Standby says that the slot is on a standby.
	Standby bool
	Tables  []Table
	IDs     []string
}

// Uncover returns the statement that forgets which tables a slot reads, where it
// does not at this moment: it comes before the publication and the slot are made.
func Uncover(c Covered) (string, error) { return render("uncover.sql", c) }

// Cover returns the statement that notes which tables a slot reads: it comes when
// the slot is there.
func Cover(c Covered) (string, error) { return render("cover.sql", c) }

// Publication returns the statement that creates the publication, if it is not
// there, and adds the tables that it lacks.
func Publication(name string, tables []Table) (string, error) {
	const quote = "$walrelay$" // of the DO block
	for _, table := range append(slices.Clip(tables), Table{Name: name}) {
		if strings.Contains(table.Ident(), quote) {
			return "", fmt.Errorf("name %q: must not contain %s", table.String(), quote)
		}
	}
	return render("publication.sql", struct {
		Name   string
		Tables []Table
	}{name, tables})
}

// Slot returns the statement that creates the logical replication slot, if it
// is not there and its publication is. It must not run in a transaction that
// has written something.
func Slot(name, publication string, failover bool) (string, error) {
	return render("slot.sql", struct {
		Name, Publication string
		Failover          bool
	}{name, publication, failover})
}

// Grants returns the statements that let a role use the schema walrelay.
// What applies to the relay's role of the prefix applies to it too.
func Grants(prefix, role string) (string, error) {
	if strings.Contains(prefix+role, "$walrelay$") {
		return "", fmt.Errorf("role %q: must not contain $walrelay$", role)
	}
	return render("grants.sql", struct{ Prefix, Role string }{prefix, role})
}

// The queries of the checks; each file says what it returns.
//
// embedded text, never written
var (
	//go:embed queries/server.sql
	Server string
	//go:embed queries/doctor.sql
	Doctor string
	//go:embed queries/doctor_progress.sql
	DoctorProgress string
	//go:embed queries/doctor_standby.sql
	DoctorStandby string
	//go:embed queries/doctor_table.sql
	DoctorTable string
	//go:embed queries/foreign_roles.sql
	ForeignRoles string
	//go:embed queries/schema.sql
	Schema string
	//go:embed queries/table.sql
	TableState string
	//go:embed queries/orphans.sql
	Orphans string
	//go:embed queries/renamed.sql
	Renamed string
	//go:embed queries/publication.sql
	PublicationState string
	//go:embed queries/slot.sql
	SlotState string
	//go:embed queries/closable.sql
	SlotClosable string
	//go:embed queries/closed.sql
	SlotClosed string
	//go:embed queries/writers.sql
	Writers string
	//go:embed queries/lock.sql
	Lock string
	//go:embed queries/version.sql
	Version string
	//go:embed queries/record_migration.sql
	RecordMigration string
)

// outboxColumns returns the columns of an outbox of walrelay's own form.
func outboxColumns() []event.Column {
	columns := make([]event.Column, event.NumColumns)
	for i := range columns {
		columns[i] = event.Column(i)
	}
	return columns
}

// render fills a file in.
func render(name string, data any) (string, error) {
	parsed, err := template.New(path.Base(name)).
		Funcs(template.FuncMap{"ident": Ident, "literal": Literal, "columns": outboxColumns}).
		ParseFS(files, name)
	if err != nil {
		return "", fmt.Errorf("parsing %s: %w", name, err)
	}
	var b strings.Builder
	if err := parsed.Execute(&b, data); err != nil {
		return "", fmt.Errorf("filling in %s: %w", name, err)
	}
	return b.String(), nil
}

// Ident quotes an identifier (Postgres manual, "Identifiers and Key Words").
func Ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Literal quotes a string constant. One with a backslash gets the escape form,
// which means the same under both values of standard_conforming_strings.
func Literal(value string) string {
	quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
	if strings.Contains(value, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
