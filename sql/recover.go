package sql

import _ "embed" // for the queries

// The queries of recovery; each file says what its parameters are and what it returns.
//
// embedded text, never written
var (
	//go:embed queries/recover/lock.sql
	RecoverLock string
	//go:embed queries/recover/table.sql
	RecoverTable string
	//go:embed queries/recover/journal.sql
	RecoverJournal string
	//go:embed queries/recover/note.sql
	RecoverNote string
)
