package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/walrelay/walrelay/config"
)

// certify writes a certificate with a number, and its key, changed at a time.
func certify(t *testing.T, files config.HTTPTLS, number int64, at time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{files.CertFile: {Type: "CERTIFICATE", Bytes: der}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := errors.Join(os.WriteFile(path, pem.EncodeToMemory(block), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
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
	certify(t, cfg.TLS, 1, now.Add(-time.Hour))
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
	if n := number(); n != 1 {
		t.Errorf("certificate %d, want 1", n)
	}
	if err := os.WriteFile(cfg.TLS.CertFile, []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := number(); n != 1 {
		t.Errorf("certificate %d while it is replaced, want 1", n)
	}
	certify(t, cfg.TLS, 2, now)
	if n := number(); n != 2 {
		t.Errorf("certificate %d, want 2", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
