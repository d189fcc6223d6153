package console

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/walrelay/walrelay/config"
	"github.com/walrelay/walrelay/internal/connect"
	"github.com/walrelay/walrelay/internal/wait"
)

const (
	// signedInFor is how long a sign-in lasts.
	signedInFor = 12 * time.Hour
	// wrongToken is how long the answer to a wrong token takes.
	wrongToken = 500 * time.Millisecond
)

// access says who may see the pages, and who may change something. On a loopback address
// everybody may see them. Elsewhere there are none without a token and TLS, and only who has
// signed in may see them. To change something takes a sign-in everywhere.
type access struct {
	cfg  config.Console
	slot string
}

// visitor is who asks.
type visitor struct{ canSignIn, signedIn bool }

type visitorKey struct{}

func visitorOf(req *http.Request) visitor {
	v, _ := req.Context().Value(visitorKey{}).(visitor)
	return v
}

// guard lets those requests pass that are allowed.
func (c *Console) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token, err := connect.ConsoleToken(c.source.Config.Console)
		if err != nil {
			c.source.Log.Warn().Err(err).Msg("the console has no token")
		}
		v := visitor{canSignIn: token != ""}
		v.signedIn = v.canSignIn && c.access.signedIn(req, token, time.Now())
		req = req.WithContext(context.WithValue(req.Context(), visitorKey{}, v))
		local := c.access.local(req)
		path := strings.TrimPrefix(req.URL.Path, Root)
		switch {
		case !local && !v.canSignIn:
			c.fail(w, req, &refusal{http.StatusForbidden, "The console is off on this address", "Beyond loopback it needs console.token_file, and TLS: http.tls.cert_file and http.tls.key_file, or a proxy that ends TLS and console.behind_proxy. Or forward the port, and open it as localhost.", false})
		case !local && req.TLS == nil && !c.access.cfg.BehindProxy:
			c.fail(w, req, &refusal{http.StatusForbidden, "The console is off without TLS", "Beyond loopback it needs http.tls.cert_file and http.tls.key_file, or a proxy that ends TLS and console.behind_proxy. Or forward the port, and open it as localhost.", false})
		case path == "sign-in" || strings.HasPrefix(path, "static/"):
			next.ServeHTTP(w, req)
		case !local && !v.signedIn:
			if err := c.showSignIn(w, req, http.StatusUnauthorized, here(req), ""); err != nil {
				c.fail(w, req, err)
			}
		default:
			next.ServeHTTP(w, req)
		}
	})
}

// mayChange refuses who may not change anything.
func mayChange(req *http.Request) error {
	switch v := visitorOf(req); {
	case v.signedIn:
		return nil
	case v.canSignIn:
		return &refusal{http.StatusForbidden, "You are not signed in", "Nothing was changed. Sign in, and do it again.", true}
	}
	return &refusal{http.StatusForbidden, "Nothing can be changed here", "The console has no token: set console.token_file, or use the command.", false}
}

// local reports whether a request comes from this machine, and was meant for it: a page of
// another site whose name leads here (DNS rebinding), and a proxy, are told by their headers.
func (a *access) local(req *http.Request) bool {
	addr, ok := req.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || a.cfg.BehindProxy {
		return false
	}
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if req.Header.Get(header) != "" {
			return false
		}
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil || !loopback(host) {
		return false
	}
	name := req.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	return strings.EqualFold(name, "localhost") || loopback(strings.Trim(name, "[]"))
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// cookieName is another one for each slot: relays on one machine share the cookies of its name.
func (a *access) cookieName() string { return "walrelay_" + a.slot }

// signedIn reports whether a request has a valid sign-in. It outlives a restart, and ends when
// the token changes.
func (a *access) signedIn(req *http.Request, token string, now time.Time) bool {
	cookie, err := req.Cookie(a.cookieName())
	if err != nil {
		return false
	}
	value, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || len(value) < 8 {
		return false
	}
	until := int64(binary.BigEndian.Uint64(value))
	return hmac.Equal(value, a.pass(token, until)) && now.Unix() < until
}

// pass is the value of a sign-in: until when it is valid, in seconds, and proof of the token.
func (a *access) pass(token string, until int64) []byte {
	value := binary.BigEndian.AppendUint64(nil, uint64(until))
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write([]byte("walrelay console " + a.slot + " "))
	mac.Write(value)
	return mac.Sum(value)
}

func encode(value []byte) string { return base64.RawURLEncoding.EncodeToString(value) }

// cookie is the one that a sign-in has.
func (a *access) cookie(req *http.Request, value string, age int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure where there is TLS; elsewhere only loopback is served
		Name: a.cookieName(), Value: value, Path: Root, MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: req.TLS != nil || a.cfg.BehindProxy,
	}
}

func (c *Console) signInPage(w http.ResponseWriter, req *http.Request) error {
	return c.showSignIn(w, req, http.StatusOK, req.URL.Query().Get("next"), "")
}

func (c *Console) showSignIn(w http.ResponseWriter, req *http.Request, code int, next, problem string) error {
	return c.show(w, req, code, "sign-in", page{Title: "Sign in", Body: map[string]any{"Next": inside(next), "Problem": problem}})
}

func (c *Console) signIn(w http.ResponseWriter, req *http.Request) error {
	token, err := connect.ConsoleToken(c.source.Config.Console)
	if err != nil {
		return err
	}
	given := sha256.Sum256([]byte(strings.TrimSpace(req.PostFormValue("token"))))
	want := sha256.Sum256([]byte(token))
	if token == "" || subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		c.source.Log.Warn().Str("client", req.RemoteAddr).Msg("the console was given a wrong token")
		if err := wait.For(req.Context(), wrongToken); err != nil {
			return err
		}
		return c.showSignIn(w, req, http.StatusUnauthorized, req.PostFormValue("next"), "This is not the token: it is the value of console.token, or of the file that console.token_file names.")
	}
	until := time.Now().Add(signedInFor).Unix()
	http.SetCookie(w, c.access.cookie(req, encode(c.access.pass(token, until)), int(signedInFor.Seconds())))
	c.source.Log.Info().Str("client", req.RemoteAddr).Msg("somebody has signed in at the console")
	http.Redirect(w, req, inside(req.PostFormValue("next")), http.StatusSeeOther) //nolint:gosec // inside takes addresses of the console only
	return nil
}

func (c *Console) signOut(w http.ResponseWriter, req *http.Request) error {
	http.SetCookie(w, c.access.cookie(req, "", -1))
	http.Redirect(w, req, Root, http.StatusSeeOther)
	return nil
}

// inside returns an address of the console; that of the overview for any other.
func inside(address string) string {
	if !strings.HasPrefix(address, Root) || strings.ContainsAny(address, "\\\r\n") {
		return Root
	}
	return address
}
