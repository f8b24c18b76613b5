package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// The last release is kept as its source, so that it can be built without history:
// docs/development.md says how.
const releases = "../../testdata/releases"

// formerVersion is the last release, from which pluginVersion is the next.
var formerVersion = lastRelease()

func lastRelease() string {
	archives, err := filepath.Glob(filepath.Join(releases, "*.tar.gz"))
	if err != nil || len(archives) != 1 {
		panic(fmt.Sprintf("there must be one release in testdata/releases, and there are %d", len(archives)))
	}
	return strings.TrimSuffix(filepath.Base(archives[0]), ".tar.gz")
}

// versions returns the folders in which the last release and the version under test are
// in bin/, as make build leaves them there.
func (s *sharedParts) versions(t *testing.T) (former, later string) {
	t.Helper()
	program := s.plugin(t)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	former, later = filepath.Join(s.dir, "former"), filepath.Join(s.dir, "later")
	if _, err := os.Stat(later); err == nil {
		return former, later
	}
	source := filepath.Join(s.dir, "source")
	require.NoError(t, os.Mkdir(source, 0o700))
	archive, err := filepath.Abs(filepath.Join(releases, formerVersion+".tar.gz"))
	require.NoError(t, err)
	run(t, source, "tar", "-xzf", archive)
	buildVersion(t, source, former, formerVersion)
	inBin(t, later, pluginVersion, program)
	return former, later
}

// next returns the folder in which a version that stores another format is in bin/. It
// is made of the source under test, and for nothing but this.
func (s *sharedParts) next(t *testing.T) (dir, version string) {
	t.Helper()
	s.plugin(t)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	dir, version = filepath.Join(s.dir, "next"), "v9.0.0"
	root, err := stack.Root()
	require.NoError(t, err)
	path := filepath.Join(root, "plugin", "store", "format.go")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	changed := string(text)
	for former, later := range map[string]string{
		"const CurrentFormat = ":  "const CurrentFormat = 1 + ",
		"	f.checked.Store(now)\n": "	if err := Write(ctx, s, FormatKey, formatEntry{Format: CurrentFormat, Needs: version}); err != nil {\n\t\treturn err\n\t}\n\tf.checked.Store(now)\n",
	} {
		require.Equal(t, 1, strings.Count(changed, former))
		changed = strings.Replace(changed, former, later, 1)
	}
	replacement, overlay := filepath.Join(s.dir, "format.go"), filepath.Join(s.dir, "overlay.json")
	require.NoError(t, os.WriteFile(replacement, []byte(changed), 0o600))
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: replacement}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, list, 0o600))
	buildVersion(t, root, dir, version, "-overlay", overlay)
	return dir, version
}

// buildVersion builds the plugin of a source into dir/bin, as make build does.
func buildVersion(t *testing.T, source, dir, version string, flags ...string) {
	t.Helper()
	program := filepath.Join(dir, stack.PluginName)
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w -X " + stack.ModulePath + "/plugin.Version=" + version, "-o", program}, flags...)
	run(t, source, "go", append(args, "./cmd/"+stack.PluginName)...)
	inBin(t, dir, version, program)
}

// inBin puts links to a program into dir/bin, by both its names there.
func inBin(t *testing.T, dir, version, program string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o700))
	for _, name := range []string{stack.PluginName, stack.PluginName + "-" + version} {
		require.NoError(t, os.Symlink(program, filepath.Join(dir, "bin", name)))
	}
}

func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(buildContext(t), program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// The release that upgrades are tested from is the one that was put there, and small
// enough to be kept in the history.
func TestTheLastReleaseIsKept(t *testing.T) {
	t.Parallel()
	archive := filepath.Join(releases, formerVersion+".tar.gz")
	sum, err := stack.SHA256(archive)
	require.NoError(t, err)
	noted, err := os.ReadFile(archive + ".sha256")
	require.NoError(t, err)
	require.Equal(t, sum+"  "+filepath.Base(archive)+"\n", string(noted))
	info, err := os.Stat(archive)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(400_000))
	changelog, err := os.ReadFile("../../CHANGELOG.md")
	require.NoError(t, err)
	require.Contains(t, string(changelog), "\n## "+strings.TrimPrefix(formerVersion, "v"), "a release has a heading in the changelog")
}
