// Package console serves pages on which a person sees what a relay does, and does what an
// operator does: redrive, discard, cancel, reschedule.
//
// Input: the configuration, the status document, samples of the metrics. Output: an
// http.Handler for everything below /console/. Promises: nothing is asked or done that the
// commands could not ask or do; nothing changes without a token and a confirmation; what
// events contain is never taken for markup or script; nothing is loaded from elsewhere. The
// package opens no listener, and must not import what runs a relay.
package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/problem"
	"github.com/walrelay/walrelay/internal/status"
	"github.com/walrelay/walrelay/internal/telemetry"
	"github.com/walrelay/walrelay/internal/web"
)

// Root is where the console is.
const Root = web.ConsoleRoot

const (
	// patience bounds the questions of one page.
	patience = 8 * time.Second
	// atATime is how many pages ask the servers at a time; more wait.
	atATime = 4
	// maxForm bounds a form that is sent, in bytes.
	maxForm = 64 << 10
)

//go:embed templates static
var files embed.FS

// Source is what the pages show.
type Source struct {
	Config config.Config
	// Status returns the document. It may block for less than 10 s.
	Status func(ctx context.Context) status.Document
	// Sample and Relay do not block.
	Sample func() telemetry.Sample
	Relay  func() Relay
	Log    zerolog.Logger
}

// Relay is what the relay says of itself.
type Relay struct {
	LagSeconds float64
	// Reasons say why it is not ready; none when it is.
	Reasons []string
}

// Console is the pages. Safe for concurrent use.
type Console struct {
	source Source
	access access
	live   *live
	pages  map[string]*template.Template
	static map[string]asset
	// turns has an element for each page that asks the servers.
	turns chan struct{}
}

type asset struct {
	content []byte
	kind    string
}

// New returns the pages. The configuration is valid; the error is a *[config.Error] for a token
// that cannot be read.
func New(source Source) (*Console, error) {
	source.Config = source.Config.WithDefaults()
	if _, err := connect.ConsoleToken(source.Config.Console); err != nil {
		return nil, err
	}
	c := &Console{
		source: source, access: access{cfg: source.Config.Console, slot: source.Config.Slot},
		pages: make(map[string]*template.Template), static: make(map[string]asset), turns: make(chan struct{}, atATime),
	}
	c.live = newLive(source, c.board)
	version, err := c.loadStatic()
	if err != nil {
		return nil, err
	}
	if err := c.loadPages(version); err != nil {
		return nil, err
	}
	return c, nil
}

// loadStatic reads the files that pages refer to, and returns their version.
func (c *Console) loadStatic() (version string, err error) {
	kinds := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	all := sha256.New()
	err = fs.WalkDir(files, "static", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		all.Write(content)
		if kind, ok := kinds[filepath.Ext(path)]; ok {
			c.static[strings.TrimPrefix(path, "static/")] = asset{content, kind}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading the files of the console: %w", err)
	}
	return hex.EncodeToString(all.Sum(nil)[:6]), nil
}

func (c *Console) loadPages(version string) error {
	layout, err := template.New("").Funcs(texts(version)).ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return fmt.Errorf("reading the pages of the console: %w", err)
	}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return fmt.Errorf("reading the pages of the console: %w", err)
	}
	for _, path := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(path, "templates/"), ".html")
		page, err := layout.Clone()
		if err == nil {
			page, err = page.ParseFS(files, path)
		}
		if err != nil {
			return fmt.Errorf("reading the pages of the console: %w", err)
		}
		c.pages[name] = page
	}
	return nil
}

// Run samples what the charts show until the context ends; pages that are watched end with
// it. It blocks.
func (c *Console) Run(ctx context.Context) { c.live.run(ctx) }

// Handler serves everything below /console/.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, page func(http.ResponseWriter, *http.Request) error) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+Root+path, func(w http.ResponseWriter, req *http.Request) {
			if err := page(w, req); err != nil {
				c.fail(w, req, err)
			}
		})
	}
	handle("GET {$}", c.overview)
	handle("GET live", c.live.serve)
	handle("GET delayed", c.delayedList)
	handle("GET handlers", c.handlers)
	handle("GET parked", c.parkedList)
	for _, k := range []kind{c.delayedKind(), parkedKind()} {
		handle("GET "+k.name+"/{action}", c.ask(k))
		handle("POST "+k.name+"/{action}", c.do(k))
	}
	handle("GET event", c.event)
	handle("GET content/{kind}", c.content)
	handle("GET doctor", c.doctor)
	handle("GET sign-in", c.signInPage)
	handle("POST sign-in", c.signIn)
	handle("POST sign-out", c.signOut)
	mux.HandleFunc("GET "+Root+"static/{path...}", c.serveStatic)
	handle("GET {rest...}", func(http.ResponseWriter, *http.Request) error {
		return &refusal{http.StatusNotFound, "There is no such page", "Begin at the overview.", false}
	})
	// Requests that other sites have a browser send change nothing ("Cross-Origin Resource
	// Sharing" does not keep forms from being sent).
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c.fail(w, req, &refusal{http.StatusForbidden, "Another site has sent this request", "Nothing was changed.", false})
	}))
	return secured(protection.Handler(c.guard(mux)))
}

// secured says what a browser may do with the pages: run and load what comes from here, and
// nothing else.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		req.Body = http.MaxBytesReader(w, req.Body, maxForm)
		next.ServeHTTP(w, req)
	})
}

func (c *Console) serveStatic(w http.ResponseWriter, req *http.Request) {
	file, ok := c.static[req.PathValue("path")]
	if !ok {
		c.fail(w, req, &refusal{http.StatusNotFound, "There is no such file", "", false})
		return
	}
	w.Header().Set("Content-Type", file.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // their addresses have a version
	_, _ = w.Write(file.content)                                           // nothing can be done about a client that is gone
}

// page is what the layout shows.
type page struct {
	Title, Nav, Slot string
	// CanSignIn says that there is a token, SignedIn that the visitor has shown it.
	CanSignIn, SignedIn bool
	// Here is the address of the page, to come back to.
	Here string
	// Notice is what was done; Problems are what could not be asked.
	Notice   string
	Problems []trouble
	Body     any
}

// trouble is what could not be asked or done, and what helps.
type trouble struct{ What, Why, Fix string }

// troubleOf describes an error.
func troubleOf(err error) trouble {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return trouble{p.What, p.Why, p.Fix}
	}
	return trouble{What: err.Error()}
}

// show writes a page, as a whole or not at all.
func (c *Console) show(w http.ResponseWriter, req *http.Request, code int, name string, p page) error {
	v := visitorOf(req)
	p.Slot, p.CanSignIn, p.SignedIn, p.Here = c.source.Config.Slot, v.canSignIn, v.signedIn, here(req)
	var b bytes.Buffer
	if err := c.pages[name].ExecuteTemplate(&b, "layout", p); err != nil {
		return fmt.Errorf("making the page: %w", err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // nothing can be done about a client that is gone
	return nil
}

// refusal is a request that is not answered as asked.
type refusal struct {
	code       int
	what, help string
	// signIn says that signing in helps.
	signIn bool
}

func (r *refusal) Error() string { return r.what }

// fail shows why a request was not answered as asked.
func (c *Console) fail(w http.ResponseWriter, req *http.Request, err error) {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		t := troubleOf(err)
		help := strings.TrimSpace(t.Why + "\n" + t.Fix)
		r = &refusal{http.StatusServiceUnavailable, t.What, help, false}
	}
	failed := c.show(w, req, r.code, "refused", page{Title: "Not done", Body: map[string]any{"What": r.what, "Help": r.help, "SignIn": r.signIn && visitorOf(req).canSignIn}})
	if failed != nil {
		c.source.Log.Error().Err(failed).Msg("the console cannot show a page")
		http.Error(w, r.what, r.code)
	}
}

// turn waits until a page may ask the servers. The caller gives the turn back.
func (c *Console) turn(req *http.Request) (ctx context.Context, done func(), err error) {
	ctx, cancel := context.WithTimeout(req.Context(), patience)
	select {
	case c.turns <- struct{}{}:
		return ctx, func() { <-c.turns; cancel() }, nil
	case <-ctx.Done():
		cancel()
		return nil, nil, &refusal{http.StatusServiceUnavailable, "Too many pages ask at the same time", "Try again in a moment.", false}
	}
}

// here is the address of a page; that of the overview for a form.
func here(req *http.Request) string {
	if req.Method != http.MethodGet {
		return Root
	}
	return req.URL.RequestURI()
}
