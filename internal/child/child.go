// Package child runs other programs that end when this one does: servers that are
// thrown away, and relays that are measured or killed.
//
// Input: a command. Output: a process whose end is known, with what it has printed.
// Promises: the process dies with this program, however that dies (on Linux); its end
// is waited for; it gets no signal of the terminal. The package knows nothing of what it
// runs.
package child

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that runs, or has ended. Safe for concurrent use.
type Process struct {
	// Name is what errors call it.
	Name string

	cmd  *exec.Cmd
	log  *Log
	done chan struct{} // closed when it has ended
	err  error         // how; set before done is closed
}

// Options of a process that are not those of its command.
type Options struct {
	// Log gets what the program prints and the command sends nowhere else. May be nil.
	Log *Log
	// Death is the signal that the program gets when this one dies; SIGKILL if zero.
	Death syscall.Signal
}

// Start starts a command.
func Start(name string, cmd *exec.Cmd, options Options) (*Process, error) {
	p := &Process{Name: name, cmd: cmd, log: options.Log, done: make(chan struct{})}
	if p.log == nil {
		p.log = &Log{Limit: 4 << 10}
	}
	if cmd.Stdout == nil {
		cmd.Stdout = p.log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.log
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if options.Death == 0 {
		options.Death = syscall.SIGKILL
	}
	dieWithParent(cmd.SysProcAttr, options.Death)
	started := make(chan error, 1)
	go func() { // ends with the process
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

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and all that it printed is in its log.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says that the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Code is the exit code of a process that has ended; -1 after a signal.
func (p *Process) Code() int { return p.cmd.ProcessState.ExitCode() }

// Ended says how the process has ended, with its last words; nil while it runs.
func (p *Process) Ended() error {
	if p.Running() {
		return nil
	}
	return fmt.Errorf("%s ended by itself (%s) and said: %s", p.Name, p.cmd.ProcessState, p.Words())
}

// Words are the last lines that the process has printed.
func (p *Process) Words() string {
	if said := p.log.Tail(20); said != "" {
		return said
	}
	return "nothing"
}

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(sig syscall.Signal) {
	if p.Running() {
		_ = p.cmd.Process.Signal(sig) // it has just ended
	}
}

// Terminate is how most programs are asked to end.
func (p *Process) Terminate() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

// Kill ends the process as a power cut would, also one that is stopped, and waits for
// its end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Wait waits for the process to end, and returns its exit code.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.Code(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s does not end: %w", p.Name, context.Cause(ctx))
	}
}

// Stop asks the process to end, by ask, and kills it when it has not ended after the
// grace. It returns when it has; an error if it had ended before, or ended with one.
func (p *Process) Stop(ask func() error, grace time.Duration) error {
	if err := p.Ended(); err != nil {
		return err
	}
	if err := ask(); err != nil {
		p.Kill()
		return fmt.Errorf("stopping %s: %w", p.Name, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("stopping %s: it did not end within %v", p.Name, grace)
	}
	if _, ok := errors.AsType[*exec.ExitError](p.err); ok {
		return fmt.Errorf("%s ended with %w and said: %s", p.Name, p.err, p.Words())
	}
	return p.err
}
