package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/walrelay/walrelay/internal/child"
)

// logFile keeps what processes print, in a file and in memory. Safe for
// concurrent use.
type logFile struct {
	child.Log

	file *os.File
}

func newLogFile(dir, name string) (*logFile, error) {
	f, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	return &logFile{file: f, Log: child.Log{Copy: f}}, nil
}

func (l *logFile) close() { _ = l.file.Close() }

// freePorts returns ports of the loopback interface on which nobody listens.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer func() { _ = l.Close() }()
		ports[i] = l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener
	}
	return ports, nil
}

// until polls until check passes, and returns its last error when the limit or
// the context ends before that.
func until(ctx context.Context, limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if errors.Is(err, errHopeless) {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waited %s until %s: %w", limit, what, last)
		}
	}
}

// errHopeless ends the waiting at once.
var errHopeless = errors.New("it never will")

// run runs a program to its end, and returns what it printed.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// lines calls take for each line of a text.
func lines(text string, take func(string)) {
	scanner := bufio.NewScanner(strings.NewReader(text))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		take(scanner.Text())
	}
}
