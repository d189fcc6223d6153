package walrelay

import (
	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/problem"
)

// The configuration is that of package [config].
type (
	// Config says everything that a relay needs to know.
	Config = config.Config
	// ConfigError says what is wrong with one key of the configuration.
	ConfigError = config.Error
	// Problem is an error that no retry mends: somebody has to change something
	// first. Its ID stays the same across releases.
	Problem = problem.Problem
)
