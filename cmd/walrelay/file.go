package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file reads a configuration file: its values, and where each key is set.
type file struct {
	name    string
	origins map[string]string // key to place, such as walrelay.yaml:7
	faults  []error
}

var yamlFault = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// readFile returns what the file sets. Its faults are joined: unknown keys,
// keys that are set twice, and values of the wrong type, each with its line.
func readFile(name string, schema node) (values map[string]any, origins map[string]string, err error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, &usageError{fmt.Sprintf("configuration file: %v", err)}
	}
	f := file{name: name, origins: map[string]string{}}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, second yaml.Node
	err = decoder.Decode(&document)
	if err == nil {
		if err = decoder.Decode(&second); err == nil {
			return nil, nil, &usageError{fmt.Sprintf("%s:%d: only one YAML document is expected", name, second.Line)}
		}
	}
	if !errors.Is(err, io.EOF) {
		if parts := yamlFault.FindStringSubmatch(err.Error()); parts != nil {
			return nil, nil, &usageError{fmt.Sprintf("%s:%s: %s", name, parts[1], parts[2])}
		}
		return nil, nil, &usageError{fmt.Sprintf("%s: %v", name, err)}
	}
	values = map[string]any{}
	if len(document.Content) > 0 {
		if read, ok := f.value(schema, "", document.Content[0]).(map[string]any); ok {
			values = read
		}
	}
	return values, f.origins, errors.Join(f.faults...)
}

func (f *file) fault(n *yaml.Node, key, format string, args ...any) {
	text := f.place(n) + ": "
	if key != "" {
		text += key + ": "
	}
	f.faults = append(f.faults, &usageError{text + fmt.Sprintf(format, args...)})
}

func (f *file) place(n *yaml.Node) string { return f.name + ":" + strconv.Itoa(n.Line) }

// value reads a node of the file as the schema has it; nil if it is empty or
// wrong.
func (f *file) value(schema node, key string, n *yaml.Node) any {
	if n.Kind == yaml.AliasNode {
		f.fault(n, key, "aliases are not supported")
		return nil
	}
	if key != "" {
		f.origins[key] = f.place(n)
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	switch schema.kind {
	case section, dict:
		return f.mapping(schema, key, n)
	case sections, texts:
		return f.list(schema, key, n)
	case text, boolean, number, size, duration:
	}
	if n.Kind != yaml.ScalarNode {
		f.fault(n, key, "wants one value, and this is a %s", shape(n))
		return nil
	}
	value, err := schema.kind.parse(n.Value)
	if err != nil {
		f.fault(n, key, "%v", err)
		return nil
	}
	return value
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	default:
		return "single value"
	}
}

func (f *file) mapping(schema node, key string, n *yaml.Node) any {
	if n.Kind != yaml.MappingNode {
		f.fault(n, key, "wants keys and values below it, and this is a %s", shape(n))
		return nil
	}
	values := map[string]any{}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, below := n.Content[i], n.Content[i+1]
		path := strings.TrimPrefix(key+"."+name.Value, ".")
		if seen[name.Value] {
			f.fault(name, path, "is set twice")
			continue
		}
		seen[name.Value] = true
		field, ok := node{kind: text}, schema.kind == dict
		if !ok {
			field, ok = schema.field(name.Value)
		}
		if !ok {
			f.fault(name, path, "%s", unknown(schema, key, name.Value))
			continue
		}
		if value := f.value(field, path, below); value != nil {
			values[name.Value] = value
		} else if schema.kind == dict {
			values[name.Value] = ""
		}
		f.origins[path] = f.place(name)
	}
	return values
}

// unknown says that there is no such key, and which may be meant.
func unknown(schema node, key, name string) string {
	var siblings []string
	for _, field := range schema.fields {
		siblings = append(siblings, field.name)
	}
	if meant := nearest(name, siblings); meant != "" {
		return "unknown key; did you mean " + strings.TrimPrefix(key+"."+meant, ".") + "?"
	}
	if i := slices.IndexFunc(schema.scalars(), func(n node) bool { return flat(n.path) == flat(name) }); i >= 0 {
		return "unknown key; did you mean " + schema.scalars()[i].path + "?"
	}
	return "unknown key; the keys here are " + strings.Join(siblings, ", ")
}

// flat makes postgres.url, postgres-url and postgres_url the same.
func flat(key string) string { return strings.NewReplacer(".", "_", "-", "_").Replace(key) }

func (f *file) list(schema node, key string, n *yaml.Node) any {
	if n.Kind != yaml.SequenceNode {
		f.fault(n, key, "wants a list, and this is a %s", shape(n))
		return nil
	}
	element := node{kind: text}
	if schema.kind == sections {
		element = node{kind: section, fields: schema.fields}
	}
	values := make([]any, 0, len(n.Content))
	for i, item := range n.Content {
		path := fmt.Sprintf("%s[%d]", key, i)
		switch value := f.value(element, path, item); {
		case value != nil:
			values = append(values, value)
		case item.Tag == "!!null":
			f.fault(item, path, "is empty")
		}
	}
	return values
}
