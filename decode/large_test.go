package decode_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
)

func limited(t *testing.T, limit *int64) *decode.Decoder {
	t.Helper()
	d, err := decode.New(decode.Config{
		Slot: slot, MaxEventSize: func() int64 { return *limit },
		Tables: []decode.Table{{Schema: "public", Name: "outbox"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLarge_IsAReference(t *testing.T) {
	t.Parallel()
	limit := int64(100_000)
	d := limited(t, &limit)
	columns := func(size int) []column {
		return order(column{name: "partition_key", oid: oidText, value: "k"}, column{name: "data_bytes", oid: oidBytea, value: `\x` + strings.Repeat("00", size)})
	}
	feed(t, d, encodeBegin(1), encodeRelation(7, "public", "outbox", columns(0)))
	if change, err := d.Decode(encodeInsert(7, columns(99_000))); err != nil || len(change.Event.Data) != 99_000 {
		t.Errorf("an event below the limit gives %v", err)
	}
	large := encodeInsert(7, columns(1_000_000))
	change, err := d.Decode(large)
	rowErr, ok := errors.AsType[*decode.RowError](err)
	if !errors.Is(err, decode.ErrTooLarge) || !ok || rowErr.Column != "data_bytes" || rowErr.ID != orderID {
		t.Fatalf("an event above the limit gives %v, want a *RowError with ErrTooLarge", err)
	}
	if ev := change.Event; ev.ID != orderID || ev.Type != "order.created" || ev.PartitionKey != "k" || len(ev.Data) != 0 || ev.Position.Index != 1 {
		t.Errorf("what is known of the event is %+v", ev)
	}
	if change.Raw.Kind != decode.RawReference || len(change.Raw.Content) > 100 {
		t.Errorf("what is kept is %q, want a short reference", change.Raw.Content)
	}
	bytes := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, _ = d.Decode(large)
		}
	}).AllocedBytesPerOp()
	if bytes > 10_000 {
		t.Errorf("a row of 2 MB takes %d bytes, want nothing of its size", bytes)
	}
	limit = 2_000_000
	if change, err := d.Decode(large); err != nil || len(change.Event.Data) != 1_000_000 {
		t.Errorf("once the limit is raised, the row gives %v", err)
	}
}

func TestLarge_ReferenceIsResolved(t *testing.T) {
	t.Parallel()
	limit := int64(100_000)
	d := limited(t, &limit)
	feed(t, d, encodeBegin(5), encodeRelation(emittedOID, "walrelay", "emitted", emittedColumns()))
	reference := feed(t, d, encodeEmitted(`{"kind": "reference", "id": "`+orderID+`", "table_schema": "public", "table_name": "outbox",
		"origin": "0000000000000001.00000002", "attempts": 1}`, `{"row_of":"public.outbox"}`))
	if reference.Kind != decode.Reference || reference.Event.ID != orderID || reference.Event.Table != "outbox" {
		t.Fatalf("the row gives %+v", reference)
	}
	rows, err := d.Rows("public", "outbox", []decode.Column{{Name: "id", Type: oidUUID}, {Name: "event_type", Type: oidText}, {Name: "source", Type: oidText}, {Name: "data", Type: oidJSONB}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(data string) (decode.Change, *decode.RowError) {
		ev, err := rows.Event(reference.Event.Position, [][]byte{[]byte(orderID), []byte("t"), []byte("/s"), []byte(data)})
		rowErr, _ := errors.AsType[*decode.RowError](err)
		return decode.Resolve(reference, ev, rowErr), rowErr
	}
	change, rowErr := read(`{"n": 1}`)
	if rowErr != nil || change.Kind != decode.Insert || string(change.Event.Data) != `{"n": 1}` ||
		change.Event.Origin() != (event.Position{CommitLSN: 1, Index: 2}) || change.Event.Position.CommitLSN != 5 {
		t.Errorf("the event is %+v (%v)", change.Event, rowErr)
	}
	change, rowErr = read(`"` + strings.Repeat("x", 200_000) + `"`)
	if !errors.Is(rowErr, decode.ErrTooLarge) || change.Raw == nil || change.Raw.Kind != decode.RawReference || change.Event.Delay == nil {
		t.Errorf("a row that is still too large gives %v and %+v", rowErr, change)
	}
	change = decode.Resolve(reference, nil, &decode.RowError{Err: errors.New("gone")})
	if change.Event.ID != orderID || change.Raw == nil {
		t.Errorf("without a row, the event is %+v", change)
	}
	_, err = d.Decode(encodeEmitted(`{"kind": "reference", "id": "1", "table_schema": "public", "table_name": "other"}`, ""))
	if _, ok := errors.AsType[*decode.RowError](err); !ok {
		t.Errorf("a reference to a table that is no outbox gives %v, want a *RowError", err)
	}
}
