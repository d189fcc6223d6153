// Package pgtest gives tests a Postgres of their own.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/internal/localpg"
)

// binDir is the folder of the server binaries that the tests run against;
// empty for the newest that is installed.
func binDir() string { return os.Getenv("WALRELAY_TEST_PG_BIN") }

// Start starts a cluster that ends with the test.
func Start(t testing.TB, settings ...map[string]string) *localpg.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	opts := localpg.Options{BinDir: binDir()}
	for _, s := range settings {
		opts.Settings = s
	}
	c, err := localpg.Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
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

// StartShared starts a cluster for many tests; the caller closes it.
func StartShared() (*localpg.Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return localpg.Start(ctx, localpg.Options{BinDir: binDir()})
}

var databases atomic.Int64 // names must differ between tests

// NewDatabase makes an empty database and returns its URL.
func NewDatabase(t testing.TB, c *localpg.Cluster, options ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name+" "+strings.Join(options, " ")); err != nil {
		t.Fatal(err)
	}
	return c.URL(name)
}
