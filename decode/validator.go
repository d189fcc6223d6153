package decode

import (
	"strings"

	"github.com/walrelay/walrelay/event"
)

// validator checks events by the rules of the CloudEvents SDK. The SDK takes
// microseconds for an event, so values that have passed are remembered: an
// application has few sources, content types and schemas.
type validator struct {
	good [len(checked)]memo
}

// checked are the columns about whose values the SDK knows something.
var checked = [...]event.Column{event.ColumnSource, event.ColumnDataContentType, event.ColumnDataSchema} //nolint:gochecknoglobals // never written

func newValidator() *validator {
	v := &validator{}
	for i := range v.good {
		v.good[i] = memo{}
	}
	return v
}

// check returns the attribute at fault and what is wrong with it.
func (v *validator) check(ev *event.Event) (event.Column, error) {
	for i, a := range checked {
		value := *a.Field(ev)
		if value == "" || v.good[i].has(value) {
			continue
		}
		if err := event.CheckAttribute(a, value); err != nil {
			return a, err
		}
		v.good[i].add(value)
	}
	return 0, nil
}

// memo remembers good values, up to a number and a length, so that it stays
// small whatever rows bring.
type memo map[string]struct{}

const (
	memoSize  = 4096
	memoValue = 256
)

func (m memo) has(value string) bool {
	_, ok := m[value]
	return ok
}

func (m memo) add(value string) {
	if len(value) > memoValue {
		return
	}
	if len(m) >= memoSize {
		clear(m)
	}
	// A copy: the value is a part of a row's buffer.
	m[strings.Clone(value)] = struct{}{}
}
