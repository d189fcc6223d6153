package decode_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/walrelay/walrelay/decode"
)

// encodings are those of databases that are converted here, and a row's text in each.
var encodings = []struct {
	name, sent, want string
	bad              string // a text that does not convert
}{
	{"SQL_ASCII", "caf\xc3\xa9", "café", "caf\xe9"},
	{"LATIN1", "caf\xe9", "café", ""},
	{"LATIN9", "\xa4 5", "€ 5", ""},
	{"WIN1252", "\x80 5 caf\xe9", "€ 5 café", "a\x81"},
	{"WIN1251", "\xcf\xf0\xe8", "При", "a\x98"},
	{"KOI8R", "\xf0\xd2\xc9", "При", ""},
	{"ISO_8859_7", "\xe1", "α", "\xae"},
	{"EUC_JP", "\xc6\xfc\xcb\xdc", "日本", "\xff"},
	{"EUC_KR", "\xc7\xd1", "한", "\xff"},
	{"EUC_CN", "\xd6\xd0", "中", "\xff"},
}

// decodeOne decodes one row of a database in that encoding.
func decodeOne(t *testing.T, encoding string, columns []column) (decode.Change, error) {
	t.Helper()
	return decodeIn(t, encoding, preset(t), columns)
}

func decodeIn(t *testing.T, encoding string, mapping decode.Mapping, columns []column) (decode.Change, error) {
	t.Helper()
	d, err := decode.New(decode.Config{Encoding: encoding, Tables: []decode.Table{{Schema: "public", Name: "outbox", Mapping: mapping}}})
	if err != nil {
		t.Fatal(err)
	}
	feed(t, d, encodeBegin(10), encodeRelation(1, "public", "outbox", columns))
	return d.Decode(encodeInsert(1, columns))
}

func preset(t *testing.T) decode.Mapping {
	t.Helper()
	mapping, err := decode.Preset("")
	if err != nil {
		t.Fatal(err)
	}
	return mapping
}

func TestEncoding_Converts(t *testing.T) {
	t.Parallel()
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			t.Parallel()
			change, err := decodeOne(t, enc.name, order(column{name: "subject", oid: oidText, value: enc.sent}))
			if err != nil || change.Event.Subject != enc.want {
				t.Errorf("subject %q is %q (%v), want %q", enc.sent, change.Event.Subject, err, enc.want)
			}
			if enc.bad == "" {
				return
			}
			change, err = decodeOne(t, enc.name, order(column{name: "subject", oid: oidText, value: enc.bad}))
			rowErr, ok := errors.AsType[*decode.RowError](err)
			if !ok || rowErr.Column != "subject" || change.Event.ID != orderID {
				t.Fatalf("a text that does not convert gives %v, want a *RowError of column subject", err)
			}
			if !utf8.Valid(change.Raw.Content) || !strings.Contains(string(change.Raw.Content), "\uFFFD") {
				t.Errorf("what is kept is %q, want UTF-8 with U+FFFD", change.Raw.Content)
			}
		})
	}
}

// What is published is what the application wrote, not what can be read of it.
func TestEncoding_FailureIsRepeatedOnReemission(t *testing.T) {
	t.Parallel()
	change, err := decodeOne(t, "WIN1252", order(column{name: "subject", oid: oidText, value: "a\x81"}))
	if err == nil {
		t.Fatal("the row converts")
	}
	d := newDecoder(t, "")
	feed(t, d, encodeBegin(20), encodeRelation(emittedOID, "walrelay", "emitted", emittedColumns()))
	again, err := d.Decode(encodeEmitted(`{"slot": "", "kind": "row", "table_schema": "public", "table_name": "outbox"}`, string(change.Raw.Content)))
	rowErr, ok := errors.AsType[*decode.RowError](err)
	if !ok || rowErr.Column != "subject" || string(again.Raw.Content) != string(change.Raw.Content) {
		t.Errorf("re-emitted, the row gives %v and %q, want the same fault and content", err, again.Raw)
	}
}

// The same goes for events that have no row of their own.
func TestEncoding_EmittedEventFails(t *testing.T) {
	t.Parallel()
	const content = `{"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "subject": "a%s"}`
	d, err := decode.New(decode.Config{Encoding: "WIN1252"})
	if err != nil {
		t.Fatal(err)
	}
	emit := func(content string) (decode.Change, error) {
		return d.Decode(encodeEmitted(`{"slot": ""}`, content))
	}
	feed(t, d, encodeBegin(20), encodeRelation(emittedOID, "walrelay", "emitted", emittedColumns()))
	if change, err := emit(strings.Replace(content, "%s", "\xe9", 1)); err != nil || change.Event.Subject != "aé" {
		t.Errorf("the subject is %q (%v), want aé", change.Event.Subject, err)
	}
	change, err := emit(strings.Replace(content, "%s", "\x81", 1))
	if rowErr, ok := errors.AsType[*decode.RowError](err); !ok || rowErr.ID != "1" {
		t.Fatalf("an event that does not convert gives %v, want a *RowError", err)
	}
	again, err := emit(string(change.Raw.Content))
	if _, ok := errors.AsType[*decode.RowError](err); !ok {
		t.Errorf("re-emitted, it gives %v (%v), want a *RowError", again.Event, err)
	}
}

func TestEncoding_Names(t *testing.T) {
	t.Parallel()
	columns := order(column{name: "caf\xe9", oid: oidText, value: "1"})
	mapping, err := preset(t).With(map[string]string{"subject": "café"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	change, err := decodeIn(t, "LATIN1", mapping, columns)
	if err != nil || change.Event.Subject != "1" {
		t.Errorf("the event's subject is %q (%v), want that of the column café", change.Event.Subject, err)
	}
}

func TestEncoding_Unknown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"MULE_INTERNAL", "EUC_TW", "EUC_JIS_2004", "utf8"} {
		if decode.Converts(name) {
			t.Errorf("%s is converted", name)
		}
		if _, err := decode.New(decode.Config{Encoding: name}); err == nil {
			t.Errorf("a decoder for %s is made", name)
		}
	}
}

func FuzzEncodings(f *testing.F) {
	for i, enc := range encodings {
		f.Add(uint8(i), []byte(enc.sent))
		f.Add(uint8(i), []byte(enc.bad))
	}
	f.Fuzz(func(t *testing.T, i uint8, text []byte) {
		change, err := decodeOne(t, encodings[int(i)%len(encodings)].name, order(column{name: "subject", oid: oidText, value: string(text)}))
		if _, ok := errors.AsType[*decode.RowError](err); err != nil && !ok {
			t.Fatal(err)
		}
		if !utf8.ValidString(change.Event.Subject) || change.Raw != nil && !utf8.Valid(change.Raw.Content) {
			t.Errorf("%q gives %q, which is not UTF-8", text, change.Event.Subject)
		}
	})
}
