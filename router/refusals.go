package router

import (
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// refusals are what the server has refused just now and would refuse again: a size, and
// subjects. An event like that need not be sent to find out: among many of them each
// would cost three round trips. The writer's lock guards it.
type refusals struct {
	size     int // of the smallest message that was too large
	sizeErr  error
	until    time.Time // of size
	subjects map[string]refusal
}

type refusal struct {
	err   error
	until time.Time
}

const (
	// remembered is for how long a refusal counts: then an event is sent again, since
	// somebody may have changed the stream.
	remembered = 5 * time.Second
	// maxRefused is how many subjects are remembered.
	maxRefused = 256
)

// knownRefusal says that an event was not sent, as the server has refused one like it.
type knownRefusal struct{ error }

func (e *knownRefusal) Unwrap() error { return e.error }

// learn remembers why the server has refused the message.
func (r *refusals) learn(msg *nats.Msg, err error) {
	if _, known := errors.AsType[*knownRefusal](err); known {
		return
	}
	until := time.Now().Add(remembered)
	switch {
	case isAPIError(err, codeMessageTooLarge):
		if size := wireSize(msg); r.size == 0 || size < r.size || time.Now().After(r.until) {
			r.size = size
		}
		r.sizeErr, r.until = err, until
	case errors.Is(err, errNoStreamForSubject), errors.Is(err, errOtherStream), isAPIError(err, codeWrongStream):
		if r.subjects == nil || len(r.subjects) >= maxRefused {
			r.subjects = make(map[string]refusal)
		}
		r.subjects[msg.Subject] = refusal{err, until}
	}
}

// check returns why the server would refuse the message, as far as is known.
func (r *refusals) check(msg *nats.Msg) error {
	if r.size == 0 && len(r.subjects) == 0 {
		return nil
	}
	now := time.Now()
	if r.size > 0 {
		if now.After(r.until) {
			r.size = 0
		} else if wireSize(msg) >= r.size {
			return &knownRefusal{r.sizeErr}
		}
	}
	if known, ok := r.subjects[msg.Subject]; ok {
		if now.Before(known.until) {
			return &knownRefusal{known.err}
		}
		delete(r.subjects, msg.Subject)
	}
	return nil
}

// wireSize is what max_msg_size of a stream bounds: headers as they are sent, and data.
func wireSize(msg *nats.Msg) int {
	n := len(msg.Data)
	for name, values := range msg.Header {
		for _, value := range values {
			n += len(name) + len(value) + len(": \r\n")
		}
	}
	return n
}
