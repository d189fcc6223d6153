package bench

import "time"

// Result is everything that was measured. Names end in their unit. What cannot
// be measured, such as the processor time of a server on another machine, is
// missing from the JSON.
type Result struct {
	StartedAt   time.Time   `json:"started_at"`
	Environment Environment `json:"environment"`
	Parameters  Parameters  `json:"parameters"`
	Drain       *Drain      `json:"drain,omitempty"`
	Live        *Live       `json:"live,omitempty"`
	Takeover    *Takeover   `json:"takeover,omitempty"`
	Handlers    *Handlers   `json:"handlers,omitempty"`
	// LeftBehind says what could not be removed, and why.
	LeftBehind []string `json:"left_behind,omitempty"`
}

// Environment is where it was measured.
type Environment struct {
	Walrelay  string `json:"walrelay"`
	GoVersion string `json:"go_version"`
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	CPUs      int    `json:"cpus"`
	CPUModel  string `json:"cpu_model,omitempty"`
	// Private says that the servers are throw-away ones on this machine.
	Private          bool              `json:"private"`
	Postgres         string            `json:"postgres"`
	PostgresSettings map[string]string `json:"postgres_settings"`
	NATS             string            `json:"nats"`
}

// Drain says how a backlog drains. Median, Min and Max are those of each
// number by itself, over the rounds.
type Drain struct {
	Rounds []Round `json:"rounds"`
	Median Round   `json:"median"`
	Min    Round   `json:"min"`
	Max    Round   `json:"max"`
}

// Round is one backlog. Rates are from the first event to the last.
type Round struct {
	WritePerS             float64 `json:"write_per_s"`
	BareReaderPerS        float64 `json:"bare_reader_per_s"`
	BarePublisherPerS     float64 `json:"bare_publisher_per_s"`
	SynchronousPerS       float64 `json:"synchronous_per_s"`
	RelayPerS             float64 `json:"relay_per_s"`
	RelayToBareReader     float64 `json:"relay_to_bare_reader_ratio"`
	RelayToBarePublisher  float64 `json:"relay_to_bare_publisher_ratio"`
	RelayToSynchronous    float64 `json:"relay_to_synchronous_ratio"`
	RelayCPUPerEventUs    float64 `json:"relay_cpu_per_event_us,omitempty"`
	PostgresCPUPerEventUs float64 `json:"postgres_cpu_per_event_us,omitempty"`
	NATSCPUPerEventUs     float64 `json:"nats_cpu_per_event_us,omitempty"`
	RelayPeakMemoryBytes  float64 `json:"relay_peak_memory_bytes,omitempty"`
	// What the limits took, each running alone: the client and its server.
	BareReaderCPUPerEventUs         float64 `json:"bare_reader_cpu_per_event_us,omitempty"`
	BareReaderPostgresCPUPerEventUs float64 `json:"bare_reader_postgres_cpu_per_event_us,omitempty"`
	BarePublisherCPUPerEventUs      float64 `json:"bare_publisher_cpu_per_event_us,omitempty"`
	BarePublisherNATSCPUPerEventUs  float64 `json:"bare_publisher_nats_cpu_per_event_us,omitempty"`
	// ServersPerS is for how many events a second this machine's processors
	// have the time, if the servers take what they took with walrelay, and a
	// relay nothing. Unknown if the servers are not ours to measure.
	ServersPerS float64 `json:"servers_per_s,omitempty"`
	// StealRatio is the part of this machine's processor time that other
	// virtual machines took, in all of the round. With much of it the figures
	// say little.
	StealRatio float64 `json:"steal_ratio"`
}

// numbers are all of a round's, to be summarised.
func (r *Round) numbers() []*float64 {
	return []*float64{
		&r.WritePerS, &r.BareReaderPerS, &r.BarePublisherPerS, &r.SynchronousPerS, &r.RelayPerS,
		&r.RelayToBareReader, &r.RelayToBarePublisher, &r.RelayToSynchronous,
		&r.RelayCPUPerEventUs, &r.PostgresCPUPerEventUs, &r.NATSCPUPerEventUs, &r.RelayPeakMemoryBytes, &r.StealRatio,
		&r.BareReaderCPUPerEventUs, &r.BareReaderPostgresCPUPerEventUs, &r.BarePublisherCPUPerEventUs, &r.BarePublisherNATSCPUPerEventUs,
		&r.ServersPerS,
	}
}

// summarise fills in the medians and extremes.
func (d *Drain) summarise() {
	for i := range new(Round).numbers() {
		values := make([]float64, len(d.Rounds))
		for n := range d.Rounds {
			values[n] = *d.Rounds[n].numbers()[i]
		}
		*d.Min.numbers()[i], *d.Median.numbers()[i], *d.Max.numbers()[i] = spread(values)
	}
}

// Live says how long events take that are written while the relay runs.
type Live struct {
	// Events that were counted: all but those of the warm-up.
	Events       int     `json:"events"`
	AchievedPerS float64 `json:"achieved_per_s"`
	// KeptRate says that the writers wrote what they were asked to; without,
	// the latencies are those of the achieved rate.
	KeptRate bool `json:"kept_rate"`
	// WritersLateMaxUs is by how much a transaction was sent later than planned
	// at most. Latencies count from when it was really sent.
	WritersLateMaxUs float64 `json:"writers_late_max_us,omitempty"`
	// Missing and Duplicated events, of those that were written; zero, or
	// something is wrong.
	Missing    int `json:"missing"`
	Duplicated int `json:"duplicated"`
	// NATSClockAheadUs is by how much the clock of the stream's server is ahead
	// of this machine's, give or take NATSClockErrorUs. It is in
	// CommitToStream. Missing for throw-away servers, which have this clock.
	NATSClockAheadUs float64 `json:"nats_clock_ahead_us,omitempty"`
	NATSClockErrorUs float64 `json:"nats_clock_error_us,omitempty"`
	// All three count from just before the statement was sent, of which COMMIT
	// is a part: until it returned to the writer, until the time that
	// nats-server gave the message, and until a consumer had it.
	Commit                Distribution `json:"commit"`
	CommitToStream        Distribution `json:"commit_to_stream"`
	CommitToConsumer      Distribution `json:"commit_to_consumer"`
	RelayCPUPerEventUs    float64      `json:"relay_cpu_per_event_us,omitempty"`
	PostgresCPUPerEventUs float64      `json:"postgres_cpu_per_event_us,omitempty"`
	NATSCPUPerEventUs     float64      `json:"nats_cpu_per_event_us,omitempty"`
	RelayPeakMemoryBytes  int64        `json:"relay_peak_memory_bytes,omitempty"`
	// StealRatio is as that of a round.
	StealRatio float64 `json:"steal_ratio"`
}
