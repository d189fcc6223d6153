package decode

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/walrelay/walrelay/event"
)

// Kind says what a change is.
type Kind uint8

const (
	// Other is nothing to hand on: a relation, a type, an origin, a logical
	// message of others, and whatever happens to tables that are no outbox.
	Other Kind = iota
	// Begin starts a transaction.
	Begin
	// Commit ends it.
	Commit
	// Insert is an event: a row of an outbox table, or of walrelay.emitted.
	Insert
	// Marker is a row of the relay to itself.
	Marker
	// Reference is an event whose content is to be read from its row, found by the
	// table and the id of Event; see [Resolve].
	Reference
)

// Change is what one message means.
type Change struct {
	Kind Kind
	// CommitLSN is where the transaction's commit record starts (Begin and
	// Commit), EndLSN where it ends (Commit).
	CommitLSN, EndLSN uint64
	// CommittedAt is the database's clock at the commit (Begin and Commit).
	CommittedAt time.Time
	// Event is the inserted event (Insert). With a *RowError it is what could
	// be read of it: enough to tell a person which one it is.
	Event *event.Event
	// Raw is, with a *RowError, what the event would be made of.
	Raw *Raw
	// Marker is the text of a Marker.
	Marker string
}

// Config says which tables are outboxes.
type Config struct {
	Tables []Table
	// Slot is the slot that is read: of walrelay.emitted, its rows count.
	Slot string
	// MessagesUntil is the LSN before which logical messages with the prefix
	// walrelay.<slot> are read as well: those of versions with schema 3 and older.
	MessagesUntil uint64
	// Encoding is that of the text in the stream; "" is UTF8. See [Converts].
	Encoding string
	// MaxEventSize, if set, returns how many bytes an event may have. Of a larger one
	// nothing is copied: it is a *RowError with [ErrTooLarge], and Raw is a reference.
	MaxEventSize func() int64
}

// Table is an outbox table, and how its columns make an event. The name is
// taken as the catalog has it. The zero Mapping is the preset walrelay.
type Table struct {
	Schema, Name string
	Mapping      Mapping
}

// Decoder decodes the messages of one connection. Not safe for concurrent use.
type Decoder struct {
	tables    map[tableName]*Mapping
	relations map[uint32]*relation
	validator *validator
	slot      string
	converter *converter
	limit     func() int64

	prefix        string // of logical messages
	messagesUntil uint64

	open        bool // between Begin and Commit
	commitLSN   uint64
	committedAt time.Time
	index       uint32 // of the next insert in the transaction

	columns []column // scratch: the columns of one row
	garbled garbled  // scratch: what of it does not convert to UTF-8
	slab    slab
}

type tableName struct{ schema, name string }

// New returns a decoder. A table without a name, two configurations of one table and
// an encoding that is not converted are errors; all of them are returned at once.
func New(cfg Config) (*Decoder, error) {
	d := &Decoder{tables: make(map[tableName]*Mapping, len(cfg.Tables)), validator: newValidator(),
		relations: make(map[uint32]*relation), slot: cfg.Slot, prefix: "walrelay." + cfg.Slot, limit: cfg.MaxEventSize, messagesUntil: cfg.MessagesUntil}
	var errs []error
	var err error
	if d.converter, err = newConverter(cfg.Encoding); err != nil {
		errs = append(errs, err)
	}
	for _, table := range cfg.Tables {
		name := tableName{table.Schema, table.Name}
		if table.Schema == "" || table.Name == "" {
			errs = append(errs, fmt.Errorf("outbox table %q.%q: a table needs a schema and a name", table.Schema, table.Name))
			continue
		}
		if _, ok := d.tables[name]; ok {
			errs = append(errs, fmt.Errorf("outbox table %s.%s is configured twice", table.Schema, table.Name))
			continue
		}
		mapping := table.Mapping
		if mapping == (Mapping{}) {
			mapping = walrelayPreset()
		}
		d.tables[name] = &mapping
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return d, nil
}

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

// Decode decodes one message: the bytes after the XLogData header. The data is
// read during the call only, and nothing that is returned points into it.
//
// The error is a *RowError when this row cannot become an event, also because its
// table lacks what the mapping needs; the change is then an Insert with Raw, and
// decoding may go on. It is a *TableError when walrelay.emitted lacks a column, and a
// *ProtocolError when the stream cannot be understood: then nothing more may
// be confirmed to the slot.
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
	case byteMessage:
		return d.message(&r)
	case byteType, byteOrigin, byteUpdate, byteDelete, byteTruncate:
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
	case !r.ended():
		return Change{}, wrongLength("Begin", r)
	case d.open:
		return Change{}, &ProtocolError{Message: "Begin inside of a transaction"}
	}
	d.open, d.commitLSN, d.committedAt, d.index = true, commitLSN, at, 0
	return Change{Kind: Begin, CommitLSN: commitLSN, CommittedAt: at}, nil
}

func (d *Decoder) commit(r *reader) (Change, error) {
	r.byte() // flags, unused
	c := Change{Kind: Commit, CommitLSN: r.uint64(), EndLSN: r.uint64(), CommittedAt: r.time()}
	switch {
	case !r.ended():
		return Change{}, wrongLength("Commit", r)
	case !d.open:
		return Change{}, &ProtocolError{Message: "Commit without Begin"}
	case c.CommitLSN != d.commitLSN:
		return Change{}, &ProtocolError{Message: "Commit with another LSN than Begin"}
	}
	d.open = false
	return c, nil
}

func (d *Decoder) relation(r *reader) error {
	rel := &relation{}
	oid := r.uint32()
	rel.schema, rel.name = d.converter.name(r.string()), d.converter.name(r.string())
	r.byte() // replica identity
	count := int(r.uint16())
	for range count {
		if r.short {
			break
		}
		r.byte() // flags: part of the key
		name, typ := d.converter.name(r.string()), r.uint32()
		r.uint32() // type modifier
		rel.columns = append(rel.columns, columnType{name: name, oid: typ})
	}
	if !r.ended() {
		return wrongLength("Relation", r)
	}
	if rel.schema == "" {
		rel.schema = "pg_catalog" // how the protocol abbreviates it
	}
	if mapping, ok := d.tables[tableName{rel.schema, rel.name}]; ok {
		rel.compile(mapping)
	} else if rel.schema == emittedSchema && rel.name == emittedTable {
		rel.compileEmitted()
	}
	rel.replace(d.relations[oid])
	d.relations[oid] = rel
	return nil
}

// column is a value of a row, as text and a part of the message. Nil is null,
// or a column that makes no part of an event.
type column []byte

func (d *Decoder) insert(r *reader) (Change, error) {
	oid := r.uint32()
	if r.short {
		return Change{}, wrongLength("Insert", r)
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
	position, err := d.position()
	if err != nil {
		return Change{}, err
	}
	if rel.mapping == nil && rel.emitted == nil {
		return Change{}, nil
	}
	if rel.fault != nil && rel.mapping == nil {
		return Change{}, rel.fault
	}
	if err := d.tuple(r, rel); err != nil {
		return Change{}, err
	}
	if rel.emitted != nil {
		return d.emitted(position, rel)
	}
	return d.row(position, rel)
}

// row makes an event of the row of an outbox table in the scratch.
func (d *Decoder) row(position event.Position, rel *relation) (Change, error) {
	if ev, raw, rowErr := rel.tooLarge(d.columns, d.limit); rowErr != nil {
		ev.Position, ev.CommittedAt, rowErr.Position = position, d.committedAt, position
		return Change{Kind: Insert, Event: ev, Raw: raw}, rowErr
	}
	ev, rowErr := rel.event(d.columns, d.validator, &d.slab)
	ev.Position = position
	ev.CommittedAt = d.committedAt
	if d.garbled.err != nil {
		rowErr = d.garbledError(rel, ev)
	}
	if rowErr != nil {
		rowErr.Position = position
		return Change{Kind: Insert, Event: ev, Raw: d.raw(rel)}, rowErr
	}
	return Change{Kind: Insert, Event: ev}, nil
}

// garbledError says which column of the row in the scratch does not convert.
func (d *Decoder) garbledError(rel *relation, ev *event.Event) *RowError {
	return &RowError{
		Schema: rel.schema, Table: rel.name, ID: strings.Clone(ev.ID),
		Column: rel.columns[d.garbled.column].name, Err: d.garbled.err,
	}
}

// tuple reads the columns of a row into the scratch.
func (d *Decoder) tuple(r *reader, rel *relation) error {
	if b := r.byte(); b != 'N' && !r.short {
		return &ProtocolError{Message: fmt.Sprintf("an insert with a tuple of kind %q", b)}
	}
	count := int(r.uint16())
	if r.short {
		return wrongLength("Insert", r)
	}
	if count != len(rel.columns) {
		return &ProtocolError{Message: fmt.Sprintf("a row of %s.%s with %d columns, but the table was described with %d",
			rel.schema, rel.name, count, len(rel.columns))}
	}
	d.columns, d.garbled = d.columns[:0], garbled{}
	for i := range rel.columns {
		kind := r.byte()
		var value column
		switch kind {
		case 'n', 'u':
		case 't', 'b':
			value = r.bytes(r.uint32())
		default:
			if r.short {
				return wrongLength("Insert", r)
			}
			return &ProtocolError{Message: fmt.Sprintf("a column of kind %q in table %s.%s", kind, rel.schema, rel.name)}
		}
		switch {
		case !rel.columns[i].needed:
			value = nil
		case kind == 'u' || kind == 'b':
			// Never so in an insert that is sent as text: something between
			// the row and here has gone wrong, and no other row would do
			// better.
			return &ProtocolError{Message: fmt.Sprintf("a row of %s.%s whose column %s is of kind %q, where the value as text was asked for",
				rel.schema, rel.name, rel.columns[i].name, kind)}
		}
		if d.converter != nil && value != nil {
			var err error
			if value, err = d.converter.text(value); err != nil && d.garbled.err == nil {
				d.garbled = garbled{column: i, err: err}
			}
		}
		d.columns = append(d.columns, value)
	}
	if !r.ended() {
		return wrongLength("Insert", r)
	}
	return nil
}
