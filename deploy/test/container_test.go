package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// compose.yaml is read as Docker reads it, and what it says to walrelay are keys that
// walrelay has.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"}, cli.WithName("walrelay"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	relay, err := project.GetService("walrelay")
	if err != nil {
		t.Fatal(err)
	}
	for name := range relay.DependsOn {
		if _, err := project.GetService(name); err != nil {
			t.Errorf("walrelay waits for %s, which is not there", name)
		}
	}
	for _, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s listens on %q: everybody reaches it", service.Name, port.HostIP)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(relay.Build.Context, relay.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	run(t, relay.Command, relay.Environment)
}

// run starts what is in a container, here, where no server is: it must get as far as the servers.
func run(t *testing.T, args []string, environment types.MappingWithEquals) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "walrelay")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/walrelay")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"WALRELAY_HTTP_ADDR=127.0.0.1:0"}
	for name, value := range environment {
		// Nobody is there under these names.
		cmd.Env = append(cmd.Env, name+"="+strings.NewReplacer("@postgres:5432", "@127.0.0.1:1", "nats:4222", "127.0.0.1:1").Replace(*value))
	}
	out, err := cmd.CombinedOutput()
	if exit := cmd.ProcessState.ExitCode(); err == nil || exit != 1 || !strings.Contains(string(out), "127.0.0.1:1") {
		t.Errorf("walrelay %v ended with %d:\n%s", args, exit, out)
	}
}

// The Dockerfile is one that BuildKit reads; what it copies is there, nobody runs as root, and
// what it builds is what scripts/release.sh builds.
func TestDockerfile(t *testing.T) {
	text, err := os.Open("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = text.Close() }()
	parsed, err := parser.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != 2 || len(parsed.Warnings) > 0 {
		t.Errorf("%d stages, %v", len(stages), parsed.Warnings)
	}
	user := ""
	for _, command := range stages[1].Commands {
		if c, ok := command.(*instructions.UserCommand); ok {
			user = c.User
		}
	}
	if user != "nonroot" {
		t.Errorf("it runs as %q", user)
	}
	for _, command := range stages[0].Commands {
		switch c := command.(type) {
		case *instructions.CopyCommand:
			for _, path := range c.SourcePaths {
				if _, err := os.Stat(filepath.Join("../..", path)); err != nil {
					t.Error(err)
				}
			}
		case *instructions.RunCommand:
			line := strings.Join(c.CmdLine, " ")
			if strings.Contains(line, "go build") && (!strings.Contains(line, "CGO_ENABLED=0") || !strings.Contains(line, "-trimpath")) {
				t.Errorf("it builds by %s", line)
			}
		}
	}
	ignored, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{".git", "bin", "**/node_modules"} {
		if !slices.Contains(strings.Split(string(ignored), "\n"), path) {
			t.Errorf(".dockerignore lets in %s", path)
		}
	}
}
