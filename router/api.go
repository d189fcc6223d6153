package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// api asks the leader of a stream (NATS manual, "JetStream wire API reference"). The
// client's jetstream package reads messages from any replica where the stream allows
// that (allow_direct), and one that is behind does not have the last ones yet.
type api struct {
	nc     *nats.Conn
	prefix string // of subjects
	stream string
}

func newAPI(nc *nats.Conn, domain, stream string) api {
	prefix := "$JS.API."
	if domain != "" {
		prefix = "$JS." + domain + ".API."
	}
	return api{nc: nc, prefix: prefix, stream: stream}
}

// errGone says that a stream does not have a message: any more, or yet.
var errGone = errors.New("the stream does not have the message")

// ask is askSubject for the JetStream API.
func (a *api) ask(ctx context.Context, subject string, request any, answer refusable) error {
	return a.askSubject(ctx, a.prefix+subject, request, answer)
}

// askSubject sends a request and reads its answer. It blocks for apiTimeout at most. The error is
// a *[jetstream.APIError] if that was the answer.
func (a *api) askSubject(ctx context.Context, subject string, request any, answer refusable) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return fmt.Errorf("writing a request to %s: %w", subject, err)
		}
	}
	msg, err := a.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return err //nolint:wrapcheck // every caller says what it asked
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", subject, err)
	}
	return answer.refused()
}

// refusable is an answer that may be a refusal.
type refusable interface{ refused() error }

// apiAnswer is what every answer may have.
type apiAnswer struct {
	Error *jetstream.APIError `json:"error"`
}

func (a *apiAnswer) refused() error {
	if a.Error == nil {
		return nil
	}
	return a.Error
}

// streamInfo is what a stream says of itself.
type streamInfo struct {
	apiAnswer
	jetstream.StreamInfo

	// Domain is where the stream is; the client's type leaves it out.
	Domain string `json:"domain"`
}

// info asks for the stream's state.
func (a *api) info(ctx context.Context) (*streamInfo, error) {
	info := &streamInfo{}
	if err := a.ask(ctx, "STREAM.INFO."+a.stream, nil, info); err != nil {
		return nil, fmt.Errorf("asking stream %q for its state: %w", a.stream, err)
	}
	return info, nil
}

// stored is a message of a stream, without its payload.
type stored struct {
	sequence uint64
	header   nats.Header
}

// message reads a message; errGone if the stream does not have it.
func (a *api) message(ctx context.Context, seq uint64) (stored, error) {
	var answer struct {
		apiAnswer
		Message struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
		} `json:"message"`
	}
	err := a.ask(ctx, "STREAM.MSG.GET."+a.stream, map[string]uint64{"seq": seq}, &answer)
	if isAPIError(err, codeNoMessageFound) {
		err = errGone
	}
	msg := stored{sequence: answer.Message.Sequence}
	if err == nil && len(answer.Message.Header) > 0 {
		msg.header, err = nats.DecodeHeadersMsg(answer.Message.Header)
	}
	if err != nil {
		return stored{}, fmt.Errorf("reading message %d of stream %q: %w", seq, a.stream, err)
	}
	return msg, nil
}

// MessageHeader reads the header of a message of a stream, in the JetStream domain or in that of the
// server; false if the stream does not have it. It blocks for 5 s at most.
func MessageHeader(ctx context.Context, nc *nats.Conn, domain, stream string, sequence uint64) (header nats.Header, found bool, err error) {
	a := newAPI(nc, domain, stream)
	msg, err := a.message(ctx, sequence)
	if errors.Is(err, errGone) {
		return nil, false, nil
	}
	return msg.header, err == nil, err
}

// streamOf asks which stream takes a subject; "" if none does.
func (a *api) streamOf(ctx context.Context, subject string) (string, error) {
	var answer struct {
		apiAnswer
		Streams []string `json:"streams"`
	}
	if err := a.ask(ctx, "STREAM.NAMES", map[string]string{"subject": subject}, &answer); err != nil {
		return "", fmt.Errorf("asking which stream takes subject %q: %w", subject, err)
	}
	if len(answer.Streams) == 0 {
		return "", nil
	}
	return answer.Streams[0], nil
}
