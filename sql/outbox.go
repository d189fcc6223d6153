package sql

import _ "embed" // for the queries

// OutboxInsert returns the statement by which the package outbox inserts events into a
// table.
func OutboxInsert(table Table) (string, error) { return render("queries/outbox/insert.sql", table) }

// OutboxInserted returns the query for the events that a transaction has inserted.
func OutboxInserted(table Table) (string, error) { return render("queries/outbox/inserted.sql", table) }

// What an application asks about its events; each file says what its parameters are and
// what it returns.
//
// embedded text, never written
var (
	//go:embed queries/outbox/status.sql
	OutboxStatus string
	//go:embed queries/outbox/cancel.sql
	OutboxCancel string
	//go:embed queries/outbox/reschedule.sql
	OutboxReschedule string
)
