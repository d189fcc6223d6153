package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// publishWindow is how many messages the bare publisher has under way.
const publishWindow = 4096

// pgoutput's messages begin with their kind (Postgres manual, "Logical
// Replication Message Formats"); xLogDataHeader bytes stand before them.
const (
	kindInsert     = 'I'
	xLogDataHeader = 25
)

// readBuffer is how much the readers take from the socket at once, as much as
// the relay does.
const readBuffer = 256 << 10

// patient waits a moment before it reads. The server sends each message by
// itself; a reader that is faster than it would be woken for every one, which
// costs both so much that it is slower than one with more to do.
type patient struct{ r io.Reader }

// Read implements io.Reader.
func (p patient) Read(b []byte) (int, error) {
	time.Sleep(pause)
	return p.r.Read(b)
}

// pause is how long the limits wait for more to do at once.
const pause = 200 * time.Microsecond

// statusInterval is how often the readers tell the server that they live; by
// default it gives up a silent one after a minute.
const statusInterval = 10 * time.Second

// errEnough ends the reading.
var errEnough = errors.New("enough was read")

// readSlot reads the slot beside the relay's, from its start, and hands on each
// message of pgoutput, until handle returns errEnough. The slot stays where it
// is, so that it can be read again. The bytes are good until handle returns.
func (b *bench) readSlot(ctx context.Context, handle func(message []byte) error) error {
	// The reader before may not have let go of it yet.
	if err := b.awaitUnused(ctx, bareSlot); err != nil {
		return err
	}
	config, err := pgconn.ParseConfig(b.postgres)
	if err != nil {
		return fmt.Errorf("reading slot %q: %w", bareSlot, err)
	}
	config.RuntimeParams["replication"] = "database"
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(patient{r}, readBuffer), w)
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connecting to read slot %q: %w", bareSlot, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pglogrepl.StartReplication(ctx, conn, bareSlot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + publication + "'"},
	})
	if err != nil {
		return fmt.Errorf("reading slot %q: %w", bareSlot, err)
	}
	told := time.Now()
	for n := 0; ; n++ {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return fmt.Errorf("reading slot %q: %w", bareSlot, err)
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok || len(data.Data) == 0 {
			continue
		}
		switch {
		case data.Data[0] == pglogrepl.XLogDataByteID && len(data.Data) > xLogDataHeader:
			if err := handle(data.Data[xLogDataHeader:]); errors.Is(err, errEnough) {
				return nil
			} else if err != nil {
				return err
			}
		case data.Data[0] == pglogrepl.PrimaryKeepaliveMessageByteID:
			told = time.Time{}
		}
		if n%1024 == 0 || told.IsZero() {
			if time.Since(told) < statusInterval {
				continue
			}
			// An LSN that every slot has passed: it confirms nothing.
			if err := pglogrepl.SendStandbyStatusUpdate(ctx, conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: 1}); err != nil {
				return fmt.Errorf("reading slot %q: %w", bareSlot, err)
			}
			told = time.Now()
		}
	}
}

// bareReader counts the events of the backlog, and does nothing else with them.
func (b *bench) bareReader(ctx context.Context, events int) (perSecond float64, err error) {
	var first time.Time
	n := 0
	err = b.readSlot(ctx, func(message []byte) error {
		if message[0] != kindInsert {
			return nil
		}
		if n++; n == 1 {
			first = time.Now()
		}
		if n == events {
			return errEnough
		}
		return nil
	})
	return rate(events, time.Since(first)), err
}

// barePublisher publishes the events of the backlog as any program may: without
// waiting for each acknowledgement, and with no regard to order.
func (b *bench) barePublisher(ctx context.Context, load *workload, first, events int) (perSecond float64, err error) {
	if err := b.createBareStream(ctx); err != nil {
		return 0, err
	}
	var mu sync.Mutex
	var refused error
	js, err := b.jetstream(jetstream.WithPublishAsyncMaxPending(publishWindow), jetstream.WithPublishAsyncTimeout(ackPatience),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
			mu.Lock()
			defer mu.Unlock()
			refused = errors.Join(refused, err)
		}))
	if err != nil {
		return 0, err
	}
	created := time.Now().UTC().Format(time.RFC3339Nano)
	for n := first; n < first+events; n++ {
		msg := message(eventID(n), load.eventType(n), strconv.Itoa(n), created, []byte(load.data(n)))
		if _, err := js.PublishMsgAsync(msg, jetstream.WithStallWait(ackPatience)); err != nil {
			return 0, fmt.Errorf("publishing to stream %q: %w", bareStream, err)
		}
		if n%(publishWindow/16) != 0 {
			continue
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		// Left to itself, the client stalls at a full window and goes on at every
		// acknowledgement, with one message.
		for js.PublishAsyncPending() > publishWindow*3/4 {
			if err := sleep(ctx, pause); err != nil {
				return 0, err
			}
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	mu.Lock()
	defer mu.Unlock()
	if refused != nil {
		return 0, fmt.Errorf("publishing to stream %q: %w", bareStream, refused)
	}
	return b.storedRate(ctx, bareStream, 0, events)
}

// ackPatience is how long the publishers wait for an acknowledgement.
const ackPatience = 30 * time.Second

// synchronous is the simplest relay that loses nothing and keeps the order: it
// reads an event, publishes it, waits for the acknowledgement, and goes on.
func (b *bench) synchronous(ctx context.Context, events int) (perSecond float64, err error) {
	if err := b.createBareStream(ctx); err != nil {
		return 0, err
	}
	columns := map[string]int{}
	n := 0
	err = b.readSlot(ctx, func(data []byte) error {
		parsed, err := pglogrepl.Parse(data)
		if err != nil {
			return fmt.Errorf("decoding: %w", err)
		}
		switch m := parsed.(type) {
		case *pglogrepl.RelationMessage:
			for i, column := range m.Columns {
				columns[column.Name] = i
			}
		case *pglogrepl.InsertMessage:
			column := func(name string) string { return string(m.Tuple.Columns[columns[name]].Data) }
			msg := message(column("id"), column("event_type"), column("subject"), column("created_at"), m.Tuple.Columns[columns["data"]].Data)
			ctx, cancel := context.WithTimeout(ctx, ackPatience)
			defer cancel()
			if _, err := b.js.PublishMsg(ctx, msg); err != nil {
				return fmt.Errorf("publishing to stream %q: %w", bareStream, err)
			}
			if n++; n == events {
				return errEnough
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return b.storedRate(ctx, bareStream, 0, events)
}

// message is an event as the relay publishes it, less what is the relay's own.
func message(id, eventType, subject, created string, data []byte) *nats.Msg {
	return &nats.Msg{
		Subject: barePrefix + eventType,
		Data:    data,
		Header: nats.Header{
			"ce-specversion":     {"1.0"},
			"ce-id":              {id},
			"ce-source":          {source},
			"ce-type":            {eventType},
			"ce-subject":         {subject},
			"ce-time":            {created},
			"ce-datacontenttype": {"application/json"},
			nats.MsgIdHdr:        {id},
		},
	}
}

// eventID is as long as the identifiers that the outbox table gives.
func eventID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// createBareStream makes the stream for messages that are not the relay's, as
// Setup makes the relay's; empty, and with no memory of identifiers.
func (b *bench) createBareStream(ctx context.Context) error {
	if err := b.js.DeleteStream(ctx, bareStream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("deleting stream %q: %w", bareStream, err)
	}
	own, err := b.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("asking NATS for stream %q: %w", stream, err)
	}
	config := own.CachedInfo().Config
	config.Name, config.Subjects = bareStream, []string{barePrefix + ">"}
	if _, err := b.js.CreateStream(ctx, config); err != nil {
		return fmt.Errorf("creating stream %q: %w", bareStream, err)
	}
	return nil
}

// storedRate is how many messages a second were stored, by the times that the
// server gave to the first and the last of n messages behind a sequence.
func (b *bench) storedRate(ctx context.Context, name string, behind uint64, n int) (perSecond float64, err error) {
	s, err := b.js.Stream(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("asking NATS for stream %q: %w", name, err)
	}
	var times [2]time.Time
	for i, sequence := range []uint64{behind + 1, behind + uint64(n)} {
		msg, err := s.GetMsg(ctx, sequence)
		if err != nil {
			return 0, fmt.Errorf("reading message %d of stream %q: %w", sequence, name, err)
		}
		times[i] = msg.Time
	}
	return rate(n, times[1].Sub(times[0])), nil
}

// rate is how many events a second passed, when so long lies between the first
// and the last of n.
func rate(n int, taken time.Duration) float64 {
	return float64(n-1) / max(taken, time.Microsecond).Seconds()
}
