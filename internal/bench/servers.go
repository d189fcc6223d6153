package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/child"
	"github.com/walrelay/walrelay/internal/localpg"
)

const (
	serverStart = 30 * time.Second // how long the nats-server may take to start
	serverStop  = 10 * time.Second // and to end
)

// startServers starts the throw-away servers, each a process of its own.
func (b *bench) startServers(ctx context.Context) (err error) {
	b.opts.progress("starting a throw-away Postgres and nats-server …")
	// As a database server has them, and not as fast as a test may: COMMIT
	// waits for the disk.
	b.cluster, err = localpg.Start(ctx, localpg.Options{Settings: map[string]string{
		"fsync":          "on",
		"shared_buffers": "256MB",
		"max_wal_size":   "4GB",
	}})
	if err != nil {
		return fmt.Errorf("starting a throw-away Postgres: %w", err)
	}
	b.postgres = b.cluster.URL("postgres")
	url, err := b.startNATS(ctx)
	b.nats = config.NATS{URL: url}
	return err
}

func (b *bench) startNATS(ctx context.Context) (url string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("looking for this program: %w", err)
	}
	cmd := exec.Command(self, b.opts.ServerCommand, "--store-dir", filepath.Join(b.dir, "nats"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", fmt.Errorf("starting nats-server: %w", err)
	}
	said := &firstLine{line: make(chan string, 1)}
	cmd.Stdout = said
	if b.server, err = child.Start("nats-server", cmd, child.Options{}); err != nil {
		return "", err
	}
	b.stopServer = stdin.Close
	timer := time.NewTimer(serverStart)
	defer timer.Stop()
	select {
	case url := <-said.line:
		return url, nil
	case <-b.server.Done():
		return "", b.server.Ended()
	case <-timer.C:
		return "", fmt.Errorf("starting nats-server: it has not said its URL within %v", serverStart)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (b *bench) stopServers() error {
	var errs []error
	if b.server != nil {
		errs = append(errs, b.server.Stop(b.stopServer, serverStop))
	}
	if b.cluster != nil {
		errs = append(errs, b.cluster.Close())
	}
	return errors.Join(errs...)
}

// firstLine hands on the first line that is written to it.
type firstLine struct {
	mu   sync.Mutex
	text strings.Builder
	line chan string // capacity 1; never closed
}

// Write implements io.Writer.
func (f *firstLine) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := strings.Contains(f.text.String(), "\n")
	f.text.Write(p)
	if line, _, ok := strings.Cut(f.text.String(), "\n"); ok && !before {
		f.line <- line
	}
	return len(p), nil
}

// environment asks the servers and the machine what they are.
func (b *bench) environment(ctx context.Context) (Environment, error) {
	e := Environment{
		Walrelay: b.opts.Version, GoVersion: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		CPUs: runtime.NumCPU(), CPUModel: cpuModel(), Private: b.opts.private(),
		PostgresSettings: map[string]string{}, NATS: b.nc.ConnectedServerVersion(),
	}
	rows, err := b.conn.Query(ctx, `
		SELECT name, current_setting(name)
		FROM pg_catalog.pg_settings
		WHERE name IN ('server_version', 'fsync', 'synchronous_commit', 'shared_buffers', 'wal_sync_method', 'synchronous_standby_names')`)
	if err != nil {
		return e, fmt.Errorf("reading the settings of Postgres: %w", err)
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		if name == "server_version" {
			e.Postgres = value
		} else {
			e.PostgresSettings[name] = value
		}
		return nil
	})
	if err != nil {
		return e, fmt.Errorf("reading the settings of Postgres: %w", err)
	}
	return e, nil
}
