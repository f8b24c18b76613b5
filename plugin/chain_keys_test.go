package plugin

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A file's text ends in a line break, and @file gives it as it is. nkeys reads such a
// key as if there were none; nats-servers, which compare keys as texts, do not.
func TestAKeyFromAFileIsThatKey(t *testing.T) {
	m := newAccountMount(t)
	user := newKey(t, trust.User).Public()
	require.Equal(t, user, m.write("jwt/orders/revoke", map[string]any{"user_public_key": user + "\n"})["user_public_key"])
	require.Contains(t, m.revocationsOf("orders"), user)
	m.refuse(logical.UpdateOperation, "jwt/orders/revoke", map[string]any{"user_public_key": user[:20] + "\r\n" + user[20:]},
		"user_public_key is not a user public key as NATS writes one: it has white space within it")
	m.write("jwt/orders/revoke", map[string]any{"user_public_key": "\r\n" + user + "\r\n", "undo": true})
	require.Empty(t, m.revocationsOf("orders"))

	m.write("jwt/orders", map[string]any{"config": `{"revocations":{"` + user + `\n":1700000000}}`})
	require.Equal(t, jwt.RevocationList{user: 1700000000}, m.revocationsOf("orders"))

	m.write("jwt/orders", map[string]any{"config": `{"exports":[{"subject":"a","type":"stream","token_req":true}]}`})
	importer := newKey(t, trust.Account).Public()
	token := m.write("jwt/orders/activation", map[string]any{"account": importer + "\n", "subject": "a", "type": "stream"})["token"].(string)
	activation, err := jwt.DecodeActivationClaims(token)
	require.NoError(t, err)
	require.Equal(t, importer, activation.Subject)
	m.refuse(logical.UpdateOperation, "jwt/orders/activation", map[string]any{"account": importer[:20] + "\n" + importer[20:], "subject": "a", "type": "stream"}, "account")

	named := newKey(t, trust.User)
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "seed": named.Seed() + "\n"})
	m.write("jwt/alice", map[string]any{"seed": named.Seed() + "\n", "ttl": 60})
	require.Equal(t, named.Public(), m.read("jwt/alice")["public_key"])
	m.refuse(logical.UpdateOperation, "jwt/bob", map[string]any{"type": "user", "account": "orders", "seed": named.Seed()[:20] + "\n" + named.Seed()[20:]},
		"seed is not a user seed as NATS writes one")

	hosted := newKey(t, trust.Account).Public()
	m.write("jwt/hosted", map[string]any{"type": "account", "public_key": hosted + "\n"})
	require.Equal(t, hosted, m.read("jwt/hosted")["public_key"])
	m.refuse(logical.UpdateOperation, "jwt/other", map[string]any{"type": "account", "public_key": hosted[:20] + "\n" + hosted[20:]},
		"public_key is not an account public key as NATS writes one")
}
