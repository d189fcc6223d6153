package child

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Tick is the unit of processor time in /proc; Linux has shown a hundredth of a
// second to programs on all machines for decades (proc(5), USER_HZ).
const Tick = 10 * time.Millisecond

// stat is what /proc says of a process.
type stat struct {
	parent int
	// own is the processor time of the process, and waited that of its children
	// that have ended.
	own, waited time.Duration
}

// ProcessorTime is what a process has used; with its children, also those that
// live and those that have ended. Zero where it cannot be told: on other systems than Linux.
func ProcessorTime(pid int, children bool) time.Duration {
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
			if c, err := readStat(file); err == nil && c.parent == pid {
				total += c.own
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
		*field.to += time.Duration(ticks) * Tick
	}
	return s, nil
}

// PeakMemory is the highest resident set of a process so far, in bytes; zero
// where it cannot be told. The figure of wait4(2) is no substitute: it starts
// from the parent's.
func PeakMemory(pid int) int64 {
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
