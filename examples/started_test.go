package examples

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/testkit"
)

// docs/getting-started.md does what it says: its commands are run, and its program.
func TestGettingStarted(t *testing.T) {
	if os.Getenv("WALRELAY_EXAMPLES") == "" {
		t.Skip("make test-examples runs it")
	}
	text, err := os.ReadFile("../docs/getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := func(language string) (all []string) {
		for _, found := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			all = append(all, found[1])
		}
		return all
	}
	commands, programs := blocks("sh"), blocks("go")
	if len(commands) != 3 || len(programs) != 1 {
		t.Fatalf("the page has %d blocks of commands and %d programs", len(commands), len(programs))
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "walrelay"), "../cmd/walrelay").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	database, server := testkit.Database(t, testkit.Postgres(t)), testkit.NATS(t)
	// What is this checkout here is the newest version there, and the servers are elsewhere.
	here := strings.NewReplacer(
		"go install github.com/walrelay/walrelay/cmd/walrelay@latest", "true",
		"go get github.com/walrelay/walrelay@latest", "go mod edit -require github.com/walrelay/walrelay@v0.0.0 -replace github.com/walrelay/walrelay="+root+" && cp "+root+"/go.sum .",
		"postgres://postgres@localhost:5432/postgres", database, "nats://localhost:4222", server.URL(),
		"walrelay run", "exec walrelay run",
	)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	shell := func(script, folder string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "sh", "-euc", here.Replace(script))
		cmd.Dir = folder
		others := func(v string) bool { return strings.HasPrefix(v, "WALRELAY_") }
		cmd.Env = append(slices.DeleteFunc(os.Environ(), others), "PATH="+dir+":"+os.Getenv("PATH"), "WALRELAY_HTTP_ADDR=off", "GOFLAGS=-mod=mod")
		return cmd
	}
	relay := shell(commands[0], dir)
	var said bytes.Buffer
	relay.Stdout, relay.Stderr = &said, &said
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = relay.Process.Signal(syscall.SIGTERM)
		if err := relay.Wait(); err != nil {
			t.Errorf("the relay: %v\n%s", err, said.String())
		}
	}()
	exports := "export WALRELAY_POSTGRES_URL=" + database + " WALRELAY_NATS_URL=" + server.URL() + "\n"
	if out, err := shell(commands[1], dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	folder := filepath.Join(dir, "shop")
	if err := os.WriteFile(filepath.Join(folder, "main.go"), []byte(programs[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := shell(exports+commands[2], folder).Output()
	if err != nil {
		t.Fatalf("%v\n%s\nthe relay:\n%s", err, out, said.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	if want := "order 1 of ada has an invoice\norder 2 of grace has an invoice\norder 3 of ada has an invoice"; strings.Join(lines, "\n") != want || !strings.Contains(string(text), want) {
		t.Errorf("it prints\n%s", out)
	}
}
