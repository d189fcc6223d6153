package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Address returns the servers without user, password or token, to be shown.
func (c NATS) Address() string {
	if c.URL == "" && c.URLFile != "" {
		return "the servers of nats.url_file"
	}
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

// CheckURLs says what is wrong with the URLs. It quotes none of them: a
// malformed one may have its password anywhere.
func (c NATS) CheckURLs() error {
	for text := range strings.SplitSeq(c.URL, ",") {
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

// SecretsInPlain reports whether credentials go over a connection that others can read:
// not TLS, and not on this machine alone. (A server may ask for TLS by itself; the
// client then uses it whatever the URL says, but nobody has to.)
func (c NATS) SecretsInPlain() bool {
	if c.TLS != (NATSTLS{}) {
		return false
	}
	for text := range strings.SplitSeq(c.URL, ",") {
		u, err := parseNATSURL(text)
		if err != nil || u.Scheme == "tls" || u.Scheme == "wss" {
			continue
		}
		address := net.ParseIP(u.Hostname())
		local := u.Hostname() == "localhost" || address != nil && address.IsLoopback()
		if !local && (c.Password != "" || c.Token != "" || c.PasswordFile != "" || c.TokenFile != "" || u.User != nil) {
			return true
		}
	}
	return false
}

func parseNATSURL(text string) (*url.URL, error) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	return url.Parse(text)
}
