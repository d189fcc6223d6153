package walrelay

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/walrelay/walrelay/internal/checkpoint"
)

// outboxColumns says where an outbox table has what.
type outboxColumns struct {
	Table string `json:"table"`
	ID    string `json:"id"`
	// Xact is the column of the inserting transaction; empty without one.
	Xact string `json:"xact,omitempty"`
}

// saveOutboxes describes the outbox tables for walrelay.event_status.
func saveOutboxes(ctx context.Context, conn checkpoint.Execer, slot string, outboxes []outboxColumns) error {
	text, err := json.Marshal(outboxes)
	if err == nil {
		_, err = conn.Exec(ctx, "UPDATE walrelay.progress SET outboxes = $2 WHERE slot = $1", slot, text)
	}
	if err != nil {
		return fmt.Errorf("writing walrelay.progress: %w", err)
	}
	return nil
}
