package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/walrelay/walrelay/event"
)

// shortestWindow is the shortest duplicate window and age that nats-server
// allows.
const shortestWindow = 100 * time.Millisecond

func (v *validator) streams(streams []Stream) {
	for i, s := range streams {
		key := fmt.Sprintf("streams[%d]", i)
		switch {
		case s.Name == "":
			v.problem(key+".name", "must be set")
		case strings.ContainsAny(s.Name, ". *>/\\\t\r\n") || len(s.Name) > 255:
			v.problem(key+".name", "%q must be at most 255 bytes, without dots, wildcards, slashes and spaces", s.Name)
		case slices.ContainsFunc(streams[:i], func(other Stream) bool { return other.Name == s.Name }):
			v.problem(key+".name", "%q is listed twice", s.Name)
		}
		for j, subject := range s.Subjects {
			key := fmt.Sprintf("%s.subjects[%d]", key, j)
			if err := checkPattern(subject); err != nil {
				v.problem(key, "%q %v", subject, err)
			} else if taken := overlapping(subject, j, i, streams); taken != "" {
				v.problem(key, "%q overlaps with %s", subject, taken)
			}
		}
		if s.Replicas < 1 || s.Replicas > 5 {
			v.problem(key+".replicas", "%d is not between 1 and 5", s.Replicas)
		}
		if s.MaxAge != 0 && s.MaxAge < shortestWindow {
			v.problem(key+".max_age", "%v is shorter than %v", s.MaxAge, shortestWindow)
		} else if s.DuplicateWindow < shortestWindow {
			v.problem(key+".duplicate_window", "%v is shorter than %v", s.DuplicateWindow, shortestWindow)
		}
		if s.MaxBytes < 0 {
			v.problem(key+".max_bytes", "must not be negative")
		}
	}
}

// overlapping names a subject, earlier in the list than the j-th of the i-th
// stream, that shares subjects with it: the server would refuse it.
func overlapping(subject string, j, i int, streams []Stream) string {
	for n, other := range streams[:i+1] {
		subjects := other.Subjects
		if n == i {
			subjects = subjects[:j]
		}
		for _, taken := range subjects {
			if checkPattern(taken) == nil && event.PatternsOverlap(taken, subject) {
				return fmt.Sprintf("%q of stream %q", taken, other.Name)
			}
		}
	}
	return ""
}

// checkPattern says what is wrong with the subject of a stream, in which
// tokens may be wildcards.
func checkPattern(pattern string) error {
	if strings.ContainsAny(pattern, " \t\r\n\x00") {
		return errors.New("must not contain spaces")
	}
	if strings.HasPrefix(pattern, "$") {
		return errors.New("must not begin with $: such subjects belong to NATS")
	}
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return errors.New("must not have empty tokens")
		case token == ">" && i != len(tokens)-1:
			return errors.New("may have > only as its last token")
		}
	}
	return nil
}

// TemplatePattern returns a pattern that matches every subject which the
// template can give to events whose type matches eventType: a type, or a
// pattern of types, or nothing for any.
func TemplatePattern(template, eventType string) string {
	if eventType != "" && strings.Trim(eventType, plainTypeCharacters) == "" && checkPattern(eventType) == nil {
		template = strings.ReplaceAll(template, "{type}", eventType)
	}
	var tokens []string
	for token := range strings.SplitSeq(template, ".") {
		switch {
		case strings.Contains(token, "{type}"):
			// The dots of a type separate tokens: there may be any number.
			return strings.Join(append(tokens, ">"), ".")
		case strings.Contains(token, "{"):
			tokens = append(tokens, "*")
		default:
			tokens = append(tokens, token)
		}
	}
	return strings.Join(tokens, ".")
}

// plainTypeCharacters are those that stand for themselves in a subject.
const plainTypeCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
