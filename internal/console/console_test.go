package console

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/inbox"
	"github.com/walrelay/walrelay/internal/relay/relaytest"
	"github.com/walrelay/walrelay/internal/status"
	"github.com/walrelay/walrelay/internal/telemetry"
	"github.com/walrelay/walrelay/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

const token = "correct horse battery staple"

// site is a console that is served on a loopback address.
type site struct {
	t      *testing.T
	url    string
	client *http.Client
}

// open serves a console of a configuration.
func open(t *testing.T, cfg config.Config) *site {
	t.Helper()
	c, err := New(sourceOf(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(c.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 2*time.Second, 10*time.Second
	server.Start()
	t.Cleanup(server.Close)
	return visit(t, server.URL)
}

func sourceOf(t *testing.T, cfg config.Config) Source {
	t.Helper()
	none := func() float64 { return 0 }
	return Source{
		Config: cfg, Log: zerolog.New(zerolog.NewTestWriter(t)), Status: status.NewReader(cfg).Read, Sample: telemetry.New(none, none, none).Sample,
		Relay: func() Relay { return Relay{} },
	}
}

// visit is a browser that knows nothing yet.
func visit(t *testing.T, address string) *site {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: time.Minute, Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return &site{t, address, client}
}

func (s *site) do(method, path string, form url.Values, header ...string) (code int, body string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	response, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode, string(text)
}

// get returns a page, which must be there.
func (s *site) get(path string) string {
	s.t.Helper()
	code, body := s.do(http.MethodGet, path, nil)
	if code != http.StatusOK {
		s.t.Errorf("%s: %d\n%s", path, code, body)
	}
	return body
}

func (s *site) signIn() {
	s.t.Helper()
	if code, body := s.do(http.MethodPost, "/console/sign-in", url.Values{"token": {token}, "next": {"/console/sign-in"}}); code != http.StatusOK || !strings.Contains(body, "Sign out") {
		s.t.Fatalf("signing in: %d\n%s", code, body)
	}
}

// missing returns which of the texts a page lacks.
func missing(page string, texts ...string) (lacks []string) {
	for _, text := range texts {
		if !strings.Contains(page, text) {
			lacks = append(lacks, text)
		}
	}
	return lacks
}

// oddities are events that strangers write: markup in every text, a megabyte, bytes that are
// no text.
const oddities = `
INSERT INTO public.outbox (id, event_type, source, partition_key, data, extensions) VALUES
	('00000000-0000-0000-0000-000000000001', '<script>alert(1)</script>', '/s', '<img src=x onerror=alert(2)>', '"<b>bold</b>"', '{"<i>": "x"}'),
	('00000000-0000-0000-0000-000000000002', 'b', '/s', 'k2', '1', '{"A": "x"}'),
	('00000000-0000-0000-0000-000000000003', 'b', '/s', 'k3', '1', '{"B": "x"}');
INSERT INTO public.outbox (id, event_type, source, scheduled_at, data) VALUES
	('00000000-0000-0000-0000-000000000004', 'large', '/s', now() + interval '1 day', to_jsonb(repeat('x', 1000 * 1000)));
INSERT INTO public.outbox (id, event_type, source, scheduled_at, data_bytes, content_type) VALUES
	('00000000-0000-0000-0000-000000000005', 'bytes', '/s', now() + interval '1 day', '\x00ff1b5b316d3c623e', 'application/octet-stream');
INSERT INTO public.outbox (id, event_type, source, partition_key, data) VALUES
	('00000000-0000-0000-0000-000000000006', 'plain', '/s', 'k6', '{"n": "</pre><script>alert(3)</script>"}');`

func prepared(t *testing.T, with config.Console) (*relaytest.World, *site) {
	t.Helper()
	w := relaytest.New(t, config.Config{Console: with}, "")
	conn := testkit.Connect(t, w.Config.Postgres.URL)
	if err := inbox.Migrate(t.Context(), conn, inbox.Roles{}); err != nil {
		t.Fatal(err)
	}
	w.Exec(oddities)
	w.Publish()
	return w, open(t, w.Config)
}

var anyMarkup = regexp.MustCompile(`<script>|<img|<b>|<i>`)

// Every page shows what there is, and takes nothing of it for markup.
func TestPages_OddEvents(t *testing.T) {
	t.Parallel()
	w, s := prepared(t, config.Console{})
	w.Exec(`INSERT INTO walrelay.handlers (handler, stream, types, mode, last_error) SELECT 'h' || n, 'EVENTS', '{<b>}', 'once', '<b>no</b>' FROM generate_series(1, 1000) AS n`)
	id := relaytest.ID
	for path, want := range map[string][]string{
		"/console/":                                              {"990 more handlers", "EVENTS", "Read only", "/console/delayed?error="},
		"/console/delayed":                                       {"3 failed", "2 scheduled", id(1), "&lt;script&gt;", "Redrive…"},
		"/console/delayed?state=scheduled":                       {id(4), id(5), "Reschedule…", "Cancel…"},
		"/console/delayed?key=none":                              {"There are none."},
		"/console/handlers":                                      {"1 to 50 of 1 000", "skip=50"},
		"/console/handlers?skip=990":                             {"991 to 1000"},
		"/console/handlers?skip=x&name=h77":                      {"1 to 11 of 11"},
		"/console/parked":                                        {"There are none."},
		"/console/doctor":                                        {"relay_missing", "0 fail"},
		"/console/event?id=" + id(1):                             {"failed", "The row makes no event", "Discard…", "&lt;i&gt;", "public.outbox", "Not found."},
		"/console/event?id=" + id(4):                             {"scheduled", "only the beginning is shown", "content/delayed?", "Cancel…"},
		"/console/event?id=" + id(5):                             {"scheduled", "Reschedule…", "data_base64"},
		"/console/event?id=" + id(6):                             {"message 1 of EVENTS", "events.plain", "committed at", "has no consumer", "k6"},
		"/console/event?id=nothing":                              {"no row has this id", "Not found.", "Look from"},
		"/console/event?id=" + url.QueryEscape("'; <b>\x00\xff"): {"Event"},
		"/console/delayed/redrive?type=b":                        {"2 events", "of type b", "walrelay delayed redrive --type b", "To do it here, sign in"},
		"/console/sign-in":                                       {"Token of the console"},
	} {
		page := s.get(path)
		if lacks := missing(page, want...); lacks != nil {
			t.Errorf("%s lacks %q:\n%s", path, lacks, page)
		}
		if found := anyMarkup.FindString(page); found != "" {
			t.Errorf("%s has %s", path, found)
		}
	}
	// The whole megabyte is a file, which no browser shows as a page.
	link := regexp.MustCompile(`href="(/console/content/[^"]*)"`).FindStringSubmatch(s.get("/console/event?id=" + id(4)))
	if link == nil {
		t.Fatal("no link to the whole content")
	}
	if content := s.get(strings.ReplaceAll(link[1], "&amp;", "&")); len(content) < 1_000_000 {
		t.Errorf("the content has %d bytes", len(content))
	}
	for path, code := range map[string]int{
		"/console/nothing": http.StatusNotFound, "/console/static/nothing.js": http.StatusNotFound, "/console/event": http.StatusBadRequest,
		"/console/event?id=x&since=soon": http.StatusBadRequest, "/console/delayed?before=1": http.StatusBadRequest,
		"/console/delayed/explode": http.StatusNotFound, "/console/content/message?stream=OTHER&sequence=1": http.StatusNotFound,
	} {
		if got, body := s.do(http.MethodGet, path, nil); got != code || strings.Contains(body, "<h1>") != (code != 0) {
			t.Errorf("%s: %d, want %d\n%s", path, got, code, body)
		}
	}
}

// What was asked and confirmed is done; two who do it at once do it once.
func TestActions(t *testing.T) {
	t.Parallel()
	w, s := prepared(t, config.Console{Token: token})
	stop := w.Start()
	defer stop()
	redrive := func(s *site, form url.Values) string {
		_, body := s.do(http.MethodPost, "/console/delayed/redrive", form)
		return body
	}
	if body := redrive(s, url.Values{"type": {"b"}, "count": {"2"}}); missing(body, "not signed in", "Nothing was changed") != nil {
		t.Errorf("without a sign-in:\n%s", body)
	}
	if code, body := s.do(http.MethodPost, "/console/sign-in", url.Values{"token": {"wrong"}}); code != http.StatusUnauthorized || missing(body, "This is not the token") != nil {
		t.Errorf("a wrong token: %d\n%s", code, body)
	}
	s.signIn()
	// There is more than somebody was told.
	if body := redrive(s, url.Values{"type": {"b"}, "count": {"1"}}); missing(body, "There are more events now", "Redrive 2 events") != nil {
		t.Errorf("more events:\n%s", body)
	}
	for _, form := range []url.Values{{"type": {"b"}}, {"count": {"-1"}}, {"count": {"x"}}} {
		if body := redrive(s, form); missing(body, "does not say how many") != nil {
			t.Errorf("%v:\n%s", form, body)
		}
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://evil.example"}} {
		if code, body := s.do(http.MethodPost, "/console/delayed/discard", url.Values{"count": {"9"}}, header...); code != http.StatusForbidden || missing(body, "Another site has sent this") != nil {
			t.Errorf("%v: %d\n%s", header, code, body)
		}
	}
	// The stream refuses an event; once it does not, two redrive it at the same time.
	limit := func(bytes int32) {
		testkit.UpdateStream(t, w.JS, "EVENTS", func(c *jetstream.StreamConfig) { c.MaxMsgSize = bytes })
	}
	limit(1000)
	refused := relaytest.ID(7)
	w.Exec(`INSERT INTO public.outbox (id, event_type, source, max_retries, data) VALUES ('` + refused + `', 'refused', '/s', 0, to_jsonb(repeat('x', 2000)))`)
	becomes := func(state, more string) {
		t.Helper()
		testkit.Eventually(t, time.Minute, "the event is "+state, func() error {
			if lacks := missing(s.get("/console/event?id="+refused), `class="state `+state+`"`, more); lacks != nil {
				return fmt.Errorf("the page lacks %q", lacks)
			}
			return nil
		})
	}
	becomes("failed", "Redrive…")
	limit(-1)
	var group sync.WaitGroup
	said := make([]string, 2)
	for i := range said {
		other := visit(t, s.url)
		other.signIn()
		group.Go(func() { said[i] = redrive(other, url.Values{"id": {refused}, "count": {"1"}}) })
	}
	group.Wait()
	for _, body := range said {
		if missing(body, "1 event tried again") != nil && missing(body, "somebody was faster") != nil {
			t.Errorf("one is told:\n%s", body)
		}
	}
	becomes("published", "events.refused")
	if n := w.Count("EVENTS"); n != 2 {
		t.Errorf("the stream has %d messages, want 2", n)
	}
	if _, body := s.do(http.MethodPost, "/console/delayed/reschedule", url.Values{"type": {"large"}, "count": {"1"}, "at": {"soon"}}); missing(body, "neither a time", "soon") != nil {
		t.Errorf("a wrong time:\n%s", body)
	}
	for _, step := range [][3]string{
		{"reschedule", "large", "1 event moved"}, {"cancel", "bytes", "1 event cancelled"}, {"discard", "b", "2 events discarded"},
	} {
		if _, body := s.do(http.MethodPost, "/console/delayed/"+step[0], url.Values{"type": {step[1]}, "count": {"2"}, "at": {"48h"}}); missing(body, step[2]) != nil {
			t.Errorf("%v:\n%s", step, body)
		}
	}
}

func TestActions_Parked(t *testing.T) {
	t.Parallel()
	w, s := prepared(t, config.Console{Token: token})
	w.Exec(`INSERT INTO walrelay.handlers (handler, stream, types, mode) VALUES ('billing', 'EVENTS', '{a}', 'once');
		INSERT INTO walrelay.parked (handler, state, event_id, event_type, source, key, stream, sequence, subject, headers, data, attempts, last_error, event, next_attempt_at)
		SELECT 'billing', 'failed', 'e' || n, 'a', '/s', '', 'EVENTS', n, 'events.a', convert_to('{}', 'UTF8'), '\x00ff', 1, '<b>closed</b> "' || n || '"', decode(md5(n::text), 'hex'), now() FROM generate_series(1, 60) AS n`)
	s.signIn()
	for path, want := range map[string][]string{
		"/console/parked":                                 {"billing", "Earlier events", "&lt;b&gt;closed", ">60<"},
		"/console/event?id=e7":                            {"parked by handler", "billing", "00 ff", "Redrive…"},
		"/console/parked/redrive?id=e7":                   {"Redrive 1 event"},
		"/console/parked/discard?handler=billing&error=9": {"Discard 6 events", "walrelay parked discard --handler billing --error 9"},
	} {
		if lacks := missing(s.get(path), want...); lacks != nil {
			t.Errorf("%s lacks %q:\n%s", path, lacks, s.get(path))
		}
	}
	if _, body := s.do(http.MethodPost, "/console/parked/redrive", url.Values{"id": {"e7"}, "count": {"1"}}); missing(body, "1 event redriven") != nil {
		t.Errorf("one is redriven:\n%s", body)
	}
	if _, body := s.do(http.MethodPost, "/console/parked/discard", url.Values{"handler": {"billing"}, "count": {"60"}}); missing(body, "60 events discarded", "There are none.") != nil {
		t.Errorf("all are discarded:\n%s", body)
	}
}

// Without rights the pages say which one is missing, and show what they can.
func TestPages_WithoutRights(t *testing.T) {
	t.Parallel()
	w, _ := prepared(t, config.Console{})
	role := "reader_" + w.Query("SELECT current_database()")
	w.Exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD 'x'`)
	t.Cleanup(func() {
		testkit.Exec(t, testkit.Database(t, testkit.Shared(t)), "DROP ROLE IF EXISTS "+role)
	})
	cfg := w.Config
	u, err := url.Parse(cfg.Postgres.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "x")
	cfg.Postgres.URL = u.String()
	s := open(t, cfg)
	for path, want := range map[string][]string{
		"/console/":                            {"EVENTS", "not known"},
		"/console/delayed":                     {"may not see or change delayed events", "To do: <code>GRANT "},
		"/console/parked":                      {"may not see or change parked events"},
		"/console/doctor":                      {"fail"},
		"/console/handlers":                    {"Handlers"},
		"/console/event?id=" + relaytest.ID(6): {"may not see or change delayed events", "message 1 of EVENTS"},
	} {
		if lacks := missing(s.get(path), want...); lacks != nil {
			t.Errorf("%s lacks %q:\n%s", path, lacks, s.get(path))
		}
	}
	// And without servers.
	cfg.Postgres.URL, cfg.NATS.URL = "postgres://127.0.0.1:1/x", "nats://127.0.0.1:1"
	s = open(t, cfg)
	for _, path := range []string{"/console/", "/console/delayed", "/console/parked", "/console/doctor", "/console/handlers", "/console/event?id=x", "/console/delayed/redrive"} {
		if page := s.get(path); missing(page, "127.0.0.1") != nil {
			t.Errorf("%s does not say what is away:\n%s", path, page)
		}
	}
}

// Who may see the pages depends on where they are served.
func TestAccess(t *testing.T) {
	t.Parallel()
	away := config.Config{Postgres: config.Postgres{URL: "postgres://127.0.0.1:1/x"}, NATS: config.NATS{URL: "nats://127.0.0.1:1"}}
	for name, test := range map[string]struct {
		console     config.Console
		addr, host  string
		header      string
		want        int
		says, never string
	}{
		"loopback":                   {config.Console{}, "127.0.0.1:8080", "127.0.0.1:8080", "", 200, "Read only", "Sign in"},
		"loopback by name":           {config.Console{}, "127.0.0.1:8080", "localhost:8080", "", 200, "Read only", ""},
		"loopback of IPv6":           {config.Console{Token: token}, "[::1]:8080", "[::1]:8080", "", 200, "Sign in", ""},
		"a name that leads here":     {config.Console{}, "127.0.0.1:8080", "evil.example:8080", "", 403, "The console is off", ""},
		"a proxy nobody told of":     {config.Console{}, "127.0.0.1:8080", "127.0.0.1:8080", "X-Forwarded-For", 403, "The console is off", ""},
		"beyond loopback":            {config.Console{}, "10.0.0.7:8080", "10.0.0.7:8080", "", 403, "needs console.token_file", ""},
		"pretended loopback":         {config.Console{}, "10.0.0.7:8080", "localhost:8080", "", 403, "The console is off", ""},
		"without TLS":                {config.Console{Token: token}, "10.0.0.7:8080", "10.0.0.7:8080", "", 403, "off without TLS", ""},
		"behind a proxy":             {config.Console{Token: token, BehindProxy: true}, "10.0.0.7:8080", "relay.example", "X-Forwarded-For", 401, "Token of the console", "EVENTS"},
		"a proxy without a token":    {config.Console{BehindProxy: true}, "127.0.0.1:8080", "127.0.0.1:8080", "", 403, "needs console.token_file", ""},
		"no address":                 {config.Console{}, "", "localhost", "", 403, "The console is off", ""},
		"a token that is gone":       {config.Console{TokenFile: "/nowhere/at/all"}, "", "", "", 0, "", ""},
		"a token that is too short ": {config.Console{TokenFile: "short"}, "", "", "", 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := away
			cfg.Console = test.console
			if test.console.TokenFile == "short" {
				cfg.Console.TokenFile = t.TempDir() + "/token"
				if err := os.WriteFile(cfg.Console.TokenFile, []byte("short\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c, err := New(sourceOf(t, cfg))
			if test.want == 0 {
				if err == nil || !strings.Contains(err.Error(), "console.token_file") {
					t.Errorf("it is taken: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			if test.addr != "" {
				addr, err := net.ResolveTCPAddr("tcp", test.addr)
				if err != nil {
					t.Fatal(err)
				}
				ctx = context.WithValue(ctx, http.LocalAddrContextKey, addr)
			}
			req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/console/handlers", nil)
			req.Host = test.host
			if test.header != "" {
				req.Header.Set(test.header, "192.0.2.1")
			}
			recorder := httptest.NewRecorder()
			c.Handler().ServeHTTP(recorder, req)
			body := recorder.Body.String()
			if recorder.Code != test.want || !strings.Contains(body, test.says) || test.never != "" && strings.Contains(body, test.never) {
				t.Errorf("%d, want %d and %q\n%s", recorder.Code, test.want, test.says, body)
			}
			if !strings.Contains(recorder.Header().Get("Content-Security-Policy"), "default-src 'none'") {
				t.Error("no policy")
			}
		})
	}
}

// A browser that was left open over a restart is still signed in; not with another token.
func TestSignIn_OutlivesARestart(t *testing.T) {
	t.Parallel()
	a := access{slot: "walrelay"}
	now := time.Now()
	until := now.Add(time.Hour).Unix()
	for name, test := range map[string]struct {
		value []byte
		token string
		now   time.Time
		want  bool
	}{
		"after a restart":    {a.pass(token, until), token, now, true},
		"too late":           {a.pass(token, until), token, now.Add(2 * time.Hour), false},
		"of another token":   {a.pass(token, until), token + "2", now, false},
		"made up":            {append(a.pass(token, until)[:8], bytes.Repeat([]byte{0}, 32)...), token, now, false},
		"made longer":        {append(a.pass(token, until+1)[:8], a.pass(token, until)[8:]...), token, now, false},
		"of another slot":    {(&access{slot: "other"}).pass(token, until), token, now, false},
		"nothing":            {nil, token, now, false},
		"too short to be it": {[]byte("1234567"), token, now, false},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, Root, nil)
		req.AddCookie(a.cookie(req, encode(test.value), 60))
		if got := a.signedIn(req, test.token, test.now); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for address, want := range map[string]string{"/console/delayed?state=failed": "/console/delayed?state=failed", "https://evil.example/console/": Root, "//evil.example": Root, "": Root, "/console/\r\nX: y": Root, `/console/\evil`: Root} {
		if got := inside(address); got != want {
			t.Errorf("%q leads to %q", address, got)
		}
	}
}

// The page is kept up to date for longer than an answer may take.
func TestLive(t *testing.T) {
	t.Parallel()
	cfg := config.Config{Postgres: config.Postgres{URL: "postgres://127.0.0.1:1/x"}, NATS: config.NATS{URL: "nats://127.0.0.1:1"}}
	c, err := New(sourceOf(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); c.Run(ctx) }()
	server := httptest.NewUnstartedServer(c.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = time.Second, time.Second
	server.Start()
	defer server.Close()
	s := visit(t, server.URL)
	read := func() *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/console/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	response := read()
	defer func() { _ = response.Body.Close() }()
	text := ""
	for buffer := make([]byte, 64<<10); strings.Count(text, "event: point") < 2 || !strings.Contains(text, "event: board"); {
		n, err := response.Body.Read(buffer)
		if text += string(buffer[:n]); err != nil {
			t.Fatalf("%v after\n%s", err, text)
		}
	}
	if missing(text, "event: history", `"rate":0`, `"p99":null`, "Not known") != nil {
		t.Errorf("it sends\n%s", text)
	}
	// Connections are for others too.
	for range maxWatchers {
		more := read()
		defer func() { _ = more.Body.Close() }()
	}
	if code, body := s.do(http.MethodGet, "/console/live", nil); code != http.StatusServiceUnavailable || missing(body, "Too many pages") != nil {
		t.Errorf("one more: %d\n%s", code, body)
	}
	// It ends with the relay.
	cancel()
	<-ended
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Errorf("the end is %v", err)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	buckets := func(counts ...uint64) (all []telemetry.Bucket) {
		for i, n := range counts {
			upper := float64(i+1) / 1000
			if i == len(counts)-1 {
				upper = math.Inf(1)
			}
			all = append(all, telemetry.Bucket{Seconds: upper, Count: n})
		}
		return all
	}
	at := func(f float64) *float64 { return &f }
	for name, test := range map[string]struct {
		before, after []telemetry.Bucket
		q             float64
		want          *float64
	}{
		"nothing":             {buckets(1, 2, 3), buckets(1, 2, 3), 0.5, nil},
		"no buckets":          {nil, nil, 0.5, nil},
		"half of a bucket":    {buckets(0, 0, 0), buckets(10, 10, 10), 0.5, at(0.5)},
		"the second one":      {buckets(5, 5, 5), buckets(5, 15, 15), 0.5, at(1.5)},
		"beyond the last":     {buckets(0, 0, 0), buckets(0, 0, 4), 0.99, at(2)},
		"between two":         {buckets(0, 0, 0), buckets(10, 20, 20), 0.75, at(1.5)},
		"more of it, not all": {buckets(1, 1, 1), buckets(1, 1, 3), 0.01, at(2)},
	} {
		if diff := cmp.Diff(test.want, quantile(test.before, test.after, test.q)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// The console is small, and everything in it comes from here.
func TestFiles(t *testing.T) {
	t.Parallel()
	c, err := New(sourceOf(t, config.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, file := range c.static {
		size += len(file.content)
	}
	for name, p := range c.pages {
		if p.Lookup("body") == nil && name != "layout" && name != "parts" {
			t.Errorf("page %s has no body", name)
		}
	}
	if size > 200_000 || size < 40_000 {
		t.Errorf("it has %d bytes", size)
	}
}
