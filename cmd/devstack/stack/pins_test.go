package stack

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheSupportTableHasThePinnedVersions holds docs/support.md against what the tests run.
func TestTheSupportTableHasThePinnedVersions(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "docs", "support.md"))
	require.NoError(t, err)
	for row, tool := range map[string]Tool{"Vault": VaultTool, "nats-server": NATSTool, "Kubernetes": KubeAPIServerTool} {
		pinned, err := pinnedVersion(filepath.Join(root, tool.dir, "go.mod"), tool.module)
		require.NoError(t, err)
		oldest := strings.TrimSuffix(strings.TrimPrefix(tool.min.String(), "v"), ".0")
		want := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row+" | "+strings.TrimPrefix(pinned, "v")) +
			` \|[^|]*\| ` + regexp.QuoteMeta(oldest) + ` and later \|$`)
		require.Regexp(t, want, string(text))
	}
}

// TestUpdatesAreLookedForInEveryModule holds .github/dependabot.yml against the folders that have a go.mod, where it
// does not say why a folder is left out.
func TestUpdatesAreLookedForInEveryModule(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, ".github", "dependabot.yml"))
	require.NoError(t, err)
	var named []string
	for _, folder := range regexp.MustCompile(`(?m)(?:^ +- |directory: |[ ,])(/[a-z0-9/-]*)(?:$|[,.])`).FindAllStringSubmatch(string(text), -1) {
		named = append(named, folder[1])
	}
	var there []string
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git"):
			return filepath.SkipDir
		case entry.Name() == "go.mod" || entry.Name() == "package.json":
			folder, err := filepath.Rel(root, filepath.Dir(path))
			there = append(there, filepath.ToSlash(filepath.Clean("/"+folder)))
			return err
		}
		return nil
	}))
	slices.Sort(named)
	slices.Sort(there)
	require.Equal(t, there, slices.Compact(named))
}

// TestEveryPinThatMovesAloneIsLookedFor holds the modules that .github/dependabot.yml allows to move against the tools.
func TestEveryPinThatMovesAloneIsLookedFor(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, ".github", "dependabot.yml"))
	require.NoError(t, err)
	for _, tool := range slices.Concat(Tools, ReleaseTools) {
		if strings.Contains(string(text), "      - /"+tool.dir+"\n") {
			require.Contains(t, string(text), "- dependency-name: "+tool.module+"\n", tool.Name)
		}
	}
}

// TestEveryActionIsPinnedByItsCommit holds the workflows to commits, which nobody can move as they can tags.
func TestEveryActionIsPinnedByItsCommit(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	workflows, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, workflows)
	uses := regexp.MustCompile(`(?m)uses: *(.*)$`)
	pinned := regexp.MustCompile(`^(\./.*|[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$`)
	for _, workflow := range workflows {
		text, err := os.ReadFile(workflow)
		require.NoError(t, err)
		for _, action := range uses.FindAllStringSubmatch(string(text), -1) {
			require.Regexp(t, pinned, action[1], filepath.Base(workflow))
		}
	}
}
