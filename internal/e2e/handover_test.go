package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What an operator types, and what is said where it cannot be done.
func TestReplayAndHandover_Commands(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	says := func(wantCode int, want string, args ...string) {
		t.Helper()
		out, code := e.walrelay(args...)
		if code != wantCode || !strings.Contains(out, want) || strings.Count(strings.TrimSpace(out), "\n") > 15 {
			t.Errorf("walrelay %s ends with %d and says %q, want %d and %q", strings.Join(args, " "), code, out, wantCode, want)
		}
	}
	says(1, "does not exist", "replay", "--yes")
	says(1, "does not exist", "handover", "close")
	says(1, "is not closed there", "handover", "open")
	e.init()
	says(1, "no relay has ever read slot", "handover", "close")
	relay := e.run()
	e.insert(3)
	e.awaitMessages("EVENTS", 3)
	says(0, "EVENTS: 3 messages", "status", "--relay", relay.httpAddr())
	says(1, "is not an HTTP address", "status", "--relay", "nats://127.0.0.1")
	says(2, "--dry-run", "replay")
	says(2, "--from", "replay", "--from", "yesterday", "--yes")
	says(2, "--until", "replay", "--until", "start", "--yes")
	says(2, "order.*x", "replay", "order.*x", "--yes")
	says(2, "go together", "replay", "--to", "AUDIT", "--yes")
	says(1, "is one of the relay's", "replay", "--to", "EVENTS", "--subject", "events.{type}", "--yes")
	says(0, "3 events in stream EVENTS", "replay", "--dry-run")
	says(0, `"events":3`, "replay", "--dry-run", "--json")
	says(0, "0 events", "replay", "nothing.of.this", "--yes")
	says(0, `replay "again": 3 of 3 events written into the WAL`, "replay", "--name", "again", "--yes")
	e.awaitMessages("EVENTS", 6)

	closing := e.launch("handover", "close")
	closing.awaitLog("stop the relay now")
	if code := relay.stop(); code != 0 {
		t.Errorf("the relay ended with %d", code)
	}
	if code := closing.wait(time.Minute); code != 0 || !strings.Contains(closing.logs.String(), "next: walrelay handover open") {
		t.Errorf("handover close ended with %d: %s", code, closing.logs.String())
	}
	says(0, "message 6 is the last one", "handover", "close")
	says(1, "is closed since", "run")
	says(1, "is closed since", "init")
	says(2, "no such file", "handover", "open", "--from", filepath.Join(t.TempDir(), "none.yaml"))

	// Into a database of its own: the same cluster, with another slot.
	old := filepath.Join(t.TempDir(), "old.yaml")
	text := "postgres: {url: '" + e.postgresURL + "'}\nnats: {url: '" + e.server.URL() + "'}\nslot: " + e.slot + "\npublication: " + e.slot + "\n"
	if err := os.WriteFile(old, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e.environ = append(e.environ, "WALRELAY_SLOT="+e.slot+"_new")
	says(0, "goes on where", "handover", "open", "--from", old)
	says(0, "goes on where", "handover", "open", "--from", old)
	e.run()
	e.insert(1)
	e.awaitMessages("EVENTS", 7)
}
