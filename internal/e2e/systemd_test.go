package e2e_test

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walrelay/walrelay/internal/testkit"
)

// systemd listens as systemd does (sd_notify(3)).
type systemd struct {
	mu   sync.Mutex
	said []string
}

func (s *systemd) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, said := range s.said {
		n += strings.Count(said, text)
	}
	return n
}

func (s *systemd) await(t *testing.T, text string, n int) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, "systemd is told "+text, func() error {
		if s.count(text) < n {
			s.mu.Lock()
			defer s.mu.Unlock()
			return errors.New("it was told: " + strings.Join(s.said, " | "))
		}
		return nil
	})
}

func TestSystemd_IsToldWhatTheRelayDoes(t *testing.T) {
	t.Parallel()
	e := newEnv(t, shared)
	e.init()
	path := filepath.Join(e.dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var s systemd
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := socket.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.said = append(s.said, string(buf[:n]))
			s.mu.Unlock()
		}
	}()
	defer func() {
		_ = socket.Close()
		<-done
	}()
	e.environ = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=300000"}
	r := e.run()
	s.await(t, "READY=1", 1)
	s.await(t, "STATUS=streaming", 1)
	s.await(t, "WATCHDOG=1", 3)
	// An outage is said, and is no reason to be restarted.
	e.server.Stop()
	e.insert(1)
	s.await(t, "not connected to NATS", 1)
	s.await(t, "WATCHDOG=1", s.count("WATCHDOG=1")+5)
	e.restartNATS()
	s.await(t, "STATUS=streaming", 2)
	if code := r.stop(); code != 0 {
		t.Errorf("the relay ends with %d", code)
	}
	s.await(t, "STOPPING=1", 1)
}
