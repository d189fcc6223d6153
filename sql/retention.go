package sql

import _ "embed" // for the queries

// The queries of the clean-up; each file says what its parameters are and what it
// returns. In those that change rows, {{table}}, {{id}} and {{type}} stand for the
// outbox table and its column of the id.
//
// embedded text, never written
var (
	//go:embed queries/retention/delete.sql
	RetentionDelete string
	//go:embed queries/retention/mark.sql
	RetentionMark string
	//go:embed queries/retention/expired.sql
	RetentionExpired string
	//go:embed queries/retention/unmarked.sql
	RetentionUnmarked string
	//go:embed queries/retention/postpone.sql
	RetentionPostpone string
	//go:embed queries/retention/table.sql
	RetentionTable string
	//go:embed queries/retention/discarded.sql
	RetentionDiscarded string
	//go:embed queries/retention/discarded_expired.sql
	RetentionDiscardedExpired string
	//go:embed queries/retention/forget.sql
	RetentionForget string
)
