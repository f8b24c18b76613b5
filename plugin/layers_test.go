package plugin

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/nats-vault/vault-plugin-auth-nats/"

// TestEachRoomKnowsOnlyThoseBelowIt holds the directions that docs/development.md
// draws against the code.
func TestEachRoomKnowsOnlyThoseBelowIt(t *testing.T) {
	for room, below := range map[string][]string{
		"claims":          {},
		"roles":           {"claims"},
		"plugin/fault":    {},
		"plugin/store":    {},
		"plugin/trust":    {},
		"plugin/proof":    {"plugin/fault"},
		"plugin/people":   {"claims", "plugin/fault"},
		"plugin/delivery": {},
		"plugin/callout":  {"plugin/trust"},
		"plugin/chain":    {"plugin/delivery", "plugin/fault", "plugin/proof", "plugin/store", "plugin/trust"},
	} {
		t.Run(room, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(room), "*.go"))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			for _, file := range files {
				if strings.HasSuffix(file, "_test.go") {
					continue
				}
				parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
				require.NoError(t, err)
				for _, spec := range parsed.Imports {
					path, err := strconv.Unquote(spec.Path.Value)
					require.NoError(t, err)
					if own, ok := strings.CutPrefix(path, module); ok && !slices.Contains(below, own) {
						t.Errorf("%s imports %s", file, own)
					}
					if strings.HasPrefix(path, "github.com/hashicorp/vault/") && path != "github.com/hashicorp/vault/sdk/logical" {
						t.Errorf("%s imports %s: below the paths, Vault is its storage and no more", file, path)
					}
				}
			}
		})
	}
}
