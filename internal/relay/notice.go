package relay

import "time"

// noticeInterval is how often what the server says beside the stream is logged, if it
// says the same again.
const noticeInterval = time.Minute

// notice returns what logs the server's notices, for one goroutine.
func (r *Relay) notice() func(message, detail, hint string) {
	var last string
	var at time.Time
	return func(message, detail, hint string) {
		if message == last && time.Since(at) < noticeInterval {
			return
		}
		last, at = message, time.Now()
		r.log.Warn().Str("notice", message).Str("detail", detail).Str("hint", hint).Msg("Postgres warns")
	}
}
