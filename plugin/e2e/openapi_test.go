package e2e

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// openAPI is Vault's OpenAPI document. Vault makes it of what each mount says, and fails while one comes or goes, as those
// of other tests do.
func (e *env) openAPI() (document *api.Secret) {
	e.t.Helper()
	e.waitFor("Vault's OpenAPI document", func() (err error) {
		document, err = e.client.Logical().ReadWithContext(e.ctx(), "sys/internal/specs/openapi")
		return err
	})
	return document
}

// What Vault shows of the mount: its help for every path, and its OpenAPI
// document, in which every operation has a name of its own and its answers.
func TestVaultShowsHelpAndOpenAPIOfEveryPath(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	secret := e.openAPI()
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
		require.Contains(t, e.help(strings.NewReplacer("{", "", "}", "").Replace(below)), "DESCRIPTION", below)
	}
	require.Greater(t, shown, 15)
	require.Contains(t, e.cli("path-help", e.path("login")), "DESCRIPTION")
	for _, want := range []string{"config", "config/server", "config/rotate", "issuer/{name}", "role/{name}", "roles/", "login", "creds/{role}", "jwt/{name}", "jwt/{name}/sign", "jwt/{name}/rotate"} {
		require.Contains(t, paths, prefix+want)
	}
}

// help is what `vault path-help` shows.
func (e *env) help(path string) string {
	e.t.Helper()
	resp, err := e.client.Logical().ReadRawWithDataWithContext(e.ctx(), e.path(path), map[string][]string{"help": {"1"}})
	require.NoError(e.t, err, path)
	defer resp.Body.Close()
	var answer struct{ Help string }
	require.NoError(e.t, resp.DecodeJSON(&answer), path)
	return answer.Help
}
