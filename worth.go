package walrelay

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// worth says what an acknowledgement of the stream is worth, as far as the
// stream's settings tell. Whether its servers sync each message to the disk
// (sync_interval: always) is told to no client.
func worth(info *jetstream.StreamInfo, shared bool, window time.Duration) string {
	const unlessSynced = `unless it has "sync_interval: always", which is told to no client`
	text := ""
	switch n := info.Config.Replicas; {
	case info.Config.Storage != jetstream.FileStorage:
		text = "in memory: the end of its server takes all acknowledged events"
	case n <= 1:
		text = "one server, which writes an event before it acknowledges it: the end of the process takes nothing; a power cut may take what was acknowledged in the 2 minutes before, " + unlessSynced
	default:
		text = fmt.Sprintf("%d servers, of which %d have written an event when it is acknowledged: the loss of %s takes nothing; a power cut of %d or more at once may take what was acknowledged in the 2 minutes before, unless they have \"sync_interval: always\", which is told to no client",
			n, n/2+1, loseable(n), n/2+1)
	}
	if shared {
		return text + "; what is lost is not noticed, as the stream is shared"
	}
	return text + fmt.Sprintf(`; "walrelay repair" brings it back from rows of the last %s (outbox.repair_window)`, duration(window))
}

// loseable says how many servers may be lost.
func loseable(replicas int) string {
	if n := (replicas - 1) / 2; n != 1 {
		return fmt.Sprintf("%d servers", n)
	}
	return "one server"
}

// duration writes a duration without parts that are zero, such as 1h for 1h0m0s.
func duration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if n := len(text) - len(zero); n > 0 && text[n:] == zero {
			text = text[:n+1]
		}
	}
	return text
}
