package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/child"
)

// natsServer is a nats-server process with JetStream.
type natsServer struct {
	name   string
	binary string
	dir    string // its configuration; its streams are in store
	store  string
	port   int
	link   int // the port by which relays reach it
	// cluster is the port for the other servers; routes are the ports by which
	// this one reaches them.
	cluster int
	routes  []int
	log     *logFile
	process *child.Process
	// settings are further lines of the configuration, by their first word, and
	// limits further lines of its block jetstream.
	settings, limits map[string]string
}

// maxPayload is what the servers take: little, so that poison is cheap.
const maxPayload = 64 << 10

func (s *natsServer) configuration() string {
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %s\nlisten: \"127.0.0.1:%d\"\nclient_advertise: \"127.0.0.1:%d\"\n", s.name, s.port, s.link)
	settings := map[string]string{"max_payload": strconv.Itoa(maxPayload), "authorization": authorization(""), "no_auth_user": "relay"}
	maps.Copy(settings, s.settings) // over the usual ones
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s: %s\n", name, settings[name])
	}
	fmt.Fprintf(&b, "jetstream {\n  store_dir: %q\n", s.store)
	for _, name := range slices.Sorted(maps.Keys(s.limits)) {
		fmt.Fprintf(&b, "  %s: %s\n", name, s.limits[name])
	}
	b.WriteString("}\n")
	if len(s.routes) > 0 {
		fmt.Fprintf(&b, "cluster {\n  name: chaos\n  listen: \"127.0.0.1:%d\"\n  no_advertise: true\n  pool_size: -1\n  routes: [\n", s.cluster)
		for _, port := range s.routes {
			fmt.Fprintf(&b, "    \"nats://127.0.0.1:%d\"\n", port)
		}
		b.WriteString("  ]\n}\n")
	}
	return b.String()
}

func (s *natsServer) writeConfiguration() (string, error) {
	path := filepath.Join(s.dir, "nats.conf")
	if err := os.WriteFile(path, []byte(s.configuration()), 0o600); err != nil {
		return "", fmt.Errorf("configuring %s: %w", s.name, err)
	}
	return path, nil
}

// start starts the server, and waits until it takes clients. It is tried again
// when the port is not free yet.
func (s *natsServer) start(ctx context.Context) error {
	path, err := s.writeConfiguration()
	if err != nil {
		return err
	}
	return until(ctx, 20*time.Second, s.name+" takes clients", func(context.Context) error {
		if s.process == nil || !s.process.Running() {
			if s.process, err = child.Start(s.name, exec.Command(s.binary, "-c", path), child.Options{Log: &s.log.Log}); err != nil {
				return err
			}
		}
		nc, err := nats.Connect(s.url(), nats.Timeout(time.Second))
		if err != nil {
			return err
		}
		nc.Close()
		return nil
	})
}

// reload makes the server read its configuration again.
func (s *natsServer) reload(ctx context.Context) error {
	mark := s.log.Mark()
	if _, err := s.writeConfiguration(); err != nil {
		return err
	}
	s.process.Signal(syscall.SIGHUP)
	return until(ctx, 5*time.Second, s.name+" has read its configuration", func(context.Context) error {
		switch said := s.log.Since(mark); {
		case strings.Contains(said, "Reloaded server configuration"):
			return nil
		case strings.Contains(said, "Failed to reload"):
			return fmt.Errorf("%w: %s", errHopeless, said)
		}
		return errors.New("it has not")
	})
}

func (s *natsServer) url() string { return "nats://127.0.0.1:" + strconv.Itoa(s.port) }

// stop ends the server in order.
func (s *natsServer) stop() {
	s.process.Signal(syscall.SIGCONT)
	s.process.Signal(syscall.SIGTERM)
	<-s.process.Done()
}

// connectNATS connects an observer, past the proxy.
func (w *World) connectNATS() error {
	urls := make([]string, len(w.nats))
	for i, s := range w.nats {
		urls[i] = s.url()
	}
	var err error
	w.nc, err = nats.Connect(strings.Join(urls, ","), nats.Name("observer"), nats.UserInfo("observer", "observer"), nats.MaxReconnects(-1), nats.IgnoreDiscoveredServers(),
		nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(10*time.Millisecond, 10*time.Millisecond), nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2), nats.ReconnectBufSize(-1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	if w.js, err = jetstream.New(w.nc); err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	return nil
}

// streamInfo asks for the stream's state.
func (w *World) streamInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	stream, err := w.js.Stream(ctx, streamName)
	if err != nil {
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// changeStream changes the stream's configuration.
func (w *World) changeStream(ctx context.Context, change func(*jetstream.StreamConfig)) error {
	return until(ctx, 15*time.Second, "the stream is changed", func(ctx context.Context) error {
		info, err := w.streamInfo(ctx)
		if err != nil {
			return err
		}
		change(&info.Config)
		_, err = w.js.UpdateStream(ctx, info.Config)
		return err
	})
}

// streamLeader is the server that leads the stream.
func (w *World) streamLeader(ctx context.Context) (*natsServer, error) {
	var leader *natsServer
	err := until(ctx, 15*time.Second, "the stream has a leader", func(ctx context.Context) error {
		info, err := w.streamInfo(ctx)
		if err != nil {
			return err
		}
		if info.Cluster == nil {
			leader = w.nats[0]
			return nil
		}
		for _, s := range w.nats {
			if s.name == info.Cluster.Leader && s.process.Running() {
				leader = s
				return nil
			}
		}
		return errors.New("it has none")
	})
	return leader, err
}
