package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// edit replaces a text that stands in a file exactly once. The file is named
// from the top of the module, or from the Go tree as "go:src/…".
type edit struct {
	file, old, new string
}

// variant is the relay with some of its sources changed, while it is built: what
// stands in the project has no switches for tests.
type variant struct {
	name  string
	edits []edit
	// added are whole files, by their name from the top of the module.
	added map[string]string
	// pkg is what is built; the relay unless said.
	pkg string
}

// programs are the binaries of a run.
type programs struct {
	dir                             string
	relay, stepped, nats, toxiproxy string
	handlers                        string
}

// build builds a package of the module.
func build(ctx context.Context, output, pkg string, args ...string) error {
	args = append(append([]string{"build", "-o", output}, args...), pkg)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

const (
	relayPackage    = "github.com/walrelay/walrelay/cmd/walrelay"
	handlersPackage = "github.com/walrelay/walrelay/internal/chaos/handlers"
)

// buildPrograms builds what every run needs.
func buildPrograms(ctx context.Context, dir string) (programs, error) {
	p := programs{
		dir: dir, relay: filepath.Join(dir, "walrelay"), nats: filepath.Join(dir, "nats-server"), toxiproxy: filepath.Join(dir, "toxiproxy-server"),
		handlers: filepath.Join(dir, "handlers"),
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return programs{}, err
	}
	for _, b := range []struct {
		output, pkg string
		args        []string
	}{
		{p.relay, relayPackage, nil},
		{p.handlers, handlersPackage, nil},
		{p.nats, "github.com/nats-io/nats-server/v2", nil},
		{p.toxiproxy, "github.com/Shopify/toxiproxy/v2/cmd/server", []string{"-modfile", filepath.Join(root, "tools", "go.mod")}},
	} {
		if err := build(ctx, b.output, b.pkg, b.args...); err != nil {
			return programs{}, err
		}
	}
	if other := os.Getenv("CHAOS_NATS_SERVER"); other != "" {
		p.nats = other
	}
	p.stepped, err = buildVariant(ctx, dir, stepped())
	return p, err
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/walrelay/walrelay").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func goRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("looking for Go: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildVariant builds a changed relay (Go manual, "go build -overlay").
func buildVariant(ctx context.Context, dir string, v variant) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	tree, err := goRoot(ctx)
	if err != nil {
		return "", err
	}
	folder := filepath.Join(dir, "variant-"+v.name)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return "", fmt.Errorf("making a folder for %s: %w", v.name, err)
	}
	overlay := make(map[string]string)
	texts := make(map[string]string)
	for _, e := range v.edits {
		path := filepath.Join(root, e.file)
		if rest, ok := strings.CutPrefix(e.file, "go:"); ok {
			path = filepath.Join(tree, rest)
		}
		text, ok := texts[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("changing the relay (%s): %w", v.name, err)
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("changing the relay (%s): %s has %d times, and not once, the text\n%s\nBring the change in internal/chaos up to date", v.name, e.file, n, e.old)
		}
		texts[path] = strings.Replace(text, e.old, e.new, 1)
	}
	for name, text := range v.added {
		texts[filepath.Join(root, name)] = text
	}
	for path, text := range texts {
		changed := filepath.Join(folder, fmt.Sprintf("%d-%s", len(overlay), filepath.Base(path)))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("changing the relay (%s): %w", v.name, err)
		}
		overlay[path] = changed
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", fmt.Errorf("changing the relay (%s): %w", v.name, err)
	}
	file := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		return "", fmt.Errorf("changing the relay (%s): %w", v.name, err)
	}
	output := filepath.Join(folder, "walrelay")
	if err := build(ctx, output, cmp.Or(v.pkg, relayPackage), "-overlay", file); err != nil {
		return "", errors.Join(fmt.Errorf("building the relay that %s", v.name), err)
	}
	return output, nil
}
