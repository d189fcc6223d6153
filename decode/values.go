package decode

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/walrelay/walrelay/event"
)

// Content types of payloads that come without one.
const (
	contentTypeJSON  = "application/json"
	contentTypeBytes = "application/octet-stream"
)

var (
	errTooEarly    = errors.New("it is before the year 1, which RFC 3339 cannot say; write a later time, or null")
	errTooLate     = errors.New("it is after the year 9999, which RFC 3339 cannot say; write an earlier time, or null")
	errNoTimestamp = errors.New("it is not a timestamp in ISO style; the column must be a timestamptz")
)

// appendUTC appends RFC 3339 of a timestamptz as a session in UTC writes it,
// "2026-11-23 14:30:18.5+00", which differs in two characters only. For
// anything else it appends nothing.
func appendUTC(dst, b []byte) []byte {
	const shape = "0000-00-00 00:00:00"
	seconds, ok := bytes.CutSuffix(b, []byte("+00"))
	if !ok || len(seconds) < len(shape) || len(seconds) > len(shape)+10 {
		return dst
	}
	for i, c := range seconds {
		switch {
		case i == len(shape):
			ok = c == '.'
		case i > len(shape) || shape[i] == '0':
			ok = c >= '0' && c <= '9'
		default:
			ok = c == shape[i]
		}
		if !ok {
			return dst
		}
	}
	dst = append(dst, seconds[:10]...)
	dst = append(dst, 'T')
	dst = append(dst, seconds[11:]...)
	return append(dst, 'Z')
}

// parseTimestamp reads a timestamp or timestamptz in ISO style, as the
// replication session writes it, such as 2026-11-23 14:30:18.123456+00. Without
// an offset it is UTC. The result is in UTC, from the year 1 to 9999.
func parseTimestamp(b []byte) (time.Time, error) {
	switch {
	case string(b) == "infinity":
		return time.Time{}, errTooLate
	case string(b) == "-infinity":
		return time.Time{}, errTooEarly
	}
	s := scanner{rest: b}
	year := s.year()
	month := s.after('-')
	day := s.after('-')
	if !s.skip('T') {
		s.need(' ')
	}
	hour := s.number(2)
	minute := s.after(':')
	second := s.after(':')
	nanosecond := s.fraction()
	offset := s.offset()
	isBC := string(s.rest) == " BC"
	switch {
	case s.failed || len(s.rest) > 0 && !isBC || hour > 23 || minute > 59 || second > 59:
		return time.Time{}, fmt.Errorf("%q: %w", event.Clip(b), errNoTimestamp)
	case isBC:
		return time.Time{}, fmt.Errorf("%s: %w", event.Clip(b), errTooEarly)
	case year > 9999:
		return time.Time{}, fmt.Errorf("%s: %w", event.Clip(b), errTooLate)
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanosecond, time.UTC)
	if t.Month() != time.Month(month) || t.Day() != day {
		return time.Time{}, fmt.Errorf("%q: %w", event.Clip(b), errNoTimestamp) // the 30th of February
	}
	t = t.Add(-offset)
	switch {
	case t.Year() < 1:
		return time.Time{}, fmt.Errorf("%s: %w", event.Clip(b), errTooEarly)
	case t.Year() > 9999:
		return time.Time{}, fmt.Errorf("%s: %w", event.Clip(b), errTooLate)
	}
	return t, nil
}

// hasOffset reports whether a timestamp that parseTimestamp reads says its offset.
func hasOffset(b []byte) bool {
	const date = len("2006-01-02")
	return b[len(b)-1] == 'Z' || bytes.ContainsAny(b[min(date, len(b)):], "+-")
}

// scanner reads the parts of a timestamp. After the first that is missing it
// has failed, and what it returns means nothing.
type scanner struct {
	rest   []byte
	failed bool
}

// skip passes a byte, if it comes next.
func (s *scanner) skip(c byte) bool {
	if len(s.rest) > 0 && s.rest[0] == c {
		s.rest = s.rest[1:]
		return true
	}
	return false
}

func (s *scanner) need(c byte) {
	if !s.skip(c) {
		s.failed = true
	}
}

// number reads a number of just so many digits.
func (s *scanner) number(width int) int {
	if len(s.rest) < width {
		s.failed = true
		return 0
	}
	n := 0
	for _, c := range s.rest[:width] {
		if c < '0' || c > '9' {
			s.failed = true
			return 0
		}
		n = 10*n + int(c-'0')
	}
	s.rest = s.rest[width:]
	return n
}

// after reads a number of two digits after a separator.
func (s *scanner) after(separator byte) int {
	s.need(separator)
	return s.number(2)
}

// digits counts the digits that come next.
func (s *scanner) digits() int {
	n := 0
	for n < len(s.rest) && s.rest[n] >= '0' && s.rest[n] <= '9' {
		n++
	}
	return n
}

// year reads four digits or more; Postgres' last year is 294276.
func (s *scanner) year() int {
	width := s.digits()
	if width < 4 || width > 6 {
		s.failed = true
		return 0
	}
	return s.number(width)
}

// fraction reads the optional fraction of a second, in nanoseconds.
func (s *scanner) fraction() int {
	if !s.skip('.') {
		return 0
	}
	width := s.digits()
	if width < 1 || width > 9 {
		s.failed = true
		return 0
	}
	n := s.number(width)
	for ; width < 9; width++ {
		n *= 10
	}
	return n
}

// offset reads the optional offset from UTC: Z, +02, +05:30, or with seconds,
// as of local mean times.
func (s *scanner) offset() time.Duration {
	if s.skip('Z') {
		return 0
	}
	west := s.skip('-')
	if !west && !s.skip('+') {
		return 0
	}
	d := time.Duration(s.number(2)) * time.Hour
	if s.skip(':') {
		d += time.Duration(s.number(2)) * time.Minute
		if s.skip(':') {
			d += time.Duration(s.number(2)) * time.Second
		}
	}
	if west {
		return -d
	}
	return d
}
