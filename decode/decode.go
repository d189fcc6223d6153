package decode

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/walrelay/walrelay/event"
)

// Kind says what a change is.
type Kind uint8

const (
	// Other is nothing to hand on: a relation, a type, an origin, a logical
	// message, and whatever happens to tables that are no outbox.
	Other Kind = iota
	// Begin starts a transaction.
	Begin
	// Commit ends it.
	Commit
	// Insert is an event.
	Insert
)

// Change is what one message means.
type Change struct {
	Kind Kind
	// CommitLSN is where the transaction's commit record starts (Begin and
	// Commit), EndLSN where it ends (Commit).
	CommitLSN, EndLSN uint64
	// CommittedAt is the database's clock at the commit (Begin and Commit).
	CommittedAt time.Time
	// Event is the inserted event (Insert).
	Event *event.Event
}

// Config says which tables are outboxes.
type Config struct {
	Tables []Table
}

// Table is an outbox table, and how its columns make an event.
type Table struct {
	Schema, Name string
	Mapping      Mapping
}

// Decoder decodes the messages of one connection. Not safe for concurrent use.
type Decoder struct {
	tables    map[tableName]*Mapping
	relations map[uint32]*relation
	validator *validator

	open        bool // between Begin and Commit
	commitLSN   uint64
	committedAt time.Time
	index       uint32 // of the next insert in the transaction

	columns []column // scratch: the columns of one row
}

type tableName struct{ schema, name string }

// New returns a decoder. Two configurations of one table are an error.
func New(cfg Config) (*Decoder, error) {
	d := &Decoder{tables: make(map[tableName]*Mapping, len(cfg.Tables)), validator: newValidator()}
	for i := range cfg.Tables {
		table := &cfg.Tables[i]
		name := tableName{table.Schema, table.Name}
		if _, ok := d.tables[name]; ok {
			return nil, fmt.Errorf("outbox table %s.%s is configured twice", table.Schema, table.Name)
		}
		d.tables[name] = &table.Mapping
	}
	d.Reset()
	return d, nil
}

// Reset forgets relations and an open transaction: a new connection sends
// them again.
func (d *Decoder) Reset() {
	d.relations = make(map[uint32]*relation)
	d.open = false
}

// InTransaction reports whether a transaction has begun and not ended.
func (d *Decoder) InTransaction() bool { return d.open }

// The first bytes of messages (Postgres manual, "Logical Replication Message
// Formats").
const (
	byteBegin    = 'B'
	byteCommit   = 'C'
	byteInsert   = 'I'
	byteRelation = 'R'
	byteType     = 'Y'
	byteOrigin   = 'O'
	byteMessage  = 'M'
	byteUpdate   = 'U'
	byteDelete   = 'D'
	byteTruncate = 'T'
)

// Decode decodes one message. The data is read during the call only. The error
// is a *RowError when the row cannot become an event, and a *ProtocolError
// when the stream cannot be understood and must not be confirmed.
func (d *Decoder) Decode(data []byte) (Change, error) {
	r := reader{data: data}
	kind := r.byte()
	switch kind {
	case byteInsert:
		return d.insert(&r)
	case byteBegin:
		return d.begin(&r)
	case byteCommit:
		return d.commit(&r)
	case byteRelation:
		return Change{}, d.relation(&r)
	case byteType, byteOrigin, byteMessage, byteUpdate, byteDelete, byteTruncate:
		// The publication has inserts only; what else arrives is not an event.
		return Change{}, nil
	}
	if r.short {
		return Change{}, &ProtocolError{Message: "an empty message"}
	}
	return Change{}, &ProtocolError{Message: fmt.Sprintf("a message that begins with %q, which protocol version 1 does not have", kind)}
}

func (d *Decoder) begin(r *reader) (Change, error) {
	commitLSN, at := r.uint64(), r.time()
	r.uint32() // transaction ID
	switch {
	case r.short:
		return Change{}, truncated("Begin", r)
	case d.open:
		return Change{}, &ProtocolError{Message: "a transaction began before the last one ended"}
	}
	d.open, d.commitLSN, d.committedAt, d.index = true, commitLSN, at, 0
	return Change{Kind: Begin, CommitLSN: commitLSN, CommittedAt: at}, nil
}

func (d *Decoder) commit(r *reader) (Change, error) {
	r.byte() // flags, unused
	c := Change{Kind: Commit, CommitLSN: r.uint64(), EndLSN: r.uint64(), CommittedAt: r.time()}
	switch {
	case r.short:
		return Change{}, truncated("Commit", r)
	case !d.open:
		return Change{}, &ProtocolError{Message: "a transaction ended that had not begun"}
	case c.CommitLSN != d.commitLSN:
		return Change{}, &ProtocolError{Message: "a transaction ended at another place than its beginning said"}
	}
	d.open = false
	return c, nil
}

func (d *Decoder) relation(r *reader) error {
	rel := &relation{}
	oid := r.uint32()
	rel.schema, rel.name = r.string(), r.string()
	r.byte() // replica identity
	count := int(r.uint16())
	for range count {
		if r.short {
			break
		}
		r.byte() // flags: part of the key
		name, typ := r.string(), r.uint32()
		r.uint32() // type modifier
		rel.columns = append(rel.columns, columnType{name: name, oid: typ})
	}
	if r.short {
		return truncated("Relation", r)
	}
	if rel.schema == "" {
		rel.schema = "pg_catalog" // how the protocol abbreviates it
	}
	if mapping, ok := d.tables[tableName{rel.schema, rel.name}]; ok {
		rel.compile(mapping)
	}
	d.relations[oid] = rel
	return nil
}

// column is a value of a row: a part of the message.
type column struct {
	kind byte // n null, u unchanged, t text, b binary
	data []byte
}

func (d *Decoder) insert(r *reader) (Change, error) {
	oid := r.uint32()
	if r.short {
		return Change{}, truncated("Insert", r)
	}
	if !d.open {
		return Change{}, &ProtocolError{Message: "an insert outside of a transaction"}
	}
	rel, ok := d.relations[oid]
	if !ok {
		return Change{}, &ProtocolError{Message: fmt.Sprintf("an insert into relation %d, which was not described", oid)}
	}
	// Inserts of every relation count, so that positions do not depend on
	// which tables are configured.
	position := event.Position{CommitLSN: d.commitLSN, Index: d.index}
	d.index++
	if rel.mapping == nil {
		return Change{}, nil
	}
	if rel.fault != nil {
		return Change{}, rel.fault
	}
	if err := d.tuple(r, rel); err != nil {
		return Change{}, err
	}
	ev, err := rel.event(d.columns, d.validator)
	if err != nil {
		err.Position = position
		return Change{Kind: Insert}, err
	}
	ev.Position = position
	ev.CommittedAt = d.committedAt
	return Change{Kind: Insert, Event: ev}, nil
}

// tuple reads the columns of a row into the scratch.
func (d *Decoder) tuple(r *reader, rel *relation) error {
	if b := r.byte(); b != 'N' && !r.short {
		return &ProtocolError{Message: fmt.Sprintf("an insert with a tuple of kind %q", b)}
	}
	count := int(r.uint16())
	if r.short {
		return truncated("Insert", r)
	}
	if count != len(rel.columns) {
		return &ProtocolError{Message: fmt.Sprintf("a row of %s.%s with %d columns, but the table was described with %d",
			rel.schema, rel.name, count, len(rel.columns))}
	}
	d.columns = d.columns[:0]
	for range count {
		c := column{kind: r.byte()}
		switch c.kind {
		case 'n', 'u':
		case 't', 'b':
			c.data = r.bytes(int(r.uint32()))
		default:
			if r.short {
				return truncated("Insert", r)
			}
			return &ProtocolError{Message: fmt.Sprintf("a column of kind %q in table %s.%s", c.kind, rel.schema, rel.name)}
		}
		if r.short {
			return truncated("Insert", r)
		}
		d.columns = append(d.columns, c)
	}
	return nil
}

// reader reads a message. Past the end it returns zeros and is short.
type reader struct {
	data  []byte
	at    int
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.data)-r.at {
		r.short = true
		r.at = len(r.data)
		return nil
	}
	b := r.data[r.at : r.at+n]
	r.at += n
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// postgresEpoch is 2000-01-01 in microseconds of Unix time.
const postgresEpoch = 946_684_800_000_000

func (r *reader) time() time.Time {
	return time.UnixMicro(int64(r.uint64()) + postgresEpoch).UTC()
}

// string reads up to a zero byte.
func (r *reader) string() string {
	for i := r.at; i < len(r.data); i++ {
		if r.data[i] == 0 {
			s := string(r.data[r.at:i])
			r.at = i + 1
			return s
		}
	}
	r.short = true
	r.at = len(r.data)
	return ""
}
