package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// tale builds a story: what was committed, one event a transaction, and what
// was stored of it.
type tale struct {
	story
	base time.Time
}

func newTale() *tale {
	return &tale{story: story{memoryLimit: 100 << 20, peaks: map[string]int64{}}, base: time.Unix(1_700_000_000, 0)}
}

func (t *tale) commit(id string, k kind, key string) *expected {
	e := &expected{id: id, what: k.String(), kind: k, key: key}
	t.transactions = append(t.transactions, &transaction{outcome: committed, events: []*expected{e}})
	t.log(id, false, 0)
	return e
}

// log puts an event into the write-ahead log.
func (t *tale) log(id string, back bool, attempts int) {
	n := uint64(len(t.witness) + 1)
	t.witness = append(t.witness, witnessed{id: id, position: fmt.Sprintf("%016X.00000000", n*16), end: n*16 + 8, back: back, attempts: attempts})
}

func (t *tale) store(ids ...string) {
	for _, id := range ids {
		n := len(t.stream) + 1
		t.stream = append(t.stream, stored{sequence: uint64(n), at: t.base.Add(time.Duration(n) * time.Second), id: id})
	}
}

func (t *tale) fail(id string) { t.delayed = append(t.delayed, delayed{id, "failed", "too large"}) }

func TestJudge_FindsViolations(t *testing.T) {
	for _, c := range []struct {
		name string
		tell func(*tale)
		want []string // beginnings; none if all is well
	}{
		{"all is well", func(s *tale) {
			s.commit("a", plain, "")
			s.commit("b", poison, "")
			s.commit("c", scheduled, "")
			s.log("c", true, 0)
			s.store("a", "c")
			s.fail("b")
		}, nil},
		{"lost", func(s *tale) {
			s.commit("a", plain, "")
			s.commit("b", plain, "")
			s.store("a")
		}, []string{"P1: event b (plain)"}},
		{"doubled", func(s *tale) {
			s.commit("a", plain, "")
			s.store("a", "a")
		}, []string{"P2: event a", "P3: message 2 has event a"}},
		{"of nobody", func(s *tale) { s.store("x") }, []string{"P1: message 1 has event x, which nobody wrote"}},
		{"rolled back and stored", func(s *tale) {
			s.transactions = append(s.transactions, &transaction{outcome: rolledBack, events: []*expected{{id: "a"}}})
			s.store("a")
		}, []string{"P1: message 1 has event a"}},
		{"rolled back and committed", func(s *tale) {
			s.commit("a", plain, "").what = "x"
			s.transactions[0].outcome = rolledBack
			s.store("a")
		}, []string{"Postgres: event a (x) was rolled back"}},
		{"committed and not in the log", func(s *tale) {
			s.transactions = append(s.transactions, &transaction{outcome: committed, events: []*expected{{id: "a"}}})
		}, []string{"Postgres: event a"}},
		{"maybe committed, and not", func(s *tale) {
			s.transactions = append(s.transactions, &transaction{events: []*expected{{id: "a"}}})
		}, nil},
		{"in another order", func(s *tale) {
			s.commit("a", plain, "")
			s.commit("b", plain, "")
			s.store("b", "a")
		}, []string{"P3: message 2 has event a"}},
		{"in another order, given back", func(s *tale) {
			s.commit("a", patient, "")
			s.commit("b", plain, "")
			s.log("a", true, 1)
			s.store("b", "a")
		}, nil},
		{"in another order than its key", func(s *tale) {
			s.commit("a", plain, "k")
			s.commit("b", plain, "k")
			s.log("a", true, 0)
			s.store("b", "a")
		}, []string{"P3: event a (plain) of key \"k\""}},
		{"at another place than it says", func(s *tale) {
			s.commit("a", plain, "")
			s.store("a")
			s.stream[0].position = "0000000000000001.00000000"
		}, []string{"P3: message 1 has event a and says that it stands at"}},
		{"early", func(s *tale) {
			s.commit("a", scheduled, "").due = s.base.Add(time.Hour)
			s.store("a")
		}, []string{"P3: event a (scheduled) is stored 59m59s before its time"}},
		{"confirmed before it is stored", func(s *tale) {
			s.commit("a", plain, "")
			s.commit("b", plain, "")
			s.store("a", "b")
			s.flushes = []flushed{{s.base.Add(1500 * time.Millisecond), 24}, {s.base.Add(1500 * time.Millisecond), 40}}
		}, []string{"P1: the slot had confirmed 0/28 500ms before event b was stored"}},
		{"poison that is stored", func(s *tale) {
			s.commit("a", poison, "")
			s.store("a")
			s.fail("a")
		}, []string{"P5: event a (poison) cannot be published"}},
		{"poison that is nowhere", func(s *tale) { s.commit("a", poison, "") }, []string{"P1: event a (poison) is neither stored nor has it failed"}},
		{"in the delay table for no reason", func(s *tale) {
			s.commit("a", plain, "")
			s.store("a")
			s.fail("a")
		}, []string{"P5: event a (plain) is in the delay table as failed"}},
		{"tried again for no reason", func(s *tale) {
			s.commit("a", plain, "")
			s.log("a", true, 1)
			s.store("a")
		}, []string{"P5: event a (plain) was tried again 1 times"}},
		{"called published too early", func(s *tale) {
			s.commit("a", plain, "")
			s.commit("b", scheduled, "")
			s.log("b", true, 0)
			s.store("a", "b")
			s.published = map[string]time.Time{"a": s.stream[0].at, "b": s.stream[1].at.Add(-time.Second)}
		}, []string{"status: event b (scheduled) was said to be published 1s before"}},
		{"called published and stored never", func(s *tale) {
			s.commit("a", poison, "")
			s.fail("a")
			s.published = map[string]time.Time{"a": s.base}
		}, []string{"status: event a (poison) was said to be published"}},
		{"too much memory", func(s *tale) { s.peaks["relay-a"] = 200 << 20 }, []string{"P4: relay-a took 200 MiB"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTale()
			c.tell(s)
			got := s.violations()
			if len(got) != len(c.want) {
				t.Fatalf("found %d violations, want %d:\n%s", len(got), len(c.want), strings.Join(got, "\n"))
			}
			for i, want := range c.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("found %q, want %q", got[i], want)
				}
			}
		})
	}
}

func TestJudge_CountsRepetitions(t *testing.T) {
	s := newTale()
	for i := range 20 {
		s.commit(fmt.Sprint(i), plain, "")
	}
	got := s.violations()
	if len(got) != examples+1 || got[examples] != "… and 15 more like the last" {
		t.Errorf("found:\n%s", strings.Join(got, "\n"))
	}
}

func TestPlan_BySeed(t *testing.T) {
	names := func(seed uint64) (all []string) {
		planned, err := plan(options{}, newRand(seed, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range planned {
			for _, f := range s.faults {
				all = append(all, s.setting.name+"/"+f.name)
			}
		}
		return all
	}
	first, again, other := names(1), names(1), names(2)
	if !slices.Equal(first, again) {
		t.Error("the same seed made two plans")
	}
	if slices.Equal(first, other) {
		t.Error("two seeds made the same plan")
	}
}

func TestFaults_AreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, f := range faults() {
		if !strings.Contains(string(page), "| `"+f.name+"` |") {
			t.Errorf("docs/faults.md has no line about %s", f.name)
		}
		if seen[f.name] {
			t.Errorf("there are two faults called %s", f.name)
		}
		seen[f.name] = true
		if f.what == "" || f.then == "" || f.do == nil || len(f.settings) == 0 {
			t.Errorf("%s lacks what happens, what then, or where", f.name)
		}
		for _, name := range f.settings {
			if !slices.ContainsFunc(settings(), func(s setting) bool { return s.name == name }) {
				t.Errorf("%s is for a setting %q, which there is not", f.name, name)
			}
		}
	}
	for _, c := range controls() {
		for _, name := range c.faults {
			if !seen[name] {
				t.Errorf("the relay that %s is tried with a fault %q, which there is not", c.name, name)
			}
		}
	}
	if _, err := plan(options{fault: "no-such"}, newRand(1, 0)); err == nil {
		t.Error("a fault that does not exist is planned")
	}
}
