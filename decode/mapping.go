package decode

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/walrelay/walrelay/event"
)

// Mapping says which column or text makes which part of an event.
type Mapping struct {
	sources [event.NumColumns]source
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
		m := mapping(map[event.Column]string{
			event.ColumnID: "id", event.ColumnType: "type", event.ColumnSubject: "aggregateid", event.ColumnPartitionKey: "aggregateid", event.ColumnData: "payload",
		})
		m.sources[event.ColumnSource] = source{template: &template{parts: []templatePart{{text: "/"}, {column: "aggregatetype"}}}}
		return m, nil
	case "django-broadcaster":
		return mapping(map[event.Column]string{
			event.ColumnID: "id", event.ColumnType: "event_type", event.ColumnSource: "source", event.ColumnSubject: "subject", event.ColumnTime: "created_at",
			event.ColumnData: "data", event.ColumnDataContentType: "data_content_type", event.ColumnDataSchema: "data_schema",
			event.ColumnScheduledAt: "scheduled_at", event.ColumnMaxRetries: "max_retries",
		}), nil
	}
	return Mapping{}, fmt.Errorf("no preset is called %q; there are walrelay, debezium and django-broadcaster", name)
}

// walrelayPreset is that of walrelay's own form: a table may do without those columns
// that an event may do without.
func walrelayPreset() Mapping {
	var m Mapping
	for a := range event.NumColumns {
		m.sources[a] = source{column: a.Name()}
	}
	return m
}

// mapping is one in which all these columns must be there.
func mapping(columns map[event.Column]string) Mapping {
	var m Mapping
	for a, name := range columns {
		m.sources[a] = source{column: name, expected: true}
	}
	return m
}

// columns names the columns that make an attribute, or the attribute when none
// does.
func (s source) columns(a event.Column) string {
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

// Column returns the name of the column that makes a part of an event; "" if none does.
func (m Mapping) Column(part event.Column) string { return m.sources[part].column }

// MappedColumn is a column that makes a part of events.
type MappedColumn struct {
	Name string
	// Makes is the part of an event that it makes.
	Makes event.Column
	// Expected says that no event can be made without it.
	Expected bool
}

// Columns returns the columns that make events.
func (m Mapping) Columns() []MappedColumn {
	var columns []MappedColumn
	for a, s := range m.sources {
		a := event.Column(a)
		switch {
		case s.template != nil:
			for _, part := range s.template.parts {
				if part.column != "" {
					columns = append(columns, MappedColumn{part.column, a, true})
				}
			}
		case s.column != "":
			columns = append(columns, MappedColumn{s.column, a, s.expected || a.Required()})
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
		case column == "" && a.Required() && !replaced:
			errs = append(errs, fmt.Errorf("the attribute %s is required: it must come from a column or a text", name))
		case column != "" && replaced:
			errs = append(errs, fmt.Errorf("the attribute %s comes from the column %s and from a text; keep one of them", name, column))
		default:
			m.sources[a] = source{column: column, expected: column != ""}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		a, err := parseAttribute(name)
		if err == nil && !a.Constant() {
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

func parseAttribute(name string) (event.Column, error) {
	if a, ok := event.ColumnOf(name); ok {
		return a, nil
	}
	var names []string
	for a := range event.NumColumns {
		names = append(names, a.String())
	}
	return 0, fmt.Errorf("no attribute is called %q; there are %s", name, strings.Join(names, ", "))
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
func parseTemplate(a event.Column, text string) (*template, error) {
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
		return t, event.CheckAttribute(a, text)
	}
	return t, nil
}
