package router

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/walrelay/walrelay/event"
)

// maxSubject bounds the length of a subject in bytes, far below the control
// line that a server accepts (4096 by default): a longer one would cost the
// connection.
const maxSubject = 1024

// SubjectError says that an event's subject would be too long.
type SubjectError struct{ Length int }

func (e *SubjectError) Error() string {
	return fmt.Sprintf("its subject would be %d bytes long, and %d are allowed; shorten the attributes that the subject template uses", e.Length, maxSubject)
}

// SubjectTemplate makes the subject of an event: literal tokens, and
// placeholders for attributes in braces.
//
// Whatever a value contains, the result is a valid subject, and no two values
// give the same one. A byte that would break the subject is written as % and
// two hex digits, as is % itself; an empty token is written as %. Dots in the
// type separate tokens; dots in any other value are escaped.
type SubjectTemplate struct {
	parts []subjectPart
}

type subjectPart struct {
	literal    string
	kind       placeholder
	name       string // of an extension attribute
	partitions int
}

type placeholder uint8

const (
	literalText placeholder = iota
	placeType
	placeSource
	placeSubject
	placePartitionKey
	placeTable
	placeSchema
	placeExtension
	placePartition
)

// ParseSubject reads a template such as "events.{type}".
func ParseSubject(text string) (SubjectTemplate, error) {
	var t SubjectTemplate
	var shape strings.Builder // the template with x for every placeholder
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{")
		if before != "" {
			t.parts = append(t.parts, subjectPart{literal: before})
			shape.WriteString(before)
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return SubjectTemplate{}, fmt.Errorf("subject template %q: a { is not closed", text)
		}
		part, err := parsePlaceholder(name)
		if err != nil {
			return SubjectTemplate{}, fmt.Errorf("subject template %q: %w", text, err)
		}
		t.parts = append(t.parts, part)
		shape.WriteByte('x')
		rest = tail
	}
	if err := checkShape(shape.String()); err != nil {
		return SubjectTemplate{}, fmt.Errorf("subject template %q: %w", text, err)
	}
	if first := &t.parts[0]; first.kind != literalText || len(t.parts) > 1 && !strings.Contains(first.literal, ".") {
		return SubjectTemplate{}, fmt.Errorf("subject template %q: its first token must be literal, such as events in events.{type}: rows must not choose among the subjects of others", text)
	}
	if err := t.checkPartition(); err != nil {
		return SubjectTemplate{}, fmt.Errorf("subject template %q: %w", text, err)
	}
	return t, nil
}

// checkPartition checks that consumers can ask for a partition by its token.
func (t *SubjectTemplate) checkPartition() error {
	found, typed := false, false
	for i := range t.parts {
		typed = typed || t.parts[i].kind == placeType
		if t.parts[i].kind != placePartition {
			continue
		}
		if typed {
			return errors.New("{partition:N} must stand before {type}, which is several tokens")
		}
		if found {
			return errors.New("{partition:N} may stand in it once")
		}
		found = true
		if !strings.HasSuffix(t.parts[i-1].literal, ".") || i+1 < len(t.parts) && !strings.HasPrefix(t.parts[i+1].literal, ".") {
			return errors.New("{partition:N} must be a token of its own, between dots")
		}
	}
	return nil
}

func parsePlaceholder(name string) (subjectPart, error) {
	switch name {
	case "type":
		return subjectPart{kind: placeType}, nil
	case "source":
		return subjectPart{kind: placeSource}, nil
	case "subject":
		return subjectPart{kind: placeSubject}, nil
	case "partition_key":
		return subjectPart{kind: placePartitionKey}, nil
	case "table":
		return subjectPart{kind: placeTable}, nil
	case "schema":
		return subjectPart{kind: placeSchema}, nil
	case "":
		return subjectPart{}, errors.New("{} names no attribute")
	}
	if n, err := event.ParsePartitions(name); n > 0 || err != nil {
		return subjectPart{kind: placePartition, partitions: n}, err
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return subjectPart{}, fmt.Errorf("{%s} is neither type, source, subject, partition_key, partition:N, table, schema nor the name of an extension attribute", name)
		}
	}
	return subjectPart{kind: placeExtension, name: name}, nil
}

// checkShape checks the literal part of a template.
func checkShape(shape string) error {
	if shape == "" {
		return errors.New("it is empty")
	}
	if strings.HasPrefix(shape, "$") || shape == "_INBOX" || strings.HasPrefix(shape, "_INBOX.") {
		return errors.New("subjects that begin with $ or _INBOX belong to the server and its clients")
	}
	if strings.ContainsAny(shape, "*>%") {
		return errors.New("the characters *, > and % may not stand in it")
	}
	for _, c := range shape {
		if c <= ' ' || c == 0x7F {
			return errors.New("white space and control characters may not stand in it")
		}
	}
	for token := range strings.SplitSeq(shape, ".") {
		if token == "" {
			return errors.New("a token between dots is empty")
		}
	}
	return nil
}

// Append appends the event's subject to dst. The error is a *SubjectError.
func (t *SubjectTemplate) Append(dst []byte, ev *event.Event) ([]byte, error) {
	start := len(dst)
	for i := range t.parts {
		part := &t.parts[i]
		switch part.kind {
		case literalText:
			dst = append(dst, part.literal...)
		case placeType:
			dst = event.AppendTokens(dst, ev.Type)
		case placeSource:
			dst = event.AppendToken(dst, ev.Source)
		case placeSubject:
			dst = event.AppendToken(dst, ev.Subject)
		case placePartitionKey:
			dst = event.AppendToken(dst, ev.PartitionKey)
		case placeTable:
			dst = event.AppendToken(dst, ev.Table)
		case placeSchema:
			dst = event.AppendToken(dst, ev.Schema)
		case placeExtension:
			dst = event.AppendToken(dst, extension(ev, part.name))
		case placePartition:
			dst = strconv.AppendInt(dst, int64(event.Partition(ev.PartitionKey, ev.ID, part.partitions)), 10)
		}
	}
	if n := len(dst) - start; n > maxSubject {
		return dst, &SubjectError{Length: n}
	}
	return dst, nil
}

func extension(ev *event.Event, name string) string {
	if name == "partitionkey" {
		return ev.PartitionKey
	}
	for i := range ev.Extensions {
		if ev.Extensions[i].Name == name {
			return ev.Extensions[i].Value
		}
	}
	return ""
}
