package router

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// deniedError says that the NATS user may not publish to a subject.
type deniedError struct{ subject string }

func (e *deniedError) Error() string {
	return fmt.Sprintf("NATS permits this user no message on subject %q; grant it the permission to publish there, or correct the route's subject", e.subject)
}

// maxDenied is after how many different subjects, with no message stored between them,
// a lack of permission is everybody's: it is then an outage and no event's own fault.
const maxDenied = 3

// deniedSubject reads the subject from the server's error (nats-server answers
// `Permissions Violation for Publish to "…"`, and sends no acknowledgement).
func deniedSubject(err error) (subject string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	const before = ` for Publish to "`
	_, rest, found := strings.Cut(err.Error(), before)
	subject, _, closed := strings.Cut(rest, `"`)
	return subject, found && closed && subject != ""
}

// hearDenials has the writers hear of subjects that the user may not publish to, until
// the function that it returns is called.
func (r *Router) hearDenials() (stop func()) {
	before := r.nc.ErrorHandler()
	r.nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if subject, ok := deniedSubject(err); ok {
			for _, w := range r.ordered {
				w.deny(subject)
			}
		}
		if before != nil {
			before(nc, sub, err)
		}
	})
	return func() { r.nc.SetErrorHandler(before) }
}

// deny notes that the server has refused a message on the subject. It does not block.
func (w *writer) deny(subject string) {
	select {
	case w.denials <- subject:
	default: // whoever sends the message again hears it again
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.flows {
		return
	}
	if _, ok := w.denies(subject, w.base, w.next); ok {
		w.fail(&deniedError{subject})
	}
}

// denies returns the number of the flight from first to end, exclusive, that was refused
// when the server refused a message on the subject. w.mu is held.
func (w *writer) denies(subject string, first, end uint64) (n uint64, ok bool) {
	for n := first; n < end; n++ {
		f := w.at(n)
		var err error
		if w.subject, err = f.target.Subject.Append(w.subject[:0], f.ev); err == nil && string(w.subject) == subject {
			return n, true
		}
	}
	return 0, false
}

// deniedToAll reports whether so many subjects were refused, with nothing stored
// between them, that it is no event's own fault.
func (w *writer) deniedToAll(err error) bool {
	denied, ok := errors.AsType[*deniedError](err)
	if !ok {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.denied == nil {
		w.denied = make(map[string]bool, maxDenied)
	}
	if len(w.denied) < maxDenied {
		w.denied[denied.subject] = true
	}
	return len(w.denied) >= maxDenied
}
