package replication

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzFraming reads the header of what the server sends.
func FuzzFraming(f *testing.F) {
	f.Add(append([]byte{'w'}, make([]byte, 24)...))
	f.Add(append(append([]byte{'w'}, make([]byte, 24)...), "Bxyz"...))
	f.Add(append([]byte{'k'}, make([]byte, 17)...))
	f.Add([]byte{'k', 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &Stream{kick: make(chan struct{}, 1)}
		before := bytes.Clone(data)
		msg, err := s.unwrap(data)
		if !bytes.Equal(before, data) {
			t.Fatal("it writes into what it reads")
		}
		switch {
		case err != nil:
		case data[0] == 'w':
			if !bytes.Equal(msg.Data, data[25:]) || msg.Data == nil {
				t.Errorf("%q has the payload %q", data, msg.Data)
			}
		case data[0] == 'k':
			if msg.Data != nil || uint64(msg.WALEnd) != binary.BigEndian.Uint64(data[1:]) {
				t.Errorf("%q is read as %+v", data, msg)
			}
			if asked := len(s.kick) == 1; asked != msg.ReplyRequested {
				t.Errorf("a status update is under way: %v, asked for: %v", asked, msg.ReplyRequested)
			}
		default:
			t.Errorf("%q is read as %+v", data, msg)
		}
	})
}
