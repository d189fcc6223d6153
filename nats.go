package walrelay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

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

// Connect connects to NATS, and stays at it for ever once connected: a
// connection that breaks is made anew, at first at once and then every two
// seconds. Nothing is buffered while it is broken, so a publish fails then
// instead of being sent later, out of order.
//
// It blocks for at most 5 s per server, and tries once, unless the options say
// otherwise; later options override the ones set here. A *[ConfigError] names
// a file that cannot be read. No error quotes a secret.
func (c NATSConfig) Connect(ctx context.Context, opts ...nats.Option) (*nats.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	if err := checkNATSURLs(c.URL); err != nil {
		return nil, &ConfigError{Key: "nats.url", Problem: err.Error()}
	}
	options, err := c.options()
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		options = append(options, nats.Timeout(max(time.Millisecond, min(natsDialTimeout, time.Until(deadline)))))
	}
	nc, err := nats.Connect(c.URL, append(options, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", c.Address(), err)
	}
	return nc, nil
}

func (c NATSConfig) options() ([]nats.Option, error) {
	if err := c.checkFiles(); err != nil {
		return nil, err
	}
	options := []nats.Option{
		nats.Name(applicationName),
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
	}
	switch {
	case c.User != "":
		options = append(options, nats.UserInfo(c.User, c.Password))
	case c.Token != "":
		options = append(options, nats.Token(c.Token))
	case c.CredsFile != "":
		options = append(options, nats.UserCredentials(c.CredsFile))
	case c.NKeyFile != "":
		nkey, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, &ConfigError{Key: "nats.nkey_file", Problem: fmt.Sprintf("%s has no nkey seed of a user", c.NKeyFile)}
		}
		options = append(options, nkey)
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
func (c NATSConfig) checkFiles() error {
	var faults []error
	for _, file := range []struct{ key, path string }{
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
			faults = append(faults, &ConfigError{Key: file.key, Problem: fmt.Sprintf("cannot be read: %v", err)})
			continue
		}
		_ = f.Close() // only read
	}
	return errors.Join(faults...)
}

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

// Address returns the servers without user, password or token, to be shown.
func (c NATSConfig) Address() string {
	var hosts []string
	for text := range strings.SplitSeq(c.URL, ",") {
		u, err := parseNATSURL(text)
		if err != nil {
			return "nats.url"
		}
		host := u.Host
		if u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), "4222")
		}
		hosts = append(hosts, host)
	}
	return strings.Join(hosts, ",")
}

// checkNATSURLs says what is wrong with the URLs. It quotes none of them: a
// malformed one may have its password anywhere.
func checkNATSURLs(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		u, err := parseNATSURL(text)
		switch {
		case err != nil:
			return errors.New("cannot be read as a URL such as nats://host:4222; " +
				"characters of a password such as / : @ % # , must be percent-encoded")
		case u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss":
			return fmt.Errorf("the scheme %q is not one of nats, tls, ws, wss", u.Scheme)
		case u.Hostname() == "":
			return errors.New("has a URL without a host; write nats://host:4222, and several separated by commas")
		}
	}
	return nil
}

func parseNATSURL(text string) (*url.URL, error) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	return url.Parse(text)
}
