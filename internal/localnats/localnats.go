// Package localnats runs nats-servers with JetStream inside the program: for
// the tests, for "walrelay demo", and for the process that "walrelay bench"
// starts for it.
package localnats

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startTimeout bounds how long a server may take to accept clients.
const startTimeout = 20 * time.Second

// Options of a server; the zero value is good.
type Options struct {
	// Port to listen on, on 127.0.0.1; default a free one.
	Port int
	// StoreDir is the folder for the streams, which goes when the server is
	// closed; default a new one below the system's temp folder.
	StoreDir string
	// Configure may change the server's options before it starts.
	Configure func(*server.Options)
}

// Server is a nats-server with JetStream that keeps its streams in a folder of
// its own. Its methods are for one goroutine at a time.
type Server struct {
	opts   *server.Options
	server *server.Server
}

// Start starts a server and waits until it accepts clients.
func Start(opts Options) (*Server, error) {
	var err error
	dir := opts.StoreDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "walrelay-nats-"); err != nil {
			return nil, fmt.Errorf("making a folder for nats-server: %w", err)
		}
	}
	s := &Server{opts: &server.Options{
		ServerName: "local", Host: "127.0.0.1", Port: opts.Port, JetStream: true, StoreDir: dir,
		NoSigs: true, NoLog: true,
	}}
	if s.opts.Port == 0 {
		if s.opts.Port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if opts.Configure != nil {
		opts.Configure(s.opts)
	}
	if err := s.Restart(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Restart starts the server again if it was stopped, on the same port and
// streams.
func (s *Server) Restart() error {
	if s.server != nil {
		return nil
	}
	srv, err := server.NewServer(s.opts.Clone())
	if err != nil {
		return fmt.Errorf("starting nats-server: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return errors.New("starting nats-server: it does not accept clients")
	}
	s.server = srv
	return nil
}

// Stop ends the server and keeps its streams.
func (s *Server) Stop() {
	if s.server == nil {
		return
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	s.server = nil
}

// Configure changes the options with which the server is started again.
func (s *Server) Configure(change func(*server.Options)) { change(s.opts) }

// Close ends the server and removes its streams.
func (s *Server) Close() error {
	s.Stop()
	if err := os.RemoveAll(s.opts.StoreDir); err != nil {
		return fmt.Errorf("removing the streams of nats-server: %w", err)
	}
	return nil
}

// URL is how to connect.
func (s *Server) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.opts.Port) }

// Dir is where the server keeps its streams.
func (s *Server) Dir() string { return s.opts.StoreDir }

// CutClients closes the connections of the clients with that name, and says
// how many there were.
func (s *Server) CutClients(name string) int {
	connz, err := s.server.Connz(&server.ConnzOptions{})
	if err != nil {
		return 0
	}
	n := 0
	for _, c := range connz.Conns {
		if c.Name == name && s.server.DisconnectClientByID(c.Cid) == nil {
			n++
		}
	}
	return n
}

// Cluster is several servers with one JetStream. Its methods are for one
// goroutine at a time.
type Cluster struct {
	dir   string
	nodes []*Server
}

// StartCluster starts n servers and waits until they have a leader.
func StartCluster(n int) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "walrelay-nats-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for nats-server: %w", err)
	}
	c := &Cluster{dir: dir}
	ports := make([]int, 2*n)
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	var routes []*url.URL
	for i := range n {
		routes = append(routes, &url.URL{Scheme: "nats", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[n+i]))})
	}
	for i := range n {
		c.nodes = append(c.nodes, &Server{opts: &server.Options{
			ServerName: nodeName(i), Host: "127.0.0.1", Port: ports[i], JetStream: true,
			StoreDir: filepath.Join(dir, nodeName(i)), NoSigs: true, NoLog: true, Routes: routes,
			Cluster: server.ClusterOpts{Name: "local", Host: "127.0.0.1", Port: ports[n+i]},
		}})
	}
	for i := range c.nodes {
		if err := c.RestartNode(i); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.awaitLeader(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func nodeName(i int) string { return "node" + strconv.Itoa(i) }

func (c *Cluster) awaitLeader() error {
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		for _, node := range c.nodes {
			if node.server != nil && node.server.JetStreamIsLeader() && node.server.JetStreamClusterPeers() != nil &&
				len(node.server.JetStreamClusterPeers()) == len(c.nodes) {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("starting nats-servers: they have elected no leader")
}

// URLs is how to connect, to each server.
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.nodes))
	for i, node := range c.nodes {
		urls[i] = node.URL()
	}
	return urls
}

// Node returns the number of the server with that name.
func (c *Cluster) Node(name string) (int, error) {
	for i := range c.nodes {
		if nodeName(i) == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no server is called %q", name)
}

// KillNode ends a server.
func (c *Cluster) KillNode(i int) { c.nodes[i].Stop() }

// RestartNode starts a server again.
func (c *Cluster) RestartNode(i int) error { return c.nodes[i].Restart() }

// Close ends the servers and removes their streams.
func (c *Cluster) Close() error {
	for _, node := range c.nodes {
		node.Stop()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("removing the streams of nats-server: %w", err)
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // a TCP listener
}
