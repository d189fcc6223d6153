package relay

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/decode"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/wait"
)

// limitsPause is the time between two looks at the server's limits.
const limitsPause = 5 * time.Second

// limits learns of a max_payload that was changed while the relay was connected:
// the server tells it to new connections only, and the client refuses by what it
// was told.
type limits struct {
	recheck wait.Signal // an event was too large
}

func newLimits() limits { return limits{recheck: wait.NewSignal()} }

// refused looks again, soon, if that was the reason. It does not block.
func (l limits) refused(reason error) {
	if errors.Is(reason, nats.ErrMaxPayload) || errors.Is(reason, decode.ErrTooLarge) {
		l.recheck.Send()
	}
}

// watch connects again when the limit is higher than we know, until the context
// ends.
func (l limits) watch(ctx context.Context, nc *nats.Conn, cfg config.NATS, log zerolog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.recheck:
		}
		known := nc.MaxPayload()
		if now, err := connect.MaxPayload(ctx, cfg); err == nil && now > known {
			log.Info().Int64("known", known).Int64("max_payload", now).
				Msg("max_payload of the NATS server was raised; connecting again")
			if err := nc.ForceReconnect(); err != nil {
				log.Debug().Err(err).Msg("connecting to NATS again")
			}
		}
		if wait.For(ctx, limitsPause) != nil {
			return
		}
	}
}
