package plugin

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// signers are the keys that sign the user who delivers, when it is made often.
func (m *chainMount) signersOfDelivery() map[string]bool {
	m.t.Helper()
	signers := map[string]bool{}
	settings, err := m.chain.DeliverySettings(m.t.Context(), m.storage)
	require.NoError(m.t, err)
	for range 50 {
		token, _, err := m.chain.DeliveryConfig(m.storage, settings).User()
		require.NoError(m.t, err)
		signers[userClaims(m.t, token).Issuer] = true
	}
	return signers
}

func TestTheMountFindsItsWayInWhileItsOwnKeyIsRotated(t *testing.T) {
	m := newChainMount(t)
	m.write("config", nil)
	m.deliverPending()
	former := m.read("jwt/SYS/keys/default")["public_key"].(string)
	present := m.write("jwt/SYS/rotate", map[string]any{"overlap": 0})["public_key"].(string)
	require.NotContains(t, accountClaims(t, m.read("jwt/SYS")["jwt"]).SigningKeys, former)
	m.restart()
	require.Equal(t, map[string]bool{former: true, present: true}, m.signersOfDelivery(), "servers may know one of them or the other")
	m.refuse(logical.UpdateOperation, "jwt/SYS/rotate", nil, `key "default" of the system account cannot be changed before the NATS servers have its last change`)
	m.write("jwt/SYS", map[string]any{"config": `{"limits":{"conn":100}}`}) // which changes no key
	m.deliverPending()
	require.Equal(t, map[string]bool{present: true}, m.signersOfDelivery())
	m.write("jwt/SYS/rotate", nil)
	m.deliverPending()
	m.requireInStep()
}

func TestASystemAccountThatCannotBeIsToldBeforeAnythingIsStored(t *testing.T) {
	m := newChainMount(t)
	m.write("config", map[string]any{"no_operator": true})
	m.write("jwt/SYS", map[string]any{"type": "account", "public_key": newKey(t, trust.Account).Public()})
	m.refuse(logical.UpdateOperation, "config", map[string]any{"no_operator": false, "default_role": "dev"}, `config needs the name "SYS" for the system account, which jwt/SYS has: delete it first`)
}

func TestTheMountIsNotLockedOut(t *testing.T) {
	m := newChainMount(t)
	m.write("config", nil)
	m.refuse(logical.DeleteOperation, "jwt/SYS/keys/default", nil, `key "default" signs the user with which the mount delivers accounts: rotate it instead`)
	m.refuse(logical.UpdateOperation, "jwt/SYS", map[string]any{"config": `{"limits":{"conn":0}}`}, "config has limits.conn 0: the mount delivers accounts as a user of the system account")

	// An imported system account may have its identity key sign, and later get a
	// key for that.
	n, imported := newTree(t, false), newChainMount(t)
	n.importOperator(imported)
	imported.write("jwt/SYS", map[string]any{"type": "account", "account_jwt": n.systemJWT, "seed": n.system.Seed()})
	imported.deliverPending()
	require.Equal(t, map[string]bool{n.system.Public(): true}, imported.signersOfDelivery())
	imported.write("config", map[string]any{"operator_seed": n.identity.Seed()})
	imported.refuse(logical.UpdateOperation, "config", map[string]any{"strict_signing_key_usage": true}, `strict_signing_key_usage cannot be set: the system account has no signing key in the mount, and its identity key could deliver no more; add one at jwt/SYS/keys/default`)
	key := newKey(t, trust.Account)
	imported.write("jwt/SYS/keys/default", map[string]any{"seed": key.Seed()})
	require.Equal(t, map[string]bool{n.system.Public(): true, key.Public(): true}, imported.signersOfDelivery())
}

func TestAnOperatorWhoseIdentityKeySignsAccountsIsNotMadeStrict(t *testing.T) {
	n, m := newTree(t, false), newChainMount(t)
	m.write("config", map[string]any{"operator_jwt": n.operatorJWT, "operator_seed": n.identity.Seed()})
	n.importAccounts(m)
	m.refuse(logical.UpdateOperation, "config", map[string]any{"strict_signing_key_usage": true},
		"strict_signing_key_usage cannot be set: the operator's identity key signs the accounts")
	m.write("config/rotate", nil)
	require.Equal(t, true, m.write("config/rotate", nil)["rotated"])
	m.write("config", map[string]any{"strict_signing_key_usage": true})
	require.True(t, operatorClaims(t, m.read("config")["operator_jwt"]).DidSign(accountClaims(t, m.read("jwt/orders")["jwt"])))
}
