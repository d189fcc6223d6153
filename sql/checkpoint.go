package sql

import _ "embed" // for the queries

// The queries of the checkpoint; each file says what its parameters are and what
// it returns.
//
// embedded text, never written
var (
	//go:embed queries/checkpoint/load.sql
	CheckpointLoad string
	//go:embed queries/checkpoint/begin.sql
	CheckpointBegin string
	//go:embed queries/checkpoint/key.sql
	CheckpointKey string
	//go:embed queries/checkpoint/save.sql
	CheckpointSave string
)
