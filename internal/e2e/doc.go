// Package e2e has the tests of the built binary against a real Postgres and a
// real nats-server: what a team would see, with everything that can go wrong.
// Its code is in test files only.
package e2e
