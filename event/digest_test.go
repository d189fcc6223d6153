package event

import "testing"

func TestSigner_SignsOnePlaceOfOneStream(t *testing.T) {
	t.Parallel()
	const position = "0000000000000064.00000001 1 7/s"
	key := []byte("0123456789abcdef0123456789abcdef")
	digest := string(NewSigner("EVENTS", key).Append(nil, []byte("41"), []byte(position)))
	for name, test := range map[string]struct {
		stream           string
		key              []byte
		sequence         uint64
		position, digest string
		want             bool
	}{
		"ours":             {"EVENTS", key, 42, position, digest, true},
		"another sequence": {"EVENTS", key, 43, position, digest, false},
		"another position": {"EVENTS", key, 42, "0000000000000065.00000001 1 7/s", digest, false},
		"another stream":   {"EVENTS2", key, 42, position, digest, false},
		"another key":      {"EVENTS", key[1:], 42, position, digest, false},
		"no digest":        {"EVENTS", key, 42, position, "", false},
		"a part of it":     {"EVENTS", key, 42, position, digest[1:], false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := NewSigner(test.stream, test.key).Signs(test.sequence, test.position, test.digest); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if NewSigner("EVENTS", nil) != nil {
		t.Error("a signer without a key")
	}
}

func BenchmarkSigner(b *testing.B) {
	s := NewSigner("EVENTS", make([]byte, 32))
	buf := make([]byte, 0, 64)
	sequence, position := []byte("123456"), []byte("0000000000000064.00000001 1 7412345678901234567/walrelay")
	b.ReportAllocs()
	for b.Loop() {
		buf = s.Append(buf[:0], sequence, position)
	}
}
