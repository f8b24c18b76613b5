package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
)

// at is a time for images. Nothing depends on which one it is.
const at = "1764201600"

// buildPlugin builds the plugin for this machine as `make image` does, and returns its path.
func buildPlugin(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), programName)
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X github.com/nats-vault/vault-plugin-auth-nats/plugin.Version=v1.2.3", "-o", path, "./cmd/vault-plugin-auth-nats")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	return path
}

// fakeProgram writes a file that says of itself that it is a program for a machine, and has nothing in it.
func fakeProgram(t *testing.T, machine elf.Machine) string {
	t.Helper()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64, Phentsize: 56, Shentsize: 64,
	}
	copy(header.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}))
	var text bytes.Buffer
	require.NoError(t, binary.Write(&text, binary.LittleEndian, header))
	path := filepath.Join(t.TempDir(), machine.String())
	require.NoError(t, os.WriteFile(path, text.Bytes(), 0o755))
	return path
}

// command runs the program's command line, and returns what it prints.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	o, err := parse(args, io.Discard)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = run(t.Context(), o, &out)
	return out.String(), err
}

// printed reads a checksum from what the program prints.
func printed(t *testing.T, out, of string) string {
	t.Helper()
	for line := range strings.Lines(out) {
		if sum, ok := strings.CutPrefix(line, of+"  "); ok {
			return strings.TrimSpace(sum)
		}
	}
	require.Fail(t, "not printed: "+of, out)
	return ""
}

// files reads the files of an image, as OpenBao extracts them.
func files(t *testing.T, of v1.Image) map[string]*tar.Header {
	t.Helper()
	found := map[string]*tar.Header{}
	eachFile(t, of, func(header *tar.Header, _ io.Reader) { found[header.Name] = header })
	return found
}

// file reads one of them.
func file(t *testing.T, of v1.Image, name string) []byte {
	t.Helper()
	var text []byte
	eachFile(t, of, func(header *tar.Header, content io.Reader) {
		if header.Name == name {
			var err error
			text, err = io.ReadAll(content)
			require.NoError(t, err)
		}
	})
	require.NotEmpty(t, text, name)
	return text
}

func eachFile(t *testing.T, of v1.Image, do func(*tar.Header, io.Reader)) {
	t.Helper()
	extracted := mutate.Extract(of)
	defer extracted.Close()
	reader := tar.NewReader(extracted)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		do(header, reader)
	}
}

func TestAnImageThatWasPushedIsPulledWithTheProgramThatRuns(t *testing.T) {
	own := "linux/" + runtime.GOARCH
	other, machine := "linux/arm64", elf.EM_AARCH64
	if own == other {
		other, machine = "linux/amd64", elf.EM_X86_64
	}
	plugin := buildPlugin(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	repository := strings.TrimPrefix(server.URL, "http://") + "/example/vault-plugin-auth-nats"
	out, err := command(t, "-version", "v1.2.3", "-revision", "0123456789ab", "-created", at, "-push", repository,
		own+"="+plugin, other+"="+fakeProgram(t, machine))
	require.NoError(t, err)

	// OpenBao asks for the version as it is configured, Vault's users for that without the v.
	for _, tag := range []string{"v1.2.3", "1.2.3"} {
		ref, err := name.ParseReference(repository + ":" + tag)
		require.NoError(t, err)
		index, err := remote.Index(ref, remote.WithContext(t.Context()))
		require.NoError(t, err)
		digest, err := index.Digest()
		require.NoError(t, err)
		require.Equal(t, printed(t, out, "index"), digest.Hex)
	}

	platform, err := v1.ParsePlatform(own)
	require.NoError(t, err)
	ref, err := name.ParseReference(repository + ":v1.2.3")
	require.NoError(t, err)
	pulled, err := remote.Image(ref, remote.WithContext(t.Context()), remote.WithPlatform(*platform))
	require.NoError(t, err)
	// By this Vault's container engine knows the image, and Vault the plugin.
	id, err := pulled.ConfigName()
	require.NoError(t, err)
	require.Equal(t, printed(t, out, own+" image"), id.Hex)
	config, err := pulled.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, []string{"/" + programName}, config.Config.Entrypoint)
	require.Equal(t, "65532:65532", config.Config.User)
	require.Equal(t, runtime.GOARCH, config.Architecture)
	require.Equal(t, "0123456789ab", config.Config.Labels["org.opencontainers.image.revision"])
	require.Equal(t, "v1.2.3", config.Config.Labels["org.opencontainers.image.version"])

	found := files(t, pulled)
	require.Len(t, found, 5, "the program, the roots, and the folders that these are in")
	for name, header := range found {
		require.Zero(t, header.Mode&0o022, "%s can be written by others", name)
		require.Zero(t, header.Uid+header.Gid, name)
	}
	program := filepath.Join(t.TempDir(), programName)
	require.NoError(t, os.WriteFile(program, file(t, pulled, programName), 0o755))
	original, err := readProgram(own, plugin)
	require.NoError(t, err)
	again, err := readProgram(own, program)
	require.NoError(t, err)
	require.Equal(t, original.sha256(), again.sha256())
	require.Equal(t, printed(t, out, own+" program"), again.sha256())
	shown, err := exec.CommandContext(t.Context(), program, "-version").Output()
	require.NoError(t, err)
	require.Contains(t, string(shown), "vault-plugin-auth-nats v1.2.3")
}

func TestAnImageIsTheSameWheneverItIsMade(t *testing.T) {
	amd64, arm64 := fakeProgram(t, elf.EM_X86_64), fakeProgram(t, elf.EM_AARCH64)
	folder := filepath.Join(t.TempDir(), "image")
	image := func(version, created string) string {
		out, err := command(t, "-version", version, "-created", created, "-layout", folder, "linux/amd64="+amd64, "linux/arm64="+arm64)
		require.NoError(t, err)
		index, err := layout.ImageIndexFromPath(folder)
		require.NoError(t, err)
		manifest, err := index.IndexManifest()
		require.NoError(t, err)
		require.Len(t, manifest.Manifests, 1)
		require.Equal(t, printed(t, out, "index"), manifest.Manifests[0].Digest.Hex)
		return out
	}
	first := image("v1.2.3", at)
	require.Equal(t, first, image("v1.2.3", at))
	require.NotEqual(t, first, image("v1.2.4", at))
	require.NotEqual(t, first, image("v1.2.3", "1764201601"))
}

func TestTheRootsAreThoseOfPublicAuthorities(t *testing.T) {
	text, err := roots()
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	require.Greater(t, strings.Count(string(text), "BEGIN CERTIFICATE"), 100)
}

func TestNoImageIsMadeOf(t *testing.T) {
	amd64 := fakeProgram(t, elf.EM_X86_64)
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755))
	linked, err := exec.LookPath("sh")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no program":                  {[]string{"-version", "v1.2.3"}, "no PLATFORM=PROGRAM is given"},
		"no version":                  {[]string{"linux/amd64=" + amd64}, "-version has to be"},
		"a version without the v":     {[]string{"-version", "1.2.3", "linux/amd64=" + amd64}, "-version has to be"},
		"another system":              {[]string{"-version", "v1.2.3", "darwin/arm64=" + amd64}, `"darwin/arm64" is no platform`},
		"a program for another one":   {[]string{"-version", "v1.2.3", "linux/arm64=" + amd64}, "no program for linux/arm64, but for EM_X86_64"},
		"what is no program":          {[]string{"-version", "v1.2.3", "linux/amd64=" + script}, "no program for linux/amd64"},
		"a program that is not there": {[]string{"-version", "v1.2.3", "linux/amd64=" + script + "-not"}, "no such file"},
		"a program that needs others": {[]string{"-version", "v1.2.3", "linux/" + runtime.GOARCH + "=" + linked}, "is not static"},
	} {
		_, err := command(t, c.args...)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestAFolderOfSomethingElseIsLeftAlone(t *testing.T) {
	folder := t.TempDir()
	kept := filepath.Join(folder, "kept")
	require.NoError(t, os.WriteFile(kept, nil, 0o600))
	_, err := command(t, "-version", "v1.2.3", "-layout", folder, "linux/amd64="+fakeProgram(t, elf.EM_X86_64))
	require.ErrorContains(t, err, "neither empty nor an OCI image layout")
	require.FileExists(t, kept)
}
