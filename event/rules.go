package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	ce "github.com/cloudevents/sdk-go/v2/event"
)

// CheckAttribute checks the value of the attribute that a column makes by the rules of the CloudEvents SDK, which
// take microseconds. Attributes about which it knows no more than [CheckText] pass.
func CheckAttribute(c Column, value string) error {
	sample := ce.New()
	sample.SetID("id")
	sample.SetType("type")
	sample.SetSource("/source")
	var want string
	switch c {
	case ColumnSource:
		sample.SetSource(value)
		want = "a URI reference, such as /orders or https://example.com/orders"
	case ColumnDataContentType:
		sample.SetDataContentType(value)
		want = "a media type, such as application/json"
	case ColumnDataSchema:
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
	return fmt.Errorf("%q is not %s: %w", Clip(value), want, err)
}

var (
	errControl = errors.New("it has a control character or a noncharacter, which CloudEvents forbids in attributes; remove it")
	errUTF8    = errors.New("it is not valid UTF-8; the database's encoding must be UTF8")
)

// CheckText looks in the value of an attribute for what a CloudEvents string must not have (1.0.2, "Type
// System", String).
func CheckText(s string) error {
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

// ExtensionOf reads an extension attribute from valid JSON. Its value is empty if it is
// absent: null, or an empty string.
func ExtensionOf(name string, value json.RawMessage) (Attribute, error) {
	if err := checkExtensionName(name); err != nil {
		return Attribute{}, err
	}
	text, bare, err := extensionValue(value)
	if err == nil {
		err = CheckText(text)
	}
	return Attribute{Name: name, Value: text, Bare: bare}, err
}

// extensionValue returns the canonical text of a valid JSON value (CloudEvents
// 1.0.2, "Type System"): of a string, a boolean, or an integer of 32 bits. bare: it is
// no string.
func extensionValue(value json.RawMessage) (text string, bare bool, err error) {
	switch value[0] {
	case 'n':
		return "", false, nil
	case 't', 'f':
		return string(value), true, nil
	case '"':
		if err := json.Unmarshal(value, &text); err != nil {
			return "", false, fmt.Errorf("it is not a JSON string: %w", err)
		}
		return text, false, nil
	case '{', '[':
		return "", false, errors.New("it is an object or an array; write a string, a boolean or an integer")
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil {
		return "", false, fmt.Errorf("%s is not a 32-bit integer; write it as a string", Clip(value))
	}
	return strconv.FormatInt(n, 10), true, nil
}

// checkExtensionName checks a name against the rules (CloudEvents 1.0.2,
// "Naming Conventions"). It is stricter than the SDK, which also takes
// upper-case letters, silently lowers them, and takes data for an extension.
// Names of more than 20 letters are discouraged, not forbidden.
func checkExtensionName(name string) error {
	if name == "" {
		return errors.New("its name is empty")
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return errors.New("a name has lower-case letters and digits only")
		}
	}
	column, ok := ColumnOfAttribute(name)
	if ok && column != ColumnPartitionKey || name == "specversion" || name == "data" {
		return errors.New("the name is an attribute of CloudEvents itself; write it to its own column")
	}
	return nil
}

// clipLength is how many bytes of a value an error shows.
const clipLength = 100

// Clip shortens a value for an error: a row may have hundreds of megabytes.
func Clip[T ~string | ~[]byte](value T) string {
	if len(value) <= clipLength {
		return string(value)
	}
	end := clipLength
	for end > clipLength-utf8.UTFMax && !utf8.RuneStart(value[end]) {
		end--
	}
	return string(value[:end]) + "…"
}

// Printable writes what a terminal would obey as Go escapes: texts of events are of
// whoever wrote them. Line feeds stay.
func Printable(text string) string {
	plain := true
	for _, r := range text {
		plain = plain && (strconv.IsPrint(r) || r == '\n') && r != utf8.RuneError
	}
	if plain {
		return text
	}
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		quoted := strconv.Quote(line)
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`), `\\`, `\`))
	}
	return b.String()
}
