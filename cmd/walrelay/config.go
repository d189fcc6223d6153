package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"

	"github.com/walrelay/walrelay"
)

const (
	// defaultFile is read when it exists and no other file is named.
	defaultFile = "walrelay.yaml"
	envPrefix   = "WALRELAY_"
	envFile     = "WALRELAY_CONFIG"
)

// configSource is where a command's configuration comes from: flags over
// environment over file.
type configSource struct {
	schema  node
	path    string
	flags   map[string]any    // values of the flags that are given, by key
	origins map[string]string // key to the place where it is set
}

// command returns what cobra runs: it reads the configuration and hands it to
// do. Faults of the configuration then say where the key is set.
func (s *configSource) command(do func(context.Context, walrelay.Config) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load(os.Environ())
		if err != nil {
			return err
		}
		return s.explain(do(cmd.Context(), cfg))
	}
}

// load merges the layers. Its error joins *usageError values: everything that
// is wrong in any layer.
func (s *configSource) load(environ []string) (walrelay.Config, error) {
	var cfg walrelay.Config
	s.origins = map[string]string{}
	fromEnv, path, envErr := s.environment(environ)
	if s.path != "" {
		path = s.path
	}
	fromFile, fileErr := s.file(path)
	if err := errors.Join(fileErr, envErr); err != nil {
		return cfg, err
	}
	k := koanf.New(".")
	if err := k.Load(confmap.Provider(fromFile, ""), nil); err != nil {
		return cfg, fmt.Errorf("merging the configuration: %w", err)
	}
	for _, layer := range []struct {
		values map[string]any
		origin func(key string) string
	}{
		{fromEnv, variable},
		{s.flags, func(key string) string { return "--" + flagName(key) }},
	} {
		if err := k.Load(confmap.Provider(layer.values, "."), nil); err != nil {
			return cfg, fmt.Errorf("merging the configuration: %w", err)
		}
		for key := range layer.values {
			s.setOrigin(key, layer.origin(key))
		}
	}
	err := k.UnmarshalWithConf("", &cfg, koanf.UnmarshalConf{
		DecoderConfig: &mapstructure.DecoderConfig{TagName: "koanf", ErrorUnused: true, Result: &cfg},
	})
	if err != nil {
		return cfg, fmt.Errorf("merging the configuration: %w", err)
	}
	return cfg, nil
}

func (s *configSource) file(path string) (map[string]any, error) {
	if path == "" {
		if _, err := os.Stat(defaultFile); errors.Is(err, fs.ErrNotExist) {
			return map[string]any{}, nil
		}
		path = defaultFile
	}
	values, origins, err := readFile(path, s.schema)
	if origins != nil {
		s.origins = origins
	}
	return values, err
}

// serviceVariable matches what Kubernetes puts into every container for a Service
// that is called walrelay (Kubernetes documentation, "Service", environment
// variables).
var serviceVariable = regexp.MustCompile(`^WALRELAY_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// environment returns what the variables set, by key, and the path of the
// configuration file. An empty variable counts as not set. The variables of
// walrelay's tests are left alone.
func (s *configSource) environment(environ []string) (values map[string]any, path string, err error) {
	values = map[string]any{}
	known := map[string]node{}
	var names []string
	for _, n := range s.schema.scalars() {
		known[variable(n.path)] = n
		names = append(names, variable(n.path))
	}
	var wrong []error
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		n, ok := known[name]
		switch {
		case !strings.HasPrefix(name, envPrefix), strings.HasPrefix(name, "WALRELAY_TEST_"), strings.HasPrefix(name, "WALRELAY_PG_BIN"), serviceVariable.MatchString(name):
		case name == envFile:
			path = value
		case !ok:
			wrong = append(wrong, &usageError{name + ": " + s.unknownVariable(name, names)})
		case value == "":
		default:
			parsed, err := n.kind.parse(value)
			if err != nil {
				wrong = append(wrong, &usageError{fmt.Sprintf("%s: %v", name, err)})
				continue
			}
			values[n.path] = parsed
		}
	}
	return values, path, errors.Join(wrong...)
}

// unknownVariable says that there is no such variable, and which may be meant.
func (s *configSource) unknownVariable(name string, names []string) string {
	for _, top := range s.schema.fields {
		for _, n := range append(top.fields, top) {
			if n.path != "" && !n.scalar() && n.kind != section && variable(n.path) == name {
				return n.path + " can be set in the configuration file only"
			}
		}
	}
	if meant := nearest(name, append(names, envFile)); meant != "" {
		return "unknown variable; did you mean " + meant + "?"
	}
	return "unknown variable"
}

// variable is the name of a key in the environment.
func variable(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// setOrigin notes where a key is set now, in place of what was known of it and
// of the elements of its list.
func (s *configSource) setOrigin(key, origin string) {
	for known := range s.origins {
		if strings.HasPrefix(known, key+"[") {
			delete(s.origins, known)
		}
	}
	s.origins[key] = origin
}

// explain says, for each faulty key, where it is set, or how it can be.
func (s *configSource) explain(err error) error {
	if err == nil {
		return nil
	}
	all := faults(err)
	for i, fault := range all {
		if configErr, ok := errors.AsType[*walrelay.ConfigError](fault); ok {
			all[i] = &usageError{s.explainKey(configErr)}
		}
	}
	return errors.Join(all...)
}

var lastIndex = regexp.MustCompile(`\[\d+\][^\[]*$`)

func (s *configSource) explainKey(e *walrelay.ConfigError) string {
	if origin, ok := s.origins[e.Key]; ok {
		if strings.HasPrefix(origin, envPrefix) || strings.HasPrefix(origin, "--") {
			return origin + ": " + e.Problem
		}
		return origin + ": " + e.Error()
	}
	for key := e.Key; key != ""; {
		// An element that lacks a key, or a list that has no lines of its own.
		shorter := key[:max(0, strings.LastIndexByte(key, '.'))]
		if at := lastIndex.FindStringIndex(key); at != nil && at[0] > len(shorter) {
			shorter = key[:at[0]]
		}
		key = shorter
		if origin, ok := s.origins[key]; ok && strings.Contains(e.Key, "[") {
			return origin + ": " + e.Error()
		}
	}
	for _, n := range s.schema.scalars() {
		if n.path == e.Key {
			return fmt.Sprintf("%s (%s, --%s)", e.Error(), variable(e.Key), flagName(e.Key))
		}
	}
	return e.Error()
}
