package connect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/pace"
)

const (
	natsDialTimeout  = 5 * time.Second
	natsPingInterval = 5 * time.Second
	// natsPingsMissed is after how many unanswered pings a connection is given
	// up: a link that swallows everything is noticed within 15 s.
	natsPingsMissed = 2
	// natsWriteBuffer is how much is written to the socket at once at most.
	natsWriteBuffer  = 128 << 10
	natsFirstDelay   = 50 * time.Millisecond
	natsLongestDelay = 2 * time.Second
)

// NATS connects to NATS, and stays at it for ever once connected: a
// connection that breaks is made anew, at first at once and then every two
// seconds. Nothing is buffered while it is broken, so a publish fails then
// instead of being sent later, out of order.
//
// It blocks for at most 5 s per server, and tries once, unless the options say
// otherwise; later options override the ones set here. A *[config.Error] names
// a file that cannot be read. No error quotes a secret.
func NATS(ctx context.Context, c config.NATS, opts ...nats.Option) (*nats.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	if err := readURL(&c); err != nil {
		return nil, err
	}
	if err := c.CheckURLs(); err != nil {
		return nil, &config.Error{Key: "nats.url", Problem: err.Error()}
	}
	set, err := options(c)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		set = append(set, nats.Timeout(max(time.Millisecond, min(natsDialTimeout, time.Until(deadline)))))
	}
	nc, err := nats.Connect(c.URL, append(set, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", c.Address(), err)
	}
	return nc, nil
}

func options(c config.NATS) ([]nats.Option, error) {
	if err := checkFiles(c); err != nil {
		return nil, err
	}
	options := []nats.Option{
		nats.Name(ApplicationName),
		nats.Timeout(natsDialTimeout),
		nats.ReconnectBufSize(-1),
		// Subjects are made valid by the router, and nobody else publishes.
		nats.SkipSubjectValidation(),
		nats.WriteBufferSize(natsWriteBuffer),
		nats.MaxReconnects(-1),
		nats.PingInterval(natsPingInterval),
		nats.MaxPingsOutstanding(natsPingsMissed),
		nats.CustomReconnectDelay(reconnectDelay),
		// A permission that was taken away may be given back.
		nats.IgnoreAuthErrorAbort(),
		// Without one the client writes to standard error; who asked for something hears it.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	switch {
	case c.User != "" && c.PasswordFile != "":
		options = append(options, nats.UserInfoHandler(func() (string, string) { return c.User, again("nats.password_file", c.PasswordFile) }))
	case c.TokenFile != "":
		options = append(options, nats.TokenHandler(func() string { return again("nats.token_file", c.TokenFile) }))
	case c.User != "":
		options = append(options, nats.UserInfo(c.User, c.Password))
	case c.Token != "":
		options = append(options, nats.Token(c.Token))
	case c.CredsFile != "":
		options = append(options, nats.UserCredentials(c.CredsFile))
	case c.NKeyFile != "":
		nkey, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, &config.Error{Key: "nats.nkey_file", Problem: fmt.Sprintf("%s has no nkey seed of a user", c.NKeyFile)}
		}
		options = append(options, nkey)
	}
	if c.InboxPrefix != "" {
		options = append(options, nats.CustomInboxPrefix(c.InboxPrefix))
	}
	if c.TLS.HandshakeFirst {
		options = append(options, nats.TLSHandshakeFirst())
	}
	if c.TLS.CAFile != "" {
		options = append(options, nats.RootCAs(c.TLS.CAFile))
	}
	if c.TLS.CertFile != "" {
		options = append(options, nats.ClientCert(c.TLS.CertFile, c.TLS.KeyFile))
	}
	return options, nil
}

// checkFiles reports the files that cannot be read. The client would say so
// only at the handshake, and name no key.
func checkFiles(c config.NATS) error {
	var problems []error
	for _, file := range []struct{ key, path string }{
		{"nats.password_file", c.PasswordFile},
		{"nats.token_file", c.TokenFile},
		{"nats.creds_file", c.CredsFile},
		{"nats.nkey_file", c.NKeyFile},
		{"nats.tls.ca_file", c.TLS.CAFile},
		{"nats.tls.cert_file", c.TLS.CertFile},
		{"nats.tls.key_file", c.TLS.KeyFile},
	} {
		if file.path == "" {
			continue
		}
		f, err := os.Open(file.path)
		if err != nil {
			problems = append(problems, &config.Error{Key: file.key, Problem: fmt.Sprintf("cannot be read: %v", err)})
			continue
		}
		_ = f.Close() // only read
	}
	return errors.Join(problems...)
}

// PacedDialer is a dialer for connections on which acknowledgements come.
func PacedDialer() nats.CustomDialer { return pacedDialer{} }

// reconnectDelay doubles from 50 ms up to 2 s, less a random part of up to
// half: many clients that lost one server must not come back together.
func reconnectDelay(attempts int) time.Duration {
	delay := natsLongestDelay
	if attempts < 6 {
		delay = min(natsFirstDelay<<max(0, attempts-1), natsLongestDelay)
	}
	return delay - rand.N(delay/2)
}

// manyBytes within [pace.Interval] are worth a pause: the acknowledgements of
// some 1000 events a second, of about 100 bytes each.
const manyBytes = 1 << 10

// pacedDialer dials connections that are read with pauses, while many
// acknowledgements come. Nobody waits for one of them but the window.
type pacedDialer struct{}

// Dial implements [nats.CustomDialer].
func (pacedDialer) Dial(network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: natsDialTimeout}
	conn, err := dialer.DialContext(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	return &pacedConn{Conn: conn, pace: pace.Pace{Much: manyBytes}}, nil
}

// pacedConn is read by one goroutine at a time.
type pacedConn struct {
	net.Conn

	pace pace.Pace
}

// Read implements [net.Conn].
func (c *pacedConn) Read(b []byte) (int, error) {
	time.Sleep(c.pace.Next(time.Now()))
	n, err := c.Conn.Read(b)
	c.pace.Count(n)
	return n, err
}

// MaxPayload asks the server for its limit, over a connection of its own.
func MaxPayload(ctx context.Context, cfg config.NATS) (int64, error) {
	nc, err := NATS(ctx, cfg, nats.MaxReconnects(0))
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	return nc.MaxPayload(), nil
}
