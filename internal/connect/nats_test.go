package connect

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestNATS_Credentials(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	seedFile := filepath.Join(t.TempDir(), "relay.nk")
	if err := os.WriteFile(seedFile, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	users := testkit.NATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "relay", Password: "hunter2"}}
		o.Nkeys = []*server.NkeyUser{{Nkey: public}}
	}).URL()
	token := testkit.NATS(t, func(o *server.Options) { o.Authorization = "hunter3" }).URL()

	for _, tt := range []struct {
		name string
		cfg  config.NATS
		ok   bool
	}{
		{"user and password", config.NATS{URL: users, User: "relay", Password: "hunter2"}, true},
		{"in the URL", config.NATS{URL: strings.Replace(users, "nats://", "nats://relay:hunter2@", 1)}, true},
		{"nkey", config.NATS{URL: users, NKeyFile: seedFile}, true},
		{"token", config.NATS{URL: token, Token: "hunter3"}, true},
		{"wrong password", config.NATS{URL: users, User: "relay", Password: "hunter4"}, false},
		{"nothing", config.NATS{URL: users}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc, err := NATS(t.Context(), tt.cfg)
			if tt.ok {
				if err != nil {
					t.Fatal(err)
				}
				nc.Close()
				return
			}
			if err == nil {
				nc.Close()
				t.Fatal("the server lets it in")
			}
			if refused := Refused(tt.cfg, err); !problem.Permanent(refused) || strings.Contains(refused.Error(), "hunter") {
				t.Errorf("want a refusal without the password, got %v", refused)
			}
		})
	}
}

func TestNATS_UnreadableFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("SECRETSEED"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cfg  config.NATS
		want string
	}{
		{config.NATS{CredsFile: missing}, "nats.creds_file: cannot be read"},
		{config.NATS{NKeyFile: missing}, "nats.nkey_file: cannot be read"},
		{config.NATS{NKeyFile: empty}, "nats.nkey_file: " + empty + " has no nkey seed"},
		{config.NATS{TLS: config.NATSTLS{CAFile: missing}}, "nats.tls.ca_file: cannot be read"},
	} {
		tt.cfg.URL = "nats://127.0.0.1:1"
		_, err := NATS(t.Context(), tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "SECRETSEED") {
			t.Errorf("want %q, got %v", tt.want, err)
		}
	}
}

func TestNATS_ReconnectDelays(t *testing.T) {
	for attempts, longest := range map[int]time.Duration{0: 50 * time.Millisecond, 1: 50 * time.Millisecond, 3: 200 * time.Millisecond, 7: 2 * time.Second, 1000: 2 * time.Second} {
		for range 20 {
			if got := reconnectDelay(attempts); got > longest || got < longest/2 {
				t.Errorf("after %d attempts: want between %v and %v, got %v", attempts, longest/2, longest, got)
			}
		}
	}
}

func TestJetStream_Missing(t *testing.T) {
	url := testkit.NATS(t, func(o *server.Options) { o.JetStream = false }).URL()
	cfg := config.Config{NATS: config.NATS{URL: url}}.WithDefaults()
	nc, err := NATS(t.Context(), cfg.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := NewJetStream(nc, cfg.NATS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Stream(t.Context(), "EVENTS"); err == nil || !problem.Permanent(err) || !strings.Contains(err.Error(), "has no JetStream; start nats-server with -js") {
		t.Errorf("want a word about JetStream, got %v", err)
	}
}

func TestJetStream_MissingPermission(t *testing.T) {
	url := testkit.NATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}},
		}}}
	}).URL()
	cfg := config.Config{NATS: config.NATS{URL: url, User: "u", Password: "p"}}.WithDefaults()
	nc, err := NATS(t.Context(), cfg.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := NewJetStream(nc, cfg.NATS)
	if err != nil {
		t.Fatal(err)
	}
	// There is no answer to wait for; the reason comes on the side.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = js.Stream(ctx, "EVENTS")
	if err == nil || !problem.Permanent(err) || !strings.Contains(err.Error(), "$JS.API.STREAM.INFO.EVENTS") {
		t.Errorf("want the permission that is missing, got %v", err)
	}
}

func TestNATS_ErrorsQuoteNoPassword(t *testing.T) {
	for _, url := range []string{
		"nats://user:hunter2/x@host", "nats://user:hunter2%zz@host", "nats://user:hunter2@host:port", "nats://user:hunter2@", "http://user:hunter2@host",
	} {
		if _, err := NATS(t.Context(), config.NATS{URL: url}); err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
