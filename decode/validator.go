package decode

import (
	"errors"
	"fmt"
	"net/url"
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

func newValidator() *validator {
	return &validator{sources: memo{}, contentTypes: memo{}, schemas: memo{}}
}

// check returns the attribute at fault and what is wrong with it.
func (v *validator) check(ev *event.Event) (attribute, error) {
	if !v.sources.has(ev.Source) {
		if err := checkBySDK(attrSource, ev.Source); err != nil {
			return attrSource, err
		}
		v.sources.add(ev.Source)
	}
	if ev.DataContentType != "" && !v.contentTypes.has(ev.DataContentType) {
		if err := checkBySDK(attrDataContentType, ev.DataContentType); err != nil {
			return attrDataContentType, err
		}
		v.contentTypes.add(ev.DataContentType)
	}
	if ev.DataSchema != "" && !v.schemas.has(ev.DataSchema) {
		if err := checkBySDK(attrDataSchema, ev.DataSchema); err != nil {
			return attrDataSchema, err
		}
		v.schemas.add(ev.DataSchema)
	}
	return 0, nil
}

// checkBySDK checks one value in an event that is good otherwise. Attributes
// about which the SDK knows no more than [checkText] always pass.
func checkBySDK(a attribute, value string) error {
	sample := ce.New()
	sample.SetID("id")
	sample.SetType("type")
	sample.SetSource("/source")
	var want string
	switch a {
	case attrSource:
		sample.SetSource(value)
		want = "a URI reference, such as /orders or https://example.com/orders"
	case attrDataContentType:
		sample.SetDataContentType(value)
		want = "a media type, such as application/json"
	case attrDataSchema:
		sample.SetDataSchema(value)
		want = "an absolute URI, such as https://example.com/schema.json"
	default:
		return nil
	}
	err := sample.Validate()
	if err == nil {
		return nil
	}
	// The SDK's text repeats the value, of whatever length.
	if all, ok := errors.AsType[ce.ValidationError](err); ok {
		for _, fault := range all { // one value was set, so one is at fault
			err = fault
		}
	}
	if fault, ok := errors.AsType[*url.Error](err); ok {
		err = fault.Err
	}
	return fmt.Errorf("%q is not %s: %w", clip(value), want, err)
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

var (
	errControl = errors.New("it has a control character or a noncharacter, which CloudEvents forbids in attributes; remove it")
	errUTF8    = errors.New("it is not valid UTF-8; the database's encoding must be UTF8")
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
