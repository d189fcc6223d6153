package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/walrelay/walrelay/config"
)

// Listen listens on the address, with TLS if its files are named. A certificate that is renewed
// is used from the next connection on. The error joins *[config.Error] values for files that
// cannot be used.
func Listen(ctx context.Context, cfg config.HTTP) (net.Listener, error) {
	var lc net.ListenConfig
	if cfg.TLS.CertFile == "" {
		return listen(ctx, &lc, cfg.Addr)
	}
	c := &certificate{files: cfg.TLS}
	if _, err := c.get(nil); err != nil {
		return nil, &config.Error{Key: "http.tls.cert_file", Problem: fmt.Sprintf("with http.tls.key_file: %v", err)}
	}
	plain, err := listen(ctx, &lc, cfg.Addr)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(plain, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"http/1.1"}}), nil
}

func listen(ctx context.Context, lc *net.ListenConfig, addr string) (net.Listener, error) {
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP (http.addr): %w", err)
	}
	return listener, nil
}

// certificate reads its files again when they have changed. Safe for concurrent use.
type certificate struct {
	files config.HTTPTLS

	mu     sync.Mutex
	loaded *tls.Certificate
	of     [2]time.Time // when the files were changed last
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var of [2]time.Time
	for i, path := range []string{c.files.CertFile, c.files.KeyFile} {
		if info, err := os.Stat(path); err == nil {
			of[i] = info.ModTime()
		}
	}
	if c.loaded != nil && of == c.of {
		return c.loaded, nil
	}
	read, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err == nil {
		c.loaded, c.of = &read, of
	}
	if c.loaded == nil {
		return nil, err
	}
	return c.loaded, nil // while they are replaced, the old one
}
