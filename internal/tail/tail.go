// Package tail shows events as they arrive in a stream.
//
// Input: a stream, and what of it is wanted. Output: lines, for people or as JSON. Promises: the messages are shown in
// the order of the stream, each once, also when the connection is lost in between; nothing in NATS is changed, but for a
// consumer that the server removes by itself. It must not import the relay.
package tail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
)

// Options say what is shown, and how.
type Options struct {
	Stream string
	// Subjects are those of the messages; none takes all. Types takes events whose type matches one of the patterns.
	Subjects []string
	Types    inbox.Match
	From     From
	// Limit is how many are shown at most; 0 for all.
	Limit int
	// NoFollow ends at the end of the stream.
	NoFollow bool
	// JSON writes an object a line, Whole all attributes and the payload; otherwise a line for each event.
	JSON, Whole bool
	// Color marks what people look for by colours.
	Color bool
}

// From is where to begin.
type From struct {
	Start    bool
	Sequence uint64
	Time     time.Time
}

// ParseFrom reads now, start, a sequence, a time as in RFC 3339, or how long ago (10m).
func ParseFrom(text string, now time.Time) (From, error) {
	switch text {
	case "", "now":
		return From{}, nil
	case "start":
		return From{Start: true}, nil
	}
	if sequence, err := strconv.ParseUint(text, 10, 64); err == nil && sequence > 0 {
		return From{Sequence: sequence}, nil
	}
	if at, ok := ParseTime(text, now); ok {
		return From{Time: at}, nil
	}
	return From{}, fmt.Errorf("%q: want now, start, a sequence, a time such as 2026-11-27T10:00:00Z, or how long ago, such as 10m", text)
}

// ParseTime reads a time as in RFC 3339, or how long ago (10m).
func ParseTime(text string, now time.Time) (at time.Time, ok bool) {
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago), true
	}
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}

// Run shows messages until the context ends, the limit is reached, or, with NoFollow, the stream is at its
// end. It returns an error if the stream does not exist, may not be read, or goes away.
func Run(ctx context.Context, js jetstream.JetStream, o Options, out io.Writer) error {
	stream, err := Stream(ctx, js, o.Stream)
	if err != nil {
		return err
	}
	messages, info, err := Open(ctx, stream, jetstream.OrderedConsumerConfig{FilterSubjects: o.Subjects}, o.From)
	if err != nil {
		return err
	}
	defer messages.Stop()
	if o.NoFollow && info.NumPending == 0 {
		return nil
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	return show(ctx, messages, o, out)
}

// Stream asks for the stream of that name.
func Stream(ctx context.Context, js jetstream.JetStream, name string) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %q does not exist: name another one by --stream, or make it by \"walrelay init\"", name)
	}
	if err != nil {
		return nil, fmt.Errorf("asking for stream %q: %w", name, err)
	}
	return stream, nil
}

// Open reads a stream from there on, as the configuration says beside. The info is that of its consumer before it reads: how many
// messages are there already. The caller stops the messages.
func Open(ctx context.Context, stream jetstream.Stream, cfg jetstream.OrderedConsumerConfig, from From) (messages jetstream.MessagesContext, info *jetstream.ConsumerInfo, err error) {
	name := stream.CachedInfo().Config.Name
	cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	switch {
	case from.Start:
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	case from.Sequence > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from.Sequence
	case !from.Time.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &from.Time
	}
	consumer, err := stream.OrderedConsumer(ctx, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("reading stream %q: %w", name, err)
	}
	info, err = consumer.Info(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("reading stream %q: %w", name, err)
	}
	messages, err = consumer.Messages(jetstream.PullExpiry(5*time.Second), jetstream.PullHeartbeat(time.Second))
	if err != nil {
		return nil, nil, fmt.Errorf("reading stream %q: %w", name, err)
	}
	return messages, info, nil
}

func show(ctx context.Context, messages jetstream.MessagesContext, o Options, out io.Writer) error {
	for shown := 0; ; {
		msg, err := messages.Next()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of the context is the end
		}
		if err != nil {
			return fmt.Errorf("reading stream %q: %w", o.Stream, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("reading stream %q: %w", o.Stream, err)
		}
		ev, decodeErr := inbox.Decode(msg)
		if decodeErr == nil && o.Types.Takes(ev.Type) || decodeErr != nil && o.Types.TakesAll() {
			if _, err := out.Write(o.format(msg, meta, &ev, decodeErr)); err != nil {
				return fmt.Errorf("writing events: %w", err)
			}
			shown++
		}
		if o.Limit > 0 && shown == o.Limit || o.NoFollow && meta.NumPending == 0 {
			return nil
		}
	}
}

// format is what is shown of a message.
func (o Options) format(msg jetstream.Msg, meta *jetstream.MsgMetadata, ev *inbox.CloudEvent, problem error) []byte {
	switch {
	case o.JSON:
		return formatJSON(msg, meta, ev, problem)
	case o.Whole:
		return o.formatWhole(msg, meta, ev, problem)
	}
	return o.formatLine(msg, meta, ev, problem)
}

// line is a message as JSON. Its names are those that scripts rely on: docs/operations.md lists them.
type line struct {
	Sequence uint64          `json:"sequence"`
	StoredAt time.Time       `json:"stored_at"`
	Subject  string          `json:"subject"`
	Position string          `json:"position,omitempty"`
	Event    json.RawMessage `json:"event,omitempty"`
	Problem  string          `json:"problem,omitempty"`
	Data     []byte          `json:"data,omitempty"`
}

func formatJSON(msg jetstream.Msg, meta *jetstream.MsgMetadata, ev *inbox.CloudEvent, problem error) []byte {
	l := line{Sequence: meta.Sequence.Stream, StoredAt: meta.Timestamp.UTC(), Subject: msg.Subject(), Position: ev.Position}
	if problem == nil {
		l.Event = eventJSON(ev)
	} else {
		l.Problem, l.Data = problem.Error(), msg.Data()
	}
	text, err := json.Marshal(l)
	if err != nil { // the payload only seems to be JSON
		l.Event, l.Problem, l.Data = nil, err.Error(), msg.Data()
		text, _ = json.Marshal(l) //nolint:errchkjson // there is nothing left that can fail
	}
	return append(text, '\n')
}

// eventJSON is the event in the JSON format of CloudEvents.
func eventJSON(ev *inbox.CloudEvent) []byte { return Event(ev).AppendJSON(nil) }

// Event returns the event of a message.
func Event(ev *inbox.CloudEvent) *event.Event {
	e := &event.Event{
		ID: ev.ID, Type: ev.Type, Source: ev.Source, Subject: ev.Subject, DataContentType: ev.ContentType, DataSchema: ev.DataSchema,
		PartitionKey: ev.Key, Data: ev.Data,
	}
	if !ev.Time.IsZero() {
		e.Time = ev.Time.UTC().Format(time.RFC3339Nano)
	}
	for _, name := range slices.Sorted(maps.Keys(ev.Extensions)) {
		e.Extensions = append(e.Extensions, event.Attribute{Name: name, Value: ev.Extensions[name]})
	}
	return e
}

// Colours of ECMA-48.
const (
	dim   = "\x1b[2m"
	bold  = "\x1b[1m"
	cyan  = "\x1b[36m"
	red   = "\x1b[31m"
	reset = "\x1b[0m"
)

func (o Options) paint(color, text string) string {
	if !o.Color || text == "" {
		return text
	}
	return color + text + reset
}

// lineWidth bounds the payload in a line.
const lineWidth = 160

func (o Options) formatLine(msg jetstream.Msg, meta *jetstream.MsgMetadata, ev *inbox.CloudEvent, problem error) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s  %s  ", o.paint(dim, meta.Timestamp.UTC().Format("15:04:05.000")), o.paint(dim, fmt.Sprintf("%8d", meta.Sequence.Stream)))
	if problem != nil {
		fmt.Fprintf(&b, "%s  %s\n", cell(msg.Subject()), o.paint(red, cell(problem.Error())))
		return b.Bytes()
	}
	fmt.Fprintf(&b, "%s  %s  %s", o.paint(bold, cell(ev.Type)), cell(ev.ID), cell(ev.Source))
	if ev.Subject != "" {
		fmt.Fprintf(&b, "  %s", cell(ev.Subject))
	}
	if ev.Key != "" {
		fmt.Fprintf(&b, "  %s", o.paint(cyan, "key="+cell(ev.Key)))
	}
	data := payload(ev, func(text []byte) []byte {
		var compact bytes.Buffer
		if json.Compact(&compact, text) != nil {
			return text
		}
		return compact.Bytes()
	})
	if utf8.RuneCountInString(data) > lineWidth {
		data = string([]rune(data)[:lineWidth]) + "…"
	}
	fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(data, "\n", " "))
	return b.Bytes()
}

func (o Options) formatWhole(msg jetstream.Msg, meta *jetstream.MsgMetadata, ev *inbox.CloudEvent, problem error) []byte {
	var b bytes.Buffer
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-15s %s\n", name, cell(value))
		}
	}
	fmt.Fprintf(&b, "%s %s\n", o.paint(bold, fmt.Sprintf("message %d of %s", meta.Sequence.Stream, o.Stream)), o.paint(dim, meta.Timestamp.UTC().Format(time.RFC3339Nano)))
	row("NATS subject", msg.Subject())
	if problem != nil {
		fmt.Fprintf(&b, "  %s\n\n", o.paint(red, cell(problem.Error())))
		return b.Bytes()
	}
	row("position", ev.Position)
	row("id", ev.ID)
	row("type", ev.Type)
	row("source", ev.Source)
	row("subject", ev.Subject)
	if !ev.Time.IsZero() {
		row("time", ev.Time.UTC().Format(time.RFC3339Nano))
	}
	row("key", ev.Key)
	row("datacontenttype", ev.ContentType)
	row("dataschema", ev.DataSchema)
	for _, name := range slices.Sorted(maps.Keys(ev.Extensions)) {
		row(name, ev.Extensions[name])
	}
	data := payload(ev, func(text []byte) []byte {
		var indented bytes.Buffer
		if json.Indent(&indented, text, "  ", "  ") != nil {
			return text
		}
		return indented.Bytes()
	})
	if data != "" {
		fmt.Fprintf(&b, "\n  %s\n", data)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// payload is an event's, for people: JSON as arrange makes it, a text as it is, and of bytes how many there are.
func payload(ev *inbox.CloudEvent, arrange func([]byte) []byte) string {
	switch {
	case ev.Data == nil:
		return ""
	case event.IsJSON(ev.ContentType) || ev.ContentType == "":
		return event.Printable(string(arrange(ev.Data)))
	case utf8.Valid(ev.Data):
		return event.Printable(string(ev.Data))
	}
	return fmt.Sprintf("(%d bytes, %s)", len(ev.Data), event.Printable(ev.ContentType))
}

// cell makes a text fit into a line.
func cell(text string) string { return strings.ReplaceAll(event.Printable(text), "\n", `\n`) }
