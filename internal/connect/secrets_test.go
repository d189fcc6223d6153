package connect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/testkit"
)

// secret writes a file with a secret.
func secret(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPostgresSecrets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg           config.Postgres
		url, password string
		fails         string // a part of the error
		permanent     bool   // it is a mistake of the configuration
	}{
		"the URL alone":         {cfg: config.Postgres{URL: "postgres://a"}, url: "postgres://a"},
		"a file with the URL":   {cfg: config.Postgres{URLFile: secret(t, "postgres://b\n")}, url: "postgres://b"},
		"a file":                {cfg: config.Postgres{URL: "u", PasswordFile: secret(t, " hunter2 \r\n\n")}, url: "u", password: " hunter2 "},
		"a command":             {cfg: config.Postgres{URL: "u", PasswordCommand: []string{"echo", "hunter2"}}, url: "u", password: "hunter2"},
		"no file":               {cfg: config.Postgres{PasswordFile: "/nowhere/at/all"}, fails: "postgres.password_file: cannot be read", permanent: true},
		"an empty file":         {cfg: config.Postgres{PasswordFile: secret(t, "\n")}, fails: "is empty", permanent: true},
		"a huge file":           {cfg: config.Postgres{PasswordFile: secret(t, strings.Repeat("x", maxSecret+1))}, fails: "no secret", permanent: true},
		"no such program":       {cfg: config.Postgres{PasswordCommand: []string{"walrelay-no-such-program"}}, fails: "postgres.password_command: ", permanent: true},
		"a program that fails":  {cfg: config.Postgres{PasswordCommand: []string{"sh", "-c", "echo hunter2 >&2; exit 3"}}, fails: "exit status 3; run it by hand"},
		"one that says nothing": {cfg: config.Postgres{PasswordCommand: []string{"true"}}, fails: "has to print one line"},
		"one that says more":    {cfg: config.Postgres{PasswordCommand: []string{"printf", "a\nhunter2"}}, fails: "has to print one line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, password, err := PostgresSecrets(t.Context(), test.cfg)
			if test.fails != "" {
				_, permanent := errors.AsType[*config.Error](err)
				if err == nil || !strings.Contains(err.Error(), test.fails) || strings.Contains(err.Error(), "hunter2") || permanent != test.permanent {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil || url != test.url || password != test.password {
				t.Errorf("%q, %q, %v", url, password, err)
			}
		})
	}

	t.Run("a program that hangs", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, _, err := PostgresSecrets(ctx, config.Postgres{PasswordCommand: []string{"sleep", "60"}}); err == nil || !strings.Contains(err.Error(), "has not printed a password") {
			t.Errorf("the error is %v", err)
		}
	})
}

// A password that changes is used by the next connection.
func TestPostgres_RotatedPassword(t *testing.T) {
	t.Parallel()
	cluster := testkit.Postgres(t)
	admin := cluster.URL("postgres")
	testkit.Exec(t, admin, "CREATE ROLE relay LOGIN REPLICATION PASSWORD 'first'")
	hba := testkit.Query(t, admin, "SHOW hba_file")
	if err := os.WriteFile(hba, []byte("host all postgres all trust\nhost all relay all scram-sha-256\nhost replication relay all scram-sha-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.Exec(t, admin, "SELECT pg_reload_conf()")
	path := secret(t, "first\n")
	for name, cfg := range map[string]config.Postgres{
		"file":    {PasswordFile: path},
		"command": {PasswordCommand: []string{"cat", path}},
	} {
		cfg.URL = strings.Replace(admin, "postgres@", "relay:wrong@", 1)
		for _, password := range []string{"first", "second"} {
			testkit.Exec(t, admin, "ALTER ROLE relay PASSWORD '"+password+"'")
			if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, 5*time.Second, "the password is taken", func() error {
				conn, err := Postgres(t.Context(), cfg)
				if err == nil {
					ClosePostgres(conn)
				}
				return err
			})
		}
		if err := os.WriteFile(path, []byte("third"), 0o600); err != nil {
			t.Fatal(err)
		}
		if conn, err := Postgres(t.Context(), cfg); err == nil {
			ClosePostgres(conn)
			t.Errorf("%s: a wrong password is taken", name)
		} else if strings.Contains(err.Error(), "third") {
			t.Errorf("%s: the error quotes the password: %v", name, err)
		}
	}
}

// A NATS connection that is made again reads password and token again.
func TestNATS_RotatedSecrets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server func(*server.Options)
		cfg    config.NATS
	}{
		"password": {func(o *server.Options) { o.Username, o.Password = "relay", "hunter2" }, config.NATS{User: "relay", PasswordFile: secret(t, "hunter2\n")}},
		"token":    {func(o *server.Options) { o.Authorization = "hunter2" }, config.NATS{TokenFile: secret(t, "hunter2\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := test.cfg
			cfg.URLFile = secret(t, testkit.NATS(t, test.server).URL()+"\n")
			again := make(chan struct{}, 1)
			nc, err := NATS(t.Context(), cfg, nats.ReconnectHandler(func(*nats.Conn) { again <- struct{}{} }))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			path := cfg.PasswordFile + cfg.TokenFile
			if err := os.WriteFile(path, []byte("wrong"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := nc.ForceReconnect(); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, 10*time.Second, "the server has refused the wrong one", func() error {
				if err := nc.LastError(); !errors.Is(err, nats.ErrAuthorization) {
					return errors.New("it has not")
				}
				return nil
			})
			if err := os.WriteFile(path, []byte("hunter2"), 0o600); err != nil {
				t.Fatal(err)
			}
			select {
			case <-again:
			case <-time.After(10 * time.Second):
				t.Errorf("it is not connected again: %v", nc.LastError())
			}
		})
	}
}

func TestOpenFiles(t *testing.T) {
	t.Parallel()
	closed, open := secret(t, "a"), secret(t, "b")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := config.Config{Postgres: config.Postgres{PasswordFile: closed}, NATS: config.NATS{TokenFile: open, CredsFile: "/nowhere"}}
	if found := OpenFiles(cfg); len(found) != 1 || found[0] != open {
		t.Errorf("%v, want %s", found, open)
	}
	if err := CheckFiles(config.Postgres{PasswordFile: "/nowhere"}); err == nil {
		t.Error("a file that is not there is not reported")
	}
}
