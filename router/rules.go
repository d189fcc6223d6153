package router

import (
	"errors"
	"fmt"
	"strings"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/retry"
)

// Mode is a CloudEvents content mode.
type Mode uint8

const (
	// Binary has the attributes in headers, and the payload as it is.
	Binary Mode = iota
	// Structured has the whole event as JSON.
	Structured
)

// ParseMode reads "binary", "structured", or "" for binary.
func ParseMode(text string) (Mode, error) {
	switch text {
	case "", "binary":
		return Binary, nil
	case "structured":
		return Structured, nil
	}
	return 0, fmt.Errorf("%q is no content mode; there are binary and structured", text)
}

// Rule says what happens to the events that match all its conditions.
type Rule struct {
	// Conditions; an empty one matches every event. In Type and Source * stands
	// for any run of characters. Table is schema.table.
	Type, Source, Table string

	// Stream, Subject and Mode where they are not the defaults.
	Stream, Subject, Mode string
	// Drop says that the event is not published.
	Drop bool
	// Retry says when an event that could not be published is tried again.
	Retry retry.Policy
}

// Target is where an event goes.
type Target struct {
	Stream  string
	Subject *SubjectTemplate
	Mode    Mode
	Drop    bool
	Retry   retry.Policy
}

// Rules decide where events go. Safe for concurrent use.
type Rules struct {
	rules    []compiledRule
	fallback Target
}

type compiledRule struct {
	typ, source, schema, table string
	target                     Target
}

// NewRules compiles rules, in their order, over a last one that matches
// everything. All faults are reported at once.
func NewRules(rules []Rule, fallback Rule) (*Rules, error) {
	target, err := compileTarget(fallback, Rule{})
	if err != nil {
		return nil, err
	}
	r := &Rules{fallback: target}
	var errs []error
	for i, rule := range rules {
		target, err := compileTarget(rule, fallback)
		if err != nil {
			errs = append(errs, fmt.Errorf("routes[%d]: %w", i, err))
		}
		c := compiledRule{typ: rule.Type, source: rule.Source, target: target}
		if rule.Table != "" {
			var found bool
			if c.schema, c.table, found = strings.Cut(rule.Table, "."); !found || c.schema == "" || c.table == "" {
				errs = append(errs, fmt.Errorf("routes[%d]: table %q: want schema.table", i, rule.Table))
			}
		}
		if rule.Drop && (rule.Stream != "" || rule.Subject != "" || rule.Mode != "") {
			errs = append(errs, fmt.Errorf("routes[%d]: an event that is dropped has no stream, subject or mode", i))
		}
		r.rules = append(r.rules, c)
	}
	return r, errors.Join(errs...)
}

func compileTarget(rule, fallback Rule) (Target, error) {
	or := func(a, b string) string {
		if a != "" {
			return a
		}
		return b
	}
	subject, err := ParseSubject(or(rule.Subject, fallback.Subject))
	if err != nil {
		return Target{}, err
	}
	mode, err := ParseMode(or(rule.Mode, fallback.Mode))
	if err != nil {
		return Target{}, err
	}
	return Target{Stream: or(rule.Stream, fallback.Stream), Subject: &subject, Mode: mode, Drop: rule.Drop, Retry: rule.Retry}, nil
}

// Match returns the target of the first rule that matches the event.
func (r *Rules) Match(ev *event.Event) *Target {
	for i := range r.rules {
		c := &r.rules[i]
		if c.table != "" && (c.table != ev.Table || c.schema != ev.Schema) {
			continue
		}
		if c.typ != "" && !MatchPattern(c.typ, ev.Type) || c.source != "" && !MatchPattern(c.source, ev.Source) {
			continue
		}
		return &c.target
	}
	return &r.fallback
}

// MatchPattern reports whether s is the pattern with each * replaced by some
// run of characters.
func MatchPattern(pattern, s string) bool {
	star, resume := -1, 0 // where to try again: after the last *
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			resume++
			p, i = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
