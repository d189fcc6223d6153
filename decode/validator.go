package decode

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	ce "github.com/cloudevents/sdk-go/v2/event"

	"github.com/walrelay/walrelay/event"
)

// validator checks events by the rules of the CloudEvents SDK. The SDK takes
// microseconds for an event, so values that have passed are remembered: an
// application has few sources, content types and schemas.
type validator struct {
	sources, contentTypes, schemas memo
}

// memo remembers good values, up to a number.
type memo map[string]struct{}

const memoSize = 4096

func (m memo) add(value string) {
	if len(m) >= memoSize {
		clear(m)
	}
	m[strings.Clone(value)] = struct{}{}
}

func newValidator() *validator {
	return &validator{sources: memo{}, contentTypes: memo{}, schemas: memo{}}
}

// check returns the attribute at fault and what is wrong with it.
func (v *validator) check(ev *event.Event) (attribute, error) {
	for _, text := range [...]struct {
		a     attribute
		value string
	}{
		{attrID, ev.ID}, {attrType, ev.Type}, {attrSource, ev.Source}, {attrSubject, ev.Subject},
		{attrDataContentType, ev.DataContentType}, {attrDataSchema, ev.DataSchema}, {attrPartitionKey, ev.PartitionKey},
	} {
		if err := checkText(text.value); err != nil {
			return text.a, err
		}
	}
	for i := range ev.Extensions {
		if err := checkText(ev.Extensions[i].Value); err != nil {
			return attrExtensions, fmt.Errorf("extension %q: %w", ev.Extensions[i].Name, err)
		}
	}
	for _, known := range [...]struct {
		a     attribute
		memo  memo
		value string
		set   func(*ce.Event, string)
	}{
		{attrSource, v.sources, ev.Source, (*ce.Event).SetSource},
		{attrDataContentType, v.contentTypes, ev.DataContentType, (*ce.Event).SetDataContentType},
		{attrDataSchema, v.schemas, ev.DataSchema, (*ce.Event).SetDataSchema},
	} {
		if known.value == "" {
			continue
		}
		if _, ok := known.memo[known.value]; ok {
			continue
		}
		sample := ce.New()
		sample.SetID("id")
		sample.SetType("type")
		sample.SetSource("/source")
		known.set(&sample, known.value)
		if err := sample.Validate(); err != nil {
			return known.a, fmt.Errorf("%q is refused by the rules of CloudEvents: %w", known.value, err)
		}
		known.memo.add(known.value)
	}
	return 0, nil
}

var (
	errControl = errors.New("it has a control character or a noncharacter, which CloudEvents forbids in attributes")
	errUTF8    = errors.New("it is not valid UTF-8")
)

// checkText looks for what a CloudEvents string must not have (1.0.2, "Type
// System", String).
func checkText(s string) error {
	ascii := true
	for i := range len(s) {
		c := s[i]
		if c < 0x20 || c == 0x7F {
			return errControl
		}
		if c >= utf8.RuneSelf {
			ascii = false
		}
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(s) {
		return errUTF8
	}
	for _, c := range s {
		if c >= 0x80 && c <= 0x9F || c >= 0xFDD0 && c <= 0xFDEF || c&0xFFFE == 0xFFFE {
			return errControl
		}
	}
	return nil
}
