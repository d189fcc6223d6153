// Package check finds out whether Postgres and NATS are as a relay needs them.
//
// Input: a connection to each side and the configuration. Output: [Facts], read
// by [Read], the only place that queries the replication slot; and [Results],
// what [Judge] makes of them. Judge is pure. Nothing is changed on either side.
//
// init, run, doctor and readiness all go by the same results. A result has an ID
// that stays the same across releases; docs/problems.md lists them. The package
// must not import what runs a relay.
package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walrelay/walrelay/internal/problem"
)

// Status is what a check found.
type Status uint8

// The statuses, from good to bad.
const (
	Pass Status = iota
	// Skip is a check that could not be made, such as of a table that does not
	// exist.
	Skip
	// Warn works, but may not be what is wanted.
	Warn
	// Fail keeps the relay from working.
	Fail
)

var statusNames = [...]string{"pass", "skip", "warn", "fail"}

func (s Status) String() string { return statusNames[s] }

// MarshalText writes the status as its name.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name of a status.
func (s *Status) UnmarshalText(text []byte) error {
	n := slices.Index(statusNames[:], string(text))
	if n < 0 {
		return fmt.Errorf("%q is not a status; there are %s", text, strings.Join(statusNames[:], ", "))
	}
	*s = Status(n)
	return nil
}

// Result is what one check found about one object.
type Result struct {
	// ID names the check, such as slot_lost; Subject the object that it is about,
	// such as a stream's name, or is empty.
	ID      string `json:"id"`
	Subject string `json:"subject,omitempty"`
	Status  Status `json:"status"`
	// What was found, why that matters, and what to do about it: one clause each.
	// Why and Fix may be empty.
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	Fix  string `json:"fix,omitempty"`
	// Creatable says that init makes what is missing.
	Creatable bool `json:"creatable,omitempty"`
}

// Problem returns a result that fails as an error.
func (r *Result) Problem() *problem.Problem {
	return &problem.Problem{ID: r.ID, What: r.What, Why: r.Why, Fix: r.Fix}
}

// resultOf is the result that a problem is. What showed it is why, unless the problem says that.
func resultOf(p *problem.Problem, subject string) Result {
	r := Result{ID: p.ID, Subject: subject, What: p.What, Why: p.Why, Fix: p.Fix}
	if r.Why == "" && p.Err != nil && p.Err.Error() != p.What {
		r.Why = p.Err.Error()
	}
	return r
}

// Text returns the result in one line.
func (r *Result) Text() string { return r.Problem().Error() }

// Results are the results of all checks that were made, in the order in which a
// person would go through them.
type Results []Result

// Err returns nil, or a *[problem.Problem] for each result that fails, joined.
func (rs Results) Err() error { return rs.err(true) }

// Blocking is [Results.Err] without what init makes.
func (rs Results) Blocking() error { return rs.err(false) }

func (rs Results) err(creatable bool) error {
	var errs []error
	for i := range rs {
		if rs[i].Status == Fail && (creatable || !rs[i].Creatable) {
			errs = append(errs, rs[i].Problem())
		}
	}
	return errors.Join(errs...)
}

// With returns the results of a status.
func (rs Results) With(status Status) Results {
	var found Results
	for i := range rs {
		if rs[i].Status == status {
			found = append(found, rs[i])
		}
	}
	return found
}

// Worst returns the worst status; Pass without results.
func (rs Results) Worst() Status {
	worst := Pass
	for i := range rs {
		worst = max(worst, rs[i].Status)
	}
	return worst
}

// Scope says which facts are read and judged.
type Scope uint8

// The scopes; they are combined with |.
const (
	// ScopeSlot is the replication slot alone.
	ScopeSlot Scope = 1 << iota
	// ScopePostgres is the server, walrelay's schema, the outbox tables and the
	// publication.
	ScopePostgres
	// ScopeNATS is the streams.
	ScopeNATS

	// ScopeDatabase is everything in the database, and ScopeAll everything.
	ScopeDatabase = ScopeSlot | ScopePostgres
	ScopeAll      = ScopeDatabase | ScopeNATS
)

func (s Scope) has(part Scope) bool { return s&part != 0 }
