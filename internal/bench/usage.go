package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc; Linux has shown a hundredth of a
// second to programs on all machines for decades (proc(5), USER_HZ).
const tick = 10 * time.Millisecond

// usage is the processor time that the three have used so far. Zero where it
// cannot be told: on other systems than Linux, and of servers that are not
// children.
type usage struct {
	relay, postgres, nats time.Duration
	own                   time.Duration // of this program
	// all is the time that this machine's processors had, and stolen how much
	// of it went to other virtual machines.
	all, stolen time.Duration
}

// usage reads them. A relay that is nil has used none.
func (b *bench) usage(relay *process) usage {
	var u usage
	u.all, u.stolen = machineTime()
	u.own = processorTime(os.Getpid(), false)
	if relay != nil {
		u.relay = processorTime(relay.pid(), false)
	}
	if b.cluster != nil {
		u.postgres = processorTime(b.cluster.PID(), true)
	}
	if b.server != nil {
		u.nats = processorTime(b.server.pid(), false)
	}
	return u
}

func (u usage) since(before usage) usage {
	return usage{
		relay: u.relay - before.relay, postgres: u.postgres - before.postgres, nats: u.nats - before.nats, own: u.own - before.own,
		all: u.all - before.all, stolen: u.stolen - before.stolen,
	}
}

// steal is the part of the machine that other virtual machines had.
func (u usage) steal() float64 {
	if u.all <= 0 {
		return 0
	}
	return float64(u.stolen) / float64(u.all)
}

// machineTime reads the first line of /proc/stat (proc(5)): user, nice, system,
// idle, iowait, irq, softirq and steal; what follows is counted in user already.
func machineTime() (all, stolen time.Duration) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	const steal = 7
	for i, field := range strings.Fields(strings.TrimPrefix(line, "cpu ")) {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil || i > steal {
			break
		}
		all += time.Duration(ticks) * tick
		if i == steal {
			stolen = time.Duration(ticks) * tick
		}
	}
	return all, stolen
}

// perEvent is the time in microseconds that each of n events took.
func perEvent(d time.Duration, n int) float64 {
	if n == 0 {
		return 0
	}
	return float64(d.Nanoseconds()) / 1000 / float64(n)
}

// stat is what /proc says of a process.
type stat struct {
	parent int
	// own is the processor time of the process, and waited that of its children
	// that have ended.
	own, waited time.Duration
}

// processorTime is what a process has used; with its children, also those that
// live and those that have ended.
func processorTime(pid int, children bool) time.Duration {
	file := fmt.Sprintf("/proc/%d/stat", pid)
	s, err := readStat(file)
	if err != nil {
		return 0
	}
	for children {
		total := s.own + s.waited
		files, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			return 0
		}
		for _, file := range files {
			if child, err := readStat(file); err == nil && child.parent == pid {
				total += child.own
			}
		}
		after, err := readStat(file)
		if err != nil {
			return 0
		}
		if after.waited == s.waited {
			return total
		}
		s = after // a child has ended meanwhile, and may be missing
	}
	return s.own
}

// readStat reads /proc/PID/stat (proc(5)): after the name, which is in
// parentheses and may contain anything, come the state and the parent.
func readStat(file string) (stat, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return stat{}, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const parent, user, system, childUser, childSystem = 1, 11, 12, 13, 14
	if len(fields) <= childSystem {
		return stat{}, fmt.Errorf("%s has %d fields", file, len(fields))
	}
	var s stat
	if s.parent, err = strconv.Atoi(fields[parent]); err != nil {
		return stat{}, fmt.Errorf("%s: %w", file, err)
	}
	for _, field := range []struct {
		index int
		to    *time.Duration
	}{{user, &s.own}, {system, &s.own}, {childUser, &s.waited}, {childSystem, &s.waited}} {
		ticks, err := strconv.ParseInt(fields[field.index], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("%s: %w", file, err)
		}
		*field.to += time.Duration(ticks) * tick
	}
	return s, nil
}

// peakMemory is the highest resident set of a process so far, in bytes; zero
// where it cannot be told. The figure of wait4(2) is no substitute: it starts
// from the parent's.
func peakMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0
		}
		return kib << 10
	}
	return 0
}

// cpuModel is the processor's name; empty where it cannot be told.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
