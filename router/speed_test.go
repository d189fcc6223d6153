package router

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// throwAway is a NATS server that takes one connection and throws away what is
// published, so that what a test measures is the client's side alone.
func throwAway(tb testing.TB) *nats.Conn {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			conn, err := listener.Accept()
			if err != nil {
				return err
			}
			defer conn.Close()
			fmt.Fprintf(conn, "INFO {\"headers\":true,\"max_payload\":1048576}\r\n")
			lines := bufio.NewReader(conn)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return err
				}
				if strings.HasPrefix(line, "PING") {
					break
				}
			}
			fmt.Fprint(conn, "PONG\r\n")
			_, err = io.Copy(io.Discard, lines)
			return err
		}()
	}()
	nc, err := nats.Connect(listener.Addr().String(), nats.SkipSubjectValidation())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		nc.Close()
		_ = listener.Close()
		<-done // an error is how it ends
	})
	return nc
}

// writerForSpeed is a writer with one flight, to be sent again and again.
func writerForSpeed(tb testing.TB) *writer {
	tb.Helper()
	subject, err := ParseSubject("events.{type}")
	if err != nil {
		tb.Fatal(err)
	}
	nc := throwAway(tb)
	w := newWriter(nc, nil, writerConfig{stream: "EVENTS", origin: Origin{SystemID: "7412345678901234567", Slot: "walrelay"}, maxInFlight: 1})
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
func TestSendingAnEventTakesFewAllocations(t *testing.T) {
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
