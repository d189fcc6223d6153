package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child: a relay, a nats-server, the proxy. It dies with the
// harness.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *logFile
	done chan struct{} // closed when it has ended
	code int           // its exit code then; -1 for a signal
}

// startProcess starts a child whose output goes to the log.
func startProcess(name string, log *logFile, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	started := make(chan error, 1)
	go func() {
		// The death signal is tied to the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = w.Close()
		started <- err
		if err != nil {
			_ = r.Close()
			return
		}
		copied := make(chan struct{})
		go func() {
			defer close(copied)
			_, _ = io.Copy(log, r)
			_ = r.Close()
		}()
		_ = cmd.Wait()
		<-copied
		p.code = cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(sig syscall.Signal) {
	if p.running() {
		_ = p.cmd.Process.Signal(sig)
	}
}

// kill ends the process as a power cut would, also one that is stopped.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// wait waits for the process to end and returns its exit code.
func (p *process) wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s does not end: %w", p.name, context.Cause(ctx))
	}
}

// peak is the highest resident set so far, in bytes; 0 once it has ended.
func (p *process) peak() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

// logFile keeps what processes print, in a file and in memory. Safe for
// concurrent use.
type logFile struct {
	mu   sync.Mutex
	file *os.File
	text []byte
}

func newLogFile(dir, name string) (*logFile, error) {
	f, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	return &logFile{file: f}, nil
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return l.file.Write(p)
}

// mark is how much there is by now, for since.
func (l *logFile) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.text)
}

// since returns what was printed after the mark.
func (l *logFile) since(mark int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text[mark:])
}

// lastLines returns the end of the log.
func (l *logFile) lastLines(n int) string {
	lines := strings.Split(strings.TrimSpace(l.since(0)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
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
