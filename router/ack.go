package router

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/internal/problem"
)

// ack is a publish acknowledgement.
type ack struct {
	sequence  uint64
	duplicate bool
}

// ackReader reads the acknowledgements of one stream.
type ackReader struct {
	stream string
	// domain is the JetStream domain of the stream; empty for none.
	domain string
	// plain is how nearly every acknowledgement begins.
	plain []byte
}

func newAckReader(stream, domain string) ackReader {
	plain := `{"stream":` + strconv.Quote(stream)
	if domain != "" {
		plain += `,"domain":` + strconv.Quote(domain)
	}
	return ackReader{stream: stream, domain: domain, plain: []byte(plain + `,"seq":`)}
}

// read returns what the server answered: an acknowledgement, or why there is
// none. An acknowledgement of another stream is an error.
func (r *ackReader) read(msg *nats.Msg) (ack, error) {
	if rest, ok := bytes.CutPrefix(msg.Data, r.plain); ok {
		if seq, ok := digits(rest); ok {
			return ack{sequence: seq}, nil
		}
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		return ack{}, nats.ErrNoResponders
	}
	var answer struct {
		Stream    string              `json:"stream"`
		Sequence  uint64              `json:"seq"`
		Domain    string              `json:"domain"`
		Duplicate bool                `json:"duplicate"`
		Error     *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return ack{}, fmt.Errorf("reading the acknowledgement %.100q: %w", msg.Data, err)
	}
	switch {
	case answer.Error != nil && (int(answer.Error.ErrorCode) == codeWrongLastSequence || int(answer.Error.ErrorCode) == codeSequenceInProcess):
		return ack{}, errWrongLastSequence
	case answer.Error != nil:
		return ack{}, answer.Error
	case answer.Stream != r.stream:
		return ack{}, &problem.Problem{
			ID:   "subject_other_stream",
			What: fmt.Sprintf("stream %q answered for a subject that belongs to stream %q", answer.Stream, r.stream),
			Fix:  "correct the subjects of the two streams, or the routes",
		}
	case answer.Domain != r.domain:
		// A leaf node may have a stream of the same name: what that has stored, the
		// stream has not.
		return ack{}, fmt.Errorf("stream %q of JetStream domain %q acknowledged in place of that of domain %q", r.stream, answer.Domain, r.domain)
	case answer.Sequence == 0:
		return ack{}, fmt.Errorf("reading the acknowledgement %.100q: it has no sequence", msg.Data)
	}
	return ack{sequence: answer.Sequence, duplicate: answer.Duplicate}, nil
}

// digits reads `123}`.
func digits(b []byte) (uint64, bool) {
	// A number of JSON has no leading zero, and no sequence is 0.
	if len(b) < 2 || len(b) > 20 || b[len(b)-1] != '}' || b[0] == '0' {
		return 0, false
	}
	var n uint64
	for _, c := range b[:len(b)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, n > 0
}
