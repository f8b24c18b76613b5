package plugin

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func TestARevocationIsInTheAccountsNextJWT(t *testing.T) {
	m := newAccountMount(t)
	user, former := newKey(t, trust.User).Public(), newKey(t, trust.User).Public()
	id := m.write("jwt/orders", map[string]any{"config": `{"revocations":{"` + former + `":5}}`})["public_key"].(string)
	m.deliverPending()
	before := accountClaims(t, m.servers[id])
	now := time.Now().Unix()
	require.NoError(t, m.chain.Revoke(t.Context(), m.storage, id, chain.Revocation{User: user, At: now, Until: now + 60}, true))
	require.NoError(t, m.chain.Revoke(t.Context(), m.storage, id, chain.Revocation{User: former, At: now, Until: now + 60}, true))
	m.restart()
	m.deliverPending()
	m.requireInStep()
	after := accountClaims(t, m.servers[id])
	require.Greater(t, after.IssuedAt, before.IssuedAt+1)
	require.Equal(t, jwt.RevocationList{user: now, former: now}, after.Revocations)
	require.Equal(t, jwt.RevocationList{former: 5}, before.Revocations)
	require.Equal(t, m.servers[id], string(m.fetch(id, nil, nil).Data[logical.HTTPRawBody].([]byte)))

	// Revoking everyone takes the place of what it covers.
	require.NoError(t, m.chain.Revoke(t.Context(), m.storage, id, chain.Revocation{User: chain.EveryUser, At: now + 1, Until: now + 60}, true))
	require.Equal(t, jwt.RevocationList{jwt.All: now + 1}, accountClaims(t, m.read("jwt/orders")["jwt"]).Revocations)
}

func TestAnAccountThatIsImportedOnceMoreKeepsItsRevocations(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	n.importOperator(m)
	n.importAccounts(m)
	user, now := newKey(t, trust.User).Public(), time.Now().Unix()
	require.NoError(t, m.chain.Revoke(t.Context(), m.storage, n.orders.Public(), chain.Revocation{User: user, At: now, Until: now + 60}, true))
	m.deliverPending()
	m.must(logical.DeleteOperation, "jwt/orders", nil)
	m.deliverPending()
	m.write("jwt/orders", map[string]any{"type": "account", "account_jwt": n.ordersJWT, "force": true})
	require.Equal(t, jwt.RevocationList{user: now}, accountClaims(t, m.read("jwt/orders")["jwt"]).Revocations)
}
