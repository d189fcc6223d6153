package decode_test

import (
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
)

func TestDecode_Attributes(t *testing.T) {
	t.Parallel()
	got, err := decodeRow(t, newDecoder(t, "walrelay"), order(
		column{name: "subject", oid: oidText, value: "order/42"},
		column{name: "data", oid: oidJSONB, value: `{"total": 9.90}`},
		null("data_bytes", oidBytea),
		null("content_type", oidText),
		column{name: "data_schema", oid: oidText, value: "https://example.org/order.json"},
		column{name: "extensions", oid: oidJSONB, value: `{"traceparent": "00-a-b-01", "attempt": 3, "late": true, "none": null}`},
		column{name: "partition_key", oid: oidText, value: "customer-7"},
		column{name: "scheduled_at", oid: oidTimestamptz, value: "2027-01-02 03:04:05+00"},
		column{name: "max_retries", oid: oidInt4, value: "5"},
		column{name: "created_at", oid: oidTimestamptz, value: "2026-11-23 14:30:18.123456+00"},
		column{name: "xact_id", oid: 5069, value: "777"},
	))
	if err != nil {
		t.Fatal(err)
	}
	want := &event.Event{
		Position: event.Position{CommitLSN: 0x100}, ID: orderID, Type: "order.created", Source: "/orders",
		Subject: "order/42", Time: "2026-11-23T14:30:18.123456Z", DataContentType: "application/json",
		DataSchema: "https://example.org/order.json", PartitionKey: "customer-7",
		Extensions: []event.Attribute{{Name: "attempt", Value: "3", Bare: true}, {Name: "late", Value: "true", Bare: true}, {Name: "traceparent", Value: "00-a-b-01"}},
		Data:       []byte(`{"total": 9.90}`), Schema: "public", Table: "outbox",
		CommittedAt: time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC), ScheduledAt: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), MaxRetries: 5,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the event is\n%+v, want\n%+v", got, want)
	}
}

func TestDecode_Values(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		columns []column
		got     func(*event.Event) string
		want    string
	}{
		"no payload": {order(null("data", oidJSONB)), func(e *event.Event) string { return e.DataContentType + string(e.Data) }, ""},
		"bytes": {order(null("data", oidJSONB), column{name: "data_bytes", oid: oidBytea, value: `\x00ff41`}),
			func(e *event.Event) string { return e.DataContentType + " " + string(e.Data) }, "application/octet-stream \x00\xffA"},
		"no bytes at all": {order(column{name: "data_bytes", oid: oidBytea, value: `\x`}),
			func(e *event.Event) string { return e.DataContentType }, "application/octet-stream"},
		"bytes with a content type": {order(column{name: "data_bytes", oid: oidBytea, value: `\x3c`}, column{name: "content_type", oid: oidText, value: "text/xml"}),
			func(e *event.Event) string { return e.DataContentType + " " + string(e.Data) }, "text/xml <"},
		"text as JSON":         {order(column{name: "data", oid: oidText, value: `[1]`}), func(e *event.Event) string { return e.DataContentType }, "application/json"},
		"text of another kind": {order(column{name: "data", oid: oidText, value: `{`}, column{name: "content_type", oid: oidText, value: "text/plain"}), func(e *event.Event) string { return string(e.Data) }, "{"},
		"blank attributes are absent": {order(column{name: "subject", oid: oidText}, column{name: "data_schema", oid: oidText}),
			func(e *event.Event) string { return e.Subject + e.DataSchema }, ""},
		"unicode":            {order(column{name: "subject", oid: oidText, value: "Grüße, 世界 🎉"}), func(e *event.Event) string { return e.Subject }, "Grüße, 世界 🎉"},
		"time with offset":   {order(column{name: "created_at", oid: oidTimestamptz, value: "2026-11-23 14:30:18+02"}), func(e *event.Event) string { return e.Time }, "2026-11-23T12:30:18Z"},
		"time with minutes":  {order(column{name: "created_at", oid: oidTimestamptz, value: "2026-11-23 14:30:18.5+05:30"}), func(e *event.Event) string { return e.Time }, "2026-11-23T09:00:18.5Z"},
		"time without zone":  {order(column{name: "created_at", oid: 1114, value: "2026-11-23 14:30:18"}), func(e *event.Event) string { return e.Time }, "2026-11-23T14:30:18Z"},
		"schedule long past": {order(column{name: "scheduled_at", oid: oidTimestamptz, value: "-infinity"}), func(e *event.Event) string { return e.ScheduledAt.String() }, time.Time{}.String()},
		"partition key among the extensions": {order(column{name: "extensions", oid: oidJSONB, value: `{"partitionkey": "k"}`}),
			func(e *event.Event) string { return e.PartitionKey }, "k"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, err := decodeRow(t, newDecoder(t, ""), tc.columns)
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.got(ev); got != tc.want {
				t.Errorf("it gives %q, want %q", got, tc.want)
			}
		})
	}
}

func TestDecode_MalformedRows(t *testing.T) {
	t.Parallel()
	with := func(name string, oid uint32, value string) []column {
		columns := order()
		for i := range columns {
			if columns[i].name == name {
				columns[i].value = value
				return columns
			}
		}
		return append(columns, column{name: name, oid: oid, value: value})
	}
	for name, tc := range map[string]struct {
		columns []column
		column  string
		says    string
	}{
		"empty type":                {with("event_type", oidText, ""), "event_type", "empty"},
		"white type":                {with("event_type", oidText, "  "), "event_type", "white space"},
		"null source":               {[]column{order()[0], order()[1], null("source", oidText)}, "source", "null or empty"},
		"control character":         {with("subject", oidText, "a\nb"), "subject", "control character"},
		"noncharacter":              {with("subject", oidText, "a\uFFFEb"), "subject", "noncharacter"},
		"source no URI":             {with("source", oidText, "%zz"), "source", "URI"},
		"schema not absolute":       {with("data_schema", oidText, "order.json"), "data_schema", "absolute"},
		"content type no type":      {with("content_type", oidText, "a b c"), "content_type", "media type"},
		"text that is no JSON":      {with("data", oidText, "{"), "data", "not valid JSON"},
		"both payloads":             {order(column{name: "data", oid: oidJSONB, value: "1"}, column{name: "data_bytes", oid: oidBytea, value: `\x00`}), "data_bytes", "one payload"},
		"bytea not in hex":          {with("data_bytes", oidBytea, `\000`), "data_bytes", "hex"},
		"created at no time":        {with("created_at", oidTimestamptz, "infinity"), "created_at", "9999"},
		"created before all years":  {with("created_at", oidTimestamptz, "0044-03-15 00:00:00+00 BC"), "created_at", "year 1"},
		"created after all years":   {with("created_at", oidTimestamptz, "10000-01-01 00:00:00+00"), "created_at", "9999"},
		"scheduled without a zone":  {with("scheduled_at", 1114, "2027-01-02 03:04:05"), "scheduled_at", "no time zone"},
		"scheduled on a day":        {with("scheduled_at", 1082, "2027-01-02"), "scheduled_at", "timestamptz"},
		"scheduled never":           {with("scheduled_at", oidTimestamptz, "infinity"), "scheduled_at", "never comes"},
		"negative retries":          {with("max_retries", oidInt4, "-1"), "max_retries", "-1"},
		"retries beyond all bounds": {with("max_retries", 20, "3000000000"), "max_retries", "3000000000"},
		"extensions no object":      {with("extensions", oidJSONB, "[1]"), "extensions", "JSON object"},
		"extension with a bad name": {with("extensions", oidJSONB, `{"Trace-ID": "x"}`), "extensions", "Trace-ID"},
		"extension of CloudEvents":  {with("extensions", oidJSONB, `{"data": "x"}`), "extensions", "data"},
		"extension too large":       {with("extensions", oidJSONB, `{"n": 3000000000}`), "extensions", "n"},
		"extension of no type":      {with("extensions", oidJSONB, `{"n": [1]}`), "extensions", "n"},
		"two partition keys": {order(column{name: "partition_key", oid: oidText, value: "a"}, column{name: "extensions", oid: oidJSONB, value: `{"partitionkey": "b"}`}),
			"extensions", "partitionkey"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(t, "")
			_, err := decodeRow(t, d, tc.columns)
			row, ok := errors.AsType[*decode.RowError](err)
			if !ok {
				t.Fatalf("it gives %v, want a RowError", err)
			}
			if row.Schema != "public" || row.Table != "outbox" || row.ID != tc.columns[0].value || row.Column != tc.column || row.Position.CommitLSN != 0x100 {
				t.Errorf("the error is of %s.%s, id %q, column %q, position %s; want column %q of the row", row.Schema, row.Table, row.ID, row.Column, row.Position, tc.column)
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("it says %q, want something of %q", err, tc.says)
			}
			if len(err.Error()) > 600 {
				t.Errorf("it says %d bytes, which nobody reads", len(err.Error()))
			}
			// The next row is none the worse for it.
			good := order()
			feed(t, d, encodeRelation(8, "public", "outbox", good))
			if change := feed(t, d, encodeInsert(8, good)); change.Event == nil || change.Event.Position.Index != 1 {
				t.Errorf("the row after it gives %+v, want the event with index 1", change)
			}
		})
	}
}

func TestMapping_Presets(t *testing.T) {
	t.Parallel()
	debezium, err := decodeRow(t, newDecoder(t, "debezium"), []column{
		{name: "id", oid: oidUUID, value: orderID},
		{name: "aggregatetype", oid: oidText, value: "customer"},
		{name: "aggregateid", oid: oidText, value: "77"},
		{name: "type", oid: oidText, value: "CustomerMoved"},
		{name: "payload", oid: oidJSONB, value: "{}"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if debezium.Source != "/customer" || debezium.Subject != "77" || debezium.PartitionKey != "77" || debezium.Type != "CustomerMoved" || string(debezium.Data) != "{}" {
		t.Errorf("Debezium's row gives %+v", debezium)
	}
	if _, err := decode.Preset("debezum"); err == nil || !strings.Contains(err.Error(), "debezium") {
		t.Errorf("an unknown preset gives %v, want the known ones", err)
	}
}

func TestMapping_Custom(t *testing.T) {
	t.Parallel()
	preset, err := decode.Preset("")
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := preset.With(map[string]string{"id": "notice_id", "type": "kind"}, map[string]string{"source": "/shop/{region}"})
	if err != nil {
		t.Fatal(err)
	}
	columns := []column{
		{name: "notice_id", oid: oidInt4, value: "3"}, {name: "kind", oid: oidText, value: "sent"}, {name: "region", oid: oidText, value: "eu"},
	}
	ev, err := decodeRow(t, newDecoderOf(t, mapping), columns)
	if err != nil {
		t.Fatal(err)
	}
	if ev.ID != "3" || ev.Type != "sent" || ev.Source != "/shop/eu" {
		t.Errorf("the row gives %+v", ev)
	}

	_, err = decodeRow(t, newDecoderOf(t, mapping), columns[:2])
	row, ok := errors.AsType[*decode.RowError](err)
	if !ok || row.Column != "region" || row.ID != "3" || !strings.Contains(row.Error(), "the event's source") {
		t.Errorf("a table without a column of the text gives %v, want a RowError", err)
	}
	_, err = decodeRow(t, newDecoderOf(t, mapping), order())
	if row, ok := errors.AsType[*decode.RowError](err); !ok || row.Column != "notice_id" {
		t.Errorf("a table without the column of the id gives %v, want a RowError", err)
	}
	for _, bad := range []struct{ columns, values map[string]string }{
		{columns: map[string]string{"colour": "c"}},
		{columns: map[string]string{"id": ""}},
		{values: map[string]string{"data": "x"}},
		{values: map[string]string{"source": "/{"}},
		{values: map[string]string{"source": ""}},
		{columns: map[string]string{"source": "s"}, values: map[string]string{"source": "/x"}},
	} {
		if _, err := preset.With(bad.columns, bad.values); err == nil {
			t.Errorf("the mapping %v %v was taken", bad.columns, bad.values)
		}
	}
}

// A column that the table does not have any more would be left out of the events
// silently: their order of a key, or the payload.
func TestMapping_RenamedColumn(t *testing.T) {
	t.Parallel()
	d := newDecoder(t, "")
	keyed := func(name string) []column { return order(column{name: name, oid: oidText, value: "k"}) }
	feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", keyed("partition_key")))
	feed(t, d, encodeInsert(7, keyed("partition_key")))
	for _, columns := range [][]column{keyed("pkey"), append(keyed("pkey"), column{name: "more", oid: oidText, value: "x"})} {
		feed(t, d, encodeRelation(7, "public", "outbox", columns))
		change, err := d.Decode(encodeInsert(7, columns))
		row, ok := errors.AsType[*decode.RowError](err)
		if !ok || row.Column != "partition_key" || row.ID != orderID {
			t.Errorf("a row without its key gives %v, want a RowError", err)
		}
		if !strings.Contains(string(change.Raw.Content), `"k"`) {
			t.Errorf("the failed event has not all of the row: %s", change.Raw.Content)
		}
	}
	feed(t, d, encodeRelation(7, "public", "outbox", keyed("partition_key")))
	if ev := feed(t, d, encodeInsert(7, keyed("partition_key"))).Event; ev.PartitionKey != "k" {
		t.Errorf("once the column is back, the row gives %+v", ev)
	}
}

// A preset names a layout: a table that lacks a part of it makes no events.
func TestMapping_PresetMissesColumn(t *testing.T) {
	t.Parallel()
	_, err := decodeRow(t, newDecoder(t, "debezium"), []column{
		{name: "id", oid: oidUUID, value: orderID}, {name: "type", oid: oidText, value: "t"},
		{name: "aggregatetype", oid: oidText, value: "order"}, {name: "aggregateid", oid: oidText, value: "1"},
	})
	if row, ok := errors.AsType[*decode.RowError](err); !ok || row.Column != "payload" {
		t.Errorf("a table without payload gives %v, want a RowError", err)
	}
}

func TestDecode_PositionsCountEveryTable(t *testing.T) {
	t.Parallel()
	d := newDecoder(t, "")
	rows := order()
	feed(t, d, encodeBegin(0x200), encodeRelation(7, "public", "outbox", rows), encodeRelation(8, "public", "other", rows))
	feed(t, d, encodeInsert(8, rows), encodeInsert(8, rows))
	if got := feed(t, d, encodeInsert(7, rows)).Event.Position; got != (event.Position{CommitLSN: 0x200, Index: 2}) {
		t.Errorf("after two inserts elsewhere the event is at %s, want index 2", got)
	}
	end := feed(t, d, encodeCommit(0x200, 0x280))
	if end.Kind != decode.Commit || end.EndLSN != 0x280 {
		t.Errorf("the commit gives %+v", end)
	}
	feed(t, d, encodeBegin(0x300))
	if got := feed(t, d, encodeInsert(7, rows)).Event.Position; got != (event.Position{CommitLSN: 0x300}) {
		t.Errorf("the first event of the next transaction is at %s, want index 0", got)
	}
}

func TestDecode_TableChangesInTransaction(t *testing.T) {
	t.Parallel()
	d := newDecoder(t, "")
	before := order(column{name: "subject", oid: oidText, value: "before"})
	after := []column{
		{name: "extra", oid: oidText, value: "x"}, {name: "subject", oid: oidText, value: "after"},
		order()[2], order()[1], order()[0],
	}
	feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", before))
	if ev := feed(t, d, encodeInsert(7, before)).Event; ev.Subject != "before" {
		t.Errorf("the first row gives %+v", ev)
	}
	feed(t, d, encodeRelation(7, "public", "outbox", after))
	if ev := feed(t, d, encodeInsert(7, after)).Event; ev.Subject != "after" || ev.ID != orderID {
		t.Errorf("the row after the change gives %+v", ev)
	}
}

func TestDecode_SkipsOtherMessages(t *testing.T) {
	t.Parallel()
	d := newDecoder(t, "")
	for _, first := range []byte("YOUDT") {
		if change := feed(t, d, []byte{first, 1, 2, 3}); change.Kind != decode.Other {
			t.Errorf("a message %q gives %+v", first, change)
		}
	}
}

func TestDecode_ProtocolErrors(t *testing.T) {
	t.Parallel()
	rows := order()
	begin, relation := encodeBegin(1), encodeRelation(7, "public", "outbox", rows)
	unchanged, binary := order(column{name: "data", oid: oidJSONB, kind: 'u'}), order(column{name: "data", oid: oidJSONB, kind: 'b', value: "x"})
	for name, messages := range map[string][][]byte{
		"nothing":                       {{}},
		"a message of another protocol": {{'S', 0, 0}},
		"an insert without a begin":     {relation, encodeInsert(7, rows)},
		"an insert without a relation":  {begin, encodeInsert(9, rows)},
		"two begins":                    {begin, begin},
		"a commit without a begin":      {encodeCommit(1, 2)},
		"a commit of another":           {begin, encodeCommit(2, 3)},
		"a row with fewer columns":      {begin, relation, encodeInsert(7, rows[:2])},
		"a truncated begin":             {begin[:10]},
		"a truncated relation":          {relation[:20]},
		"a truncated insert":            {begin, relation, encodeInsert(7, rows)[:20]},
		"a column of no kind":           {begin, relation, append(encodeInsert(7, rows)[:8], 'x')},
		"a needed value not sent":       {begin, encodeRelation(7, "public", "outbox", unchanged), encodeInsert(7, unchanged)},
		"a needed value in binary":      {begin, encodeRelation(7, "public", "outbox", binary), encodeInsert(7, binary)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(t, "")
			feed(t, d, messages[:len(messages)-1]...)
			_, err := d.Decode(messages[len(messages)-1])
			if _, ok := errors.AsType[*decode.ProtocolError](err); !ok {
				t.Errorf("it gives %v, want a ProtocolError", err)
			}
		})
	}
}

func TestDecode_CopiesItsInput(t *testing.T) {
	t.Parallel()
	d := newDecoder(t, "")
	rows := order(column{name: "subject", oid: oidText, value: "subject"}, column{name: "data", oid: oidJSONB, value: `{"a": 1}`},
		column{name: "extensions", oid: oidJSONB, value: `{"x": "y"}`}, column{name: "created_at", oid: oidTimestamptz, value: "2026-11-23 14:30:18+00"})
	feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", rows))
	message := encodeInsert(7, rows)
	first := feed(t, d, message).Event
	pristine := *feed(t, d, append([]byte(nil), message...)).Event
	pristine.Position = first.Position
	for i := range message {
		message[i] = 0xAA
	}
	if !reflect.DeepEqual(*first, pristine) {
		t.Errorf("after the input was overwritten the event is\n%+v, was\n%+v", *first, pristine)
	}
	first.Data = append(first.Data, "overflow"...)
	if first.Subject != "subject" || first.Time != "2026-11-23T14:30:18Z" {
		t.Errorf("appending to the payload changed the attributes: %+v", first)
	}
}

func TestNew_TableTwice(t *testing.T) {
	t.Parallel()
	table := decode.Table{Schema: "public", Name: "outbox"}
	if _, err := decode.New(decode.Config{Tables: []decode.Table{table, table}}); err == nil {
		t.Error("it was taken")
	}
}

func FuzzDecode(f *testing.F) {
	rows := order(column{name: "extensions", oid: oidJSONB, value: `{"x": "y"}`}, column{name: "created_at", oid: oidTimestamptz, value: "2026-11-23 14:30:18.5+00"},
		column{name: "data_bytes", oid: oidBytea, value: `\x00ff`}, column{name: "scheduled_at", oid: oidTimestamptz, value: "infinity"})
	for _, message := range [][]byte{
		encodeBegin(1), encodeCommit(1, 2), encodeRelation(7, "public", "outbox", rows), encodeInsert(7, rows), {'Y'}, {'S', 1},
		encodeEmitted(`{"origin":"0000000000000010.00000002"}`, `{"id":"1","type":"t","source":"/s","data":[1]}`),
		encodeEmitted(`{"kind":"row","table_schema":"public","table_name":"outbox"}`, `[["id",25,"1"],["event_type",25,null]]`),
		encodeEmitted(`{"kind":"reference","table_schema":"public","table_name":"outbox","id":"1","origin":"0000000000000010.00000002"}`, `{"row_of":"public.outbox"}`),
		encodeEmitted(`{"kind":"row","table_schema":"public","table_name":"outbox"}`, `[["id",25,"1","it has a byte that does not convert"]]`),
	} {
		f.Add(message, message)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		d := newEmittedDecoder(t)
		feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", rows))
		for _, message := range [][]byte{one, two, encodeInsert(7, rows)} {
			change, err := d.Decode(message)
			if change.Kind == decode.Insert && change.Event == nil {
				t.Error("an insert gave no event")
			}
			if err == nil && change.Kind == decode.Insert && change.Event != nil && (change.Event.ID == "" || change.Event.Type == "" || change.Event.Source == "") {
				t.Errorf("an event without a required attribute: %+v", change.Event)
			}
		}
	})
}

// insertForBenchmark returns a decoder within a transaction, and an insert of
// 300 bytes of data for it.
func insertForBenchmark(tb testing.TB) (*decode.Decoder, []byte) {
	tb.Helper()
	d := newDecoder(tb, "")
	rows := order(
		column{name: "subject", oid: oidText, value: "order/4711"},
		column{name: "data", oid: oidJSONB, value: `{"order": 4711, "pad": "` + strings.Repeat("x", 270) + `"}`},
		null("data_bytes", oidBytea), null("content_type", oidText), null("data_schema", oidText), null("extensions", oidJSONB),
		null("partition_key", oidText), null("scheduled_at", oidTimestamptz), null("max_retries", oidInt4),
		column{name: "created_at", oid: oidTimestamptz, value: "2026-11-23 14:30:18.123456+00"},
		column{name: "xact_id", oid: 5069, value: "777"},
	)
	feed(tb, d, encodeBegin(1), encodeRelation(7, "public", "outbox", rows))
	return d, encodeInsert(7, rows)
}

func BenchmarkDecodeInsert(b *testing.B) {
	d, message := insertForBenchmark(b)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(message); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDecode_AllocationsOfSmallRows(t *testing.T) {
	d, message := insertForBenchmark(t)
	const rows = 1000
	got := testing.AllocsPerRun(10, func() {
		for range rows {
			if _, err := d.Decode(message); err != nil {
				t.Fatal(err)
			}
		}
	})
	if got > rows/4 {
		t.Errorf("%d rows took %.0f allocations, want one for several of them", rows, got)
	}
}

// An event that is kept must not keep the large ones that were decoded with it.
func TestDecode_LargeRowHasItsOwnMemory(t *testing.T) {
	t.Parallel()
	d := newDecoder(t, "")
	small := order(column{name: "data", oid: oidJSONB, value: `1`})
	large := order(column{name: "data", oid: oidJSONB, value: `"` + strings.Repeat("x", 1<<20) + `"`})
	feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", small))
	var kept []*event.Event
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 20 {
		if _, err := d.Decode(encodeInsert(7, large)); err != nil {
			t.Fatal(err)
		}
		change, err := d.Decode(encodeInsert(7, small))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, change.Event)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d small events keep %d MiB alive, want nothing of the 20 MiB beside them", len(kept), grown>>20)
	}
	runtime.KeepAlive(kept)
}
