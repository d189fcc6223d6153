// Package deliver hands events to HTTP endpoints.
//
// Input: a file that describes handlers, and events. Output: handlers of package inbox, each of
// which posts events to its endpoint, in the CloudEvents binding for HTTP, signed. Promises:
// what the endpoint answers decides what becomes of the event, as docs/deliver.md says; an
// endpoint that nobody can connect to parks nothing. It must not import the relay.
package deliver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/walrelay/walrelay/event"
	"github.com/walrelay/walrelay/inbox"
)

// Handler is an endpoint and the events that it gets.
type Handler struct {
	// Name is that of the durable consumer.
	Name string `yaml:"name"`
	// Types are event types or patterns; none takes every event.
	Types []string `yaml:"types"`
	// URL is where events are posted to.
	URL string `yaml:"url"`
	// Stream is the stream; default EVENTS.
	Stream string `yaml:"stream"`
	// Subject is the relay's template of subjects for the handler's events; default publish.subject.
	Subject string `yaml:"subject"`
	// Concurrency is how many requests there are at a time; default 16.
	Concurrency int `yaml:"concurrency"`
	// Timeout is how long an answer may take; default 30 seconds.
	Timeout time.Duration `yaml:"timeout"`
	// MaxRetries is how often an event is tried again; default 10.
	MaxRetries *int `yaml:"max_retries"`
	// SecretFile has the secret by which requests are signed: whsec_ and base64. Without
	// one they are not signed.
	SecretFile string `yaml:"secret_file"`
	// Headers are added to each request.
	Headers map[string]string `yaml:"headers"`
	// FromNow begins a new handler with events from then on.
	FromNow bool `yaml:"from_now"`

	secret []byte
}

// Defaults of handlers.
const (
	DefaultConcurrency = 16
	DefaultTimeout     = 30 * time.Second
	// maxWait bounds what an endpoint may ask for by Retry-After.
	maxWait = time.Hour
)

// Load reads a file of handlers, {handlers: [{name: …, url: …}, …]}. All mistakes are returned
// at once.
func Load(path string) ([]Handler, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading handlers: %w", err)
	}
	var file struct {
		Handlers []Handler `yaml:"handlers"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Handlers) == 0 {
		return nil, fmt.Errorf("%s: it has no handlers; write handlers: [{name: billing, types: [order.placed], url: https://…}]", path)
	}
	var errs []error
	for i := range file.Handlers {
		if err := file.Handlers[i].prepare(filepath.Dir(path)); err != nil {
			errs = append(errs, fmt.Errorf("%s: handler %d (%q): %w", path, i+1, event.Clip(file.Handlers[i].Name), err))
		}
	}
	return file.Handlers, errors.Join(errs...)
}

// prepare checks a handler, sets defaults and reads its secret.
func (h *Handler) prepare(dir string) error {
	var errs []error
	if h.Name == "" {
		errs = append(errs, errors.New("it has no name"))
	}
	switch u, err := url.Parse(h.URL); {
	case h.URL == "":
		errs = append(errs, errors.New("it has no url"))
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		errs = append(errs, errors.New("url: want http:// or https:// and a host"))
	}
	if h.Concurrency == 0 {
		h.Concurrency = DefaultConcurrency
	}
	if h.Timeout == 0 {
		h.Timeout = DefaultTimeout
	}
	for name := range h.Headers {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "ce-") || strings.HasPrefix(lower, "webhook-") {
			errs = append(errs, fmt.Errorf("headers: %s is the event's", name))
		}
	}
	if h.SecretFile != "" {
		path := h.SecretFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("secret_file: %w", err))
		} else if h.secret, err = parseSecret(string(text)); err != nil {
			errs = append(errs, fmt.Errorf("secret_file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// parseSecret reads a secret as Standard Webhooks writes it. The error does not quote it.
func parseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), "whsec_")
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(secret) < 24 {
		return nil, errors.New("want whsec_ and the base64 of at least 24 bytes (echo \"whsec_$(openssl rand -base64 32)\")")
	}
	return secret, nil
}

// Register registers the handlers. The client must not follow redirects; see [Client].
func Register(r *inbox.Registry, handlers []Handler, client *http.Client) {
	for i := range handlers {
		h := &handlers[i]
		match := inbox.All()
		if len(h.Types) > 0 {
			match = inbox.Types(h.Types...)
		}
		options := []inbox.Option{inbox.Lanes(h.Concurrency), inbox.Timeout(h.Timeout)}
		if h.MaxRetries != nil {
			options = append(options, inbox.MaxRetries(*h.MaxRetries))
		}
		if h.Stream != "" {
			options = append(options, inbox.Stream(h.Stream))
		}
		if h.Subject != "" {
			options = append(options, inbox.Subject(h.Subject))
		}
		if h.FromNow {
			options = append(options, inbox.FromNow())
		}
		inbox.OnAtLeastOnce(r, h.Name, match, func(ctx context.Context, ev inbox.Event[[]byte]) error {
			return h.post(ctx, client, &ev.CloudEvent, ev.Attempt)
		}, options...)
	}
}

// Client returns a client for up to n requests at a time. The caller closes its idle
// connections.
func Client(n int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: n, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true,
			DialContext: (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post hands an event to the endpoint.
func (h *Handler) post(ctx context.Context, client *http.Client, ev *inbox.CloudEvent, attempt int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(ev.Data))
	if err != nil {
		return inbox.Park(fmt.Errorf("making the request: %w", err))
	}
	for name, value := range h.Headers {
		request.Header.Set(name, value)
	}
	setEvent(request.Header, ev)
	id := messageID(ev)
	request.Header.Set("Idempotency-Key", cmp.Or(ev.Position, id))
	request.Header.Set("Walrelay-Handler", h.Name)
	request.Header.Set("Walrelay-Attempt", strconv.Itoa(attempt))
	request.Header.Set("User-Agent", "walrelay")
	if h.secret != nil {
		sign(request.Header, h.secret, id, time.Now(), ev.Data)
	}
	response, err := client.Do(request)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			return inbox.Pause(fmt.Errorf("connecting to %s: %w", redact(h.URL), op))
		}
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			return inbox.Pause(fmt.Errorf("connecting to %s: %w", redact(h.URL), dns))
		}
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return fmt.Errorf("posting to %s: %w", redact(h.URL), err)
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection is used again
		_ = response.Body.Close()                          // it was read
	}()
	return judge(response, redact(h.URL), time.Now())
}

// judge says what an answer means for the event.
func judge(response *http.Response, endpoint string, now time.Time) error {
	code := response.StatusCode
	if code >= 200 && code < 300 {
		return nil
	}
	const most = 500
	body, _ := io.ReadAll(io.LimitReader(response.Body, most)) // a part is enough for a person
	err := fmt.Errorf("%s answered %s", endpoint, response.Status)
	if text := strings.TrimSpace(string(body)); text != "" {
		err = fmt.Errorf("%w: %q", err, event.Clip(text))
	}
	switch {
	case code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests || code >= 500:
		if after, ok := retryAfter(response.Header.Get("Retry-After"), now); ok {
			return inbox.RetryAfter(after, err)
		}
		return err
	case code >= 400:
		return inbox.Park(err)
	}
	return fmt.Errorf("%w; the endpoint must answer by itself, and redirects are not followed", err)
}

// retryAfter reads the header (RFC 9110, section 10.2.3): seconds, or a date.
func retryAfter(value string, now time.Time) (time.Duration, bool) {
	if value == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxWait), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), maxWait), true
}

// setEvent writes the event's attributes (CloudEvents, "HTTP Protocol Binding" 1.0.2, section 3.1).
func setEvent(header http.Header, ev *inbox.CloudEvent) {
	set := func(name, value string) {
		if value != "" {
			header.Set("ce-"+name, event.EscapeHeader(value))
		}
	}
	header.Set("Ce-Specversion", event.SpecVersion)
	set("id", ev.ID)
	set("source", ev.Source)
	set("type", ev.Type)
	set("subject", ev.Subject)
	set("dataschema", ev.DataSchema)
	set("partitionkey", ev.Key)
	if !ev.Time.IsZero() {
		set("time", ev.Time.UTC().Format(time.RFC3339Nano))
	}
	for name, value := range ev.Extensions {
		set(name, value)
	}
	for _, name := range []string{"traceparent", "tracestate"} { // as a tracing server reads them
		if value := ev.Extensions[name]; value != "" {
			header.Set(name, event.EscapeHeader(value))
		}
	}
	if ev.ContentType != "" {
		// As it is: it is the same header. Nothing else than a media type gets this far by the relay.
		header.Set("Content-Type", strings.Map(printable, ev.ContentType))
	}
}

// printable replaces what may not stand in a header.
func printable(c rune) rune {
	if c < ' ' || c >= 0x7F {
		return '?'
	}
	return c
}

// messageID tells the event from all others, and is the same for each attempt.
func messageID(ev *inbox.CloudEvent) string {
	sum := sha256.Sum256([]byte(ev.Source + "\x00" + ev.ID))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// sign signs a request as Standard Webhooks says: HMAC-SHA256 over id, time and body.
func sign(header http.Header, secret []byte, id string, now time.Time, body []byte) {
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	header.Set("Webhook-Id", id)
	header.Set("Webhook-Timestamp", at)
	header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// redact leaves out of an URL what may be secret.
func redact(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "the endpoint"
	}
	return u.Scheme + "://" + u.Host + u.Path
}
