package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/walrelay/walrelay/internal/child"
)

const (
	slotName   = "walrelay"
	streamName = "EVENTS"
)

// relay is one place where a relay runs; its process ends and is started again.
type relay struct {
	name    string
	world   *World
	log     *logFile
	process *child.Process
	peak    int64
	// ends says that the process may end by itself.
	ends bool
}

// configuration is the walrelay.yaml of the relays.
func (w *World) configuration() string {
	return fmt.Sprintf(`streams: [{name: %s, subjects: [%q], replicas: %d, duplicate_window: 100ms}]
retry: {initial: 50ms, max: 500ms, max_retries: 2}
publish: {ack_timeout: 2s%s}
shutdown_timeout: 3s
log: {level: debug, format: json}
%s`, streamName, w.setting.subjects(), len(w.nats), w.setting.publish, w.setting.configuration)
}

func (w *World) environ() []string {
	links := make([]string, len(w.nats))
	for i, s := range w.nats {
		links[i] = fmt.Sprintf("nats://127.0.0.1:%d", s.link)
	}
	return []string{
		fmt.Sprintf("WALRELAY_POSTGRES_URL=postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=2", w.pgLink),
		"WALRELAY_NATS_URL=" + strings.Join(links, ","),
		"WALRELAY_HTTP_ADDR=127.0.0.1:0",
	}
}

// command runs a walrelay command to its end.
func (w *World) command(ctx context.Context, args ...string) (string, error) {
	return run(ctx, w.dir, w.environ(), w.programs.relay, args...)
}

// start starts the process; step, if not empty, is where it kills itself.
func (r *relay) start(step string) error {
	binary, env := r.world.programs.relay, r.world.environ()
	if step != "" {
		binary, env = r.world.programs.stepped, append(env, "CHAOS_STEP="+step)
	}
	cmd := exec.Command(binary, "run")
	cmd.Dir, cmd.Env = r.world.dir, append(os.Environ(), env...)
	p, err := child.Start(r.name, cmd, child.Options{Log: &r.log.Log})
	if err != nil {
		return err
	}
	r.process, r.ends = p, false
	r.world.hist.Add("harness", r.name+" is started", "pid", p.PID(), "step", step)
	return nil
}

// kill ends the process without a word.
func (r *relay) kill() {
	r.measure()
	r.world.hist.Add("harness", r.name+" is killed")
	r.process.Kill()
}

// stop ends the process in order.
func (r *relay) stop(ctx context.Context) error {
	r.measure()
	r.world.hist.Add("harness", r.name+" is asked to end")
	r.process.Signal(syscall.SIGCONT)
	r.process.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	code, err := r.process.Wait(ctx)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("%s ended with %d after SIGTERM:\n%s", r.name, code, r.log.Tail(5))
	}
	return nil
}

// startAgain starts a relay that has ended for the reason, which may happen again.
func (r *relay) startAgain(reason string) error {
	if r.process.Running() {
		return nil
	}
	if last := r.log.Tail(1); !strings.Contains(last, reason) {
		return fmt.Errorf("%s ended, and not because something %s:\n%s", r.name, reason, last)
	}
	err := r.start("")
	r.ends = true
	return err
}

func (r *relay) measure() {
	if r.process != nil {
		r.peak = max(r.peak, child.PeakMemory(r.process.PID()))
	}
}

// ready asks /readyz.
func (r *relay) ready(ctx context.Context) error {
	addr := ""
	lines(r.log.Since(0), func(line string) {
		if _, rest, ok := strings.Cut(line, `"addr":"`); ok {
			addr, _, _ = strings.Cut(rest, `"`)
		}
	})
	if addr == "" {
		return errors.New("it does not listen")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	return nil
}

// active is the relay that streams.
func (w *World) active(ctx context.Context) (*relay, error) {
	var found *relay
	err := until(ctx, 30*time.Second, "a relay is ready", func(ctx context.Context) error {
		var why []string
		for _, r := range w.relays {
			if !r.process.Running() {
				continue
			}
			err := r.ready(ctx)
			if err == nil {
				found = r
				return nil
			}
			why = append(why, r.name+": "+err.Error())
		}
		return errors.New(strings.Join(why, "; "))
	})
	return found, err
}

func (w *World) newRelay(name string) (*relay, error) {
	log, err := newLogFile(w.dir, name)
	if err != nil {
		return nil, err
	}
	return &relay{name: name, world: w, log: log}, nil
}

func (w *World) writeConfiguration() error {
	return os.WriteFile(filepath.Join(w.dir, "walrelay.yaml"), []byte(w.configuration()), 0o600)
}
