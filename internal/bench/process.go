package bench

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child. Its methods are for one goroutine at a time.
type process struct {
	name string
	cmd  *exec.Cmd
	said tail

	done chan struct{} // closed when it has ended
	err  error         // how; set before done is closed
}

// startProcess starts a child that does not get the terminal's signals, so
// that it can be stopped in order, and that ends when this program does.
func startProcess(name string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &p.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	started := make(chan error, 1)
	go func() { // ended and waited for by stop
		// The death signal is tied to the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended says how the process has ended, with its last words; nil while it runs.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself (%s) and said: %s", p.name, p.cmd.ProcessState, p.said.String())
	default:
		return nil
	}
}

// stop asks the process to end, by ask, and ends it when it has not after the
// grace. It returns when it has ended.
func (p *process) stop(ask func() error, grace time.Duration) error {
	if err := p.ended(); err != nil {
		return err
	}
	if err := ask(); err != nil {
		return errors.Join(fmt.Errorf("stopping %s: %w", p.name, err), p.kill())
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		return errors.Join(fmt.Errorf("stopping %s: it did not end within %v", p.name, grace), p.kill())
	}
	if p.err != nil {
		return fmt.Errorf("%s ended with %w and said: %s", p.name, p.err, p.said.String())
	}
	return nil
}

// terminate is how most processes are asked to end.
func (p *process) terminate() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	return err
}

// tail keeps the last of what a process prints.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > tailBytes {
		t.text = append(t.text[:0], t.text[len(t.text)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return "nothing"
	}
	return strings.TrimSpace(string(t.text))
}
