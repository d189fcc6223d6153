package inbox

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// marks are those that a transaction moves: of each bucket, from below the lowest position to
// the highest one.
type marks struct {
	order  []int
	ranges map[int]*[2]string
	hashes map[string]struct{}
}

func newMarks() *marks {
	return &marks{ranges: make(map[int]*[2]string, 1), hashes: make(map[string]struct{}, 1)}
}

// add adds a position; false if it is not above the last one of its bucket.
func (m *marks) add(bucket int, position string) bool {
	of := m.ranges[bucket]
	if of == nil {
		m.order = append(m.order, bucket)
		m.ranges[bucket] = &[2]string{position, position}
		return true
	}
	if position <= of[1] {
		return false
	}
	of[1] = position
	return true
}

func (m *marks) key(hash []byte) {
	if len(hash) > 0 {
		m.hashes[string(hash)] = struct{}{}
	}
}

func (m *marks) buckets() string {
	return m.array(strconv.Itoa)
}

func (m *marks) lowest() string {
	return m.array(func(bucket int) string { return m.ranges[bucket][0] })
}

func (m *marks) highest() string {
	return m.array(func(bucket int) string { return m.ranges[bucket][1] })
}

// array writes an array for Postgres, of values without characters that mean something.
func (m *marks) array(of func(int) string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, bucket := range m.order {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(of(bucket))
	}
	b.WriteByte('}')
	return b.String()
}

func (m *marks) keys() string {
	var b strings.Builder
	b.WriteByte('{')
	for hash := range m.hashes {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(`"\\x` + hex.EncodeToString([]byte(hash)) + `"`)
	}
	b.WriteByte('}')
	return b.String()
}
