package walrelay

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// worth says what an acknowledgement of the stream is worth, as far as the
// stream's settings tell. Whether its servers sync each message to the disk
// (sync_interval: always) is told to no client: neither the greeting nor the API
// of JetStream has it.
func worth(info *jetstream.StreamInfo, shared bool, window time.Duration) string {
	const interval = "within their sync_interval (2 minutes unless it is set; no client is told)"
	var text string
	switch n := info.Config.Replicas; {
	case info.Config.Storage != jetstream.FileStorage:
		text = "it is in memory, and the end of its server takes it"
	case n <= 1:
		text = "one server has written the event; a power cut may take events that it acknowledged " + strings.Replace(interval, "their", "its", 1)
	default:
		text = fmt.Sprintf("%d of %d servers have written the event; a power cut of %d at once may take events that they acknowledged %s", n/2+1, n, n/2+1, interval)
	}
	if shared {
		return text + "; that is not noticed, as the stream is shared"
	}
	return text + fmt.Sprintf(`; "walrelay repair" brings them back from their rows, for %s after (outbox.repair_window)`, duration(window))
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
