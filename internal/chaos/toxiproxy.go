package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"time"

	"github.com/walrelay/walrelay/internal/child"
)

// network is a Toxiproxy between the relays and the servers.
type network struct {
	*child.Process
	api string
}

func startNetwork(ctx context.Context, binary string, log *logFile) (*network, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(ports[0])
	p, err := child.Start("toxiproxy", exec.Command(binary, "-host", "127.0.0.1", "-port", port), child.Options{Log: &log.Log})
	if err != nil {
		return nil, err
	}
	n := &network{Process: p, api: "http://127.0.0.1:" + port}
	return n, until(ctx, 10*time.Second, "the proxy answers", func(ctx context.Context) error {
		return n.call(ctx, http.MethodGet, "/version", nil)
	})
}

// call uses the HTTP API (Toxiproxy's README, "HTTP API").
func (n *network) call(ctx context.Context, method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("asking the proxy: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, n.api+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("asking the proxy: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking the proxy: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("asking the proxy: %s %s: %s %s", method, path, resp.Status, answer)
	}
	return nil
}

// link makes a way from a port to a server.
func (n *network) link(ctx context.Context, name string, port, to int) error {
	return n.call(ctx, http.MethodPost, "/proxies", map[string]any{
		"name": name, "listen": "127.0.0.1:" + strconv.Itoa(port), "upstream": "127.0.0.1:" + strconv.Itoa(to), "enabled": true,
	})
}

// turnPostgres leads the way to Postgres to another server; what is connected is
// cut.
func (n *network) turnPostgres(ctx context.Context, to int) error {
	return n.call(ctx, http.MethodPost, "/proxies/postgres", map[string]any{"upstream": "127.0.0.1:" + strconv.Itoa(to), "enabled": true})
}

// cut refuses connections and cuts those that are, or lets them through again.
func (n *network) cut(ctx context.Context, name string, cut bool) error {
	return n.call(ctx, http.MethodPost, "/proxies/"+name, map[string]any{"enabled": !cut})
}

// toxic is what is wrong with a way: one of Toxiproxy's kinds, in one direction.
type toxic struct {
	kind       string
	upstream   bool // what the relay sends; otherwise what it gets
	attributes map[string]any
}

func (t toxic) String() string {
	direction := "downstream"
	if t.upstream {
		direction = "upstream"
	}
	return fmt.Sprint(t.kind, " ", direction, " ", t.attributes)
}

func (n *network) poison(ctx context.Context, name string, t toxic) error {
	stream := "downstream"
	if t.upstream {
		stream = "upstream"
	}
	return n.call(ctx, http.MethodPost, "/proxies/"+name+"/toxics", map[string]any{
		"name": "fault-" + stream, "type": t.kind, "stream": stream, "attributes": t.attributes,
	})
}

// heal takes everything that is wrong away.
func (n *network) heal(ctx context.Context) error { return n.call(ctx, http.MethodPost, "/reset", nil) }
