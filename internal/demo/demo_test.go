package demo

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is what somebody sees, and says when all of some texts are there.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	want []string
	all  context.CancelFunc
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	for _, want := range s.want {
		if !strings.Contains(s.text.String(), want) {
			return len(b), nil
		}
	}
	s.all()
	return len(b), nil
}

func TestRun_ShowsTheWholeWay(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := &screen{all: cancel, want: []string{
		"application        committed", "consumer     got events.order.paid", "handler      billed order",
		"cannot bill order 4 of user 7: the account is closed", "bin/walrelay parked redrive ",
	}}
	if err := Run(ctx, Options{Pause: 20 * time.Millisecond, Out: s, Log: zerolog.Nop()}); err != nil {
		t.Error(err)
	}
	for _, want := range append(s.want, "The demo has ended.") {
		if !strings.Contains(s.text.String(), want) {
			t.Errorf("nobody sees %q in:\n%s", want, s.text.String())
		}
	}
}
