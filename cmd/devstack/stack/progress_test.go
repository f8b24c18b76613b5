package stack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// aBuild follows a build of a program of five packages, of which two belong to a dependency.
func aBuild(terminal bool) (*progress, *bytes.Buffer) {
	var out bytes.Buffer
	p := (&screen{out: &out, terminal: terminal}).follow("server")
	p.screen.shown = p.screen.shown.Add(-logPeriod)
	p.imports = map[string][]string{
		"main": {"a", "b", "unsafe"}, "a": {"dep/x"}, "b": {}, "dep/x": {"dep/y"}, "dep/y": {},
	}
	return p, &out
}

func TestWhatIsCompiledCountsWithAllBelowIt(t *testing.T) {
	p, out := aBuild(false)
	fmt.Fprint(p, "a\n") // and dep/x and dep/y were in the cache
	require.Equal(t, "devstack: server: 3 of 5 packages; 0s\n", out.String())
	fmt.Fprint(p, "b")
	require.Equal(t, "server: 3 of 5 packages", p.String(), "half a line")
	fmt.Fprint(p, "\nmain\n")
	require.Contains(t, out.String(), "devstack: server: linking; 0s\n")
	require.Empty(t, p.complaint())
}

func TestALogGetsALineNowAndThenAndATerminalOneThatChanges(t *testing.T) {
	p, out := aBuild(false)
	fmt.Fprint(p, "dep/y\n")
	fmt.Fprint(p, "dep/x\n")
	require.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())

	p, out = aBuild(true)
	other := p.screen.follow("other")
	fmt.Fprint(p, "dep/y\n")
	require.Equal(t, "devstack: server: 1 of 5 packages, other: looking for modules; 0s", out.String())
	out.Reset()
	p.screen.shown = p.screen.shown.Add(-terminalPeriod)
	fmt.Fprint(other, "go: downloading example.com/module v1.2.3\n")
	require.Equal(t, "\r\x1b[Kdevstack: server: 1 of 5 packages, other: 1 modules downloaded; 0s", out.String())
	out.Reset()
	p.end()
	require.Equal(t, "\r\x1b[K", out.String(), "what is said next has a line of its own")
	require.Equal(t, []*progress{other}, p.screen.builds)
}

func TestALineFitsTheTerminal(t *testing.T) {
	require.Equal(t, "1234", fitting("123456", 5))
	require.Equal(t, "1234", fitting("1234", 5))
	require.Equal(t, "123456", fitting("123456", 0), "a terminal that does not say how wide it is")
}

func TestWhatABuildComplainsOfIsKeptWithoutTheNamesOfPackages(t *testing.T) {
	p, _ := aBuild(false)
	fmt.Fprint(p, "a\n# main\n./main.go:3:15: syntax error\nb\nmore")
	require.Equal(t, "# main\n./main.go:3:15: syntax error\nmore", p.complaint())
}

func TestAProgramWithOtherTagsIsAnotherProgram(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	p := pin{filepath.Join(root, VaultTool.dir), "v1.21.1"}
	minimal, err := VaultTool.cached(p)
	require.NoError(t, err)
	full := VaultTool
	full.tags = ""
	other, err := full.cached(p)
	require.NoError(t, err)
	require.NotEqual(t, minimal, other)
	require.Contains(t, VaultTool.flavour(p.version).args(), "minimal")
}

func TestOpenBaoOnPATHRunsWhereAVaultWouldHaveToBeBuilt(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("VAULT_BIN", "")
	bao := fakeProgram(t, "bao", "OpenBao v2.6.2")
	vault := fakeProgram(t, "vault", "Vault v1.21.1")
	oldBao := fakeProgram(t, "bao", "OpenBao v2.1.0")
	for _, c := range []struct {
		why  string
		path []string
		want string
	}{
		{"neither is there", nil, ""},
		{"a vault is there, and needs no build", []string{vault, bao}, ""},
		{"it is too old", []string{oldBao}, ""},
		{"it will do", []string{bao}, bao},
	} {
		var dirs []string
		for _, program := range c.path {
			dirs = append(dirs, filepath.Dir(program))
		}
		t.Setenv("PATH", strings.Join(dirs, string(os.PathListSeparator)))
		require.NoError(t, PreferOpenBao(t.Context()))
		require.Equal(t, c.want, os.Getenv("VAULT_BIN"), c.why)
	}
}
