package walrelay

import (
	"context"

	"github.com/walrelay/walrelay/internal/check"
	"github.com/walrelay/walrelay/internal/status"
)

// StatusDocument is how a relay and what it works on stand. Its JSON form is documented
// in docs/status.md, and versioned.
type StatusDocument = status.Document

// StatusReader reads such documents, whether or not a relay runs. Rates are those between
// one and the one before. Safe for concurrent use.
type StatusReader = status.Reader

// NewStatusReader returns a reader of documents. It connects when it is asked for one.
// The error joins *[ConfigError] values.
func NewStatusReader(cfg Config) (*StatusReader, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return status.NewReader(cfg), nil
}

// CheckStatus is what a check found.
type CheckStatus = check.Status

// The statuses of checks, from good to bad.
const (
	CheckPass = check.Pass
	CheckSkip = check.Skip
	CheckWarn = check.Warn
	CheckFail = check.Fail
)

// Doctor makes every check that there is: those of [Check], and what both servers say of
// how they do at the moment. A server that cannot be reached is a result that fails. It
// blocks for 15 s at most, and changes nothing. The error joins *[ConfigError] values.
func Doctor(ctx context.Context, cfg Config) ([]Result, error) { return check.Doctor(ctx, cfg) }

// document is the status document with what the relay says of itself.
func (r *Relay) document(ctx context.Context) any {
	d := r.status.Read(ctx)
	d.Relay = r.inner.Status()
	return d
}
