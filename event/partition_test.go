package event_test

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"testing"

	"github.com/walrelay/walrelay/event"
)

func TestPartition_IsThatOfNATSMappings(t *testing.T) {
	t.Parallel()
	for i := range 1000 {
		key := fmt.Sprint("kéy ", i)
		h := fnv.New32a()
		if _, err := h.Write([]byte(key)); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 3, 8, 256} {
			if got, want := event.Partition(key, "id", n), int(h.Sum32()%uint32(n)); got != want {
				t.Errorf("%q of %d is in %d, want %d", key, n, got, want)
			}
		}
	}
	if event.Partition("", "id", 8) != event.Partition("id", "", 8) {
		t.Error("an event without a key is not in the partition of its id")
	}
}

func TestParsePartitions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"partition:8": 8, "partition:256": 256, "type": 0, "partition": 0} {
		if n, err := event.ParsePartitions(text); n != want || err != nil {
			t.Errorf("%s: %d (%v), want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "257", "08", "+8", "8.", " 8", strconv.Itoa(1 << 40)} {
		if n, err := event.ParsePartitions("partition:" + text); err == nil {
			t.Errorf("{partition:%s} is %d", text, n)
		}
	}
}
