package checkpoint

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/walrelay/walrelay/event"
)

// texts is a row of walrelay.progress.
type texts []any

func (r texts) Scan(to ...any) error {
	if len(to) != len(r) {
		return fmt.Errorf("%d columns for %d", len(r), len(to))
	}
	for i, value := range r {
		reflect.ValueOf(to[i]).Elem().Set(reflect.ValueOf(value))
	}
	return nil
}

// FuzzProgress reads what walrelay.progress may contain, which the relay's role and its
// owner can write. It is read as it is written, or refused.
func FuzzProgress(f *testing.F) {
	f.Add(int64(1), "7", int32(1), "0/16B3748", []byte(`{"EVENTS": {"created": "2026-01-02T03:04:05Z", "last_sequence": 3, "position": "00000000016B3748.00000002"}}`), "10:20:10,14", "0/0")
	f.Add(int64(-1), "", int32(-1), "x", []byte(`[]`), "", "0/FFFFFFFFF")
	f.Add(int64(0), "7", int32(0), "FFFFFFFF/FFFFFFFF", []byte(`{"": null, "a": {"position": 3}}`), "x", "0/0")
	f.Fuzz(func(t *testing.T, session int64, system string, timeline int32, lsn string, streams []byte, published, until string) {
		s, err := scan(texts{session, system, timeline, lsn, streams, published, until})
		if err != nil {
			if s != nil {
				t.Errorf("a state comes with the error %v", err)
			}
			return
		}
		if s.Session != session || s.SystemID != system || s.Timeline != timeline {
			t.Errorf("the row is read as %+v", s)
		}
		for name, stream := range s.Streams {
			position, err := event.ParsePosition(stream.Position)
			if err == nil && position.String() != stream.Position {
				again, err := event.ParsePosition(position.String())
				if err != nil || again != position {
					t.Errorf("stream %q: position %q is read as %s", name, stream.Position, position)
				}
			}
		}
	})
}
