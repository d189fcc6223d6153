package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/testkit"
)

// certify writes a certificate and its key, changed at a time, and returns its number.
func certify(t *testing.T, files config.HTTPTLS, at time.Time) int64 {
	t.Helper()
	testkit.Certificate(t, files.CertFile, files.KeyFile, "localhost")
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err := errors.Join(err, os.Chtimes(files.CertFile, at, at), os.Chtimes(files.KeyFile, at, at)); err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.Int64()
}

// With TLS, a certificate that was renewed is used for the next connection; while its files
// are replaced, the old one.
func TestListen_TLS(t *testing.T) {
	dir := t.TempDir()
	cfg := config.HTTP{Addr: "127.0.0.1:0", TLS: config.HTTPTLS{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}}
	if _, err := Listen(t.Context(), cfg); err == nil {
		t.Error("it listens without a certificate")
	} else if wrong, ok := errors.AsType[*config.Error](err); !ok || wrong.Key != "http.tls.cert_file" {
		t.Errorf("without a certificate: %v", err)
	}
	now := time.Now()
	first := certify(t, cfg.TLS, now.Add(-time.Hour))
	listener, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, Handler(source())) }()
	number := func() int64 {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the number of the certificate is looked at
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+listener.Addr().String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if string(body) != "ok\n" {
			t.Errorf("it answers %q", body)
		}
		return response.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if n := number(); n != first {
		t.Errorf("certificate %d, want %d", n, first)
	}
	if err := os.WriteFile(cfg.TLS.CertFile, []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := number(); n != first {
		t.Errorf("certificate %d while it is replaced, want %d", n, first)
	}
	second := certify(t, cfg.TLS, now)
	if n := number(); n != second {
		t.Errorf("certificate %d, want %d", n, second)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
