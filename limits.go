package walrelay

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/internal/connect"
)

// limitsPause is the time between two looks at the server's limits.
const limitsPause = 5 * time.Second

// limits learns of a max_payload that was changed while the relay was connected:
// the server tells it to new connections only, and the client refuses by what it
// was told.
type limits struct {
	doubt chan struct{} // capacity 1, never closed: an event was too large
}

func newLimits() limits { return limits{doubt: make(chan struct{}, 1)} }

// refused looks again, soon, if that was the reason. It does not block.
func (l limits) refused(reason error) {
	if errors.Is(reason, nats.ErrMaxPayload) {
		select {
		case l.doubt <- struct{}{}:
		default:
		}
	}
}

// watchLimits connects again when the limit is higher than we know, until the context
// ends.
func (s *session) watchLimits(ctx context.Context, nc *nats.Conn) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.limits.doubt:
		}
		known := nc.MaxPayload()
		if now, err := connect.MaxPayload(ctx, s.relay.cfg.NATS); err == nil && now > known {
			s.relay.log.Info().Int64("known", known).Int64("max_payload", now).
				Msg("max_payload of the NATS server was raised; connecting again")
			if err := nc.ForceReconnect(); err != nil {
				s.relay.log.Debug().Err(err).Msg("connecting to NATS again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(limitsPause):
		}
	}
}
