package walrelay

import (
	"context"
	"errors"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/provision"
)

type (
	// Config says everything that a relay needs to know.
	Config = config.Config
	// ConfigError says what is wrong with one key of the configuration.
	ConfigError = config.Error
	// Problem is an error that no retry mends: somebody has to change something
	// first. Its ID stays the same across releases.
	Problem = problem.Problem
	// Report says what [Setup] found and did.
	Report = provision.Report
	// Result is what one check found about one object.
	Result = check.Result
)

// Setup makes what a relay needs and does not exist: the schema walrelay, the
// outbox tables of walrelay's own form, the publication, the slot and the streams.
// What exists is checked, and left as it is, except that tables are added to the
// publication and brought to the form of today. Nothing is made if anything that
// exists is wrong.
//
// It may be called again, also by several at a time. It blocks until everything is
// done, and for up to a minute while other transactions keep the slot from being
// created. The error is nil, or joins *[ConfigError] and *[Problem] values;
// anything else in it, such as a server that cannot be reached, may go away by
// itself. The report tells also what was done before an error.
func Setup(ctx context.Context, cfg Config) (Report, error) { return provision.Setup(ctx, cfg) }

// PrintSQL returns the SQL by which somebody with the rights for it makes
// everything in the database that [Setup] would: a script for psql, which may be
// run again. It connects to nothing; of the connection settings it uses only the
// role of postgres.url, if that is set, to whom it grants what a relay needs. The
// error joins *[ConfigError] values.
func PrintSQL(cfg Config) (string, error) { return provision.PrintSQL(cfg) }

// Check reports what is as it should be in Postgres and NATS, and what is not, and
// changes nothing. The error joins a *[Problem] for each result that fails, and
// the errors of [Setup].
func Check(ctx context.Context, cfg Config) ([]Result, error) {
	results, _, err := check.Run(ctx, cfg)
	return results, errors.Join(results.Err(), err)
}
