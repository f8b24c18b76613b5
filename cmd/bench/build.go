package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// pluginVersion is stamped into the plugin that is measured.
const pluginVersion = "v0.1.0-bench"

// prepare finds or builds the servers and builds the plugin: what takes minutes the
// first time is not to fall into a measurement.
func (b *bench) prepare(ctx context.Context) error {
	for _, tool := range []stack.Tool{stack.VaultTool, stack.NATSTool} {
		if _, err := tool.Path(ctx); err != nil {
			return err
		}
	}
	b.progress("building the plugin")
	var err error
	b.program, err = stack.BuildPlugin(ctx, b.dir, pluginVersion)
	return err
}

// buildIn builds a program of a module, given by its folder below the repository's
// root, and returns its path.
func (b *bench) buildIn(ctx context.Context, module, pkg string) (string, error) {
	path := filepath.Join(b.dir, filepath.Base(pkg))
	return path, b.goIn(ctx, module, "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
}

// goIn runs the go command in a module. The error has what it printed.
func (b *bench) goIn(ctx context.Context, module string, args ...string) error {
	root, err := stack.Root()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(root, module)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
