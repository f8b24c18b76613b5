package e2e

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Clients without the verb LIST ask with a query parameter.
func TestListsAreHadWithAQueryParameterToo(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	for path, want := range map[string][]string{"roles": {"dev"}, "role": {"dev"}, "issuer": {"default"}} {
		request, err := http.NewRequestWithContext(e.ctx(), http.MethodGet, e.vault.Addr+"/v1/"+e.path(path)+"?list=true", nil)
		require.NoError(t, err)
		request.Header.Set("X-Vault-Token", e.client.Token())
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		var answer struct {
			Data struct {
				Keys []string `json:"keys"`
			} `json:"data"`
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		require.NoError(t, response.Body.Close())
		require.NoError(t, err)
		require.Equal(t, want, answer.Data.Keys, path)
	}
}
