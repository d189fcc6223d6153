package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/status"
	"github.com/walrelay/walrelay/internal/tail"
)

const (
	// lookBack is how many messages at the end of a stream are looked through for an event of
	// which no time is known, and lookFor how long that may take in each stream.
	lookBack = 100_000
	lookFor  = 2 * time.Second
	// early is how much earlier than an event's time its message is looked for: clocks differ.
	early = time.Minute
	// maxMessages is how many messages of an event are shown; replays add some.
	maxMessages = 5
	// ownConsumer begins the names of the consumers that look through a stream.
	ownConsumer = "walrelay-console-"
	// maxConsumers is how many consumers of a stream are shown.
	maxConsumers = 200
)

// messageOf is a message of a stream with the event.
type messageOf struct {
	Stream, Subject string
	Sequence        uint64
	StoredAt        time.Time
	// Position is where the event stands in the write-ahead log, as the message says, and LSN
	// its commit.
	Position, LSN string
	Event         inbox.CloudEvent
	Payload       payload
	Consumers     []consumerOf
}

// consumerOf says how far a consumer of the stream is.
type consumerOf struct {
	Name string
	// Has is acknowledged, delivered or waiting; or not wanted, of one that takes other subjects.
	Has string
}

// askStreams looks for the event in the streams.
func (s *story) askStreams(ctx context.Context, c *Console, since time.Time) error {
	if since.IsZero() {
		if since = s.hint(); !since.IsZero() {
			since = since.Add(-early)
		}
	}
	return c.withStreams(ctx, func(js jetstream.JetStream, api *connect.JetStream) error {
		var errs []error
		for i := range c.source.Config.Streams {
			name := c.source.Config.Streams[i].Name
			if err := s.askStream(ctx, js, api, name, since); err != nil {
				errs = append(errs, fmt.Errorf("looking into stream %q: %w", name, err))
			}
		}
		return errors.Join(errs...)
	})
}

func (s *story) askStream(ctx context.Context, js jetstream.JetStream, api *connect.JetStream, name string, since time.Time) error {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	state := stream.CachedInfo().State
	if state.Msgs == 0 {
		s.Looked = append(s.Looked, fmt.Sprintf("stream %s is empty", name))
		return nil
	}
	sequences, looked, err := s.search(ctx, stream, since)
	s.Looked = append(s.Looked, looked)
	if err != nil {
		return err
	}
	var consumers []*jetstream.ConsumerInfo
	if len(sequences) > 0 {
		if consumers, err = api.ConsumerInfos(ctx, name, maxConsumers); err != nil {
			return err
		}
	}
	for _, sequence := range sequences {
		msg, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		s.Messages = append(s.Messages, describe(name, msg, consumers))
	}
	return nil
}

// search looks through the headers of messages, from a time on or those at the end.
func (s *story) search(ctx context.Context, stream jetstream.Stream, since time.Time) (sequences []uint64, looked string, err error) {
	info := stream.CachedInfo()
	last := info.State.LastSeq
	from := tail.From{Time: since}
	if since.IsZero() {
		from.Sequence = max(info.State.FirstSeq, last-min(last, lookBack)+1)
	}
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	messages, consumer, err := tail.Open(ctx, stream, jetstream.OrderedConsumerConfig{NamePrefix: ownConsumer, HeadersOnly: true}, from)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		messages.Stop()
		_ = stream.DeleteConsumer(context.WithoutCancel(ctx), consumer.Name) // or the server does in a while
	}()
	if consumer.NumPending == 0 {
		return nil, fmt.Sprintf("stream %s has nothing since %s", info.Config.Name, since.UTC().Format(time.RFC3339)), nil
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	escaped := event.EscapeHeader(s.ID)
	first, at := uint64(0), uint64(0)
	for at < last && len(sequences) < maxMessages {
		msg, err := messages.Next()
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return nil, "", err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return nil, "", err
		}
		if at = meta.Sequence.Stream; first == 0 {
			first = at
		}
		if has(msg.Headers(), escaped) {
			sequences = append(sequences, at)
		}
	}
	return sequences, fmt.Sprintf("messages %s to %s of %s in stream %s", status.Count(int64(first)), status.Count(int64(at)), status.Count(int64(last)), info.Config.Name), nil
}

// has reports whether a header is that of an event with the id, as headers write it: in
// structured mode only the Nats-Msg-Id has it.
func has(header nats.Header, id string) bool {
	if found := header.Get("ce-id"); found != "" {
		return found == id
	}
	_, rest, _ := strings.Cut(header.Get(nats.MsgIdHdr), " ")
	found, _, _ := strings.Cut(rest, " ")
	return found != "" && found == id
}

func describe(stream string, msg *jetstream.RawStreamMsg, consumers []*jetstream.ConsumerInfo) messageOf {
	m := messageOf{Stream: stream, Subject: msg.Subject, Sequence: msg.Sequence, StoredAt: msg.Time.UTC()}
	ev, err := inbox.DecodeParts(msg.Header, msg.Data)
	m.Position, m.Event = ev.Position, ev
	if position, failed := event.ParsePosition(ev.Position); failed == nil {
		m.LSN = position.LSN()
	}
	data := ev.Data
	if err != nil {
		data = msg.Data
	}
	m.Payload = payloadOf(data, Root+"content/message?"+valuesOf("stream", stream, "sequence", fmt.Sprint(msg.Sequence)).Encode())
	for _, info := range consumers {
		if strings.HasPrefix(info.Name, ownConsumer) {
			continue
		}
		m.Consumers = append(m.Consumers, consumerOf{Name: info.Name, Has: reached(info, msg)})
	}
	slices.SortFunc(m.Consumers, func(a, b consumerOf) int { return strings.Compare(a.Name, b.Name) })
	return m
}

// reached says whether a consumer has had a message.
func reached(info *jetstream.ConsumerInfo, msg *jetstream.RawStreamMsg) string {
	filters := info.Config.FilterSubjects
	if info.Config.FilterSubject != "" {
		filters = []string{info.Config.FilterSubject}
	}
	wanted := len(filters) == 0 || slices.ContainsFunc(filters, func(f string) bool { return event.PatternsOverlap(f, msg.Subject) })
	switch {
	case !wanted:
		return "not wanted"
	case info.AckFloor.Stream >= msg.Sequence:
		return "acknowledged"
	case info.Delivered.Stream >= msg.Sequence && info.Config.AckPolicy == jetstream.AckNonePolicy:
		return "delivered"
	case info.Delivered.Stream >= msg.Sequence:
		return "delivered; perhaps not acknowledged"
	}
	return "waiting"
}

// messageData returns the payload of a message of one of the streams of the configuration.
func (c *Console) messageData(ctx context.Context, name string, sequence uint64) (data []byte, found bool, err error) {
	if !slices.ContainsFunc(c.source.Config.Streams, func(s config.Stream) bool { return s.Name == name }) {
		return nil, false, nil
	}
	err = c.withStreams(ctx, func(js jetstream.JetStream, _ *connect.JetStream) error {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return err
		}
		msg, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		data, found = msg.Data, true
		return nil
	})
	return data, found, err
}

// withStreams runs do on a connection to NATS.
func (c *Console) withStreams(ctx context.Context, do func(js jetstream.JetStream, api *connect.JetStream) error) error {
	cfg := c.source.Config.NATS
	nc, err := connect.NATS(ctx, cfg)
	if err != nil {
		return connect.Refused(cfg, err)
	}
	defer nc.Close()
	js, err := connect.JetStreamContext(nc, cfg)
	if err != nil {
		return err
	}
	api, err := connect.NewJetStream(nc, cfg)
	if err != nil {
		return err
	}
	return do(js, api)
}
