package sql

import _ "embed" // for the queries

// The queries of the delay table; each file says what its parameters are and
// what it returns.
//
// embedded text, never written
var (
	//go:embed queries/delay/owner.sql
	DelayOwner string
	//go:embed queries/delay/insert.sql
	DelayInsert string
	//go:embed queries/delay/hold.sql
	DelayHold string
	//go:embed queries/delay/emit_due.sql
	DelayEmitDue string
	//go:embed queries/delay/emit_held.sql
	DelayEmitHeld string
	//go:embed queries/delay/release.sql
	DelayRelease string
	//go:embed queries/delay/waiting.sql
	DelayWaiting string
	//go:embed queries/delay/released.sql
	DelayReleased string
	//go:embed queries/delay/next.sql
	DelayNext string
	//go:embed queries/delay/positions.sql
	DelayPositions string
	//go:embed queries/delay/keys.sql
	DelayKeys string
	//go:embed queries/delay/marker.sql
	DelayMarker string
	//go:embed queries/delay/emitted.sql
	DelayEmitted string
	//go:embed queries/delay/blockers.sql
	DelayBlockers string
	//go:embed queries/delay/counts.sql
	DelayCounts string
	//go:embed queries/delay/access.sql
	DelayAccess string
	//go:embed queries/delay/list.sql
	DelayList string
	//go:embed queries/delay/show.sql
	DelayShow string
	//go:embed queries/delay/find.sql
	DelayFind string
)
