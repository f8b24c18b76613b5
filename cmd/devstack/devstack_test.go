package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// TestMain has the test's program be devstack when it is called by that name: the demo
// links itself so.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "devstack" {
		main()
		return
	}
	os.Exit(m.Run())
}

// testContext bounds a test, but for the time that it takes to build the servers.
func testContext(t *testing.T) context.Context {
	t.Helper()
	for _, tool := range []stack.Tool{stack.VaultTool, stack.NATSTool} {
		_, err := tool.Path(t.Context())
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestTheDemoShowsTheWholeStory(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var shown bytes.Buffer
	err := demo(ctx, &shown)
	require.NoError(t, err, "%s", &shown)
	for _, line := range []string{
		"$ vault auth enable -path=nats vault-plugin-auth-nats",
		"received on orders.acme/web%2Eshop.new: two apples",
		`Permissions Violation for Publish to "orders.acme/bank.new"`,
		"signed_nonce",
		"published 4 bytes to orders.billing.report",
		"published 11 bytes to orders.acme/web%2Eshop.new",
	} {
		require.Contains(t, shown.String(), line)
	}
}

func TestTheRecordingShowsALoginAndAMessage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, record(testContext(t), dir))
	for _, name := range []string{"demo.cast", "demo.svg"} {
		shown, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Contains(t, string(shown), "vault write auth/nats/login role=dev jwt=@job.jwt")
		require.Contains(t, string(shown), "received on orders.acme/web%2Eshop.new: two apples")
		require.NotContains(t, string(shown), "operator_jwt", "what comes before the login")
	}
}

// devstack runs a command of devstack's in a process of its own, whose temporary files
// all lie in the returned folder. Its path is short: there are sockets below it.
func devstack(t *testing.T, ctx context.Context, env []string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	temp, err := os.MkdirTemp("", "d-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(temp)) })
	own, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, own, args...)
	cmd.Args[0] = "devstack"
	cmd.Env = append(append(os.Environ(), "TMPDIR="+temp), env...)
	return cmd, temp
}

func TestDevRunsUntilItIsInterruptedAndLeavesNothing(t *testing.T) {
	ctx := testContext(t)
	cmd, temp := devstack(t, ctx, nil, "dev")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	var printed strings.Builder
	for lines.Scan() {
		printed.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "path-help") {
			require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
		}
	}
	require.NoError(t, cmd.Wait())
	require.Contains(t, printed.String(), "export VAULT_ADDR=http://127.0.0.1:")
	leavesNothing(t, ctx, temp)
}

func TestWhatFailsHalfWayLeavesNothing(t *testing.T) {
	ctx := testContext(t)
	for _, command := range []string{"dev", "demo"} {
		cmd, temp := devstack(t, ctx, []string{"NATS_SERVER_BIN=false"}, command)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 1, exit.ExitCode())
		require.Contains(t, string(out), "wait for nats-server")
		leavesNothing(t, ctx, temp)
	}
}

// leavesNothing checks that a folder is empty and no process works below it.
func leavesNothing(t *testing.T, ctx context.Context, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	require.NoError(t, stack.WaitFor(ctx, "processes to end", func() error {
		working, err := filepath.Glob("/proc/[0-9]*/cwd")
		require.NoError(t, err)
		for _, link := range working {
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir) {
				return errors.New(link + " is " + target)
			}
		}
		return nil
	}))
}

func TestAnUnknownCommandIsRefused(t *testing.T) {
	for _, args := range [][]string{nil, {"no-such-command"}, {"pub", "subject-only"}, {"sub"}} {
		require.ErrorIs(t, run(t.Context(), args), errUsage)
	}
	require.ErrorContains(t, run(t.Context(), []string{"tools", "no-such-tool"}), "no-such-tool")
}
