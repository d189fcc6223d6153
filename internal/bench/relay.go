package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/walrelay/walrelay"
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/child"
)

// relayStop is how long the relay may take to end.
const relayStop = 20 * time.Second

// relayConfig is the configuration of the relay that is measured: the defaults,
// with names of the bench's own, and the window that the options have.
func relayConfig(opts Options, postgres string, nats config.NATS) walrelay.Config {
	return walrelay.Config{
		Postgres:    config.Postgres{URL: postgres, RolePrefix: config.NoRoles},
		NATS:        nats,
		Slot:        slot,
		Publication: publication,
		Outbox:      config.Outbox{Tables: []string{table}},
		Streams:     []config.Stream{{Name: stream, Subjects: []string{subjects}, Replicas: opts.Parameters.Replicas}},
		Publish: config.Publish{
			Subject:          subjectPrefix + "{type}",
			MaxInFlight:      opts.Config.Publish.MaxInFlight,
			MaxInFlightBytes: opts.Config.Publish.MaxInFlightBytes,
			AckTimeout:       opts.Config.Publish.AckTimeout,
			MessageID:        opts.Config.Publish.MessageID,
			Atomic:           opts.Parameters.Atomic,
		},
		HTTP: config.HTTP{Addr: "off"},
		Log:  config.Log{Level: "warn", Format: "json"},
	}
}

// startRelay starts "walrelay run" of this executable.
func (b *bench) startRelay() (*child.Process, error) { return b.startRelayAt("warn") }

func (b *bench) startRelayAt(level string) (*child.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("looking for this program: %w", err)
	}
	cfg := relayConfig(b.opts, b.postgres, b.nats)
	cfg.Log.Level = level
	file := filepath.Join(b.dir, "relay.yaml")
	// Streams can stand in a file only; secrets stand in the environment.
	text := fmt.Sprintf("streams: [{name: %s, subjects: [%q], replicas: %d}]\n", stream, subjects, b.opts.Parameters.Replicas)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("writing the relay's configuration: %w", err)
	}
	args := []string{"run", "--config", file}
	if b.opts.CPUProfile != "" {
		args = append(args, "--cpuprofile", b.opts.CPUProfile)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = relayEnvironment(os.Environ(), cfg)
	return child.Start("the relay", cmd, child.Options{})
}

// relayEnvironment is the environment with the configuration, and with nothing
// of what walrelay is otherwise configured with there.
func relayEnvironment(environ []string, cfg walrelay.Config) []string {
	var env []string
	for _, entry := range environ {
		if !strings.HasPrefix(entry, "WALRELAY_") {
			env = append(env, entry)
		}
	}
	env = append(env, config.Environ(cfg.WithDefaults())...)
	return env
}
