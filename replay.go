package walrelay

import (
	"context"

	"github.com/walrelay/walrelay/internal/replay"
)

type (
	// ReplayOptions say what [Replay] publishes again.
	ReplayOptions = replay.Options
	// ReplayReport says what it has found and replayed.
	ReplayReport = replay.Report
)

// Replay publishes events again on purpose, in their order and marked with the extension
// walrelayreplay: messages of a stream, or rows of an outbox table. They go through the WAL,
// all of them or none, or into another stream, which may be interrupted and run again. It
// blocks until they are written: the relay publishes those that go through the WAL. The error
// joins *[ConfigError] and *[Problem] values.
func Replay(ctx context.Context, cfg Config, options ReplayOptions) (ReplayReport, error) {
	return replay.Run(ctx, cfg, options)
}
