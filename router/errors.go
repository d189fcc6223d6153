package router

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/problem"
)

// Class says whom a failure concerns, and so what happens.
type Class uint8

const (
	// Outage means that everyone suffers. The stream is paused and tried again.
	Outage Class = iota
	// Poison means that only this event suffers, and would again.
	Poison
	// Configuration means that somebody has to change something; trying again is of no
	// use.
	Configuration
)

func (c Class) String() string {
	switch c {
	case Poison:
		return "poison"
	case Configuration:
		return "configuration"
	case Outage:
	}
	return "outage"
}

// EventError says why one event is not published, and of which class that is.
type EventError struct {
	Class         Class
	Schema, Table string
	ID            string
	Err           error
}

func (e *EventError) Error() string {
	return fmt.Sprintf("event %q of table %s.%s: %v", e.ID, e.Schema, e.Table, e.Err)
}

func (e *EventError) Unwrap() error { return e.Err }

// Error codes of the JetStream API (nats-server, server/errors.json).
const (
	codeStreamNotFound    = 10059
	codeNoMessageFound    = 10037
	codeWrongStream       = 10060
	codeWrongLastSequence = 10071
	codeSequenceInProcess = 10164
	codeMessageTooLarge   = 10054
	codeHeaderTooLarge    = 10097
	codeStoreFailed       = 10077
	codeStreamSealed      = 10109
	codeTTLDisabled       = 10166
	codeTTLInvalid        = 10165
	codeScheduleDisabled  = 10188
	codeRollupDisabled    = 10111
	codeBatchDisabled     = 10174
	codeBatchTooLarge     = 10199
	codeBatchDuplicate    = 10201

	// maxMessagesPerSubject is the text by which a failed store is told apart:
	// the code alone may as well mean a full stream.
	maxMessagesPerSubject = "maximum messages per subject exceeded"
)

var errNotConnected = errors.New("not connected to NATS")

// errClosed says that the client has given up the connection, as it does after
// some faults that the server calls violations of the protocol. Another one has
// to be made.
var errClosed = errors.New("the connection to NATS was closed")

// errWrongLastSequence says that the fence was tripped: it is no failure of
// the event, only the reason to read what the stream has.
var errWrongLastSequence = errors.New("the stream's last sequence is not the expected one")

// classify says of which class a failed publish is. Anything unknown is an
// outage: holding loses nothing.
func classify(err error) Class {
	if _, ok := problem.Find(err); ok {
		return Configuration
	}
	if _, ok := errors.AsType[*SubjectError](err); ok {
		return Poison
	}
	if _, ok := errors.AsType[*deniedError](err); ok {
		return Poison
	}
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) || errors.Is(err, errNoStreamForSubject) || errors.Is(err, errOtherStream) {
		return Poison
	}
	if apiErr, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch int(apiErr.ErrorCode) {
		case codeMessageTooLarge, codeHeaderTooLarge, codeBatchTooLarge, codeBatchDuplicate, codeWrongStream:
			return Poison
		case codeStoreFailed:
			if strings.Contains(apiErr.Description, maxMessagesPerSubject) {
				return Poison
			}
		case codeStreamSealed, codeTTLDisabled, codeTTLInvalid, codeScheduleDisabled, codeRollupDisabled, codeBatchDisabled:
			return Configuration
		}
	}
	return Outage
}

// isAPIError reports whether err is the JetStream API's error of that code.
func isAPIError(err error, code int) bool {
	apiErr, ok := errors.AsType[*jetstream.APIError](err)
	return ok && int(apiErr.ErrorCode) == code
}

// isDone reports whether err only says that the context has ended.
func isDone(ctx context.Context) bool { return ctx.Err() != nil }
