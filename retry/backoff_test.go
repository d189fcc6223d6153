package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walrelay/walrelay/retry"
)

func TestBackoff_DoublesUpToTheMaximum(t *testing.T) {
	b := retry.NewBackoff(100*time.Millisecond, time.Second)
	for i, ms := range []int{100, 200, 400, 800, 1000, 1000, 1000} {
		full := time.Duration(ms) * time.Millisecond
		if d := b.Next(); d < full/2 || d > full {
			t.Errorf("delay %d is %v, want between %v and %v", i, d, full/2, full)
		}
	}
	b.Reset()
	if d := b.Next(); d > 100*time.Millisecond {
		t.Errorf("after a reset the delay is %v, want at most 100 ms", d)
	}
}

func TestBackoff_NeverExceedsTheMaximum(t *testing.T) {
	b := retry.NewBackoff(time.Minute, time.Second)
	for range 3 {
		if d := b.Next(); d > time.Second {
			t.Errorf("the delay is %v, want at most 1 s", d)
		}
	}
}

func TestBackoff_Jitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		seen[retry.NewBackoff(time.Second, time.Second).Next()] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 first delays have %d different values; those who failed together would come back together", len(seen))
	}
}

func TestBackoff_WaitBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := retry.NewBackoff(time.Second, time.Second)
		began := time.Now()
		if err := b.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 500*time.Millisecond || took > time.Second {
			t.Errorf("it blocked for %v, want between 0.5 s and 1 s", took)
		}
	})
}

func TestBackoff_WaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the server stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		began := time.Now()
		if err := retry.NewBackoff(time.Hour, time.Hour).Wait(ctx); !errors.Is(err, cause) {
			t.Errorf("it returned %v, want %v", err, cause)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it blocked for %v, want 1 s", took)
		}
	})
}
