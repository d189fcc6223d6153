package event

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxPartitions is the most partitions that a subject template may have.
const MaxPartitions = 256

// Partition returns the partition of an event, from 0 to n-1: that of its key, or of its id if
// it has no key. It is the 32-bit FNV-1a hash modulo n, as nats-server's partition() in
// subject mappings has it. n is positive.
func Partition(key, id string, n int) int {
	if key == "" {
		key = id
	}
	hash := uint32(2166136261)
	for i := range len(key) {
		hash = (hash ^ uint32(key[i])) * 16777619
	}
	return int(hash % uint32(n))
}

// ParsePartitions reads what stands in the braces of a placeholder, such as partition:8. It
// returns 0 if the placeholder is another one.
func ParsePartitions(placeholder string) (int, error) {
	text, found := strings.CutPrefix(placeholder, "partition:")
	if !found {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxPartitions || strconv.Itoa(n) != text {
		return 0, fmt.Errorf("{%s}: want a number of partitions from 1 to %d, as in {partition:8}", placeholder, MaxPartitions)
	}
	return n, nil
}
