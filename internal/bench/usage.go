package bench

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/walrelay/walrelay/internal/child"
)

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
func (b *bench) usage(relay *child.Process) usage {
	var u usage
	u.all, u.stolen = machineTime()
	u.own = child.ProcessorTime(os.Getpid(), false)
	if relay != nil {
		u.relay = child.ProcessorTime(relay.PID(), false)
	}
	if b.cluster != nil {
		u.postgres = child.ProcessorTime(b.cluster.PID(), true)
	}
	if b.server != nil {
		u.nats = child.ProcessorTime(b.server.PID(), false)
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
		all += time.Duration(ticks) * child.Tick
		if i == steal {
			stolen = time.Duration(ticks) * child.Tick
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
