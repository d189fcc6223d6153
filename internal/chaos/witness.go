package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// witnessed is an event as the write-ahead log has it: an insert, an emitted
// message, or one that the delay table gave back.
type witnessed struct {
	id       string
	position string // as the relay should write it
	end      uint64 // where the transaction ends
	back     bool   // given back by the delay table
	attempts int    // how often it had failed, then
	released bool   // its key was held for it
	marker   string // instead of an event
}

// witnessSlot is a second slot, which nobody but the harness reads, at the end:
// Postgres itself says what was committed, and in which order.
const witnessSlot = "witness"

// prepareWitness makes the slot before anything is written.
func prepareWitness(ctx context.Context, conn *pgx.Conn, failover bool) error {
	create := "SELECT pg_create_logical_replication_slot('" + witnessSlot + "', 'pgoutput')"
	if failover {
		create = "SELECT pg_create_logical_replication_slot('" + witnessSlot + "', 'pgoutput', failover => true)"
	}
	for _, statement := range []string{
		"CREATE PUBLICATION " + witnessSlot + " FOR TABLE public.outbox WITH (publish = 'insert')", create,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("making the witness: %w", err)
		}
	}
	return nil
}

// readWitness reads everything that was committed, with a decoder that is not
// ours.
func readWitness(ctx context.Context, conn *pgx.Conn) ([]witnessed, error) {
	rows, err := conn.Query(ctx, `
		SELECT data FROM pg_logical_slot_peek_binary_changes($1::text, upto_lsn => NULL, upto_nchanges => NULL, VARIADIC options => ARRAY[
			'proto_version', '1', 'publication_names', $2::text, 'messages', 'true'])`, witnessSlot, witnessSlot)
	if err != nil {
		return nil, fmt.Errorf("reading the witness: %w", err)
	}
	defer rows.Close()
	w := witnessReader{columns: make(map[uint32]int)}
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return nil, fmt.Errorf("reading the witness: %w", err)
		}
		if err := w.take(data); err != nil {
			return nil, fmt.Errorf("reading the witness: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the witness: %w", err)
	}
	return w.events, nil
}

// witnessReader makes witnessed events of pgoutput messages.
type witnessReader struct {
	columns map[uint32]int // relation to its column id
	commit  uint64
	index   uint32
	first   int // the first event of the transaction
	events  []witnessed
}

func (w *witnessReader) take(data []byte) error {
	msg, err := pglogrepl.Parse(data)
	if err != nil {
		return err
	}
	switch msg := msg.(type) {
	case *pglogrepl.BeginMessage:
		w.commit, w.index, w.first = uint64(msg.FinalLSN), 0, len(w.events)
	case *pglogrepl.CommitMessage:
		for i := w.first; i < len(w.events); i++ {
			w.events[i].end = uint64(msg.TransactionEndLSN)
		}
	case *pglogrepl.RelationMessage:
		for i, column := range msg.Columns {
			if column.Name == "id" {
				w.columns[msg.RelationID] = i
			}
		}
	case *pglogrepl.InsertMessage:
		id := string(msg.Tuple.Columns[w.columns[msg.RelationID]].Data)
		w.add(witnessed{id: id})
	case *pglogrepl.LogicalDecodingMessage:
		if msg.Transactional && msg.Prefix == "walrelay."+slotName {
			return w.message(msg.Content)
		}
	}
	return nil
}

func (w *witnessReader) add(e witnessed) {
	e.position = fmt.Sprintf("%016X.%08X", w.commit, w.index)
	w.index++
	w.events = append(w.events, e)
}

// message reads a logical message of walrelay: a line that says where it comes
// from, and the event.
func (w *witnessReader) message(content []byte) error {
	var head struct {
		Marker   string `json:"marker"`
		Origin   string `json:"origin"`
		Attempts int    `json:"attempts"`
		Released bool   `json:"released"`
	}
	first, rest, _ := bytes.Cut(content, []byte{'\n'})
	if err := json.Unmarshal(first, &head); err != nil {
		return fmt.Errorf("a message that begins with %.100q: %w", content, err)
	}
	var body struct {
		ID string `json:"id"`
	}
	if head.Marker == "" {
		_ = json.Unmarshal(rest, &body) // a row that cannot be an event has no id here
	}
	w.add(witnessed{id: body.ID, back: head.Origin != "", attempts: head.Attempts, released: head.Released, marker: head.Marker})
	return nil
}
