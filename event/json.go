package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// IsJSON reports whether a content type says JSON (CloudEvents JSON format
// 1.0.2, section 3.1: the subtype json, or one that ends in +json).
func IsJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	media, _, _ := strings.Cut(contentType, ";")
	_, subtype, _ := strings.Cut(strings.ToLower(strings.TrimSpace(media)), "/")
	return subtype == "json" || strings.HasSuffix(subtype, "+json")
}

// AppendJSON appends the event in the JSON format of CloudEvents ("JSON Event
// Format", 1.0.2). A payload that is JSON stands in it byte for byte, any other
// one in base64, so that reading it gives the same event.
func (e *Event) AppendJSON(b []byte) ([]byte, error) {
	attributes := make(map[string]string, 9+len(e.Extensions))
	for name, value := range map[string]string{
		"specversion": SpecVersion, "id": e.ID, "type": e.Type, "source": e.Source, "subject": e.Subject, "time": e.Time,
		"datacontenttype": e.DataContentType, "dataschema": e.DataSchema, "partitionkey": e.PartitionKey,
	} {
		if value != "" {
			attributes[name] = value
		}
	}
	for _, extension := range e.Extensions {
		attributes[extension.Name] = extension.Value
	}
	head, err := json.Marshal(attributes)
	if err != nil {
		return b, fmt.Errorf("writing event %q as JSON: %w", e.ID, err)
	}
	b = append(b, head...)
	switch {
	case e.Data == nil:
		return b, nil
	case IsJSON(e.DataContentType) && json.Valid(e.Data) && len(bytes.TrimSpace(e.Data)) == len(e.Data):
		b = append(b[:len(b)-1], `,"data":`...)
		b = append(b, e.Data...)
		return append(b, '}'), nil
	default:
		b = append(b[:len(b)-1], `,"data_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, e.Data)
		return append(b, `"}`...), nil
	}
}
