package sql

import _ "embed" // for the queries

// Queries of the status document.
//
// embedded text, never written
var (
	//go:embed queries/status/holder.sql
	StatusHolder string
	//go:embed queries/status/failed.sql
	StatusFailed string
	//go:embed queries/status/due.sql
	StatusDue string
	//go:embed queries/status/wal.sql
	StatusWAL string
)
