package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/walrelay/walrelay"
)

const (
	// gcPercent is how much a relay allocates, beside what it keeps, until the
	// garbage collector runs. What it keeps is the window: a few megabytes
	// that are gone a moment later.
	gcPercent = 400
	// ownMemory is what a relay takes beside the events that it keeps, and what
	// it may waste before the garbage collector runs in any case.
	ownMemory = 8 << 20
	// sharedProcessors is up to how many processors a relay uses only one: the
	// servers want the other, and one goroutine does nearly all the work. With
	// two, each message would wake a thread for the client's own goroutine that
	// writes it; with one, they take turns, and a write has many messages.
	sharedProcessors = 2
)

// tuneRuntime makes Go's runtime fit a relay: as little waking of threads and
// collecting of garbage as its memory allows. GOMAXPROCS, GOGC and GOMEMLIMIT,
// where they are set, are the user's word.
func tuneRuntime(cfg walrelay.Config) {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) <= sharedProcessors {
		runtime.GOMAXPROCS(1)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(ownMemory + cfg.MaxBuffered())
	}
}
