package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What Vault shows of the mount: its help for every path, and its OpenAPI
// document, in which every operation has a name of its own and its answers.
func TestVaultShowsHelpAndOpenAPIOfEveryPath(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	secret, err := e.client.Logical().ReadWithContext(e.ctx(), "sys/internal/specs/openapi")
	require.NoError(t, err)
	paths := secret.Data["paths"].(fields)
	prefix := "/auth/" + e.mount + "/"
	names := map[string]string{}
	shown := 0
	for path, item := range paths {
		below, ours := strings.CutPrefix(path, prefix)
		if !ours {
			continue
		}
		shown++
		for method, operation := range item.(fields) {
			operation, ok := operation.(fields)
			if !ok || operation["operationId"] == nil {
				continue
			}
			name := operation["operationId"].(string)
			require.NotContains(t, names, name, "%s %s has the name of %s", method, below, names[name])
			names[name] = method + " " + below
			require.NotEmpty(t, operation["responses"], "%s %s", method, below)
			require.NotEmpty(t, operation["summary"], "%s %s", method, below)
		}
		help := e.cli("path-help", "auth/"+e.mount+"/"+strings.NewReplacer("{", "", "}", "").Replace(below))
		require.Contains(t, help, "DESCRIPTION", below)
	}
	require.Greater(t, shown, 15)
	for _, want := range []string{"config", "config/server", "config/rotate", "issuer/{name}", "role/{name}", "roles/", "login", "creds/{role}", "jwt/{name}", "jwt/{name}/sign", "jwt/{name}/rotate"} {
		require.Contains(t, paths, prefix+want)
	}
}
