package walrelay

import (
	"context"

	"github.com/walrelay/walrelay/internal/handover"
)

type (
	// HandoverReport says where the writing of the streams stands.
	HandoverReport = handover.Report
	// HandoverCloseOptions are told how [HandoverClose] comes along.
	HandoverCloseOptions = handover.CloseOptions
	// HandoverOpenOptions say where the closed slot is.
	HandoverOpenOptions = handover.OpenOptions
)

// HandoverClose ends the writing of a slot, so that another one can go on in its streams:
// its outbox tables refuse events from then on, and it is dropped. It blocks until a relay
// has settled everything, and then until that is stopped. It may be interrupted at any time
// and called again. The error is that of [Setup].
func HandoverClose(ctx context.Context, cfg Config, options HandoverCloseOptions) (HandoverReport, error) {
	return handover.Close(ctx, cfg, options)
}

// HandoverOpen has the slot of the configuration go on where a closed one has ended, with
// its delayed events and its journal. No relay may run. It makes what [Setup] makes, may be
// interrupted at any time and called again. The error is that of [Setup].
func HandoverOpen(ctx context.Context, cfg Config, options HandoverOpenOptions) (HandoverReport, error) {
	return handover.Open(ctx, cfg, options)
}
