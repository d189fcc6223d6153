package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walrelay/walrelay/event"
)

// appendUTC appends RFC 3339 of a timestamptz as a session in UTC writes it,
// "2026-11-23 14:30:18.5+00", which differs in two characters only. It appends
// nothing to dst for anything else.
func appendUTC(dst, b []byte) []byte {
	const shape = "0000-00-00 00:00:00"
	seconds, ok := bytes.CutSuffix(b, []byte("+00"))
	if !ok || len(seconds) < len(shape) {
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
// replication session writes it: without a zone it is UTC.
func parseTimestamp(b []byte) (time.Time, error) {
	s := string(b)
	switch {
	case s == "infinity" || s == "-infinity":
		return time.Time{}, fmt.Errorf("%s is no point in time", s)
	case strings.HasSuffix(s, "BC"):
		return time.Time{}, fmt.Errorf("%s is before the year 1, which RFC 3339 cannot say", s)
	case strings.IndexByte(s, '-') > 4:
		return time.Time{}, fmt.Errorf("%s is after the year 9999, which RFC 3339 cannot say", s)
	}
	for _, layout := range [...]string{"2006-01-02 15:04:05.999999999Z07", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07:00:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no timestamp in ISO style", s)
}

// isJSONType reports whether a content type says JSON (RFC 6839, section 3.1).
func isJSONType(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

// extensions reads the JSON object of extension attributes.
func (r *row) extensions() error {
	value, err := r.value(attrExtensions)
	if err != nil || len(value) == 0 || string(value) == "{}" || string(value) == "null" {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return fmt.Errorf("it is not a JSON object: %w", err)
	}
	for name, v := range object {
		if v == nil {
			continue
		}
		text, err := extensionValue(v)
		if err == nil {
			err = extensionName(name)
		}
		if err != nil {
			return fmt.Errorf("extension %q: %w", name, err)
		}
		if name == "partitionkey" {
			if r.ev.PartitionKey != "" && r.ev.PartitionKey != text {
				return fmt.Errorf("extension %q: it differs from the partition key %q", name, r.ev.PartitionKey)
			}
			r.ev.PartitionKey = text
			continue
		}
		if text == "" {
			return fmt.Errorf("extension %q: it is empty", name)
		}
		r.ev.Extensions = append(r.ev.Extensions, event.Attribute{Name: name, Value: text})
	}
	slices.SortFunc(r.ev.Extensions, func(a, b event.Attribute) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// extensionValue returns the canonical text of a value (CloudEvents 1.0.2,
// "Type System").
func extensionValue(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case json.Number:
		n, err := strconv.ParseInt(v.String(), 10, 32)
		if err != nil {
			return "", fmt.Errorf("%s is no 32-bit integer; write it as a string", v)
		}
		return strconv.FormatInt(n, 10), nil
	}
	return "", errors.New("it is neither a string nor a number nor a boolean")
}

// extensionName checks a name against the naming rules and the names that
// CloudEvents itself uses (1.0.2, "Naming Conventions").
func extensionName(name string) error {
	if name == "" {
		return errors.New("the name is empty")
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return errors.New("a name consists of lower-case letters and digits only")
		}
	}
	switch name {
	case "id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "data", "database64":
		return errors.New("the name belongs to CloudEvents itself")
	}
	return nil
}
