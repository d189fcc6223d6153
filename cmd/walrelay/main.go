// Command walrelay streams the outbox tables of a Postgres database to NATS
// JetStream, as CloudEvents, in commit order.
//
// In come flags, environment variables and a configuration file; out go the
// calls of package walrelay, and an exit code: 0 done, 1 failed, 2 wrong usage
// or configuration. How a relay works is not known here.
package main

import "os"

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}
