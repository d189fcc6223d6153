// Package natstest gives tests a nats-server of their own.
package natstest

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/walrelay/walrelay/internal/localnats"
)

// Start starts a server that ends with the test.
func Start(t testing.TB, configure ...func(*server.Options)) *localnats.Server {
	t.Helper()
	var opts localnats.Options
	for _, c := range configure {
		opts.Configure = c
	}
	s, err := localnats.Start(opts)
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

// Cluster starts n servers with one JetStream that end with the test.
func Cluster(t testing.TB, n int) *localnats.Cluster {
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
