package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A storedMount is a mount as a version of the plugin has stored it, and what that
// answered. It has keys of its own, for nothing but this.
type storedMount struct {
	Entries map[string]json.RawMessage `json:"entries"` // by their keys in storage
	Tokens  map[string]string          `json:"tokens"`  // good ones of workloads, by role
	Reads   map[string]map[string]any  `json:"reads"`   // by path
}

const formatOne = "testdata/format-1.json"

// formatReads are read of a stored mount. What a read makes anew, and what the mount
// keeps of time, is left out.
var formatReads = []string{"config", "issuer/oidc", "role/dev", "role/oidc", "role/scoped", "role/ops", "jwt/orders", "jwt/alice", "jwt/elsewhere", "jwt/orders/keys/default", "jwt/orders/keys/reader", "callout/edge"}

func (m *credsMount) formatReads() map[string]map[string]any {
	m.t.Helper()
	reads := map[string]map[string]any{}
	for _, path := range formatReads {
		text, err := json.Marshal(m.read(path))
		require.NoError(m.t, err)
		var data map[string]any
		require.NoError(m.t, json.Unmarshal(text, &data))
		for _, field := range []string{"jwt", "nonce", "expiration", "ttl"} {
			delete(data, field)
		}
		reads[path] = data
	}
	return reads
}

// What the first release has stored is read by every later one. The file was written by
// this test, with -update while there was none; it is not to be made anew.
func TestAMountInTheFirstFormatIsRead(t *testing.T) {
	if _, err := os.Stat(formatOne); *update && os.IsNotExist(err) {
		writeFormatOne(t)
	}
	text, err := os.ReadFile(formatOne)
	require.NoError(t, err)
	var stored storedMount
	require.NoError(t, json.Unmarshal(text, &stored))

	m := newCredsMount(t)
	m.storage = storetest.New()
	for key, value := range stored.Entries {
		require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: value}))
	}
	m.restart()
	reads := m.formatReads()
	for path, fields := range stored.Reads { // later versions may have more
		for field, value := range fields {
			require.Contains(t, reads[path], field, path)
			require.Equal(t, value, reads[path][field], "%s of %s", field, path)
		}
	}
	for _, path := range []string{"jwt/orders/revoke", "config/server"} {
		m.read(path)
	}
	for _, path := range []string{"issuer", "role", "jwt"} {
		m.must(logical.ListOperation, path, nil)
	}
	for role, token := range stored.Tokens {
		require.Equal(t, "orders", m.logsIn(role, token)["account"])
	}
	m.lease("ops", nil)
	_, err = m.chain.Source(m.storage).Removed(t.Context())
	require.NoError(t, err)

	// And is changed.
	m.write("config/rotate", nil)
	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	m.write("jwt/orders", map[string]any{"config": map[string]any{"description": "later"}})
	m.write("jwt/alice/revoke", nil)
	for path := range stored.Reads {
		if strings.HasPrefix(path, "role/") || strings.HasPrefix(path, "callout/") || path == "jwt/alice" {
			m.must(logical.DeleteOperation, path, nil)
		}
	}
	require.NoError(t, m.periodic(t.Context(), &logical.Request{Storage: m.storage}))
}

// An older version of the plugin does nothing to what a newer one has stored, and says
// which version it takes.
func TestAMountOfANewerFormatIsLeftAlone(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	require.NoError(t, store.Write(t.Context(), m.storage, store.FormatKey, map[string]any{"format": store.CurrentFormat + 1, "needs": "v9.0.0"}))
	before := m.stored()
	refused := func() {
		t.Helper()
		for path, operation := range map[string]logical.Operation{
			"login": logical.UpdateOperation, "config": logical.ReadOperation, "jwt": logical.ListOperation, "role/dev": logical.DeleteOperation, "": logical.RollbackOperation,
		} {
			resp, err := m.do(operation, path, map[string]any{"role": "dev", "jwt": m.token(nil)})
			require.ErrorContains(t, err, "which version v9.0.0 of the plugin reads", "%s of %q", operation, path)
			require.Nil(t, resp)
		}
		_, _, err := m.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: "role/dev", Storage: m.storage})
		require.NoError(t, err, "it would hide the error")
	}
	m.invalidate(t.Context(), store.FormatKey) // as a standby is told, when the leader is newer
	refused()
	m.restart()
	require.ErrorContains(t, m.initialize(t.Context(), &logical.InitializationRequest{Storage: m.storage}), "v9.0.0")
	refused()
	require.Equal(t, before, m.stored())

	require.NoError(t, store.Delete(t.Context(), m.storage, store.FormatKey))
	m.logsIn("dev", m.token(nil))
}

// logsIn logs in, and returns what comes beside the Vault token.
func (m *credsMount) logsIn(role, token string) map[string]any {
	m.t.Helper()
	resp, err := m.HandleRequest(m.t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "login", Storage: m.storage, Data: map[string]any{"role": role, "jwt": token},
		Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	})
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error(), role)
	require.NotNil(m.t, resp.Auth)
	return resp.Data
}

// writeFormatOne makes a mount that has something of every kind, and stores it.
func writeFormatOne(t *testing.T) {
	m := newCredsMount(t)
	const forEver = "876000h"
	m.write("config", map[string]any{
		"operator_name": "acme", "account_jwt_server_url": "nats://127.0.0.1:1", "service_url": "nats://nats.example.com", "default_account": "orders",
	})
	// An issuer that is gone later, whose keys are known.
	var discovery *httptest.Server
	discovery = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"%s/keys"}`, discovery.URL, discovery.URL)
		default:
			require.NoError(t, json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: m.public, Algorithm: string(jose.EdDSA), Use: "sig", KeyID: "one"}}}))
		}
	}))
	m.write("issuer/oidc", map[string]any{"oidc_discovery_url": discovery.URL})

	m.write("jwt/orders", map[string]any{"config": map[string]any{"description": "orders", "limits": map[string]any{"conn": 10}}})
	m.write("jwt/orders/keys/reader", map[string]any{"config": map[string]any{"template": map[string]any{"sub": map[string]any{"allow": []string{"orders.>"}}}}})
	m.write("jwt/orders/rotate", map[string]any{"overlap": forEver})
	m.must(logical.CreateOperation, "jwt/alice", map[string]any{"type": "user", "account": "orders", "config": map[string]any{"pub": map[string]any{"allow": []string{"jobs.>"}}}})
	m.must(logical.CreateOperation, "jwt/elsewhere", map[string]any{"type": "user", "account": "orders", "public_key": newKey(t, trust.User).Public()})
	m.must(logical.CreateOperation, "jwt/scratch", map[string]any{"type": "account"})
	m.must(logical.DeleteOperation, "jwt/scratch", nil)
	m.deliverPending()
	m.write("jwt/orders/revoke", map[string]any{"user_public_key": newKey(t, trust.User).Public()})
	m.role("dev", map[string]any{"token_policies": "default"})
	m.role("oidc", map[string]any{"issuer": "oidc"})
	m.role("scoped", map[string]any{"scoped": true, "user_template": `{"pub":{"allow":["orders.>"]}}`})
	m.vaultRole("ops", nil)
	m.must(logical.CreateOperation, "jwt/doors", map[string]any{"type": "account"})
	m.must(logical.CreateOperation, "callout/edge", map[string]any{"account": "doors", "roles": "dev", "default_role": "dev"})
	m.write("config/rotate", map[string]any{"overlap": forEver})
	m.lease("ops", nil)
	// What takes NATS servers, and an import that was deleted again.
	for key, value := range map[string]any{
		"leader": map[string]any{"at": time.Now()},
		"deleted/" + newKey(t, trust.Account).Public(): map[string]any{
			"id": "KKXXPJ6ZA3B3ZKWZKEP3QK4M5WQ3UWMXOM7LXPTLVC6CVA7LXK2A", "issued_at": time.Now().Unix(), "at": time.Now().Unix(),
			"digest": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
		},
	} {
		require.NoError(t, store.Write(t.Context(), m.storage, key, value))
	}

	end := map[string]any{"iat": 1577836800, "exp": 4102444800} // 2020 and 2100
	stored := storedMount{Entries: map[string]json.RawMessage{}, Tokens: map[string]string{"dev": m.token(end)}}
	end["iss"] = discovery.URL
	stored.Tokens["oidc"] = m.token(end)
	discovery.Close()
	stored.Reads = m.formatReads()
	keys := storetest.KeysBelow(t, m.storage.Storage, "")
	for _, key := range keys {
		entry, err := m.storage.Get(t.Context(), key)
		require.NoError(t, err)
		stored.Entries[key] = entry.Value
	}
	kinds := map[string]bool{}
	for _, key := range keys {
		kind, _, _ := strings.Cut(key, "/")
		kinds[kind] = true
	}
	t.Log("kinds of entries:", slices.Sorted(maps.Keys(kinds)))
	text, err := json.MarshalIndent(stored, "", " ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(formatOne, append(text, '\n'), 0o600))
}
