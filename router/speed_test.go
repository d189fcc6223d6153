package router

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/internal/localnats"
)

// serveEnv makes this test binary a nats-server instead, until its standard input
// ends.
const serveEnv = "WALRELAY_TEST_SERVE_NATS"

func serve() error {
	s, err := localnats.Start(localnats.Options{})
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, s.Close())
}

// apart connects to a nats-server in a process of its own, so that what a test
// counts is the client's side alone.
func apart(tb testing.TB) *nats.Conn {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), serveEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the nats-server ended: %v", err)
		}
	})
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		tb.Fatal(err)
	}
	nc, err := nats.Connect(strings.TrimSpace(url), nats.SkipSubjectValidation())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// writerForSpeed is a writer with one flight, to be sent again and again.
func writerForSpeed(tb testing.TB) *writer {
	tb.Helper()
	subject, err := ParseSubject("events.{type}")
	if err != nil {
		tb.Fatal(err)
	}
	nc := apart(tb)
	w := newWriter(nc, writerConfig{stream: "EVENTS", origin: Origin{SystemID: "7412345678901234567", Slot: "walrelay"}, maxInFlight: 1})
	w.prefix = nc.NewInbox() + "."
	w.begin()
	ev := at(100, 0)
	ev.Time, ev.Data = "2026-11-23T14:30:18.123456Z", make([]byte, 300)
	w.ring[0] = flight{ev: ev, target: &Target{Stream: "EVENTS", Subject: &subject}}
	return w
}

func BenchmarkEncodeAndSend(b *testing.B) {
	w := writerForSpeed(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := w.send(0, place{}); err != nil {
			b.Fatal(err)
		}
	}
}

// Two are the client's, for the bytes of the headers.
func TestWriter_Allocations(t *testing.T) {
	w := writerForSpeed(t)
	const events = 1000
	got := testing.AllocsPerRun(10, func() {
		for range events {
			if err := w.send(0, place{}); err != nil {
				t.Fatal(err)
			}
		}
	})
	if got > 3.1*events { // one more with the race detector
		t.Errorf("an event took %.2f allocations, want at most three", got/events)
	}
}
