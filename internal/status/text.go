package status

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/walrelay/walrelay/event"
)

// Write writes the document for a person, on one screen if there is little to say.
func (d *Document) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, event.Printable(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")))
	}
	line("walrelay", "%s at %s", d.Attention(), d.Time.Format(time.RFC3339))
	if d.Database != nil {
		line("database", "%s on Postgres %s, schema version %d", d.Database.Name, d.Database.Version, d.Database.SchemaVersion)
	}
	d.writeSlot(line)
	d.writeDelayed(line)
	for i := range d.Streams {
		d.Streams[i].write(line, d.Time)
	}
	for _, h := range d.Handlers {
		text := fmt.Sprintf("%s: %s events behind, %s parked, %s keys blocked", h.Handler, Count(h.Lag), Count(int64(h.Parked)), Count(int64(h.BlockedKeys)))
		if h.SeenAt != nil {
			text += fmt.Sprintf(", seen %s ago", Span(d.Time.Sub(*h.SeenAt).Seconds()))
		}
		line("handler", "%s", text)
	}
	for i := range d.Problems {
		line(d.Problems[i].Status.String(), "%s: %s", d.Problems[i].ID, d.Problems[i].Text())
	}
	for _, unknown := range d.Unknown {
		line("unknown", "%s", unknown)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

func (d *Document) writeSlot(line func(name, format string, args ...any)) {
	s := d.Slot
	switch {
	case s == nil:
		return
	case !s.Present:
		line("slot", "%s does not exist", s.Name)
		return
	case s.Holder == nil:
		line("slot", "%s, which no relay reads", s.Name)
	default:
		line("slot", "%s, read since %s by %s", s.Name, s.Holder.Since.Format(time.RFC3339), s.Holder.text())
	}
	for i := range s.Standbys {
		line("standby", "%s, waiting since %s", s.Standbys[i].text(), s.Standbys[i].Since.Format(time.RFC3339))
	}
	if s.LagBytes == nil || s.RetainedBytes == nil {
		return
	}
	text := fmt.Sprintf("%s behind, %s kept for the slot", Bytes(float64(*s.LagBytes)), Bytes(float64(*s.RetainedBytes)))
	if s.SafeBytes != nil {
		text += fmt.Sprintf(", lost after %s more", Bytes(float64(*s.SafeBytes)))
	}
	if s.WALBytesPerSecond != nil {
		text += fmt.Sprintf("; %s written in a second", Bytes(*s.WALBytesPerSecond))
	}
	if s.RunwaySeconds != nil {
		text += ", at which rate it lasts " + Span(*s.RunwaySeconds)
	}
	line("WAL", "%s", text)
}

func (s *Session) text() string {
	from := s.Client
	if from == "" {
		from = "the same machine"
	}
	return fmt.Sprintf("role %s from %s (pid %d)", s.Role, from, s.PID)
}

func (d *Document) writeDelayed(line func(name, format string, args ...any)) {
	t := d.Delayed
	if t == nil {
		return
	}
	text := fmt.Sprintf("%s scheduled, %s retrying, %s held, %s failed", Count(t.Scheduled), Count(t.Retrying), Count(t.Held), Count(t.Failed))
	switch {
	case t.OverdueSeconds >= 1:
		text += fmt.Sprintf("; the oldest is overdue by %s", Span(t.OverdueSeconds))
	case t.NextDue != nil:
		text += fmt.Sprintf("; the next is due in %s", Span(t.NextDue.Sub(d.Time).Seconds()))
	}
	if t.BlockedKeys > 0 {
		text += fmt.Sprintf("; %s keys are blocked", Count(t.BlockedKeys))
	}
	line("delayed", "%s", text)
	for _, r := range t.Reasons {
		line("", "%s failed: %s (such as %s)", Count(r.Events), r.Reason, event.Clip(r.Example))
	}
}

func (s *Stream) write(line func(name, format string, args ...any), now time.Time) {
	if !s.Present {
		line("stream", "%s does not exist", s.Name)
		return
	}
	text := fmt.Sprintf("%s: %s messages, %s, up to sequence %d", s.Name, Count(int64(s.Messages)), Bytes(float64(s.Bytes)), s.LastSequence)
	if s.LastTime != nil {
		text += fmt.Sprintf(", the last %s ago", Span(now.Sub(*s.LastTime).Seconds()))
	}
	if s.EventsPerSecond != nil {
		text += fmt.Sprintf("; %s events a second", Count(int64(math.Round(*s.EventsPerSecond))))
	}
	line("stream", "%s", text)
	var limits []string
	if s.MaxMessages > 0 {
		limits = append(limits, Count(s.MaxMessages)+" messages")
	}
	if s.MaxBytes > 0 {
		limits = append(limits, Bytes(float64(s.MaxBytes)))
	}
	if s.MaxAgeSeconds > 0 {
		limits = append(limits, Span(s.MaxAgeSeconds))
	}
	if len(limits) > 0 {
		line("", "limits: %s; discards %s messages", strings.Join(limits, ", "), s.Discard)
	}
	if len(s.Behind) > 0 {
		line("", "replicas that are behind: %s", strings.Join(s.Behind, ", "))
	}
	for _, c := range s.Consumers {
		text := fmt.Sprintf("%s: %s pending, %d not acknowledged", c.Name, Count(int64(c.Pending)), c.AckPending)
		if c.Removed > 0 {
			text += fmt.Sprintf("; %s messages were gone before it had them", Count(int64(c.Removed)))
		}
		line("consumer", "%s", text)
	}
	if more := s.NumConsumers - len(s.Consumers); more > 0 {
		line("", "and %d more consumers", more)
	}
}

// Count writes a number with its thousands apart.
func Count(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + " " + digits[i:]
	}
	return digits
}

// Bytes writes a number of bytes in the units of Postgres, three digits at least.
func Bytes(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	unit := 0
	for n >= 10_240 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return fmt.Sprintf("%.0f %s", n, units[unit])
}

// Span writes a duration in its largest unit, two digits at least.
func Span(seconds float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}} {
		if seconds >= 2*unit.size {
			return fmt.Sprintf("%.0f %s", seconds/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.0f s", max(seconds, 0))
}
