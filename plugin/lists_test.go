package plugin

import (
	"slices"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestEveryListIsHadInPages(t *testing.T) {
	m := newCredsMount(t)
	for _, name := range []string{"ada", "bob", "cyd"} {
		m.write("issuer/"+name, map[string]any{"jwks_url": "https://127.0.0.1:1/keys", "skip_jwks_validation": true})
		m.write("role/"+name, map[string]any{"role_type": "vault", "account": "orders"})
		m.write("jwt/"+name, map[string]any{"type": "account"})
	}
	for path, all := range map[string][]string{
		"role/":   {"ada", "bob", "cyd"},
		"roles/":  {"ada", "bob", "cyd"},
		"issuer/": {"ada", "bob", "cyd", "default"},
		"jwt/":    {"SYS", "ada", "bob", "cyd", "orders"},
	} {
		for name, test := range map[string]struct {
			page map[string]any
			keys []string
		}{
			"neither field":    {nil, all},
			"a limit":          {map[string]any{"limit": 1}, all[:1]},
			"a limit too high": {map[string]any{"limit": 100}, all},
			"zero":             {map[string]any{"limit": 0}, all},
			"after a name":     {map[string]any{"after": "bob"}, all[slices.Index(all, "cyd"):]},
			"after no name":    {map[string]any{"after": "bobby"}, all[slices.Index(all, "cyd"):]},
			"both":             {map[string]any{"after": "ada", "limit": 1}, []string{"bob"}},
			// So bao's client asks where only after is given.
			"no limit, as -1": {map[string]any{"after": "ada", "limit": -1}, all[slices.Index(all, "bob"):]},
		} {
			require.Equal(t, test.keys, m.must(logical.ListOperation, path, test.page)["keys"], "%s, with %s", path, name)
		}
		require.Empty(t, m.must(logical.ListOperation, path, map[string]any{"after": "zed"}), "%s: nothing is left", path)
	}
}
