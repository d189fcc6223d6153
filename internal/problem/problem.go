// Package problem describes what only a person can mend.
//
// Input: what a check, a connection or a server's answer shows. Output: one
// value that commands print, logs carry, readiness reports and tests compare.
// A problem has an ID that stays the same across releases; docs/problems.md
// lists them. The package imports nothing of the project.
package problem

import (
	"errors"
	"strings"
)

// Problem is an error that no retry mends: somebody has to change something
// first.
type Problem struct {
	// ID names the kind of problem, such as slot_lost: lower-case words joined by
	// underscores. Texts may change between releases; IDs do not.
	ID string
	// What is wrong, and where: one clause.
	What string
	// Why that matters; may be empty.
	Why string
	// Fix is what to do about it; may be empty.
	Fix string
	// Err is the error that showed it; may be nil. It is not repeated if What is
	// its text.
	Err error
}

// Error returns everything in one line: what, the cause, why; how to fix it.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.What)
	if p.Err != nil {
		if text := p.Err.Error(); text != p.What {
			b.WriteString(": ")
			b.WriteString(text)
		}
	}
	if p.Why != "" {
		b.WriteString(": ")
		b.WriteString(p.Why)
	}
	if p.Fix != "" {
		b.WriteString("; ")
		b.WriteString(p.Fix)
	}
	return b.String()
}

// Unwrap returns the error that showed the problem.
func (p *Problem) Unwrap() error { return p.Err }

// Permanent reports whether err is, wraps or joins a [Problem]: whether to try
// again is useless.
func Permanent(err error) bool {
	_, ok := Find(err)
	return ok
}

// Find returns the first [Problem] in err's tree.
func Find(err error) (*Problem, bool) {
	return errors.AsType[*Problem](err)
}

// ShellWord writes a text as one word of a POSIX shell, for a command that a person is to run.
func ShellWord(text string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+=,", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
