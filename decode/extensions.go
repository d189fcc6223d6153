package decode

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/walrelay/walrelay/event"
)

// extensions takes the JSON object of extension attributes. Its strings are
// copies that the JSON decoder makes.
func (r *row) extensions() error {
	value := r.value(attrExtensions)
	switch string(value) {
	// An empty array is what PHP makes of an empty object.
	case "", "{}", "null", "[]":
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(value, &object); err != nil {
		if fault, ok := errors.AsType[*json.SyntaxError](err); ok {
			return fmt.Errorf("it is not a JSON object: %w", fault)
		}
		return errors.New(`it is not a JSON object; write one, such as {"traceparent": "00-…"}`)
	}
	return appendExtensions(r.ev, object)
}

func appendExtensions(ev *event.Event, object map[string]json.RawMessage) error {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if err := appendExtension(ev, name, object[name]); err != nil {
			return fmt.Errorf("extension %q: %w", clip(name), err)
		}
	}
	return nil
}

// appendExtension takes one extension attribute. Null and empty ones are absent.
func appendExtension(ev *event.Event, name string, value json.RawMessage) error {
	if err := checkExtensionName(name); err != nil {
		return err
	}
	text, bare, err := extensionValue(value)
	if err != nil || text == "" {
		return err
	}
	if err := checkText(text); err != nil {
		return err
	}
	if name != "partitionkey" {
		ev.Extensions = append(ev.Extensions, event.Attribute{Name: name, Value: text, Bare: bare})
		return nil
	}
	if ev.PartitionKey != "" && ev.PartitionKey != text {
		return fmt.Errorf("it is %q, but the row's partition key is %q; give one of them", clip(text), clip(ev.PartitionKey))
	}
	ev.PartitionKey = text
	return nil
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
		return "", false, fmt.Errorf("%s is not a 32-bit integer; write it as a string", clip(value))
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
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data":
		return errors.New("the name is an attribute of CloudEvents itself; write it to its own column")
	}
	return nil
}
