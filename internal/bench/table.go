package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the result for people.
func (r *Result) WriteText(w io.Writer) error {
	var b strings.Builder
	r.heading(&b)
	if r.Drain != nil {
		r.drainText(&b)
	}
	if r.Live != nil {
		r.liveText(&b)
	}
	if r.Takeover != nil {
		r.takeoverText(&b)
	}
	if r.Handlers != nil {
		r.handlersText(&b)
	}
	for _, text := range r.LeftBehind {
		fmt.Fprintf(&b, "\nleft behind: %s", text)
	}
	if len(r.LeftBehind) > 0 {
		b.WriteByte('\n')
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
	}
	return nil
}

func (r *Result) heading(b *strings.Builder) {
	e := r.Environment
	fmt.Fprintf(b, "walrelay %s, %s, %s\n", e.Walrelay, e.GoVersion, r.StartedAt.Format(time.RFC3339))
	fmt.Fprintf(b, "Postgres %s: %s\n", e.Postgres, settingsText(e.PostgresSettings))
	fmt.Fprintf(b, "nats-server %s\n", e.NATS)
	if e.Private {
		b.WriteString("both throw-away, and on this machine\n")
	}
	fmt.Fprintf(b, "this machine: %d CPUs (%s), %s/%s\n", e.CPUs, orUnknown(e.CPUModel), e.OS, e.Arch)
	p := r.Parameters
	fmt.Fprintf(b, "events of %d bytes and %d types; streams with %s", p.PayloadBytes, p.Subjects, count(p.Replicas, "replica"))
	if p.Atomic {
		fmt.Fprint(b, "; walrelay publishes each transaction as one atomic batch")
	}
	fmt.Fprintln(b)
}

func settingsText(settings map[string]string) string {
	var texts []string
	for name, value := range settings {
		if value != "" {
			texts = append(texts, name+" "+value)
		}
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

func orUnknown(text string) string {
	if text == "" {
		return "of an unknown model"
	}
	return text
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func (r *Result) drainText(b *strings.Builder) {
	p, d := r.Parameters, r.Drain
	fmt.Fprintf(b, "\nDrain: a backlog of %d events, in transactions of %d", p.Events, p.PerTx)
	if p.Rounds > 1 {
		fmt.Fprintf(b, "; the median of %d rounds, and the least and the most", p.Rounds)
	}
	b.WriteString("\n\n")
	rows := newRows(b, p.Rounds > 1)
	rows.drain(d, "walrelay", "events/s", 0, func(r *Round) float64 { return r.RelayPerS })
	rows.drain(d, "bare reader of the slot", "events/s", 0, func(r *Round) float64 { return r.BareReaderPerS })
	rows.drain(d, "bare publisher, window "+fmt.Sprint(publishWindow), "events/s", 0, func(r *Round) float64 { return r.BarePublisherPerS })
	rows.drain(d, fmt.Sprintf("synchronous relay (%d events)", min(p.SyncEvents, p.Events)), "events/s", 0, func(r *Round) float64 { return r.SynchronousPerS })
	rows.drain(d, "walrelay / bare reader", "", 2, func(r *Round) float64 { return r.RelayToBareReader })
	rows.drain(d, "walrelay / bare publisher", "", 2, func(r *Round) float64 { return r.RelayToBarePublisher })
	rows.drain(d, "walrelay / synchronous relay", "", 1, func(r *Round) float64 { return r.RelayToSynchronous })
	rows.drain(d, "CPU of walrelay", "µs/event", 1, func(r *Round) float64 { return r.RelayCPUPerEventUs })
	rows.drain(d, "CPU of Postgres", "µs/event", 1, func(r *Round) float64 { return r.PostgresCPUPerEventUs })
	rows.drain(d, "CPU of nats-server", "µs/event", 1, func(r *Round) float64 { return r.NATSCPUPerEventUs })
	rows.drain(d, "CPU of the bare reader", "µs/event", 1, func(r *Round) float64 { return r.BareReaderCPUPerEventUs })
	rows.drain(d, "CPU of Postgres with it", "µs/event", 1, func(r *Round) float64 { return r.BareReaderPostgresCPUPerEventUs })
	rows.drain(d, "CPU of the bare publisher", "µs/event", 1, func(r *Round) float64 { return r.BarePublisherCPUPerEventUs })
	rows.drain(d, "CPU of nats-server with it", "µs/event", 1, func(r *Round) float64 { return r.BarePublisherNATSCPUPerEventUs })
	rows.drain(d, "both servers, if a relay took no CPU", "events/s", 0, func(r *Round) float64 { return r.ServersPerS })
	rows.drain(d, "peak memory of walrelay", "MiB", 1, func(r *Round) float64 { return r.RelayPeakMemoryBytes / (1 << 20) })
	rows.drain(d, "taken by other virtual machines", "%", 1, func(r *Round) float64 { return r.StealRatio * 100 })
	rows.drain(d, "writing the backlog", "events/s", 0, func(r *Round) float64 { return r.WritePerS })
	rows.flush()
}

func (r *Result) liveText(b *strings.Builder) {
	p, l := r.Parameters, r.Live
	asked := fmt.Sprintf("%d events/s", p.RatePerS)
	if p.RatePerS == 0 {
		asked = "as many events as the writers can write"
	}
	fmt.Fprintf(b, "\nLive: %s for %v, in transactions of %d, by %s\n\n", asked, seconds(p.DurationS), p.LivePerTx, count(p.Writers, "writer"))
	rows := newRows(b, false)
	rows.row("written", "events/s", 1, l.AchievedPerS)
	rows.row("CPU of walrelay", "µs/event", 1, l.RelayCPUPerEventUs)
	rows.row("CPU of Postgres", "µs/event", 1, l.PostgresCPUPerEventUs)
	rows.row("CPU of nats-server", "µs/event", 1, l.NATSCPUPerEventUs)
	rows.row("peak memory of walrelay", "MiB", 1, float64(l.RelayPeakMemoryBytes)/(1<<20))
	rows.row("taken by other virtual machines", "%", 1, l.StealRatio*100)
	rows.flush()
	if !l.KeptRate {
		fmt.Fprintf(b, "\nThe writers could not keep the rate, and were up to %v late: these are the latencies at %.0f events/s.\n",
			time.Duration(l.WritersLateMaxUs*1000).Round(time.Millisecond), l.AchievedPerS)
	}
	if l.Missing > 0 || l.Duplicated > 0 {
		fmt.Fprintf(b, "\nSOMETHING IS WRONG: %d events are missing, and %d came twice.\n", l.Missing, l.Duplicated)
	}
	if l.NATSClockErrorUs > 0 {
		fmt.Fprintf(b, "\nThe clock of nats-server less this machine's is %s ms, give or take %s; so much is in the times in the stream.\n",
			ms(l.NATSClockAheadUs), ms(l.NATSClockErrorUs))
	}
	b.WriteString("\nFrom just before the transaction was sent, in ms:\n\n")
	rows = newRows(b, false)
	rows.cells("", "p50", "p90", "p99", "p99.9", "max", "of")
	for _, line := range []struct {
		name string
		d    Distribution
	}{
		{"until COMMIT returned to the writer", l.Commit},
		{"until the message's time in the stream", l.CommitToStream},
		{"until a consumer had it", l.CommitToConsumer},
	} {
		rows.cells(line.name, ms(line.d.P50Us), ms(line.d.P90Us), ms(line.d.P99Us), ms(line.d.P999Us), ms(line.d.MaxUs), fmt.Sprint(line.d.Samples))
	}
	rows.flush()
}

func (r *Result) handlersText(b *strings.Builder) {
	h := r.Handlers
	b.WriteString("\nHandlers: events that wait in a stream, handled by one process\n\n")
	rows := newRows(b, false)
	rows.cells("", "events/s", "µs of the handler", "of Postgres", "of nats-server", "events")
	for _, rate := range h.Rates {
		rows.cells(rate.Name, fmt.Sprintf("%.0f", rate.PerS), fmt.Sprintf("%.1f", rate.HandlerCPUPerEventUs), fmt.Sprintf("%.1f", rate.PostgresCPUPerEventUs),
			fmt.Sprintf("%.1f", rate.NATSCPUPerEventUs), fmt.Sprint(rate.Events))
	}
	rows.flush()
	b.WriteString("\n")
	rows = newRows(b, false)
	rows.row("takeover from a process that was killed", "s, at most", 2, h.TakeoverKilledS)
	rows.row("takeover from one that was stopped", "s, at most", 3, h.TakeoverStoppedS)
	rows.row(fmt.Sprintf("rate with %d events behind one key", h.ParkedEvents), "of usual", 2, h.ParkedRatio)
	rows.row(fmt.Sprintf("rate with %d blocked keys", h.ParkedEvents), "of usual", 2, h.BlockedKeysRatio)
	rows.flush()
}

func ms(us float64) string { return fmt.Sprintf("%.2f", us/1000) }

// rows is a table with numbers to the right.
type rows struct {
	w      *tabwriter.Writer
	spread bool
}

func newRows(b *strings.Builder, spread bool) *rows {
	return &rows{w: tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight), spread: spread}
}

// cells is a row. The first cell is to the left.
func (r *rows) cells(name string, cells ...string) {
	// The writer would put it to the right.
	fmt.Fprintf(r.w, "%-40s\t%s\t\n", name, strings.Join(cells, "\t"))
}

// row is one number; none if it is zero, which stands for unknown.
func (r *rows) row(name, unit string, decimals int, values ...float64) {
	if values[0] == 0 {
		return
	}
	cells := make([]string, 0, len(values)+1)
	for _, v := range values {
		cells = append(cells, fmt.Sprintf("%.*f", decimals, v))
	}
	if len(cells) == 3 {
		cells[1], cells[2] = "("+cells[1], "to "+cells[2]+")"
	}
	r.cells(name, append(cells, fmt.Sprintf("%-8s", unit))...)
}

func (r *rows) drain(d *Drain, name, unit string, decimals int, number func(*Round) float64) {
	if r.spread {
		r.row(name, unit, decimals, number(&d.Median), number(&d.Min), number(&d.Max))
		return
	}
	r.row(name, unit, decimals, number(&d.Median))
}

func (r *rows) flush() { _ = r.w.Flush() } // into memory
