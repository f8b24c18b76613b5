package plugin

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// fetch asks for an account as an unauthenticated caller does.
func (m *chainMount) fetch(id string, data map[string]any, headers map[string][]string) *logical.Response {
	m.t.Helper()
	resp, err := m.HandleRequest(m.t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "jwt/v1/accounts/" + id, Data: data, Headers: headers, Storage: m.storage})
	require.NoError(m.t, err)
	return resp
}

func TestAccountsAreServedAsNATSAccountServerServesThem(t *testing.T) {
	m := newAccountMount(t)
	read := m.read("jwt/orders")
	id := read["public_key"].(string)

	resp := m.fetch(id, nil, nil)
	require.Equal(t, http.StatusOK, resp.Data[logical.HTTPStatusCode])
	require.Equal(t, "application/jwt", resp.Data[logical.HTTPContentType])
	require.Equal(t, []byte(read["jwt"].(string)), resp.Data[logical.HTTPRawBody])
	require.Equal(t, "no-cache", resp.Data[logical.HTTPCacheControlHeader])
	etag := resp.Headers["ETag"][0]
	require.Equal(t, `"`+accountClaims(t, read["jwt"]).ID+`"`, etag)

	for name, test := range map[string]struct {
		header, value string
		status        int
	}{
		"its tag":              {"If-None-Match", etag, http.StatusNotModified},
		"its weak tag":         {"if-none-match", "W/" + etag, http.StatusNotModified},
		"its tag among others": {"If-None-Match", `"x", ` + etag, http.StatusNotModified},
		"any tag":              {"If-None-Match", "*", http.StatusNotModified},
		"another tag":          {"If-None-Match", `"x"`, http.StatusOK},
		"another header":       {"If-Match", etag, http.StatusOK},
	} {
		resp := m.fetch(id, nil, map[string][]string{test.header: {test.value}})
		require.Equal(t, test.status, resp.Data[logical.HTTPStatusCode], name)
		require.Equal(t, test.status == http.StatusOK, len(resp.Data[logical.HTTPRawBody].([]byte)) > 0, name)
	}

	require.Equal(t, "text/plain", m.fetch(id, map[string]any{"text": "true"}, nil).Data[logical.HTTPContentType])
	decoded := string(m.fetch(id, map[string]any{"decode": "true"}, nil).Data[logical.HTTPRawBody].([]byte))
	require.Contains(t, decoded, `"alg": "ed25519-nkey"`)
	require.Contains(t, decoded, `"name": "orders"`)
	unchanged := m.fetch(id, map[string]any{"decode": "true"}, map[string][]string{"If-None-Match": {etag}})
	require.Equal(t, http.StatusNotModified, unchanged.Data[logical.HTTPStatusCode])
	require.Empty(t, unchanged.Data[logical.HTTPRawBody])
	require.Equal(t, http.StatusOK, m.fetch(id, map[string]any{"check": "true"}, nil).Data[logical.HTTPStatusCode])

	bare := m.fetch("", nil, nil)
	require.Equal(t, http.StatusOK, bare.Data[logical.HTTPStatusCode])

	require.Nil(t, m.fetch(newKey(t, trust.Account).Public(), nil, nil), "which Vault answers with 404")
	require.ErrorContains(t, m.fetch("orders", nil, nil).Error(), "id is not an account public key")
	require.ErrorContains(t, m.fetch(newKey(t, trust.User).Public(), nil, nil).Error(), "id is a user public key")
}

func TestAServedAccountIsTheChangedOneOnceTheChangeIsAnswered(t *testing.T) {
	m := newAccountMount(t)
	id := m.read("jwt/orders")["public_key"].(string)
	body := func() string { return string(m.fetch(id, nil, nil).Data[logical.HTTPRawBody].([]byte)) }
	reads := m.storage.All()
	first := body()
	afterFirst := m.storage.All()
	require.Greater(t, afterFirst, reads)
	require.Equal(t, first, body())
	require.Equal(t, afterFirst, m.storage.All(), "a cached account was read again")

	require.Equal(t, m.write("jwt/orders", map[string]any{"config": `{"limits":{"conn":1}}`})["jwt"], body())
	m.write("config/rotate", nil)
	require.Equal(t, m.read("jwt/orders")["jwt"], body())
	m.must(logical.DeleteOperation, "jwt/orders", nil)
	require.Nil(t, m.fetch(id, nil, nil))
}

func TestTheOperatorIsServedAsNATSAccountServerServesIt(t *testing.T) {
	empty := newChainMount(t)
	fetch := func(m *chainMount, data map[string]any, headers map[string][]string) *logical.Response {
		resp, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "jwt/v1/operator", Data: data, Headers: headers, Storage: m.storage})
		require.NoError(t, err)
		return resp
	}
	require.Nil(t, fetch(empty, nil, nil), "which Vault answers with 404")
	empty.write("config", map[string]any{"no_operator": true})
	require.Nil(t, fetch(empty, nil, nil))

	m := newAccountMount(t)
	want := m.read("config")["operator_jwt"]
	resp := fetch(m, nil, nil)
	require.Equal(t, http.StatusOK, resp.Data[logical.HTTPStatusCode])
	require.Equal(t, "application/jwt", resp.Data[logical.HTTPContentType])
	require.Equal(t, want, string(resp.Data[logical.HTTPRawBody].([]byte)))
	etag := resp.Headers["ETag"][0]
	require.Equal(t, `"`+operatorClaims(t, want).ID+`"`, etag)
	require.Equal(t, http.StatusNotModified, fetch(m, nil, map[string][]string{"If-None-Match": {etag}}).Data[logical.HTTPStatusCode])
	require.Equal(t, "text/plain", fetch(m, map[string]any{"text": "true"}, nil).Data[logical.HTTPContentType])
	require.Contains(t, string(fetch(m, map[string]any{"decode": "true"}, nil).Data[logical.HTTPRawBody].([]byte)), `"type": "operator"`)

	reads := m.storage.All()
	fetch(m, nil, nil)
	require.Equal(t, reads, m.storage.All(), "whoever asks costs no storage")
	m.write("config", map[string]any{"tags": "later"})
	require.NotEqual(t, want, string(fetch(m, nil, nil).Data[logical.HTTPRawBody].([]byte)))
}

func TestNothingButReadingIsThereForUnauthenticatedCallers(t *testing.T) {
	m := newAccountMount(t)
	for _, path := range []string{"jwt/v1/accounts/", "jwt/v1/accounts/orders", "jwt/v1/accounts/orders/sign", "jwt/v1/accounts/orders/rotate", "jwt/v1/accounts/keys/x", "jwt/v1/operator"} {
		for _, operation := range []logical.Operation{logical.CreateOperation, logical.UpdateOperation, logical.DeleteOperation, logical.PatchOperation, logical.ListOperation} {
			before := m.stored()
			resp, err := m.do(operation, path, map[string]any{"type": "account"})
			require.True(t, err != nil || resp.IsError(), "%s %s", operation, path)
			require.Equal(t, before, m.stored())
		}
	}
}

func TestTheServerConfigurationBootsAServerThatTrustsTheMount(t *testing.T) {
	m := newAccountMount(t)
	orders := m.read("jwt/orders")["public_key"].(string)
	for _, resolver := range []string{"full", "cache", "memory"} {
		t.Run(resolver, func(t *testing.T) {
			data := m.must(logical.ReadOperation, "config/server", map[string]any{"resolver": resolver, "dir": t.TempDir()})
			options := serverOptions(t, data["config"].(string))
			require.Equal(t, data["system_account_public_key"], options.SystemAccount)
			running, err := server.NewServer(options)
			require.NoError(t, err)
			defer running.Shutdown()
			_, err = running.LookupAccount(data["system_account_public_key"].(string))
			require.NoError(t, err)
			if resolver == "memory" {
				_, err = running.LookupAccount(orders)
				require.NoError(t, err)
			}
		})
	}
	url := m.must(logical.ReadOperation, "config/server", map[string]any{"resolver": "url", "vault_addr": "http://127.0.0.1:8200/"})["config"].(string)
	require.Contains(t, url, "resolver: URL(http://127.0.0.1:8200/v1/auth/nats/jwt/v1/accounts/)")
	serverOptions(t, url)
	m.refuse(logical.ReadOperation, "config/server", map[string]any{"resolver": "url"}, "vault_addr is missing")
	m.refuse(logical.ReadOperation, "config/server", map[string]any{"resolver": "url", "vault_addr": "ftp://x"}, "vault_addr is not an http or https URL")
	m.refuse(logical.ReadOperation, "config/server", map[string]any{"resolver": "dns"}, `resolver is "dns"`)
	m.refuse(logical.ReadOperation, "config/server", map[string]any{"dir": "a\"\n}"}, "dir is not a path")
	require.Contains(t, m.read("config/server")["config"], `dir: "./jwt"`)
}

func serverOptions(t *testing.T, text string) *server.Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	require.NoError(t, os.WriteFile(file, []byte("listen: 127.0.0.1:-1\n"+strings.TrimSpace(text)+"\n"), 0o600))
	options, err := server.ProcessConfigFile(file)
	require.NoError(t, err, "%s", text)
	options.NoLog, options.NoSigs = true, true
	return options
}
