package router

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/internal/problem"
)

// Origin names a relay by what it reads, and says what its positions mean.
type Origin struct {
	// SystemID is the database cluster's identifier, Slot the slot's name.
	SystemID, Slot string
	// Timeline is the one that the cluster is on, and Ended says at which LSN
	// each of the timelines before it ended.
	Timeline int32
	Ended    map[int32]uint64
	// WAL is the end of the cluster's WAL. No event can stand after it.
	WAL uint64
	// Key authenticates the positions of messages; without one they are believed.
	Key []byte
	// Unsigned says that the key is new: messages that an earlier version has
	// written since the stream's state was recorded are believed without a digest.
	Unsigned bool
}

func (o *Origin) String() string { return o.SystemID + "/" + o.Slot }

func (o *Origin) appendPosition(b []byte, p event.Position) []byte {
	b = p.Append(b)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(o.Timeline), 10)
	if began, ok := o.began(); ok {
		// For readers: what they have of the timeline before, after this LSN, are other events.
		b = append(b, '/')
		b = event.Position{CommitLSN: began}.AppendLSN(b)
	}
	b = append(b, ' ')
	b = append(b, o.SystemID...)
	b = append(b, '/')
	return append(b, o.Slot...)
}

// began returns the LSN at which the timeline began, which is where the one before it
// ended; false for the first.
func (o *Origin) began() (uint64, bool) {
	for before := o.Timeline - 1; before > 0; before-- {
		if end, ok := o.Ended[before]; ok {
			return end, true
		}
	}
	return 0, false
}

// parse reads the header of message seq, and returns the position up to which
// the message says that the stream has everything of this cluster's present
// timeline.
func (o *Origin) parse(stream string, seq uint64, header string) (event.Position, error) {
	fields := strings.Split(strings.TrimSuffix(header, event.LateSuffix), " ")
	if len(fields) != 3 {
		return event.Position{}, unreadable(stream, seq, fmt.Errorf("it has %d fields, want 3", len(fields)))
	}
	position, err := event.ParsePosition(fields[0])
	if err != nil {
		return event.Position{}, unreadable(stream, seq, err)
	}
	number, _, _ := strings.Cut(fields[1], "/")
	timeline, err := strconv.ParseInt(number, 10, 32)
	if err != nil {
		return event.Position{}, unreadable(stream, seq, fmt.Errorf("timeline: %w", err))
	}
	if fields[2] != o.String() {
		return event.Position{}, &problem.Problem{
			ID: "stream_other_writer",
			What: fmt.Sprintf("stream %q belongs to another relay: its message %d was written by %q, and this relay is %q (database system identifier and slot)",
				stream, seq, fields[2], o),
			Fix: "give each relay a stream of its own, or see docs/operations.md, \"A stream changes hands\"",
		}
	}
	end, known := o.Ended[int32(timeline)]
	switch {
	case int32(timeline) == o.Timeline:
		return position, nil
	case !known:
		return event.Position{}, &problem.Problem{
			ID: "timeline_unknown",
			What: fmt.Sprintf("message %d of stream %q was written from timeline %d of the database, which is not in the history of its present timeline %d",
				seq, stream, timeline, o.Timeline),
			Fix: "connect to the present primary; if the database was restored on purpose, see docs/operations.md, \"A database was restored\"",
		}
	case position.CommitLSN >= end:
		// The database lost what was committed after the end of the old
		// timeline; what now stands at those positions are other events.
		return event.Position{CommitLSN: end - 1, Index: math.MaxUint32}, nil
	}
	return position, nil
}

func unreadable(stream string, seq uint64, err error) error {
	return &problem.Problem{
		ID:   "position_unreadable",
		What: fmt.Sprintf("message %d of stream %q has a %s header that cannot be read: %v", seq, stream, event.PositionHeader, err),
		Fix:  "find out who writes into the stream",
	}
}

const (
	// apiTimeout bounds one request to the JetStream API, which is asked again:
	// while a stream has no leader, nobody answers.
	apiTimeout = 2 * time.Second
	// patience is how long a stream may be missing, or seem to have lost
	// messages, before that is believed: servers that start, and leaders that
	// have just been elected, may not know better yet.
	patience = 10 * time.Second
	// lookBack bounds the search for our own last message behind messages of
	// others, and repairLookBack that of a repair: a relay goes on without, a repair
	// would have to give up.
	lookBack       = 1000
	repairLookBack = 1_000_000
)

// StreamState is how far a stream is known to have come.
type StreamState struct {
	// Created is when the stream was created, by the server's clock.
	Created time.Time `json:"created"`
	// LastSequence is the sequence of our last message, and Position the
	// position of its event. Zero before the first.
	LastSequence uint64 `json:"last_sequence"`
	Position     string `json:"position"`
	// Repairing says that the stream lost events, and that a repair, which brings
	// them back, has begun and has not come to its end.
	Repairing bool `json:"repairing,omitempty"`
}

// ledger reads from a stream what it has.
type ledger struct {
	api

	origin Origin
	// signer compares digests; nil believes every position. known says that the
	// stream's state was recorded before.
	signer *event.Signer
	known  bool
	// lookBack is how many messages of others are passed over.
	lookBack uint64
}

// reading is what a ledger says.
type reading struct {
	created time.Time
	domain  string // the stream's JetStream domain; empty for none
	last    uint64 // the stream's last sequence
	// own says that the position was read from a message: of the last one, or
	// of our last one behind messages of others (foreign).
	own      bool
	position event.Position // the highest, if the last one came late
	foreign  uint64         // how many of the last messages are not ours
	tail     tail
	window   time.Duration // the stream's duplicate window
}

// read asks the stream's leader. Messages of others are passed over down to
// floor, exclusive.
func (l *ledger) read(ctx context.Context, floor uint64) (reading, error) {
	info, err := l.info(ctx)
	if err != nil {
		return reading{}, err
	}
	r := reading{created: info.Created, domain: info.Domain, last: info.State.LastSeq, window: info.Config.Duplicates}
	if r.last > l.lookBack {
		floor = max(floor, r.last-l.lookBack)
	}
	for seq := r.last; seq > floor; seq-- {
		position, late, err := l.placed(ctx, seq)
		switch {
		case err == nil:
			r.own = true
			if r.position.Compare(position) < 0 {
				r.position = position
			}
			if !late {
				return r, nil
			}
		case errors.Is(err, errGone):
			// Gone: consumed, expired or purged. What stands below it says
			// nothing of the last message, unless others wrote that.
			if r.foreign == 0 && !r.own {
				return r, nil
			}
		case errors.Is(err, errForeign):
			if !r.own {
				r.foreign++
			}
		default:
			return reading{}, err
		}
	}
	return r, nil
}

var errForeign = errors.New("the message has no position of this relay")

// position reads the position of the message with the sequence, from the
// stream's leader: a replica might not have it yet.
func (l *ledger) position(ctx context.Context, seq uint64) (event.Position, error) {
	position, _, err := l.placed(ctx, seq)
	return position, err
}

// placed returns the position of a message, and whether it stands after later ones.
func (l *ledger) placed(ctx context.Context, seq uint64) (position event.Position, late bool, err error) {
	msg, err := l.message(ctx, seq)
	if err != nil {
		return event.Position{}, false, err
	}
	position, err = l.positionOf(msg)
	return position, strings.HasSuffix(msg.header.Get(event.PositionHeader), event.LateSuffix), err
}

// positionOf returns the position of a message, if this relay wrote it.
func (l *ledger) positionOf(msg stored) (event.Position, error) {
	seq, value := msg.sequence, msg.header.Get(event.PositionHeader)
	if value == "" {
		return event.Position{}, errForeign
	}
	if l.signer == nil || l.signer.Signs(seq, value, msg.header.Get(event.DigestHeader)) {
		return l.origin.parse(l.stream, seq, value)
	}
	// Anybody who may publish into the stream can have written it. Only before the
	// relay has ever written there does the name of another one mean something.
	position, err := l.origin.parse(l.stream, seq, value)
	switch found, isProblem := problem.Find(err); {
	case isProblem && found.ID == "stream_other_writer" && !l.known:
		return event.Position{}, err
	case err == nil && l.origin.Unsigned && l.known:
		return position, nil
	}
	return event.Position{}, errForeign
}

// messageID reads the Nats-Msg-Id of a message; "" when it is gone.
func (l *ledger) messageID(ctx context.Context, seq uint64) (string, error) {
	msg, err := l.message(ctx, seq)
	if errors.Is(err, errGone) {
		return "", nil
	}
	return msg.header.Get(nats.MsgIdHdr), err
}

var errNoStreamForSubject = errors.New("no stream takes the subject")

// errOtherStream says that another stream than the route's takes the subject.
var errOtherStream = errors.New("another stream takes the subject")

// takes asks whether the stream takes the subject, after the server answered
// that nobody does.
func (l *ledger) takes(ctx context.Context, subject string) error {
	name, err := l.streamOf(ctx, subject)
	switch {
	case err != nil:
		return err
	case name == "":
		return fmt.Errorf("%w %q: add it to the subjects of stream %q, or a route for this type of event", errNoStreamForSubject, subject, l.stream)
	case name != l.stream:
		return fmt.Errorf("%w: subject %q belongs to stream %q, and the route says %q; correct the route's stream or subject", errOtherStream, subject, name, l.stream)
	}
	return nil
}
