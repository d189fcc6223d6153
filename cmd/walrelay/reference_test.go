package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

var (
	update = flag.Bool("update", false, "write docs/cli.md")
	man    = flag.String("man", "", "write the man pages into this `DIRECTORY`")
)

const referenceFile = "../../docs/cli.md"

// docs/cli.md says what the commands say of themselves.
func TestReference(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString(`# Commands

After reading this page you know what each command of walrelay does and takes. It is made from the commands themselves
(` + "`go test ./cmd/walrelay -run TestReference -update`" + `); ` + "`walrelay help COMMAND`" + ` and the man pages of a release say the same.

Every command ends with 0 if it has done what it says, with 1 if it has not, and with 2 if flags, environment or configuration are wrong.
`)
	root := newRootCommand()
	var connecting *cobra.Command
	for _, cmd := range commands(root) {
		writeCommand(&b, cmd)
		if cmd.Name() == "run" {
			connecting = cmd
		}
	}
	b.WriteString("\n## Flags of the configuration\n\nCommands that say so take these, or those of them that they need. What they mean: [configuration.md](configuration.md).\n\n")
	writeFlags(&b, connecting, isConfig)
	if *update {
		if err := os.WriteFile(referenceFile, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(written, b.Bytes()) {
		t.Error("docs/cli.md does not say what the commands say: run this test with -update")
	}
}

// commands are those that a person uses, in the order of their names.
func commands(cmd *cobra.Command) (all []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			all = append(append(all, sub), commands(sub)...)
		}
	}
	return all
}

func writeCommand(b *bytes.Buffer, cmd *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n", cmd.CommandPath())
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(b, "%s\n", text)
	if !cmd.Runnable() || cmd.HasSubCommands() {
		return
	}
	fmt.Fprintf(b, "\n```\n%s\n```\n\n", cmd.UseLine())
	writeFlags(b, cmd, func(f *pflag.Flag) bool { return !isConfig(f) })
	configured := false
	cmd.Flags().VisitAll(func(f *pflag.Flag) { configured = configured || isConfig(f) })
	if configured {
		b.WriteString("\nAnd [flags of the configuration](#flags-of-the-configuration).\n")
	}
}

// isConfig reports whether a flag is one of the configuration.
func isConfig(f *pflag.Flag) bool {
	_, ok := f.Value.(*flagValue)
	return ok || f.Name == "config"
}

func writeFlags(b *bytes.Buffer, cmd *cobra.Command, which func(*pflag.Flag) bool) {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	set.SortFlags = false
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if which(f) && f.Name != "help" {
			set.AddFlag(f)
		}
	})
	if usages := set.FlagUsages(); usages != "" {
		fmt.Fprintf(b, "```\n%s```\n", usages)
	}
}

// Each command has a man page.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := *man
	if dir == "" {
		dir = t.TempDir()
	}
	root := newRootCommand()
	root.DisableAutoGenTag = true
	// The date is SOURCE_DATE_EPOCH, so that a release is the same each time.
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "walrelay", Manual: "walrelay"}, dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range append(commands(root), root) {
		page, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		if text := string(page); !strings.Contains(text, ".SH NAME") || !strings.Contains(text, ".SH SYNOPSIS") {
			t.Errorf("the page of %s is\n%s", cmd.CommandPath(), text)
		}
	}
}
