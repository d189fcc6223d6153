package problem

import (
	"errors"
	"fmt"
	"os/exec"
	"testing"
)

func TestProblem_ErrorIsOneLine(t *testing.T) {
	cause := errors.New("ERROR: replication slot is lost")
	for name, test := range map[string]struct {
		problem Problem
		want    string
	}{
		"what only":  {Problem{What: "slot orders is gone"}, "slot orders is gone"},
		"with fix":   {Problem{What: "slot orders is gone", Fix: "run walrelay init"}, "slot orders is gone; run walrelay init"},
		"everything": {Problem{What: "slot orders", Err: cause, Why: "events are missing", Fix: "run walrelay recover"}, "slot orders: ERROR: replication slot is lost: events are missing; run walrelay recover"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.problem.Error(); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestPermanent(t *testing.T) {
	cause := errors.New("cause")
	p := &Problem{ID: "slot_lost", What: "slot orders is gone", Err: cause}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"nil":     {nil, false},
		"another": {cause, false},
		"itself":  {p, true},
		"wrapped": {fmt.Errorf("starting: %w", p), true},
		"joined":  {errors.Join(cause, p), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Permanent(test.err); got != test.want {
				t.Errorf("Permanent(%v) = %v, want %v", test.err, got, test.want)
			}
		})
	}
	if found, ok := Find(fmt.Errorf("starting: %w", p)); !ok || found != p || !errors.Is(found, cause) {
		t.Errorf("Find returned %v, %v", found, ok)
	}
}

// What a shell makes of the word is the text.
func TestShellWord(t *testing.T) {
	for _, text := range []string{"", "EVENTS", "/run/secrets/a-b", "it's", "$HOME `id` \"x\" \\", "two\nlines", "events.>,more.*", "Käse"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+ShellWord(text)).Output()
		if err != nil || string(out) != text {
			t.Errorf("%q became %q (%v) as %s", text, out, err, ShellWord(text))
		}
	}
	if got := ShellWord("/etc/walrelay/walrelay.yaml"); got != "/etc/walrelay/walrelay.yaml" {
		t.Errorf("what needs no quotes became %s", got)
	}
}
