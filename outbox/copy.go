package outbox

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walrelay/walrelay/sql"
)

// minCopy is from how many events on COPY is worth its extra round trip: it costs less
// than half of the statement for a thousand (BenchmarkPublish).
const minCopy = 200

// copier is a connection of pgx, or its transaction.
type copier interface {
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error)
}

// copyable reports whether COPY can write the rows: it has no default for the time of
// those that have none, beside others that have.
func copyable(rows []row) bool {
	for i := range rows {
		if rows[i].CreatedAt != nil {
			return false
		}
	}
	return len(rows) >= minCopy
}

func copyRows(ctx context.Context, tx copier, table sql.Table, rows []row) error {
	columns := []string{
		"id", "event_type", "source", "subject", "data", "data_bytes", "content_type", "data_schema", "extensions", "partition_key",
		"scheduled_at", "max_retries",
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{table.Schema, table.Name}, columns, pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
		r := &rows[i]
		id, err := uuid.Parse(r.ID)
		if err != nil {
			return nil, err
		}
		var data, extensions json.RawMessage // nil is null
		if r.Data != nil {
			data = json.RawMessage(*r.Data)
		}
		extensions = r.Extensions
		var content []byte
		if r.DataBytes != nil {
			if content, err = base64.StdEncoding.DecodeString(*r.DataBytes); err != nil {
				return nil, err
			}
		}
		return []any{
			[16]byte(id), r.Type, r.Source, r.Subject, data, content, r.ContentType, r.DataSchema, extensions, r.PartitionKey,
			r.ScheduledAt, r.MaxRetries,
		}, nil
	}))
	return err
}
