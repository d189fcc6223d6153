package main

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/walrelay/walrelay"
)

// kind is what a key of the configuration takes.
type kind int

const (
	text kind = iota
	boolean
	number
	size // bytes
	duration
	texts   // a list of texts
	dict    // texts by name
	section // keys below
	sections
)

// node is a key, and for a section, or a list of them, the keys below.
type node struct {
	name   string
	path   string // such as publish.ack_timeout; "" inside of a list
	kind   kind
	fields []node
}

// scalar reports whether one flag or environment variable can say it all.
func (n node) scalar() bool { return n.kind != section && n.kind != sections && n.kind != dict }

// configSchema reads from the configuration struct what keys there are.
func configSchema() node {
	return node{kind: section, fields: fieldsOf(reflect.TypeFor[walrelay.Config](), "", true)}
}

func fieldsOf(t reflect.Type, prefix string, addressable bool) []node {
	var nodes []node
	for field := range t.Fields() {
		n := node{name: field.Tag.Get("koanf")}
		if addressable {
			n.path = prefix + n.name
		}
		typ := field.Type
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem() // left out is not false
		}
		switch typ.Kind() {
		case reflect.Struct:
			n.kind, n.fields = section, fieldsOf(field.Type, n.path+".", addressable)
		case reflect.Slice:
			n.kind = texts
			if element := field.Type.Elem(); element.Kind() == reflect.Struct {
				n.kind, n.fields = sections, fieldsOf(element, "", false)
			}
		case reflect.Map:
			n.kind = dict
		case reflect.Bool:
			n.kind = boolean
		case reflect.Int, reflect.Int64:
			n.kind = number
			switch {
			case field.Type == reflect.TypeFor[time.Duration]():
				n.kind = duration
			case strings.HasSuffix(n.name, "_bytes"), strings.HasSuffix(n.name, "_size"):
				n.kind = size
			}
		default:
			n.kind = text
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// scalars returns the keys that one flag or environment variable can say.
func (n node) scalars() []node {
	var all []node
	for _, field := range n.fields {
		switch {
		case field.kind == section:
			all = append(all, field.scalars()...)
		case field.scalar():
			all = append(all, field)
		}
	}
	return all
}

func (n node) field(name string) (node, bool) {
	for _, field := range n.fields {
		if field.name == name {
			return field, true
		}
	}
	return node{}, false
}

func (k kind) String() string {
	return [...]string{"string", "bool", "int", "size", "duration", "list", "mapping", "mapping", "list of mappings"}[k]
}

// parse reads the text of a scalar.
func (k kind) parse(s string) (any, error) {
	switch k {
	case boolean:
		switch s {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", s)
	case number:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", s)
		}
		return n, nil
	case size:
		return parseSize(s)
	case duration:
		d, err := time.ParseDuration(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a duration, such as 500ms, 5s, 2m or 1h30m", s)
		}
		return d, nil
	case texts:
		parts := strings.Split(s, ",")
		list := make([]any, len(parts))
		for i, part := range parts {
			list[i] = strings.TrimSpace(part)
		}
		return list, nil
	case text, dict, section, sections:
	}
	return s, nil
}

// parseSize reads a number of bytes: plain, or with a decimal or binary unit.
func parseSize(s string) (int64, error) {
	wrong := fmt.Errorf("%q is not a size in bytes, such as 1048576, 16MiB or 16MB", s)
	digits := strings.TrimRight(s, "BKMGTikmgtb ")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, wrong
	}
	unit, ok := map[string]int64{
		"": 1, "b": 1,
		"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	if !ok || n > math.MaxInt64/unit {
		return 0, wrong
	}
	return n * unit, nil
}

// nearest returns the candidate that a typing error away from name lies, or "".
func nearest(name string, candidates []string) string {
	best, bestDistance := "", 1+max(1, len(name)/4)
	for _, candidate := range candidates {
		if d := distance(name, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is how many letters must be added, left out, changed or swapped
// with their neighbour to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
