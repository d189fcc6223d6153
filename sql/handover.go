package sql

import _ "embed" // for the queries

// The queries of a handover; each file says what its parameters are and what it returns.
//
// embedded text, never written
var (
	//go:embed queries/handover/count.sql
	HandoverCount string
	//go:embed queries/handover/lock.sql
	HandoverLock string
	//go:embed queries/handover/close.sql
	HandoverClose string
	//go:embed queries/handover/peek.sql
	HandoverPeek string
	//go:embed queries/handover/forget.sql
	HandoverForget string
	//go:embed queries/handover/source.sql
	HandoverSource string
	//go:embed queries/handover/claim.sql
	HandoverClaim string
	//go:embed queries/handover/system.sql
	HandoverSystem string
	//go:embed queries/handover/begin.sql
	HandoverBegin string
	//go:embed queries/handover/key.sql
	HandoverKey string
	//go:embed queries/handover/taken.sql
	HandoverTaken string
	//go:embed queries/handover/half.sql
	HandoverHalf string
	//go:embed queries/handover/columns.sql
	HandoverColumns string
)
