package bench

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/walrelay/walrelay"
)

// Options say against what is measured, and what.
type Options struct {
	// Config says how to reach the servers (Postgres, NATS) and how wide the
	// relay's window is (Publish.MaxInFlight, MaxInFlightBytes, AckTimeout);
	// nothing else of it is used. Without any URL, throw-away servers are.
	Config walrelay.Config
	// ServerCommand is the subcommand of this program that is a nats-server (localnats.Serve); without it
	// there are no throw-away servers.
	ServerCommand string
	// Private asks for throw-away servers although Config has URLs.
	Private bool
	// Drain, Live and Takeover are the parts to measure.
	Drain, Live, Takeover bool
	// Handlers measures handlers of package inbox, on throw-away servers.
	Handlers   bool
	Parameters Parameters
	// CPUProfile is the file for a profile of the relay, of the last one that
	// runs; none if it is empty.
	CPUProfile string
	// Version of walrelay, for the result.
	Version string
	// Progress is where is said what is being done, a line each; nil for
	// nowhere.
	Progress io.Writer
}

// Parameters say what is written, and how.
type Parameters struct {
	Events       int     `json:"events"`
	PerTx        int     `json:"per_tx"`
	PayloadBytes int     `json:"payload_bytes"`
	Writers      int     `json:"writers"`
	Subjects     int     `json:"subjects"`
	SyncEvents   int     `json:"sync_events"`
	Rounds       int     `json:"rounds"`
	RatePerS     int     `json:"rate_per_s"`
	DurationS    float64 `json:"duration_s"`
	LivePerTx    int     `json:"live_per_tx"`
	Replicas     int     `json:"replicas"`
	Atomic       bool    `json:"atomic"`
}

// DefaultParameters are a backlog of a minute or so, and then ten seconds of a
// thousand events each.
func DefaultParameters() Parameters {
	return Parameters{
		Events: 200_000, PerTx: 1000, PayloadBytes: 300, Writers: 4, Subjects: 10, SyncEvents: 10_000, Rounds: 1,
		RatePerS: 1000, DurationS: 10, LivePerTx: 1, Replicas: 1,
	}
}

// OptionError says what is wrong with one option.
type OptionError struct {
	// Name of the option, as a flag without its dashes.
	Name    string
	Problem string
}

func (e *OptionError) Error() string { return e.Name + ": " + e.Problem }

// Payloads have a number in them, and must pass max_payload of a server with
// defaults, which is 1 MiB with headers.
const (
	leastPayload    = 40
	greatestPayload = 512 << 10
)

// Validate reports everything that is wrong, without connecting to anything:
// nil, or *[OptionError] and *[walrelay.ConfigError] values that are joined.
func (o Options) Validate() error {
	var faults []error
	between := func(name string, value, low, high int) {
		if value < low || value > high {
			faults = append(faults, &OptionError{Name: name, Problem: fmt.Sprintf("%d is not between %d and %d", value, low, high)})
		}
	}
	p := o.Parameters
	between("events", p.Events, 2, 1_000_000_000)
	between("per-tx", p.PerTx, 1, 100_000)
	between("payload", p.PayloadBytes, leastPayload, greatestPayload)
	between("writers", p.Writers, 1, 64)
	between("subjects", p.Subjects, 1, 100_000)
	between("sync-events", p.SyncEvents, 2, 1_000_000_000)
	between("rounds", p.Rounds, 1, 100)
	between("rate", p.RatePerS, 0, 10_000_000)
	between("live-per-tx", p.LivePerTx, 1, 100_000)
	between("replicas", p.Replicas, 1, 5)
	if d := time.Duration(p.DurationS * float64(time.Second)); d < time.Second || d > 24*time.Hour {
		faults = append(faults, &OptionError{Name: "duration", Problem: fmt.Sprintf("%v is not between 1s and 24h", d)})
	}
	if o.Handlers && !o.private() {
		faults = append(faults, &OptionError{Name: "handlers", Problem: "handlers are measured on throw-away servers; add --private"})
	}
	if !o.Drain && !o.Live && !o.Takeover && !o.Handlers {
		faults = append(faults, &OptionError{Name: "only", Problem: "nothing is left to measure"})
	}
	if o.private() && o.ServerCommand == "" {
		return errors.Join(append(faults, &OptionError{
			Name: "private", Problem: "this walrelay was built without a nats-server: build it with make build TAGS=servers, or name servers (--postgres-url, --nats-url)",
		})...)
	}
	if o.private() {
		if p.Replicas > 1 {
			faults = append(faults, &OptionError{Name: "replicas", Problem: "the throw-away nats-server is a single one"})
		}
		return errors.Join(faults...)
	}
	const both = "must be set as well; with neither URL, or with --private, bench uses throw-away servers"
	if o.Config.Postgres.URL == "" {
		faults = append(faults, &walrelay.ConfigError{Key: "postgres.url", Problem: both})
	}
	if o.Config.NATS.URL == "" {
		faults = append(faults, &walrelay.ConfigError{Key: "nats.url", Problem: both})
	}
	if len(faults) == 0 {
		return relayConfig(o, o.Config.Postgres.URL, o.Config.NATS).Validate()
	}
	return errors.Join(faults...)
}

// private reports whether throw-away servers are used.
func (o Options) private() bool {
	return o.Private || o.Config.Postgres.URL == "" && o.Config.NATS.URL == ""
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		fmt.Fprintf(o.Progress, format+"\n", args...)
	}
}
