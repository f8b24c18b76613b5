package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheProgramIsTheSameWhereverItIsBuilt builds the plugin in the repository, which is a clone and may have changes,
// and in a copy in another folder, which is no clone.
func TestTheProgramIsTheSameWhereverItIsBuilt(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "another", "folder")
	copySources(t, root, copied)
	require.Equal(t, makeBuild(t, root), makeBuild(t, copied))
}

// makeBuild has make build the plugin in a folder, and returns its checksum.
func makeBuild(t *testing.T, folder string) string {
	t.Helper()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "make", "build",
		"BIN="+bin, "PROGRAMS=./cmd/vault-plugin-auth-nats", "VERSION=v1.2.3", "COMMIT=0123456789ab")
	build.Dir = folder
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	text, err := os.ReadFile(filepath.Join(bin, "vault-plugin-auth-nats-v1.2.3"))
	require.NoError(t, err)
	requireStatic(t, text)
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// requireStatic fails when a program of Linux needs another to be started with.
func requireStatic(t *testing.T, text []byte) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	program, err := elf.NewFile(bytes.NewReader(text))
	require.NoError(t, err)
	for _, segment := range program.Progs {
		require.NotEqual(t, elf.PT_INTERP, segment.Type)
	}
}

// copySources copies the files of a clone that git would commit.
func copySources(t *testing.T, from, to string) {
	t.Helper()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = from
	names, err := list.Output()
	require.NoError(t, err)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		}
		require.NoError(t, err)
		path := filepath.Join(to, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
}
