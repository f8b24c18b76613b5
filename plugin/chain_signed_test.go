package plugin

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// operatorBy is the operator's JWT as nsc writes it once signing keys are required:
// signed by one of them. Each is issued later than the one before.
func (n *tree) operatorBy(signer *trust.Key, keys ...*trust.Key) string {
	n.t.Helper()
	n.issued++
	claims := jwt.NewOperatorClaims(n.identity.Public())
	claims.Issuer, claims.IssuedAt = signer.Public(), n.issued
	claims.Name, claims.SystemAccount, claims.StrictSigningKeyUsage = "ACME", n.system.Public(), true
	claims.Type, claims.Version = jwt.OperatorClaim, 2
	for _, key := range keys {
		claims.SigningKeys.Add(key.Public())
	}
	payload, err := json.Marshal(claims)
	require.NoError(n.t, err)
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return token + "." + base64.RawURLEncoding.EncodeToString(signer.Sign([]byte(token)))
}

func TestAnOperatorThatRequiresSigningKeysIsTakenOverAndFollowed(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	n.operatorJWT = n.operatorBy(n.signing, n.signing)
	n.importOperator(m)
	n.importAccounts(m)
	require.Equal(t, n.operatorJWT, m.read("config")["operator_jwt"])
	m.deliverPending()

	// A key that only the later JWT lists could be anybody's.
	next := newKey(t, trust.Operator)
	m.refuse(logical.UpdateOperation, "config", map[string]any{"operator_jwt": n.operatorBy(next, n.signing, next), "operator_signing_seeds": next.Seed()},
		"operator_jwt is signed by "+next.Public()+", which the operator's JWT in the mount does not list as a signing key")
	m.refuse(logical.UpdateOperation, "config", map[string]any{"operator_jwt": n.operatorBy(newKey(t, trust.Operator), n.signing)},
		"operator_jwt is not signed by the operator's own identity key, nor by a signing key that it lists")

	later := n.operatorBy(n.signing, n.signing, next)
	m.write("config", map[string]any{"operator_jwt": later, "operator_signing_seeds": next.Seed()})
	require.Equal(t, later, m.read("config")["operator_jwt"])
	require.Equal(t, true, m.write("config/rotate", nil)["rotated"])
	require.Equal(t, next.Public(), accountClaims(t, m.read("jwt/orders")["jwt"]).Issuer)
	m.deliverPending()
	m.requireInStep()

	// nsc signs with the key that it removes, if that is the first it finds.
	last := n.operatorBy(n.signing, next)
	m.write("config", map[string]any{"operator_jwt": last})
	require.Equal(t, last, m.read("config")["operator_jwt"])
}
