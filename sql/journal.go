package sql

import _ "embed" // for the queries

// The queries of the journal; each file says what its parameters are and what
// it returns.
//
// embedded text, never written
var (
	//go:embed queries/journal/next.sql
	JournalNext string
	//go:embed queries/journal/columns.sql
	JournalColumns string
)
