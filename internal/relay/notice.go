package relay

import "time"

// repeatInterval is how often a line is logged again that says the same.
const repeatInterval = time.Minute

// repeated knows what was logged last, for one goroutine.
type repeated struct {
	text string
	at   time.Time
}

// says reports whether to log a text: it is another one, or was last logged a while ago.
func (r *repeated) says(text string) bool {
	if text == r.text && time.Since(r.at) <= repeatInterval {
		return false
	}
	r.text, r.at = text, time.Now()
	return true
}

// notice returns what logs the server's notices, for one goroutine.
func (r *Relay) notice() func(message, detail, hint string) {
	var last repeated
	return func(message, detail, hint string) {
		if last.says(message) {
			r.log.Warn().Str("notice", message).Str("detail", detail).Str("hint", hint).Msg("Postgres warns")
		}
	}
}
