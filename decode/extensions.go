package decode

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/walrelay/walrelay/event"
)

// extensions takes the JSON object of extension attributes. Its strings are
// copies that the JSON decoder makes.
func (r *row) extensions() error {
	value := r.value(event.ColumnExtensions)
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
			return fmt.Errorf("extension %q: %w", event.Clip(name), err)
		}
	}
	return nil
}

// appendExtension takes one extension attribute. Null and empty ones are absent.
func appendExtension(ev *event.Event, name string, value json.RawMessage) error {
	x, err := event.ExtensionOf(name, value)
	if err != nil || x.Value == "" {
		return err
	}
	if name != "partitionkey" {
		ev.Extensions = append(ev.Extensions, x)
		return nil
	}
	if ev.PartitionKey != "" && ev.PartitionKey != x.Value {
		return fmt.Errorf("it is %q, but the row's partition key is %q; give one of them", event.Clip(x.Value), event.Clip(ev.PartitionKey))
	}
	ev.PartitionKey = x.Value
	return nil
}
