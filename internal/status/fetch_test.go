package status

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// What relays of earlier versions serve is read for ever: testdata/older-*.json are as they
// were, and are not written anew.
func TestFetch_OlderRelays(t *testing.T) {
	t.Parallel()
	older, err := os.ReadFile("testdata/older-1.json")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/status" {
			_, _ = w.Write(older)
		}
	}))
	defer server.Close()
	for _, address := range []string{server.URL, server.URL + "/", strings.TrimPrefix(server.URL, "http://"), server.URL + "/status"} {
		d, raw, err := Fetch(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := d.Write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, "older-1.txt", b.String())
		if strings.Count(string(raw), "\n") != 1 || !strings.Contains(string(raw), `"gone_since":true`) {
			t.Errorf("it is not as it came: %s", raw)
		}
	}
}

func TestFetch_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	answers := map[string]string{"/newer": `{"version": 2}`, "/other": `{"a": 1}`, "/page": "<html>"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		answer, ok := answers[req.URL.Path]
		if !ok {
			http.Error(w, "away\x1b[2J\nfor good", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	for address, want := range map[string]string{
		server.URL + "/newer": "has version 2, and this walrelay knows 1", server.URL + "/other": "serves no status of walrelay",
		server.URL + "/page": "serves no status of walrelay", server.URL: "503 Service Unavailable: away", "nats://x": "is not an HTTP address",
		"http://": "is not an HTTP address", "http://127.0.0.1:1": "connection refused",
	} {
		_, _, err := Fetch(t.Context(), address)
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
