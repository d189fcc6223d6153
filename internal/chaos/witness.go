package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// witnessed is an event as the WAL has it: an insert into the outbox, or a row of
// walrelay.emitted.
type witnessed struct {
	id       string
	position string // as the relay should write it
	end      uint64 // where the transaction ends
	back     bool   // re-emitted from the delay table
	attempts int    // how often it had failed, then
	released bool   // its key was blocked for it
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
		"CREATE PUBLICATION " + witnessSlot + " FOR TABLE public.outbox, walrelay.emitted WITH (publish = 'insert')", create,
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
			'proto_version', '1', 'publication_names', $2::text])`, witnessSlot, witnessSlot)
	if err != nil {
		return nil, fmt.Errorf("reading the witness: %w", err)
	}
	defer rows.Close()
	w := witnessReader{columns: make(map[uint32]map[string]int)}
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
	columns map[uint32]map[string]int // relation to its columns
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
		columns := make(map[string]int)
		for i, column := range msg.Columns {
			columns[column.Name] = i
		}
		w.columns[msg.RelationID] = columns
	case *pglogrepl.InsertMessage:
		columns := w.columns[msg.RelationID]
		value := func(name string) string {
			if i, ok := columns[name]; ok {
				return string(msg.Tuple.Columns[i].Data)
			}
			return ""
		}
		e := witnessed{id: value("id")}
		if _, ok := columns["released"]; ok {
			e.back, e.released = value("origin") != "", value("released") == "t"
			if value("kind") == "marker" {
				e.marker, e.id = e.id, ""
			}
			if e.attempts, err = strconv.Atoi(value("attempts")); err != nil {
				return fmt.Errorf("a row of walrelay.emitted: attempts: %w", err)
			}
		}
		w.add(e)
	}
	return nil
}

func (w *witnessReader) add(e witnessed) {
	e.position = fmt.Sprintf("%016X.%08X", w.commit, w.index)
	w.index++
	w.events = append(w.events, e)
}
