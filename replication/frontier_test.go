package replication

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
)

// take adds n events to the frontier.
func take(t *testing.T, f *Frontier, n int) []Ticket {
	t.Helper()
	tickets := make([]Ticket, n)
	for i := range tickets {
		ticket, err := f.Add(t.Context())
		if err != nil {
			t.Fatalf("taking event %d: %v", i, err)
		}
		tickets[i] = ticket
	}
	return tickets
}

func commit(t *testing.T, f *Frontier, end LSN) {
	t.Helper()
	if err := f.Commit(end); err != nil {
		t.Fatalf("commit at %s: %v", end, err)
	}
}

func TestFrontier_WaitsForEveryEvent(t *testing.T) {
	t.Parallel()
	f := NewFrontier(100, 64)
	first := take(t, f, 2)
	commit(t, f, 200)
	second := take(t, f, 1)
	commit(t, f, 300)

	f.Settle(second[0])
	f.Settle(first[1])
	if got := f.LSN(); got != 100 {
		t.Fatalf("the frontier is at %s although the first event is not settled, want 0/64", got)
	}
	f.Settle(first[0])
	if got := f.LSN(); got != 300 {
		t.Fatalf("the frontier is at %s with every event done, want the end of the last transaction", got)
	}
}

func TestFrontier_StaysBeforeOpenTransaction(t *testing.T) {
	t.Parallel()
	f := NewFrontier(100, 64)
	for _, ticket := range take(t, f, 3) {
		f.Settle(ticket)
	}
	if got := f.LSN(); got != 100 {
		t.Fatalf("the frontier is at %s before the transaction ended, want 0/64", got)
	}
	commit(t, f, 200)
	if got := f.LSN(); got != 200 {
		t.Fatalf("the frontier is at %s after the transaction ended, want 0/C8", got)
	}
}

func TestFrontier_KeepaliveWaitsForEarlierEvents(t *testing.T) {
	t.Parallel()
	f := NewFrontier(100, 64)
	ticket := take(t, f, 1)[0]
	commit(t, f, 200)
	if err := f.Keepalive(900); err != nil {
		t.Fatal(err)
	}
	if got := f.LSN(); got != 100 {
		t.Fatalf("a keepalive moved the frontier to %s past an unsettled event", got)
	}
	f.Settle(ticket)
	if got := f.LSN(); got != 900 {
		t.Fatalf("the frontier is at %s once nothing is pending, want the keepalive's 0/384", got)
	}
	if err := f.Keepalive(500); err != nil {
		t.Fatal(err)
	}
	if got := f.LSN(); got != 900 {
		t.Fatalf("an old keepalive moved the frontier back to %s", got)
	}
}

func TestFrontierRefusesAServerThatGoesBack(t *testing.T) {
	t.Parallel()
	f := NewFrontier(100, 64)
	commit(t, f, 300)
	if err := f.Commit(200); err == nil {
		t.Fatal("a commit before an earlier one was taken")
	}
}

func TestFrontier_AnyOrderOfSettling(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		f := NewFrontier(0, 128)
		type transaction struct {
			end  LSN
			open map[Ticket]bool
		}
		var all []transaction
		var open []Ticket
		owner := map[Ticket]int{}
		check := func() {
			want := LSN(0)
			for _, tx := range all {
				if len(tx.open) > 0 {
					break
				}
				want = tx.end
			}
			if got := f.LSN(); got != want {
				t.Fatalf("seed %d: the frontier is at %s, want %s", seed, got, want)
			}
		}
		for range 60 {
			tx := transaction{end: LSN(100 * (len(all) + 1)), open: map[Ticket]bool{}}
			for range random.IntN(4) {
				if f.Pending() == 128 {
					break
				}
				ticket := take(t, f, 1)[0]
				tx.open[ticket] = true
				owner[ticket] = len(all)
				open = append(open, ticket)
			}
			all = append(all, tx)
			commit(t, f, tx.end)
			for len(open) > 0 && random.IntN(3) > 0 {
				i := random.IntN(len(open))
				ticket := open[i]
				open = append(open[:i], open[i+1:]...)
				delete(all[owner[ticket]].open, ticket)
				f.Settle(ticket)
				check()
			}
		}
		for _, ticket := range open {
			delete(all[owner[ticket]].open, ticket)
			f.Settle(ticket)
			check()
		}
	}
}

func TestFullFrontierBlocksUntilAnOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := NewFrontier(0, 64)
		tickets := take(t, f, 64)
		added := make(chan error, 1)
		go func() {
			_, err := f.Add(t.Context())
			added <- err
		}()
		f.Settle(tickets[1])
		synctest.Wait()
		select {
		case err := <-added:
			t.Fatalf("an event was taken into a full window (%v)", err)
		default:
		}
		f.Settle(tickets[0])
		if err := <-added; err != nil {
			t.Fatal(err)
		}
	})
}

func TestFullFrontierGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	f := NewFrontier(0, 64)
	take(t, f, 64)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := f.Add(ctx); !errors.Is(err, cause) {
		t.Fatalf("taking an event into a full window gives %v, want the context's cause", err)
	}
}

func TestFrontier_PanicsAtImpossibleSettling(t *testing.T) {
	t.Parallel()
	for name, done := range map[string]func(*Frontier, []Ticket){
		"twice":          func(f *Frontier, open []Ticket) { f.Settle(open[1]); f.Settle(open[1]) },
		"long ago":       func(f *Frontier, open []Ticket) { f.Settle(open[0]); f.Settle(open[0]) },
		"not handed out": func(f *Frontier, _ []Ticket) { f.Settle(17) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := NewFrontier(0, 64)
			open := take(t, f, 2)
			defer func() {
				if recover() == nil {
					t.Error("it was taken")
				}
			}()
			done(f, open)
		})
	}
}

func TestReportRefusesAnLSNPastTheFrontier(t *testing.T) {
	t.Parallel()
	s := &Stream{frontier: NewFrontier(100, 64), kick: make(chan struct{}, 1)}
	s.reported.Store(100)
	take(t, s.frontier, 1)
	commit(t, s.frontier, 200)
	if err := s.Report(200); err == nil {
		t.Fatal("an LSN past an unsettled event was reported")
	}
	if got := s.Reported(); got != 100 {
		t.Fatalf("the reported LSN is %s after a refusal, want 0/64", got)
	}
	s.frontier.Settle(0)
	if err := s.Report(200); err != nil {
		t.Fatal(err)
	}
	if err := s.Report(150); err != nil || s.Reported() != 200 {
		t.Fatalf("reporting an earlier LSN gives %v and %s, want it ignored", err, s.Reported())
	}
}

func BenchmarkFrontier(b *testing.B) {
	f := NewFrontier(0, 1<<16)
	ctx := b.Context()
	b.ReportAllocs()
	end := LSN(0)
	for b.Loop() {
		ticket, err := f.Add(ctx)
		if err != nil {
			b.Fatal(err)
		}
		end++
		if err := f.Commit(end); err != nil {
			b.Fatal(err)
		}
		f.Settle(ticket)
	}
}
