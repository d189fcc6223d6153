package localnats

import (
	"io"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestServe_EndsWithItsInput(t *testing.T) {
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(t.TempDir(), inRead, outWrite) }()
	url := make([]byte, 100)
	n, err := outRead.Read(url)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(strings.TrimSpace(string(url[:n])))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	_ = inWrite.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
