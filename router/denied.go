package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/event"
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

// deniedToAll reports whether the user may publish nothing that the stream takes, so that
// it is no event's own fault: the server says so, or, where the user may not ask, so many
// subjects were refused with nothing stored between them.
func (w *writer) deniedToAll(ctx context.Context, err error) bool {
	denied, ok := errors.AsType[*deniedError](err)
	if !ok {
		return false
	}
	w.mu.Lock()
	if w.denied == nil {
		w.denied = make(map[string]bool, maxDenied)
	}
	if len(w.denied) < maxDenied {
		w.denied[denied.subject] = true
	}
	many := len(w.denied) >= maxDenied
	w.mu.Unlock()
	if many || time.Now().Before(w.askUserAfter) {
		return many
	}
	nothing, err := w.ledger.mayPublishNothing(ctx, denied.subject)
	if err != nil {
		// Not permitted, mostly; each time would cost a timeout.
		w.askUserAfter = time.Now().Add(time.Minute)
	}
	return err == nil && nothing
}

// userInfo is what a server answers about the user that asks (NATS manual, "System
// Events", "User Services").
type userInfo struct {
	apiAnswer
	Data struct {
		Permissions *struct {
			Publish *Permission `json:"publish"`
		} `json:"permissions"`
	} `json:"data"`
}

// Permission says where a user of NATS may publish: where no pattern denies it, and one allows
// it, if there are any. nil is everywhere.
type Permission struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny"`
}

// AskPermission asks the server where the user of the connection may publish. It blocks for 5 s
// at most, and that long if the user may not ask.
func AskPermission(ctx context.Context, nc *nats.Conn) (*Permission, error) {
	user, a := &userInfo{}, api{nc: nc}
	if err := a.askSubject(ctx, "$SYS.REQ.USER.INFO", nil, user); err != nil {
		return nil, fmt.Errorf("asking for the permissions of the NATS user: %w", err)
	}
	if user.Data.Permissions == nil {
		return nil, nil //nolint:nilnil // everywhere
	}
	return user.Data.Permissions.Publish, nil
}

// Permits reports whether some subject of the pattern is permitted, as far as one
// pattern alone does not deny them all.
func (p *Permission) Permits(pattern string) bool {
	return p.permits(pattern, event.PatternCovers, event.PatternsOverlap)
}

// PermitsAll reports whether all subjects of the pattern are permitted, as far as one pattern alone
// allows them.
func (p *Permission) PermitsAll(pattern string) bool {
	return p.permits(pattern, event.PatternsOverlap, event.PatternCovers)
}

func (p *Permission) permits(pattern string, denies, allows func(of, pattern string) bool) bool {
	if p == nil {
		return true
	}
	deny := func(of string) bool { return denies(of, pattern) }
	allow := func(of string) bool { return allows(of, pattern) }
	return !slices.ContainsFunc(p.Deny, deny) && (len(p.Allow) == 0 || slices.ContainsFunc(p.Allow, allow))
}

// mayPublishNothing reports whether the user may publish to none of the stream's
// subjects, of which the refused one must be one: else a subject mapping or an import
// stands between them.
func (a *api) mayPublishNothing(ctx context.Context, refused string) (bool, error) {
	info, err := a.info(ctx)
	if err != nil {
		return false, fmt.Errorf("asking for the subjects of stream %q: %w", a.stream, err)
	}
	permission, err := AskPermission(ctx, a.nc)
	if err != nil {
		return false, err
	}
	taken := false
	for _, subject := range info.Config.Subjects {
		if permission.Permits(subject) {
			return false, nil
		}
		taken = taken || event.PatternCovers(subject, refused)
	}
	return taken, nil
}
