package decode

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/walrelay/walrelay/event"
)

// attribute is a part of an event that a column can make.
type attribute uint8

const (
	attrID attribute = iota
	attrType
	attrSource
	attrSubject
	attrTime
	attrData
	attrDataBytes
	attrDataContentType
	attrDataSchema
	attrExtensions
	attrPartitionKey
	attrScheduledAt
	attrMaxRetries
	attributes // how many there are
)

// attributeNames are what the configuration calls them.
func attributeNames() [attributes]string {
	return [attributes]string{
		"id", "type", "source", "subject", "time", "data", "data_bytes", "datacontenttype",
		"dataschema", "extensions", "partition_key", "scheduled_at", "max_retries",
	}
}

func (a attribute) String() string { return attributeNames()[a] }

func (a attribute) required() bool { return a == attrID || a == attrType || a == attrSource }

// constant reports whether a text can take the place of a column.
func (a attribute) constant() bool {
	switch a {
	case attrType, attrSource, attrSubject, attrDataContentType, attrDataSchema, attrPartitionKey:
		return true
	default:
		return false
	}
}

// Mapping says which column or text makes which part of an event.
type Mapping struct {
	sources [attributes]source
}

// source is where an attribute comes from: a column, a template, or nowhere.
type source struct {
	column   string
	template *template
	// expected says that the column must exist.
	expected bool
}

// Preset returns a mapping by name; "" means "walrelay".
func Preset(name string) (Mapping, error) {
	switch name {
	case "", "walrelay":
		return walrelayPreset(), nil
	case "debezium":
		m := mapping(true, map[attribute]string{
			attrID: "id", attrType: "type", attrSubject: "aggregateid", attrPartitionKey: "aggregateid", attrData: "payload",
		})
		m.sources[attrSource] = source{template: &template{parts: []templatePart{{text: "/"}, {column: "aggregatetype"}}}}
		return m, nil
	case "django-broadcaster":
		return mapping(true, map[attribute]string{
			attrID: "id", attrType: "event_type", attrSource: "source", attrSubject: "subject", attrTime: "created_at",
			attrData: "data", attrDataContentType: "data_content_type", attrDataSchema: "data_schema",
			attrScheduledAt: "scheduled_at", attrMaxRetries: "max_retries",
		}), nil
	}
	return Mapping{}, fmt.Errorf("no preset is called %q; there are walrelay, debezium and django-broadcaster", name)
}

// walrelayPreset is that of walrelay's own form: a table may do without those columns
// that an event may do without.
func walrelayPreset() Mapping {
	return mapping(false, map[attribute]string{
		attrID: "id", attrType: "event_type", attrSource: "source", attrSubject: "subject", attrTime: "created_at",
		attrData: "data", attrDataBytes: "data_bytes", attrDataContentType: "content_type", attrDataSchema: "data_schema",
		attrExtensions: "extensions", attrPartitionKey: "partition_key", attrScheduledAt: "scheduled_at", attrMaxRetries: "max_retries",
	})
}

func mapping(expected bool, columns map[attribute]string) Mapping {
	var m Mapping
	for a, name := range columns {
		m.sources[a] = source{column: name, expected: expected}
	}
	return m
}

// columns names the columns that make an attribute, or the attribute when none
// does.
func (s source) columns(a attribute) string {
	if s.column != "" {
		return s.column
	}
	var names []string
	if s.template != nil {
		for _, part := range s.template.parts {
			if part.column != "" {
				names = append(names, part.column)
			}
		}
	}
	if len(names) == 0 {
		return a.String()
	}
	return strings.Join(names, ", ")
}

// Attributes whose columns others ask for.
const (
	AttributeID          = "id"
	AttributeTime        = "time"
	AttributeScheduledAt = "scheduled_at"
)

// Column returns the column that makes an attribute; "" if none does.
func (m Mapping) Column(attribute string) string {
	a, err := parseAttribute(attribute)
	if err != nil {
		return ""
	}
	return m.sources[a].column
}

// MappedColumn is a column that makes a part of events.
type MappedColumn struct {
	Name string
	// Attribute that it makes.
	Attribute string
	// Expected says that no event can be made without it.
	Expected bool
}

// Columns returns the columns that make events.
func (m Mapping) Columns() []MappedColumn {
	var columns []MappedColumn
	for a, s := range m.sources {
		a := attribute(a)
		switch {
		case s.template != nil:
			for _, part := range s.template.parts {
				if part.column != "" {
					columns = append(columns, MappedColumn{part.column, a.String(), true})
				}
			}
		case s.column != "":
			columns = append(columns, MappedColumn{s.column, a.String(), s.expected || a.required()})
		}
	}
	return columns
}

// With returns a copy in which some attributes come from other columns, or
// from texts in which {column} is a column's value. An empty column name takes
// the attribute away. Columns that are named here must exist in the table, and those of presets of
// others.
// All faults are returned at once, a line for each.
func (m Mapping) With(columns, values map[string]string) (Mapping, error) {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		a, err := parseAttribute(name)
		_, replaced := values[name]
		switch column := columns[name]; {
		case err != nil:
			errs = append(errs, err)
		case column == "" && a.required() && !replaced:
			errs = append(errs, fmt.Errorf("the attribute %s is required: it must come from a column or a text", name))
		case column != "" && replaced:
			errs = append(errs, fmt.Errorf("the attribute %s comes from the column %s and from a text; keep one of them", name, column))
		default:
			m.sources[a] = source{column: column, expected: column != ""}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		a, err := parseAttribute(name)
		if err == nil && !a.constant() {
			err = fmt.Errorf("the attribute %s comes from a column, never from a text", name)
		}
		var t *template
		if err == nil {
			if t, err = parseTemplate(a, values[name]); err != nil {
				err = fmt.Errorf("the attribute %s: %w", name, err)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.sources[a] = source{template: t}
	}
	if err := errors.Join(errs...); err != nil {
		return Mapping{}, err
	}
	return m, nil
}

func parseAttribute(name string) (attribute, error) {
	names := attributeNames()
	if i := slices.Index(names[:], name); i >= 0 {
		return attribute(i), nil
	}
	return 0, fmt.Errorf("no attribute is called %q; there are %s", name, strings.Join(names[:], ", "))
}

// template is a text with the values of columns in it.
type template struct {
	parts []templatePart
}

// templatePart is a text or the value of a column.
type templatePart struct {
	text   string
	column string
	index  int // of the column, once compiled
}

// parseTemplate reads the text for an attribute. A text without columns is
// checked here, once for all rows.
func parseTemplate(a attribute, text string) (*template, error) {
	t := &template{}
	constant := true
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{")
		if before != "" {
			t.parts = append(t.parts, templatePart{text: before})
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed || name == "" || strings.Contains(name, "{") {
			return nil, fmt.Errorf("the text %q has a { without a column name and a }", text)
		}
		t.parts = append(t.parts, templatePart{column: name})
		constant = false
		rest = tail
	}
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the text is empty")
	}
	if err := event.CheckText(text); err != nil {
		return nil, err
	}
	if constant {
		return t, event.CheckAttribute(a.String(), text)
	}
	return t, nil
}
