// Command walrelay streams the outbox tables of a Postgres database to NATS
// JetStream, as CloudEvents, in commit order.
//
// In come flags, environment variables and a configuration file; out go the
// calls of package walrelay, and an exit code: 0 done, 1 failed, 2 wrong usage
// or configuration; a panic is none of these. How a relay works is not known here.
package main

import (
	"os"
	"runtime/debug"
)

func main() {
	// A panic ends the process by SIGABRT. The runtime's own exit code for it is 2,
	// which means wrong usage here, and which service managers do not restart.
	debug.SetTraceback("crash")
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}
