package check

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
)

// AckDurability says what an acknowledgement of the stream stands for, as far as
// the stream's settings tell. Whether its servers fsync each message
// (sync_interval: always) is told to no client: neither the greeting nor the API
// of JetStream has it.
func AckDurability(info *jetstream.StreamInfo, shared bool, window time.Duration) string {
	var text string
	switch n := info.Config.Replicas; {
	case info.Config.Storage != jetstream.FileStorage:
		text = "acknowledged events are in memory; the end of the server loses them"
	case n <= 1:
		text = "acknowledged events are on 1 server, not yet fsynced; a power failure can lose the last sync_interval (default 2m)"
	default:
		text = fmt.Sprintf("acknowledged events are on %d of %d servers, not yet fsynced; a power failure of %d at once can lose the last sync_interval (default 2m)", n/2+1, n, n/2+1)
	}
	if shared {
		return text + "; that is not noticed, as the stream is shared"
	}
	return text + fmt.Sprintf(`; "walrelay repair" brings them back from their rows, for %s (outbox.repair_window)`, duration(window))
}

// Durability is what acknowledgements of a stream stand for.
type Durability struct {
	Stream, Text string
}

// Durabilities returns that of each stream that exists.
func (f *Facts) Durabilities(cfg config.Config) []Durability {
	var list []Durability
	for n, info := range f.Streams {
		if info != nil {
			list = append(list, Durability{cfg.Streams[n].Name, AckDurability(info, cfg.Streams[n].Shared, cfg.Outbox.RepairWindow)})
		}
	}
	return list
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
