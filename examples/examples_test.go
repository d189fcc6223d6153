// Package examples has programs that publish events, in several languages. Its test runs each
// of them against a real relay.
package examples

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/testkit"
)

// programs are the examples by the subject of their events.
var programs = map[string][]string{ //nolint:gochecknoglobals // never written
	"gorm":          {"go", "-C", "go", "run", "./gorm"},
	"bun":           {"go", "-C", "go", "run", "./bun"},
	"psycopg3":      {python(), "python/psycopg3.py"},
	"sqlalchemy":    {python(), "python/sqlalchemy_orm.py"},
	"django":        {python(), "python/django_orm.py"},
	"active_record": {"ruby", "ruby/active_record.rb"},
	"sequel":        {"ruby", "ruby/sequel.rb"},
	"pdo":           {"php", "php/pdo.php"},
	"pg":            {"node", "node/pg.mjs"},
	"knex":          {"node", "node/knex.mjs"},
	"sequelize":     {"node", "node/sequelize.mjs"},
	"typeorm":       {"node", "node/typeorm.mjs"},
	"drizzle":       {"node", "node/drizzle.mjs"},
	"prisma":        {"node", "node/prisma/prisma.mjs"},
}

// python is the one that has the packages of the system.
func python() string {
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		return "/usr/bin/python3"
	}
	return "python3"
}

func TestExamples(t *testing.T) {
	if os.Getenv("WALRELAY_EXAMPLES") == "" {
		t.Skip("make test-examples installs what the examples need, and runs them")
	}
	r := startRelay(t)
	url, stream := r.url, r.stream
	t.Run("all", func(t *testing.T) {
		for subject, command := range programs {
			t.Run(subject, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, command[0], command[1:]...)
				cmd.Env = append(os.Environ(), "DATABASE_URL="+url, "GOFLAGS=-mod=mod")
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
				}
				lines := strings.Split(strings.TrimSpace(string(out)), "\n")
				id, state, _ := strings.Cut(lines[len(lines)-1], " ")
				if state != "published" {
					t.Errorf("it prints %q, want an id that is published", out)
				}
				want := []string{"order.placed", "order.reminder"}
				deadline := time.Now().Add(20 * time.Second)
				for {
					events := read(t, stream, subject)
					types := make([]string, len(events))
					for i, h := range events {
						types[i] = h.Get("ce-type")
					}
					if slices.Equal(types, want) {
						if events[0].Get("ce-id") != id || events[0].Get("ce-partitionkey") != "customer-8" || events[0].Get("ce-source") != "/orders" {
							t.Errorf("the first event is %v, want id %s", events[0], id)
						}
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("the stream has %q of it, want %q", types, want)
					}
					time.Sleep(50 * time.Millisecond)
				}
			})
		}
	})
}

// The app for Django publishes and handles.
func TestDjango(t *testing.T) {
	if os.Getenv("WALRELAY_EXAMPLES") == "" {
		t.Skip("make test-examples installs what the examples need, and runs them")
	}
	r := startRelay(t)
	binary := buildRelay(t)
	if err := walrelay.SetupInbox(t.Context(), walrelay.Config{Postgres: config.Postgres{URL: r.owner}}, nil); err != nil {
		t.Fatal(err)
	}
	manage := func(ctx context.Context, command string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, python(), "manage.py", command)
		cmd.Dir = "django"
		ours := func(v string) bool { return strings.HasPrefix(v, "WALRELAY_") } // which walrelay would not know
		cmd.Env = append(slices.DeleteFunc(os.Environ(), ours), "DATABASE_URL="+r.url, "WALRELAY_POSTGRES_URL="+r.owner, "WALRELAY_NATS_URL="+r.nats, "OUTBOX_WORKER_BIN="+binary, "PYTHONDONTWRITEBYTECODE=1")
		return cmd
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if out, err := manage(ctx, "migrate").CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	worker := manage(ctx, "outbox_worker")
	var said bytes.Buffer
	worker.Stdout, worker.Stderr = &said, &said
	worker.Cancel = func() error { return worker.Process.Signal(syscall.SIGTERM) }
	worker.WaitDelay = 20 * time.Second
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	out, err := manage(ctx, "use_events").CombinedOutput()
	if stopped := errors.Join(worker.Process.Signal(syscall.SIGTERM), worker.Wait()); err != nil || stopped != nil {
		t.Fatalf("use_events: %v\n%s\noutbox_worker: %v\n%s", err, out, stopped, said.String())
	}
	for _, want := range []string{"user: user created: ada@example.org", "user: user created: later@example.org", "order: order.created: 456", "all: order.updated from /orders"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("use_events lacks %q:\n%s", want, out)
		}
	}
	if out, err := manage(ctx, "makemigrations").CombinedOutput(); err != nil || !strings.Contains(string(out), "No changes detected") {
		t.Errorf("makemigrations: %v\n%s", err, out)
	}
}

// The workers in JavaScript and Ruby publish and handle.
func TestWorkers(t *testing.T) {
	if os.Getenv("WALRELAY_EXAMPLES") == "" {
		t.Skip("make test-examples installs what the examples need, and runs them")
	}
	binary := buildRelay(t)
	for name, command := range map[string][]string{"node": {"node", "node/worker/app.mjs"}, "ruby": {"ruby", "ruby/worker/app.rb"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t)
			if err := walrelay.SetupInbox(t.Context(), walrelay.Config{Postgres: config.Postgres{URL: r.owner}}, nil); err != nil {
				t.Fatal(err)
			}
			key := make([]byte, 32)
			_, _ = rand.Read(key) // it never fails
			secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			app := exec.CommandContext(ctx, command[0], command[1:]...)
			app.Env = append(os.Environ(), "DATABASE_URL="+r.url, "WEBHOOK_SECRET="+secret)
			var errors bytes.Buffer
			app.Stderr = &errors
			out, err := app.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := app.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() {
				t.Fatalf("it prints nothing (%v)\n%s", app.Wait(), errors.String())
			}
			dir := t.TempDir()
			for file, text := range map[string]string{"handlers.yaml": lines.Text(), "secret": secret} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			deliver := exec.CommandContext(ctx, binary, "deliver", "--handlers", filepath.Join(dir, "handlers.yaml"))
			ours := func(v string) bool { return strings.HasPrefix(v, "WALRELAY_") }
			deliver.Env = append(slices.DeleteFunc(os.Environ(), ours), "WALRELAY_POSTGRES_URL="+r.owner, "WALRELAY_NATS_URL="+r.nats)
			var said bytes.Buffer
			deliver.Stderr = &said
			if err := deliver.Start(); err != nil {
				t.Fatal(err)
			}
			want := []string{"audit order.created Order #456 ü", "audit order.updated ", "audit user.created ", "bill order.created 456 of customer-8", "bill order.updated 456 of customer-8", "welcome ada@example.org"}
			var got []string
			for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !slices.Equal(got, want); time.Sleep(50 * time.Millisecond) {
				got = effects(t, r.owner, "effects_"+name)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the effects are %q, want %q\ndeliver said:\n%s\nthe application said:\n%s", got, want, said.String(), errors.String())
			}
			for _, p := range []*exec.Cmd{deliver, app} {
				if err := p.Process.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			}
			if !lines.Scan() || lines.Text() != "published" {
				t.Errorf("it says %q of the state, want published", lines.Text())
			}
			if err := app.Wait(); err != nil {
				t.Errorf("the application ended: %v\n%s", err, errors.String())
			}
			if err := deliver.Wait(); err != nil {
				t.Errorf("deliver ended: %v\n%s", err, said.String())
			}
		})
	}
}

// effects returns what handlers did, in order.
func effects(t *testing.T, url, table string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	rows, err := conn.Query(t.Context(), "SELECT e FROM (SELECT handler || ' ' || text AS e FROM "+table+") AS effects ORDER BY e COLLATE \"C\"")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func buildRelay(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "walrelay")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../cmd/walrelay").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// The reader in JavaScript reads what walrelay writes.
func TestReaderInJavaScript(t *testing.T) {
	if os.Getenv("WALRELAY_EXAMPLES") == "" {
		t.Skip("make test-examples installs what the examples need, and runs them")
	}
	if out, err := exec.CommandContext(t.Context(), "node", "node/consume/vectors.mjs").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Every program of the folder is one of the list.
func TestEveryExampleIsRun(t *testing.T) {
	var files []string
	for _, pattern := range []string{"python/*.py", "ruby/*.rb", "php/*.php", "node/*.mjs", "node/prisma/*.mjs", "go/*/main.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) != len(programs) {
		t.Errorf("there are %d programs, and %d are run: %q", len(files), len(programs), files)
	}
}

// running is a relay and what it uses.
type running struct {
	owner, url, nats string // addresses: the database as its owner and as an application, the server
	stream           jetstream.Stream
}

// startRelay runs a relay.
func startRelay(t *testing.T) running {
	t.Helper()
	cluster, server := testkit.Postgres(t), testkit.NATS(t)
	owner := testkit.Database(t, cluster)
	cfg := walrelay.Config{Postgres: config.Postgres{URL: owner}, NATS: config.NATS{URL: server.URL()}}
	if _, err := walrelay.Setup(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), "CREATE ROLE shop LOGIN; GRANT walrelay_app TO shop; GRANT CREATE, USAGE ON SCHEMA public TO shop"); err != nil {
		t.Fatal(err)
	}
	relay, err := walrelay.New(cfg, walrelay.Options{Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	return running{owner, strings.Replace(owner, "postgres@", "shop@", 1), server.URL(), stream}
}

// read returns the headers of the messages with that ce-subject.
func read(t *testing.T, stream jetstream.Stream, subject string) (headers []nats.Header) {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq > 0 && seq <= info.State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(fmt.Errorf("message %d: %w", seq, err))
		}
		if msg.Header.Get("ce-subject") == subject {
			headers = append(headers, msg.Header)
		}
	}
	return headers
}
