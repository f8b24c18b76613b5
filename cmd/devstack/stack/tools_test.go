package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersionsAreReadFromWhatProgramsPrint(t *testing.T) {
	for text, want := range map[string]version{
		"Vault v1.21.1 (2453aac2638a6ae243341b4e0657fd8aea1cbf18), built 2025-11-18": {1, 21, 1},
		"OpenBao v2.5.5 (abc), built 2026-01-01T00:00:00Z":                           {2, 5, 5},
		"nats-server: v2.15.2": {2, 15, 2},
		"etcd Version: 3.7.3\nGit SHA: 0123456\nGo Version: go1.26.8": {3, 7, 3},
		"Kubernetes v1.36.3": {1, 36, 3},
		"golangci-lint has version v2.15.0 built with go1.26.8": {2, 15, 0},
		"v0.36.10": {0, 36, 10},
	} {
		got, err := parseVersion(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	_, err := parseVersion("unknown flag: --version")
	require.ErrorContains(t, err, "no version")
}

func TestAProgramOnPATHWillDoWhen(t *testing.T) {
	relaxed := Tool{min: version{1, 20, 0}}
	exact := Tool{exact: true}
	for name, c := range map[string]struct {
		tool  Tool
		found version
		want  bool
	}{
		"it is the pinned version":             {relaxed, version{1, 21, 1}, true},
		"it is newer, but no major one":        {relaxed, version{1, 30, 0}, true},
		"it is the oldest one that will do":    {relaxed, version{1, 20, 0}, true},
		"not when it is older":                 {relaxed, version{1, 19, 9}, false},
		"not when it is another major version": {relaxed, version{2, 21, 1}, false},
		"it is exactly what is needed":         {exact, version{1, 21, 1}, true},
		"not when it is newer than that":       {exact, version{1, 21, 2}, false},
	} {
		require.Equal(t, c.want, c.tool.accepts(c.found, "v1.21.1"), name)
	}
}

func TestEveryToolIsPinned(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	for _, tool := range slices.Concat(Tools, ReleaseTools) {
		pinned, err := pinnedVersion(filepath.Join(root, tool.dir, "go.mod"), tool.module)
		require.NoError(t, err)
		found, err := parseVersion(pinned)
		require.NoError(t, err)
		require.True(t, tool.accepts(found, pinned), "%s does not accept its own pin %s", tool.Name, pinned)
	}
}

// fakeProgram writes a program that prints a version.
func fakeProgram(t *testing.T, name, prints string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\necho '"+prints+"'\n"), 0o755))
	return path
}

func TestTheVariableOfAToolComesFirstWhateverItsVersion(t *testing.T) {
	path := fakeProgram(t, "bao", "OpenBao v2.5.5")
	t.Setenv("VAULT_BIN", path)
	got, err := VaultTool.Path(t.Context())
	require.NoError(t, err)
	require.Equal(t, path, got)

	t.Setenv("VAULT_BIN", path+"-not-there")
	_, err = VaultTool.Path(t.Context())
	require.ErrorContains(t, err, "VAULT_BIN")
}

func TestAnAcceptableProgramOnPATHIsTaken(t *testing.T) {
	t.Setenv("NATS_SERVER_BIN", "")
	path := fakeProgram(t, "nats-server", "nats-server: v2.99.0")
	t.Setenv("PATH", filepath.Dir(path))
	got, err := NATSTool.Path(t.Context())
	require.NoError(t, err)
	require.Equal(t, path, got)
}

func TestAProgramIsBuiltOnceAndAFailedBuildLeavesNothing(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	module := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(module, name), []byte(text), 0o600))
	}
	write("go.mod", "module example.com/hello\n\ngo 1.26\n")
	write("go.sum", "")
	write("main.go", "package main\n\nvar version = \"\"\n\nfunc main() { println(version) }\n")
	tool := Tool{Name: "hello", Why: "a test runs it", Minutes: 1, pkg: "example.com/hello", ldflags: "-X main.version=%s"}

	path, err := tool.build(t.Context(), pin{module, "v1.2.3"}, "it is not on PATH")
	require.NoError(t, err)
	before, err := os.Stat(path)
	require.NoError(t, err)
	again, err := tool.build(t.Context(), pin{module, "v1.2.3"}, "it is not on PATH")
	require.NoError(t, err)
	require.Equal(t, path, again)
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime())

	write("main.go", "package main\n\nfunc main() { no such thing }\n")
	write("go.sum", "\n")
	_, err = tool.build(t.Context(), pin{module, "v1.2.3"}, "it is not on PATH")
	require.ErrorContains(t, err, "syntax error")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	for _, entry := range entries {
		require.True(t, entry.Name() == filepath.Base(path) || strings.HasSuffix(entry.Name(), ".lock"), entry.Name())
	}
}
