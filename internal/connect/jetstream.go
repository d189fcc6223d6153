package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/router"
)

// jetStreamTimeout bounds one request to the JetStream API.
const jetStreamTimeout = 5 * time.Second

// JetStream asks for streams, and makes them. Safe for concurrent use.
type JetStream struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	address string
	domain  string
}

// NewJetStream uses a connection, which stays the caller's.
func NewJetStream(conn *nats.Conn, cfg config.NATS) (*JetStream, error) {
	js, err := JetStreamContext(conn, cfg)
	if err != nil {
		return nil, err
	}
	return &JetStream{conn: conn, js: js, address: cfg.Address(), domain: cfg.Domain}, nil
}

// JetStreamContext returns the client's JetStream, in the domain of the configuration.
func JetStreamContext(conn *nats.Conn, cfg config.NATS) (js jetstream.JetStream, err error) {
	if cfg.Domain != "" {
		js, err = jetstream.NewWithDomain(conn, cfg.Domain)
	} else {
		js, err = jetstream.New(conn)
	}
	if err != nil {
		return nil, fmt.Errorf("using JetStream: %w", err)
	}
	return js, nil
}

// Stream asks for a stream; nil if there is none. It blocks for 5 s at most. A
// *[problem.Problem] says what only a person can mend.
func (j *JetStream) Stream(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, jetStreamTimeout)
	defer cancel()
	stream, err := j.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil //nolint:nilnil // no stream is an answer
	}
	if err != nil {
		return nil, j.refused(fmt.Sprintf("asking NATS for stream %q", name), err)
	}
	return stream.CachedInfo(), nil
}

// Create makes a stream. It blocks for 5 s at most. A *[problem.Problem] says
// what only a person can mend.
func (j *JetStream) Create(ctx context.Context, cfg jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, jetStreamTimeout)
	defer cancel()
	stream, err := j.js.CreateStream(ctx, cfg)
	if err != nil {
		return nil, j.refused(fmt.Sprintf("creating stream %q", cfg.Name), err)
	}
	return stream.CachedInfo(), nil
}

// refused says what became of a request to the JetStream API: a
// [problem.Problem] if only a person can mend it.
func (j *JetStream) refused(doing string, err error) error {
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
		return NoJetStream(j.address)
	}
	if errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return &problem.Problem{ID: "jetstream_disabled", What: "JetStream is not enabled for the NATS account", Fix: "enable it, or use another account"}
	}
	// The server does not answer a request without permission; the connection
	// hears of it on the side.
	if last := j.conn.LastError(); errors.Is(err, context.DeadlineExceeded) && errors.Is(last, nats.ErrPermissionViolation) {
		return &problem.Problem{ID: "nats_permission", What: doing, Err: last, Fix: "give the NATS user this permission"}
	}
	if apiErr, ok := errors.AsType[*jetstream.APIError](err); ok && apiErr.Code != http.StatusServiceUnavailable {
		return &problem.Problem{ID: "stream_request", What: doing, Err: apiErr, Fix: "correct streams in the configuration or the server's settings"}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// NoJetStream says that a server has no JetStream.
func NoJetStream(address string) *problem.Problem {
	return &problem.Problem{
		ID:   "jetstream_missing",
		What: fmt.Sprintf("NATS at %s has no JetStream", address),
		Fix:  "start nats-server with -js, or correct nats.url or nats.domain",
	}
}

// Refused turns a refused connection to NATS, which does not go away by itself,
// into a [problem.Problem], and leaves any other error as it is.
func Refused(cfg config.NATS, err error) error {
	for _, refusal := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, refusal) {
			return &problem.Problem{
				ID: "nats_refused", What: fmt.Sprintf("NATS at %s refuses the connection", cfg.Address()), Err: refusal,
				Fix: "correct nats.user and nats.password, nats.token, nats.creds_file or nats.nkey_file",
			}
		}
	}
	for _, refusal := range []error{nats.ErrSecureConnRequired, nats.ErrSecureConnWanted} {
		if errors.Is(err, refusal) {
			return &problem.Problem{
				ID: "nats_refused", What: fmt.Sprintf("NATS at %s refuses the connection", cfg.Address()), Err: refusal,
				Fix: "use tls:// or nats:// in nats.url, as the server does",
			}
		}
	}
	return err
}

// Consumers returns the names of those consumers of a stream that are wanted; none if there is no stream.
func (j *JetStream) Consumers(ctx context.Context, stream string, want func(name string) bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, jetStreamTimeout)
	defer cancel()
	s, err := j.js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for stream %q: %w", stream, err)
	}
	var found []string
	names := s.ConsumerNames(ctx)
	for name := range names.Name() {
		if want(name) {
			found = append(found, name)
		}
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("listing the consumers of stream %q: %w", stream, err)
	}
	return found, nil
}

// State is what the server of the connection and its account say of themselves.
type State struct {
	Version    string
	MaxPayload int64 // bytes
	Account    *jetstream.AccountInfo
}

// State asks for it. It blocks for 5 s at most.
func (j *JetStream) State(ctx context.Context) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, jetStreamTimeout)
	defer cancel()
	state := State{Version: j.conn.ConnectedServerVersion(), MaxPayload: j.conn.MaxPayload()}
	var err error
	if state.Account, err = j.js.AccountInfo(ctx); err != nil {
		return state, j.refused("asking NATS for the account", err)
	}
	return state, nil
}

// Header returns the header of a message; false if the stream does not have the message. It asks as
// a relay does, so that it needs no other permission.
func (j *JetStream) Header(ctx context.Context, stream string, sequence uint64) (header nats.Header, found bool, err error) {
	header, found, err = router.MessageHeader(ctx, j.conn, j.domain, stream, sequence)
	if err != nil {
		return nil, false, j.refused(fmt.Sprintf("reading message %d of stream %q", sequence, stream), err)
	}
	return header, found, nil
}

// ConsumerInfos returns what a stream says of its consumers, of the first ones if there are
// more than limit.
func (j *JetStream) ConsumerInfos(ctx context.Context, stream string, limit int) ([]*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, jetStreamTimeout)
	defer cancel()
	s, err := j.js.Stream(ctx, stream)
	if err != nil {
		return nil, j.refused(fmt.Sprintf("asking NATS for stream %q", stream), err)
	}
	list := s.ListConsumers(ctx)
	var found []*jetstream.ConsumerInfo
	for info := range list.Info() {
		if len(found) < limit {
			found = append(found, info)
		}
	}
	if err := list.Err(); err != nil {
		return nil, j.refused(fmt.Sprintf("listing the consumers of stream %q", stream), err)
	}
	return found, nil
}

// DeleteConsumer deletes a consumer, unless clients wait for its messages; their number is
// returned then. One that is not there is deleted.
func (j *JetStream) DeleteConsumer(ctx context.Context, stream, name string) (waiting int, err error) {
	ctx, cancel := context.WithTimeout(ctx, jetStreamTimeout)
	defer cancel()
	consumer, err := j.js.Consumer(ctx, stream, name)
	if err == nil {
		if waiting = consumer.CachedInfo().NumWaiting; waiting > 0 {
			return waiting, nil
		}
		err = j.js.DeleteConsumer(ctx, stream, name)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, fmt.Errorf("deleting consumer %q of stream %q: %w", name, stream, err)
	}
	return 0, nil
}

// CopyConsumer makes a consumer under another name that goes on where the first has come to,
// unless clients wait for the first one's messages; their number is returned then. One that is
// there already, and a first one that is not, are left alone.
func (j *JetStream) CopyConsumer(ctx context.Context, stream, from, to string) (waiting int, err error) {
	ctx, cancel := context.WithTimeout(ctx, jetStreamTimeout)
	defer cancel()
	first, err := j.js.Consumer(ctx, stream, from)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for consumer %q of stream %q: %w", from, stream, err)
	}
	info := first.CachedInfo()
	if info.NumWaiting > 0 {
		return info.NumWaiting, nil
	}
	cfg := info.Config
	cfg.Name, cfg.Durable = to, to
	if info.AckFloor.Stream > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, info.AckFloor.Stream+1, nil
	}
	if _, err := j.js.CreateConsumer(ctx, stream, cfg); err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
		return 0, fmt.Errorf("making consumer %q of stream %q: %w", to, stream, err)
	}
	return 0, nil
}
