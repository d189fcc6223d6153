package decode

import (
	"strings"

	"github.com/walrelay/walrelay/event"
)

// validator checks events by the rules of the CloudEvents SDK. The SDK takes
// microseconds for an event, so values that have passed are remembered: an
// application has few sources, content types and schemas.
type validator struct {
	sources, contentTypes, schemas memo
}

func newValidator() *validator {
	return &validator{sources: memo{}, contentTypes: memo{}, schemas: memo{}}
}

// check returns the attribute at fault and what is wrong with it.
func (v *validator) check(ev *event.Event) (attribute, error) {
	if !v.sources.has(ev.Source) {
		if err := event.CheckAttribute(attrSource.String(), ev.Source); err != nil {
			return attrSource, err
		}
		v.sources.add(ev.Source)
	}
	if ev.DataContentType != "" && !v.contentTypes.has(ev.DataContentType) {
		if err := event.CheckAttribute(attrDataContentType.String(), ev.DataContentType); err != nil {
			return attrDataContentType, err
		}
		v.contentTypes.add(ev.DataContentType)
	}
	if ev.DataSchema != "" && !v.schemas.has(ev.DataSchema) {
		if err := event.CheckAttribute(attrDataSchema.String(), ev.DataSchema); err != nil {
			return attrDataSchema, err
		}
		v.schemas.add(ev.DataSchema)
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
