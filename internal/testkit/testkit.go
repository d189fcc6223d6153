// Package testkit gives tests real servers, and ways to ask them.
//
// Output: Postgres clusters and databases, nats-servers and clusters of them, each gone
// when its test ends. Promises: a server that cannot be started fails the test, with its
// log; what a test waits for is polled. The package is for tests alone, and knows nothing
// of a relay.
package testkit

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/walrelay/walrelay/internal/localnats"
	"github.com/walrelay/walrelay/internal/localpg"
)

// binDir is the folder of the server binaries that the tests run against;
// empty for the newest that is installed.
func binDir() string { return os.Getenv("WALRELAY_TEST_PG_BIN") }

// common is the cluster that the tests of a package share: one for each test would take a
// second each.
var common struct {
	once    sync.Once
	cluster *localpg.Cluster
	err     error
}

var databases atomic.Int64 // names must differ between tests

// Main runs the tests of a package, ends the cluster that they share, and fails if a
// goroutine is left. It returns the exit code.
func Main(m *testing.M, options ...goleak.Option) int {
	code := m.Run()
	if common.cluster != nil {
		if err := common.cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(options...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// Shared is the cluster that the tests of a package share. The package's TestMain has to
// call [Main].
func Shared(t testing.TB) *localpg.Cluster {
	t.Helper()
	common.once.Do(func() { common.cluster, common.err = start(localpg.Options{BinDir: binDir()}) })
	if common.err != nil {
		t.Fatal(common.err)
	}
	return common.cluster
}

func start(options localpg.Options) (*localpg.Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return localpg.Start(ctx, options)
}

// Postgres starts a cluster that ends with the test.
func Postgres(t testing.TB, settings ...map[string]string) *localpg.Cluster {
	t.Helper()
	options := localpg.Options{BinDir: binDir()}
	for _, s := range settings {
		options.Settings = s
	}
	c, err := start(options)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, c)
}

// Newer starts a cluster of the Postgres that WALRELAY_TEST_PG_NEWER_BIN names, for a move from one
// version to another; without it, of the same as the others.
func Newer(t testing.TB) *localpg.Cluster {
	t.Helper()
	dir := os.Getenv("WALRELAY_TEST_PG_NEWER_BIN")
	if dir == "" {
		dir = binDir()
	}
	c, err := start(localpg.Options{BinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, c)
}

// Standby starts a server that follows a primary, which is restarted for that, and that ends
// with the test.
func Standby(t testing.TB, primary *localpg.Cluster, settings ...map[string]string) *localpg.Cluster {
	t.Helper()
	options := localpg.Options{BinDir: primary.BinDir()}
	for _, s := range settings {
		options.Settings = s
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := localpg.StartStandby(ctx, primary, options)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, c)
}

// Copy starts a server with the data of a cluster that is stopped. It ends with the test.
func Copy(t testing.TB, stopped *localpg.Cluster) *localpg.Cluster {
	t.Helper()
	c, err := start(localpg.Options{BinDir: stopped.BinDir(), Copy: stopped})
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, c)
}

// closing has a cluster end with the test.
func closing(t testing.TB, c *localpg.Cluster) *localpg.Cluster {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postgres said:\n%s", c.LogTail(30))
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Database makes an empty database and returns its URL. The options are those of CREATE
// DATABASE.
func Database(t testing.TB, c *localpg.Cluster, options ...string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	Exec(t, c.URL("postgres"), "CREATE DATABASE "+name+" "+strings.Join(options, " "))
	return c.URL(name)
}

// NATS starts a server that ends with the test.
func NATS(t testing.TB, configure ...func(*server.Options)) *localnats.Server {
	t.Helper()
	var options localnats.Options
	for _, c := range configure {
		options.Configure = c
	}
	s, err := localnats.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// NATSCluster starts n servers with one JetStream that end with the test.
func NATSCluster(t testing.TB, n int) *localnats.Cluster {
	t.Helper()
	c, err := localnats.StartCluster(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// JetStream connects to NATS until the test ends.
func JetStream(t testing.TB, url string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatalf("connecting to NATS: %v", err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// UpdateStream changes the configuration of a stream.
func UpdateStream(t testing.TB, js jetstream.JetStream, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	cfg := stream.CachedInfo().Config
	change(&cfg)
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatalf("changing stream %s: %v", name, err)
	}
}

// AwaitReplicas waits until a stream has a leader and each other server has all of it.
func AwaitReplicas(t testing.TB, js jetstream.JetStream, name string) {
	t.Helper()
	Eventually(t, time.Minute, "every server has the stream", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, name)
		if err != nil {
			return err
		}
		cluster := s.CachedInfo().Cluster
		if cluster == nil || cluster.Leader == "" || len(cluster.Replicas) < 2 {
			return errors.New("it has no leader")
		}
		for _, replica := range cluster.Replicas {
			if replica.Offline || !replica.Current {
				return fmt.Errorf("%s is behind", replica.Name)
			}
		}
		return nil
	})
}

// AlterSystem changes settings of a server, each by "ALTER SYSTEM" and a change such as "SET work_mem = '1MB'",
// and has it read them.
func AlterSystem(t testing.TB, url string, changes ...string) {
	t.Helper()
	for _, change := range changes {
		Exec(t, url, "ALTER SYSTEM "+change)
	}
	Exec(t, url, "SELECT pg_reload_conf()")
}

// Certificate writes a certificate for names and addresses, which signs itself, and its key.
func Certificate(t testing.TB, certFile, keyFile string, hosts ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Connect connects to a database until the test ends.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatalf("connecting to Postgres: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Exec runs statements without parameters, as one transaction.
func Exec(t testing.TB, url, statements string) {
	t.Helper()
	with(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.PgConn().Exec(ctx, statements).ReadAll()
		return err
	}, statements)
}

// Query returns the one value of a query, as text; "" for NULL.
func Query(t testing.TB, url, query string, args ...any) string {
	t.Helper()
	var value *string
	with(t, url, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, query, args...).Scan(&value)
	}, query)
	if value == nil {
		return ""
	}
	return *value
}

func with(t testing.TB, url string, do func(context.Context, *pgx.Conn) error, what string) {
	t.Helper()
	ctx := context.Background() // also when the test has failed
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("connecting to Postgres: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := do(ctx, conn); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Eventually polls until the check passes, and fails the test with its error when it does
// not in time.
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s: %v", limit, what, err)
		}
	}
}
