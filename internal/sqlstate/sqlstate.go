// Package sqlstate has the SQLSTATEs that walrelay tells apart (Postgres manual,
// appendix "PostgreSQL Error Codes"). Codes are compared, never words: these
// depend on lc_messages. The package must not import others of walrelay.
package sqlstate

import "strings"

// Codes.
const (
	CharacterNotInRepertoire  = "22021"
	InvalidTextRepresentation = "22P02"
	UntranslatableCharacter   = "22P05"
	InvalidAuthorization      = "28000"
	InvalidPassword           = "28P01"
	InvalidCatalogName        = "3D000"
	ForeignKeyViolation       = "23503"
	InsufficientPrivilege     = "42501"
	UndefinedObject           = "42704"
	SyntaxError               = "42601"
	FeatureNotSupported       = "0A000"
	ObjectInUse               = "55006"
	ObjectNotInPrerequisite   = "55000"
	LockNotAvailable          = "55P03"
	QueryCanceled             = "57014"
	AdminShutdown             = "57P01"
	CannotConnectNow          = "57P03"
	InvalidParameterValue     = "22023"
	ConfigurationFileError    = "F0000"
	UndefinedFile             = "58P01"
	DuplicateObject           = "42710"
	UniqueViolation           = "23505"
	ProtocolViolation         = "08P01"
	InternalError             = "XX000"
	InvalidSchemaName         = "3F000"
	UndefinedTable            = "42P01"
	UndefinedColumn           = "42703"
	UndefinedFunction         = "42883"
	SerializationFailure      = "40001"
	DeadlockDetected          = "40P01"
)

// Classes: the first two characters of a code.
const (
	ClassDataException        = "22"
	ClassIntegrityViolation   = "23"
	ClassInvalidAuthorization = "28"
	ClassProgramLimitExceeded = "54"
	ClassPLpgSQL              = "P0"
	ClassConnection           = "08"
	ClassRollback             = "40"
	ClassResources            = "53"
	ClassIntervention         = "57"
	ClassSystem               = "58"
)

// OfMissing reports whether a statement names a schema, a table or a column that does not
// exist.
func OfMissing(code string) bool {
	return code == UndefinedTable || code == UndefinedColumn || code == InvalidSchemaName
}

// OfData reports whether a statement was refused for the values in it, so that it would
// be refused again.
func OfData(code string) bool {
	return strings.HasPrefix(code, ClassDataException) || strings.HasPrefix(code, ClassIntegrityViolation) ||
		strings.HasPrefix(code, ClassProgramLimitExceeded)
}
