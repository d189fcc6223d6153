package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"
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
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"specversion":"`+SpecVersion+`",`...)
	for c := range NumColumns {
		if value := c.Field(e); value != nil {
			b = Attribute{Name: c.Attribute(), Value: *value}.appendJSON(b)
		}
	}
	for _, extension := range e.Extensions {
		b = extension.appendJSON(b)
	}
	b[len(b)-1] = '}' // in place of a comma
	switch {
	case e.Data == nil:
		return b
	case IsJSON(e.DataContentType) && json.Valid(e.Data) && len(bytes.TrimSpace(e.Data)) == len(e.Data):
		b = append(b[:len(b)-1], `,"data":`...)
		b = append(b, e.Data...)
		return append(b, '}')
	default:
		b = append(b[:len(b)-1], `,"data_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, e.Data)
		return append(b, `"}`...)
	}
}

// appendJSON appends the attribute as a member, with a comma after it, unless
// it is absent.
func (a Attribute) appendJSON(b []byte) []byte {
	if a.Value == "" {
		return b
	}
	b = gjson.AppendJSONString(b, a.Name)
	b = append(b, ':')
	if a.Bare {
		b = append(b, a.Value...)
	} else {
		b = gjson.AppendJSONString(b, a.Value)
	}
	return append(b, ',')
}
