package relay

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/retry"
)

func TestBurst_FailuresOfOneKindAreSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := newBurst()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.run(ctx, zerolog.New(&out))
		}()
		many := failureKind{"public.outbox", "a.bad", retry.Failed}
		admitted := 0
		for range 20_000 {
			if b.admit(many, "no number") {
				admitted++
			}
		}
		if admitted != burstLines {
			t.Errorf("%d lines of one kind", admitted)
		}
		if !b.admit(failureKind{"public.outbox", "b.bad", retry.Failed}, "no stream") {
			t.Error("a failure of another kind is not logged")
		}
		time.Sleep(burstWindow)
		synctest.Wait()
		if got := out.String(); !strings.Contains(got, `"events":19990,"type":"a.bad"`) || !strings.Contains(got, `"last_reason":"no number"`) || strings.Count(got, "\n") != 1 {
			t.Errorf("at the end of the window: %s", got)
		}
		if !b.admit(many, "no number") {
			t.Error("the next window logs nothing")
		}
		// What was counted is not lost with the session.
		for range burstLines + 5 {
			b.admit(many, "again")
		}
		cancel()
		<-done
		if got := out.String(); !strings.Contains(got, `"events":6,"type":"a.bad"`) {
			t.Errorf("at the end: %s", got)
		}
	})
}

func TestBurst_KindsAreBounded(t *testing.T) {
	b := newBurst()
	for n := range 10 * burstKinds {
		b.admit(failureKind{"public.outbox", strings.Repeat("x", n), retry.Failed}, "")
	}
	if n := len(b.kinds); n > burstKinds+1 {
		t.Errorf("%d kinds are told apart", n)
	}
}
