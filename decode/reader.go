package decode

import (
	"bytes"
	"encoding/binary"
	"time"
)

// reader reads a message. Past the end it returns zeros and is short.
type reader struct {
	data  []byte
	at    int
	short bool
}

// ended reports whether the message was read to its end and not past it.
func (r *reader) ended() bool { return !r.short && r.at == len(r.data) }

// bytes returns the next n bytes: never nil, unless there are fewer.
func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.data)-r.at) {
		r.short = true
		r.at = len(r.data)
		return nil
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// postgresEpoch is 2000-01-01 in microseconds of Unix time.
const postgresEpoch = 946_684_800_000_000

func (r *reader) time() time.Time {
	return time.UnixMicro(int64(r.uint64()) + postgresEpoch).UTC()
}

// string copies the bytes up to the next zero byte.
func (r *reader) string() string {
	length := bytes.IndexByte(r.data[r.at:], 0)
	if length < 0 {
		r.short = true
		r.at = len(r.data)
		return ""
	}
	s := string(r.data[r.at : r.at+length])
	r.at += length + 1
	return s
}
