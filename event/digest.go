package event

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strconv"
)

// PositionHeader is the header in which a message of an owned stream says
// where its event stands in the write-ahead log and which relay wrote it:
// position, timeline, and system identifier and slot, separated by spaces. After the
// number of a timeline that is not the first stand a slash and the LSN at which it began.
const PositionHeader = "Walrelay-Position"

// LateSuffix ends the position of a message that stands after messages of later positions, because one of
// somebody else took its place.
const LateSuffix = " late"

// DigestHeader is the header that authenticates the position of a message: whoever
// may publish into the stream can write a position, and only the relay its digest.
const DigestHeader = "Walrelay-Digest"

// digestSize is how many bytes of the HMAC are used (RFC 2104, section 5: no less
// than half of the hash).
const digestSize = sha256.Size / 2

// Signer makes and compares digests: HMAC-SHA256 with the slot's key over the
// stream's name, the sequence before the message's, and the position header. So a
// position is worth nothing in another stream, or at another place of the same one.
// Nil signs nothing. Not safe for concurrent use.
type Signer struct {
	mac    hash.Hash
	prefix []byte // the stream's name, ended by a zero byte
	sum    []byte
}

// NewSigner returns the signer for a stream; nil without a key.
func NewSigner(stream string, key []byte) *Signer {
	if len(key) == 0 {
		return nil
	}
	return &Signer{mac: hmac.New(sha256.New, key), prefix: append([]byte(stream), 0), sum: make([]byte, 0, sha256.Size)}
}

// Append appends the digest of a position header to b; sequence is that before the
// message's, in decimal.
func (s *Signer) Append(b, sequence, position []byte) []byte {
	s.mac.Reset()
	s.mac.Write(s.prefix)
	s.mac.Write(sequence)
	s.mac.Write(s.prefix[len(s.prefix)-1:])
	s.mac.Write(position)
	s.sum = s.mac.Sum(s.sum[:0])
	return base64.RawURLEncoding.AppendEncode(b, s.sum[:digestSize])
}

// Signs reports whether the digest of the message with the sequence is ours.
func (s *Signer) Signs(sequence uint64, position, digest string) bool {
	want := s.Append(nil, strconv.AppendUint(nil, sequence-1, 10), []byte(position))
	return hmac.Equal(want, []byte(digest))
}
