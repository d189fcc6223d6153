package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/retry"
)

// Whatever an event has in its texts, a terminal prints it and does nothing else.
func FuzzPrintDelayed(f *testing.F) {
	f.Add("1", "order.created", "key", "column data: \x1b[2Jgone", []byte("[[\"id\",25,\"\x1b]0;x\x07\"]]"))
	f.Add("\u202e", "a\tb", "\x9b1m", "line\nbreak", []byte("\xff\xfe"))
	f.Fuzz(func(t *testing.T, id, typ, key, reason string, content []byte) {
		d := retry.Detail{
			Delayed: retry.Delayed{ID: id, Type: typ, PartitionKey: key, LastError: reason, Source: id, State: retry.Failed},
			Kind:    "row", Content: content, Failures: []event.Failure{{At: time.Unix(0, 0), Error: reason}},
		}
		var out bytes.Buffer
		printDelayed(&out, &d.Delayed)
		if err := printDetail(&out, d, false); err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(out.Bytes()) {
			t.Fatalf("it prints %q, which is not UTF-8", out.String())
		}
		for _, r := range out.String() {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
				t.Fatalf("it prints %q, with %q in it", out.String(), r)
			}
		}
		out.Reset()
		if err := printDetail(&out, d, true); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(out.String(), func(r rune) bool { return r < ' ' && r != '\n' }) {
			t.Fatalf("as JSON it prints %q", out.String())
		}
	})
}

// A file is understood, or its faults say where they are.
func FuzzConfigFile(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("streams: [{name: a}, 3]\nnats: {url: &x y}\nslot: *x"))
	f.Add([]byte("a: b\n---\nc: d"))
	f.Add([]byte("publish: {max_event_size: 1TiB}\nhttp:\n\t- x"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := os.CreateTemp(dir, "*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		_, err = file.Write(content)
		name := file.Name()
		if cerr := file.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Remove(name) }()
		values, _, err := readFile(name, configSchema())
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if strings.Contains(line, ".yaml") && !strings.Contains(line, filepath.Base(name)) {
					t.Errorf("a fault of another file: %s", line)
				}
			}
			if !strings.Contains(err.Error(), filepath.Base(name)) {
				t.Errorf("the fault does not say in which file: %v", err)
			}
			return
		}
		if values == nil {
			t.Error("no values and no fault")
		}
	})
}
