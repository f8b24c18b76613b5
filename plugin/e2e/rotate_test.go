package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// issuerOf is the operator's key that signed the account as a server has it on disk.
func (e *env) issuerOf(server *stack.NATS, account string) string {
	e.t.Helper()
	claims, err := natsjwt.DecodeAccountClaims(e.files(server)[id(e, account)])
	require.NoError(e.t, err)
	return claims.Issuer
}

// signing is the operator's signing key in a state.
func (e *env) signing(state string) string {
	e.t.Helper()
	for _, key := range e.read("config")["operator_signing_keys"].([]any) {
		if key := key.(map[string]any); key["state"] == state {
			return key["public_key"].(string)
		}
	}
	e.t.Fatalf("no operator signing key is %s", state)
	return ""
}

// The servers know the operator's next key before it is used, so that a rotation needs no
// restart; before the one after it they are given the new operator JWT.
func TestTheOperatorsKeyIsRotatedUnderRunningServers(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", nil)
	client := e.connect(e.login("dev", e.token(nil)).Creds)
	first, second := e.signing("signing"), e.signing("next")
	require.Equal(t, first, e.issuerOf(e.nats, "orders"))

	run := e.serverRun()
	require.Equal(t, true, e.write("config/rotate", fields{"overlap": "1h"}).Data["rotated"])
	require.Equal(t, second, e.signing("signing"))
	require.Equal(t, first, e.signing("retiring"))
	for _, account := range []string{"orders", "SYS"} {
		e.waitForDelivery(account)
		require.Equal(t, second, e.issuerOf(e.nats, account))
	}
	client.publishes("anything")
	e.account("billing", nil)
	e.connect(e.login("dev", e.token(nil)).Creds).publishes("anything")
	require.Equal(t, run, e.serverRun())

	// The server is given the operator JWT with the key after that, and follows again.
	require.NoError(t, e.nats.Start(e.ctx(), e.serverConfig()))
	require.NoError(t, e.nats.WaitForClient(e.ctx()))
	third := e.signing("next")
	require.Equal(t, true, e.write("config/rotate", fields{"overlap": 0}).Data["rotated"])
	e.waitForDelivery("orders")
	require.Equal(t, third, e.issuerOf(e.nats, "orders"))
	operator, err := natsjwt.DecodeOperatorClaims(e.read("config")["operator_jwt"].(string))
	require.NoError(t, err)
	require.NotContains(t, operator.SigningKeys, second, "without overlap the former key is out of the operator's JWT")
	e.connect(e.login("dev", e.token(nil)).Creds).publishes("anything")
}

// The mount connects as a user of the system account, whose own key is rotated while no
// server can hear of it: those that come back know only the former key.
func TestTheSystemAccountsKeyIsRotatedWhileNATSIsDown(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.waitForDelivery("SYS")
	former := e.read("jwt/SYS/keys/default")["public_key"]
	e.nats.Stop()
	require.NotEqual(t, former, e.write("jwt/SYS/rotate", fields{"overlap": 0}).Data["public_key"])
	e.refused("jwt/SYS/rotate", nil, "before the NATS servers have its last change")
	e.write("jwt/orders", fields{"config": fields{"description": "changed"}})
	require.NoError(t, e.nats.Restart(e.ctx()))
	e.waitForDelivery("SYS")
	e.waitForDelivery("orders")
	e.waitFor("the server to have what the mount has", func() error {
		files := e.files(e.nats)
		for _, account := range []string{"SYS", "orders"} {
			if files[id(e, account)] != e.read("jwt/" + account)["jwt"] {
				return errors.New(account)
			}
		}
		return nil
	})

	// And while they can.
	e.write("jwt/SYS/rotate", fields{"overlap": 0})
	e.waitForDelivery("SYS")
	e.account("billing", nil)
}

// A former key of an account ends with its overlap, which nobody has to see to.
func TestAFormerKeyEndsWithItsOverlap(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", nil)
	before := e.login("dev", e.token(nil))
	client := e.connect(before.Creds)
	e.writeNow("jwt/orders/rotate", fields{"overlap": "1s"})
	after := e.connect(e.login("dev", e.token(nil)).Creds)
	client.publishes("anything")
	// Vault has the mount look about once a minute.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	require.NoError(t, stack.WaitFor(ctx, "the former key's users to be cut off", func() error {
		if !client.IsClosed() {
			return errors.New("the client is connected")
		}
		return nil
	}))
	e.connectRefused(before.Creds)
	after.publishes("anything")
	keys := e.read("jwt/orders")["signing_keys"].([]any)
	require.Len(t, keys, 1)
}
