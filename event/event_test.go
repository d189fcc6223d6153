package event_test

import (
	"math"
	"slices"
	"testing"

	"github.com/walrelay/walrelay/event"
)

func TestPositionsSortAsTheirTextsDo(t *testing.T) {
	t.Parallel()
	ordered := []event.Position{
		{},
		{CommitLSN: 0, Index: 1},
		{CommitLSN: 1, Index: 0},
		{CommitLSN: 0x16B3748, Index: 9},
		{CommitLSN: 0x16B3748, Index: 10},
		{CommitLSN: 0x1_0000_0000, Index: 0},
		{CommitLSN: math.MaxUint64, Index: math.MaxUint32},
	}
	for i, p := range ordered {
		for j, q := range ordered {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = +1
			}
			if got := p.Compare(q); got != want {
				t.Errorf("%s compared with %s is %d, want %d", p, q, got, want)
			}
			if text := slices.Compare([]byte(p.String()), []byte(q.String())); text != want {
				t.Errorf("the texts of %s and %s compare to %d, want %d", p, q, text, want)
			}
		}
		parsed, err := event.ParsePosition(p.String())
		if err != nil || parsed != p {
			t.Errorf("the text %q reads as %v, %v; want the position that wrote it", p.String(), parsed, err)
		}
	}
}

func TestParsePosition_Refuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "0/16B3748", "00000000016B3748", "00000000016B3748-00000000", "00000000016B3748.0000000g",
		"x0000000016B3748.00000000", "00000000016B3748.000000000",
	} {
		if p, err := event.ParsePosition(text); err == nil {
			t.Errorf("%q reads as position %s, want an error", text, p)
		}
	}
}
