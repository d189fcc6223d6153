package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/walrelay/walrelay/event"
)

// maxDocument bounds a document that is fetched, in bytes.
const maxDocument = 16 << 20

// Fetch gets the document of a relay, of this version or an older one, from its HTTP address: a
// URL, whose path is /status if it has none. It blocks until the relay has answered or the context
// ends. raw is the document as it came, on one line.
func Fetch(ctx context.Context, address string) (d Document, raw []byte, err error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	at, err := url.Parse(address)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return d, nil, fmt.Errorf("%q is not an HTTP address, such as http://127.0.0.1:8080", address)
	}
	if strings.Trim(at.Path, "/") == "" {
		at.Path = "/status"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience+patience/2) // the relay asks both servers
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return d, nil, fmt.Errorf("asking %s: %w", at.Redacted(), err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return d, nil, fmt.Errorf("asking the relay: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // what it says is read
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDocument))
	if err != nil {
		return d, nil, fmt.Errorf("reading what %s answers: %w", at.Redacted(), err)
	}
	if response.StatusCode != http.StatusOK {
		first, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		return d, nil, fmt.Errorf("%s answers %s: %s", at.Redacted(), response.Status, event.Printable(event.Clip(first)))
	}
	if err := json.Unmarshal(body, &d); err != nil || d.Version == 0 {
		return d, nil, fmt.Errorf("%s serves no status of walrelay", at.Redacted())
	}
	if d.Version > Version {
		return d, nil, fmt.Errorf("the status of %s has version %d, and this walrelay knows %d: use the newer one", at.Redacted(), d.Version, Version)
	}
	if raw, err = json.Marshal(json.RawMessage(body)); err != nil {
		return d, nil, fmt.Errorf("reading what %s answers: %w", at.Redacted(), err)
	}
	return d, append(raw, '\n'), nil
}
