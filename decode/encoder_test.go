package decode_test

import (
	"encoding/binary"
	"testing"

	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/event"
)

// The OIDs of the types that the tests use (pg_type.dat).
const (
	oidBytea       = 17
	oidText        = 25
	oidInt4        = 23
	oidUUID        = 2950
	oidJSONB       = 3802
	oidTimestamptz = 1184
)

// column is a column of a test's table, and its value in a row.
type column struct {
	name  string
	oid   uint32
	value string
	kind  byte // 't' if not set
}

const orderID = "0b6c1fbe-5d5c-4a2b-8f6e-0c1f5d7b9a11"

// order is a good row of walrelay's own table with some columns more.
func order(more ...column) []column {
	return append([]column{
		{name: "id", oid: oidUUID, value: orderID},
		{name: "event_type", oid: oidText, value: "order.created"},
		{name: "source", oid: oidText, value: "/orders"},
	}, more...)
}

func null(name string, oid uint32) column { return column{name: name, oid: oid, kind: 'n'} }

// The encoders follow the Postgres manual, "Logical Replication Message
// Formats".
func encodeBegin(commitLSN uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'B'}, commitLSN)
	b = binary.BigEndian.AppendUint64(b, 1_000_000) // a second after 2000-01-01
	return binary.BigEndian.AppendUint32(b, 777)
}

func encodeCommit(commitLSN, endLSN uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'C', 0}, commitLSN)
	b = binary.BigEndian.AppendUint64(b, endLSN)
	return binary.BigEndian.AppendUint64(b, 1_000_000)
}

func encodeRelation(oid uint32, schema, name string, columns []column) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, oid)
	b = append(b, schema+"\x00"+name+"\x00d"...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for _, c := range columns {
		b = append(append(b, 0), c.name+"\x00"...)
		b = binary.BigEndian.AppendUint32(b, c.oid)
		b = binary.BigEndian.AppendUint32(b, 0xFFFFFFFF)
	}
	return b
}

func encodeInsert(oid uint32, columns []column) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{'I'}, oid), 'N')
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for _, c := range columns {
		kind := c.kind
		if kind == 0 {
			kind = 't'
		}
		b = append(b, kind)
		if kind == 't' || kind == 'b' {
			b = binary.BigEndian.AppendUint32(b, uint32(len(c.value)))
			b = append(b, c.value...)
		}
	}
	return b
}

// newDecoder decodes the table public.outbox with the mapping of a preset.
func newDecoder(t testing.TB, preset string) *decode.Decoder {
	t.Helper()
	mapping, err := decode.Preset(preset)
	if err != nil {
		t.Fatal(err)
	}
	return newDecoderOf(t, mapping)
}

func newDecoderOf(t testing.TB, mapping decode.Mapping) *decode.Decoder {
	t.Helper()
	d, err := decode.New(decode.Config{Tables: []decode.Table{{Schema: "public", Name: "outbox", Mapping: mapping}}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// feed decodes messages that must be good.
func feed(t testing.TB, d *decode.Decoder, messages ...[]byte) (last decode.Change) {
	t.Helper()
	for i, m := range messages {
		var err error
		if last, err = d.Decode(m); err != nil {
			t.Fatalf("message %d of %d (%q): %v", i+1, len(messages), m[0], err)
		}
	}
	return last
}

// decodeRow decodes one row of public.outbox.
func decodeRow(t testing.TB, d *decode.Decoder, columns []column) (*event.Event, error) {
	t.Helper()
	feed(t, d, encodeBegin(0x100), encodeRelation(7, "public", "outbox", columns))
	change, err := d.Decode(encodeInsert(7, columns))
	return change.Event, err
}
