// Package localpg runs private, throw-away Postgres clusters: for the tests,
// and for "walrelay demo". A cluster lives in a folder of its own, listens on
// a free port of the loopback interface, trusts everybody there, and is gone
// when it is closed or when the program that started it dies.
package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/child"
)

// Options of a cluster; the zero value is good.
type Options struct {
	// BinDir has initdb and postgres; default: wherever [FindBinaries] finds
	// them.
	BinDir string
	// Settings are written to postgresql.conf, over the defaults: logical WAL
	// level, no fsync, loopback only.
	Settings map[string]string
	// WALDir, if set, is an empty folder for the write-ahead log; Close leaves
	// it where it is.
	WALDir string
	// Copy is a stopped cluster, whose data the new one begins with; with
	// Standby it follows the server that its settings name.
	Copy    *Cluster
	Standby bool
}

// Cluster is a Postgres server with its data. Its methods are for one
// goroutine at a time.
type Cluster struct {
	binDir  string
	dir     string
	port    int
	version int
	owner   *syscall.Credential // the servers refuse to run as root

	mu      sync.Mutex
	process *child.Process // nil before the first
}

// StopMode says how a server ends (Postgres manual, "Shutting Down the Server").
type StopMode syscall.Signal

const (
	// Smart waits for clients to leave.
	Smart = StopMode(syscall.SIGTERM)
	// Fast ends them.
	Fast = StopMode(syscall.SIGINT)
	// Immediate gives up at once, as in a crash.
	Immediate = StopMode(syscall.SIGQUIT)
)

// FindBinaries returns the folder of the newest server binaries it finds:
// $WALRELAY_PG_BIN, the PATH, and where Debian, Red Hat and Homebrew put them.
func FindBinaries() (string, error) {
	if dir := os.Getenv("WALRELAY_PG_BIN"); dir != "" {
		if !hasServer(dir) {
			return "", fmt.Errorf("WALRELAY_PG_BIN is %s, which has no initdb and postgres", dir)
		}
		return dir, nil
	}
	var found []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("looking for Postgres: %w", err)
		}
		found = append(found, matches...)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, filepath.Dir(path))
	}
	best, newest := "", 0
	for _, dir := range found {
		if !hasServer(dir) {
			continue
		}
		if v, err := majorVersion(dir); err == nil && v > newest {
			best, newest = dir, v
		}
	}
	if best == "" {
		return "", errors.New("no Postgres server binaries found (initdb, postgres); install the package \"postgresql\" (Debian, Ubuntu), \"postgresql-server\" (Fedora, Red Hat) or \"postgresql@17\" (Homebrew), or set WALRELAY_PG_BIN to the folder that has them")
	}
	return best, nil
}

func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// majorVersion reads "postgres (PostgreSQL) 15.18 (Debian …)".
func majorVersion(dir string) (int, error) {
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("asking %s/postgres for its version: %w", dir, err)
	}
	_, rest, _ := strings.Cut(string(out), ") ")
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	version, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("the version of %s/postgres: %q: %w", dir, out, err)
	}
	return version, nil
}

// Start makes a cluster and waits until it takes connections.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	c := &Cluster{binDir: opts.BinDir}
	var err error
	if c.binDir == "" {
		if c.binDir, err = FindBinaries(); err != nil {
			return nil, err
		}
	}
	if c.version, err = majorVersion(c.binDir); err != nil {
		return nil, err
	}
	if c.owner, err = serverUser(); err != nil {
		return nil, err
	}
	// Below the system's temp folder: a socket's path has 107 bytes, and the
	// server's user must be able to get there.
	if c.dir, err = os.MkdirTemp(tempRoot(), "walrelay-pg-"); err != nil {
		return nil, fmt.Errorf("making a folder for Postgres: %w", err)
	}
	if err := c.create(ctx, opts); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	if opts.Standby {
		if err := c.makeStandby(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(c.dir))
		}
	}
	if err := c.Restart(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func tempRoot() string {
	if os.Geteuid() == 0 {
		return "/tmp" // $TMPDIR may be private to root
	}
	return ""
}

// serverUser returns who runs the server: nil for the present user, unless
// that is root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // no credential: as we are
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("the Postgres server does not run as root, and there is neither a user postgres nor nobody")
}

func (c *Cluster) create(ctx context.Context, opts Options) error {
	for _, dir := range []string{c.dir, opts.WALDir} {
		if c.owner == nil || dir == "" {
			continue
		}
		if err := os.Chown(dir, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
			return fmt.Errorf("handing a folder to Postgres: %w", err)
		}
	}
	fill := exec.CommandContext(ctx, filepath.Join(c.binDir, "initdb"), "-D", c.data(), "-U", "postgres",
		"--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
	if opts.WALDir != "" {
		fill.Args = append(fill.Args, "--waldir", opts.WALDir)
	}
	if opts.Copy != nil {
		fill = exec.CommandContext(ctx, "cp", "-R", opts.Copy.data(), c.data())
	}
	fill.Dir = c.dir
	fill.Env = c.environ()
	fill.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	if out, err := fill.CombinedOutput(); err != nil {
		return fmt.Errorf("making the data of Postgres: %w\n%s", err, out)
	}
	port, err := FreePort(ctx)
	if err != nil {
		return err
	}
	c.port = port
	all := map[string]string{
		"listen_addresses":          "127.0.0.1",
		"port":                      strconv.Itoa(port),
		"unix_socket_directories":   c.dir,
		"wal_level":                 "logical",
		"max_wal_senders":           "250",
		"max_replication_slots":     "250",
		"max_connections":           "200",
		"max_prepared_transactions": "20",
		"fsync":                     "off",
		"log_destination":           "stderr",
		"shared_buffers":            "64MB",
	}
	maps.Copy(all, opts.Settings)
	var conf strings.Builder
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(all[name], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configuring Postgres: %w", err)
	}
	_, err = f.WriteString(conf.String())
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configuring Postgres: %w", err)
	}
	return nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// environ is the environment without what libpq and initdb would read.
func (c *Cluster) environ() []string {
	env := []string{"TZ=UTC", "HOME=" + c.dir}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "LC_") && name != "LANG" && name != "TZ" && name != "HOME" {
			env = append(env, kv)
		}
	}
	return env
}

// FreePort returns a port of the loopback interface on which nobody listens.
func FreePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // a TCP listener
}

// Restart starts the server if it does not run, on the same port and data, and
// waits until it takes connections.
func (c *Cluster) Restart(ctx context.Context) error {
	c.mu.Lock()
	running := c.running()
	c.mu.Unlock()
	if !running {
		if err := c.launch(); err != nil {
			return err
		}
	}
	var last error
	for {
		conn, err := pgx.Connect(ctx, c.URL("postgres"))
		if err == nil {
			_, err = conn.Exec(ctx, "SELECT 1")
			_ = conn.Close(ctx)
			if err == nil {
				return nil
			}
		}
		last = err
		select {
		case <-time.After(20 * time.Millisecond):
		case <-c.process.Done():
			return fmt.Errorf("the Postgres server ended instead of starting:\n%s", c.LogTail(20))
		case <-ctx.Done():
			return fmt.Errorf("waiting for Postgres to start: %w (%w)\n%s", context.Cause(ctx), last, c.LogTail(20))
		}
	}
}

func (c *Cluster) running() bool { return c.process != nil && c.process.Running() }

func (c *Cluster) launch() error {
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of Postgres: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(filepath.Join(c.binDir, "postgres"), "-D", c.data())
	cmd.Dir, cmd.Env = c.dir, c.environ()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	// It shuts down at once when this program dies ("Shutting Down the Server").
	process, err := child.Start("Postgres", cmd, child.Options{Death: syscall.SIGQUIT})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process = process
	return nil
}

// Stop ends the server and waits until it has, or until the context ends.
func (c *Cluster) Stop(ctx context.Context, mode StopMode) error {
	c.mu.Lock()
	running := c.running()
	c.mu.Unlock()
	if !running {
		return nil
	}
	c.process.Signal(syscall.Signal(mode))
	_, err := c.process.Wait(ctx)
	return err
}

// Kill ends the main process and nothing else, as the kernel does when memory
// is short; the others notice, and end. A server cannot start before they have.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	running := c.running()
	c.mu.Unlock()
	if !running {
		return nil
	}
	c.process.Kill()
	return nil
}

// StartStandby starts a server that follows a primary, which it stops for a moment to copy its
// data; the standby has the physical slot "standby" there, and its name. The options are those
// of the standby.
func StartStandby(ctx context.Context, primary *Cluster, opts Options) (*Cluster, error) {
	conn, err := pgx.Connect(ctx, primary.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connecting to the primary: %w", err)
	}
	_, err = conn.Exec(ctx, "SELECT pg_create_physical_replication_slot('standby', true)")
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return nil, fmt.Errorf("making the slot of the standby: %w", err)
	}
	if err := primary.Stop(ctx, Fast); err != nil {
		return nil, err
	}
	settings := maps.Clone(opts.Settings)
	if settings == nil {
		settings = make(map[string]string)
	}
	maps.Copy(settings, map[string]string{
		"primary_conninfo":  fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres application_name=standby", primary.Port()),
		"primary_slot_name": "standby", "hot_standby_feedback": "on",
	})
	opts.Copy, opts.Standby, opts.Settings = primary, true, settings
	standby, err := Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	return standby, primary.Restart(ctx)
}

// makeStandby has the cluster follow another server when it starts.
func (c *Cluster) makeStandby() error {
	path := filepath.Join(c.data(), "standby.signal")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("making a standby: %w", err)
	}
	if c.owner != nil {
		if err := os.Chown(path, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
			return fmt.Errorf("making a standby: %w", err)
		}
	}
	return nil
}

// Upgrade moves the data of a cluster into this one, which is new, with pg_upgrade of this
// one's binaries. Both must be stopped, and the other one is not started again. The error
// wraps [exec.ErrNotFound] if there is no pg_upgrade.
func (c *Cluster) Upgrade(ctx context.Context, from *Cluster) error {
	program := filepath.Join(c.binDir, "pg_upgrade")
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("looking for pg_upgrade in %s: %w", c.binDir, exec.ErrNotFound)
	}
	cmd := exec.CommandContext(ctx, program, "-U", "postgres", "-b", from.binDir, "-B", c.binDir, "-d", from.data(), "-D", c.data(),
		"-p", strconv.Itoa(from.port), "-P", strconv.Itoa(c.port), "-s", c.dir)
	cmd.Dir, cmd.Env = c.dir, c.environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("upgrading Postgres: %w\n%s", err, out)
	}
	return nil
}

// Close ends the server at once and removes its data.
func (c *Cluster) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := c.Stop(ctx, Immediate)
	if err != nil {
		_ = syscall.Kill(-c.process.PID(), syscall.SIGKILL)
		<-c.process.Done()
	}
	if rerr := os.RemoveAll(c.dir); rerr != nil {
		err = errors.Join(err, fmt.Errorf("removing the data of Postgres: %w", rerr))
	}
	return err
}

// URL is how to connect to a database of the cluster, as a superuser.
func (c *Cluster) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", c.port, database)
}

// BinDir is the folder of its binaries.
func (c *Cluster) BinDir() string { return c.binDir }

// Version is the server's major version.
func (c *Cluster) Version() int { return c.version }

// Dir is the folder that has everything of the cluster.
func (c *Cluster) Dir() string { return c.dir }

// Port is the TCP port on 127.0.0.1.
func (c *Cluster) Port() int { return c.port }

// LogTail returns the last lines of the server's log.
func (c *Cluster) LogTail(lines int) string {
	f, err := os.Open(filepath.Join(c.dir, "log"))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > 64<<10 {
		_, _ = f.Seek(-64<<10, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// PID is the server's first process, whose children are all the others.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process.PID()
}
