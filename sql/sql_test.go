package sql_test

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/walrelay/walrelay/sql"
)

func TestMigrationsCountFromOne(t *testing.T) {
	migrations, err := sql.Migrations()
	if err != nil {
		t.Fatal(err)
	}
	if len(migrations) == 0 || migrations[0].Name != "init" {
		t.Fatalf("want the migration init first, got %+v", migrations)
	}
	for i, m := range migrations {
		if m.Version != i+1 || strings.TrimSpace(m.SQL) == "" {
			t.Errorf("migration %d: want a text and version %d, got version %d", i, i+1, m.Version)
		}
	}
}

func TestNamesAreQuoted(t *testing.T) {
	if got, want := (sql.Table{Schema: `a"b`, Name: "C d"}).Ident(), `"a""b"."C d"`; got != want {
		t.Errorf("want %s, got %s", want, got)
	}
	for value, want := range map[string]string{"a": "'a'", "o'd": "'o''d'", `b\'s`: `E'b\\''s'`} {
		if got := sql.Literal(value); got != want {
			t.Errorf("want %s, got %s", want, got)
		}
	}
}

func TestANameCannotEndThePublicationBlock(t *testing.T) {
	for _, name := range []string{"p$walrelay$q", "p"} {
		_, err := sql.Publication(name, []sql.Table{{Schema: "public", Name: "outbox"}})
		if strings.Contains(name, "$walrelay$") != (err != nil) {
			t.Errorf("publication %s: got %v", name, err)
		}
	}
}

func TestSlotSQL_Failover(t *testing.T) {
	for failover, want := range map[bool]string{false: "'pgoutput', false, false)", true: "'pgoutput', false, false, true)"} {
		got, err := sql.Slot("s", "p", failover)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("failover %v: want %s, got %v\n%s", failover, want, err, got)
		}
	}
}

// A database in another encoding than UTF-8 may have no form for any other character, also
// in a comment.
func TestStatementsAreInASCII(t *testing.T) {
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".sql" {
			return err
		}
		text, err := os.ReadFile(name)
		if i := bytes.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
			t.Errorf("%s has %q", name, text[i:min(len(text), i+20)])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
