package e2e

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
)

// ownKey is a key that never leaves its workload.
func ownKey(t *testing.T) (key nkeys.KeyPair, public string) {
	t.Helper()
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	public, err = key.PublicKey()
	require.NoError(t, err)
	return key, public
}

// connectWithKey connects with a user JWT and the workload's own key.
func (e *env) connectWithKey(jwt string, key nkeys.KeyPair) (*workload, error) {
	e.t.Helper()
	return e.dial(nats.UserJWT(func() (string, error) { return jwt, nil }, key.Sign))
}

// proven is what a workload sends with a key of its own: a proof at the mount, at
// this time unless the claim says otherwise, and the token that it is over.
func (e *env) proven(key nkeys.KeyPair, claim proof.Claim) fields {
	e.t.Helper()
	var err error
	claim.User, err = key.PublicKey()
	require.NoError(e.t, err)
	claim.Mount = cmp.Or(claim.Mount, e.path(""))
	claim.Time = cmp.Or(claim.Time, time.Now().Unix())
	signature, err := key.Sign([]byte(claim.Text()))
	require.NoError(e.t, err)
	data := fields{
		"user_public_key": claim.User, "user_key_signature": base64.StdEncoding.EncodeToString(signature), "user_key_time": claim.Time,
	}
	if claim.Token != "" {
		data["jwt"] = claim.Token
	}
	return data
}

func TestAWorkloadsOwnKeyNeverTravels(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	runner := e.runner(nil)
	e.role("own", fields{"user_key": "client", "user_template": devTemplate})
	key, public := ownKey(t)
	token := e.token(fields{"project": "shop"})

	login, err := e.tryLogin("own", token, fields{"user_public_key": public})
	require.NoError(t, err)
	require.NotContains(t, login.Data, "creds", "a seed was made")
	require.Equal(t, public, e.user(login.JWT).Subject)
	require.Equal(t, public, login.Auth.Metadata["user_public_key"])
	workload, err := e.connectWithKey(login.JWT, key)
	require.NoError(t, err)
	workload.publishes("orders.shop.new")
	another, _ := ownKey(t)
	_, err = e.connectWithKey(login.JWT, another)
	require.Error(t, err, "the JWT is of use without its key")

	e.credsRefused(runner.client, "own", fields{"jwt": token, "user_public_key": public}, "user_key_signature is missing")
	claim := proof.Claim{Purpose: proof.Creds, Role: "own", Token: token}
	replayed := e.proven(key, claim)
	e.role("other", fields{"user_key": "client", "user_template": devTemplate})
	e.credsRefused(runner.client, "other", replayed, "user_key_signature", `role "other"`)
	claim.Mount = "auth/other/"
	e.credsRefused(runner.client, "own", e.proven(key, claim), "user_key_signature", fmt.Sprintf("mount %q", e.path("")))
	e.write("jwt/worker", fields{"type": "user", "account": "orders"})
	e.refused("jwt/worker/sign", fields{"nonce": claim.Text()}, "nonce is the text of a proof")
	first := e.creds(runner.client, "own", replayed)
	require.NotContains(t, first.Data, "creds")
	leased, err := e.connectWithKey(first.JWT, key)
	require.NoError(t, err)
	e.cli("lease", "revoke", first.LeaseID)
	e.isCutOff(leased)

	e.loginRefused("own", token, "user_public_key is missing", "user_key=client")
	for kind, prefix := range map[string]nkeys.PrefixByte{"an account": nkeys.PrefixByteAccount, "an operator": nkeys.PrefixByteOperator} {
		wrong, err := nkeys.CreatePair(prefix)
		require.NoError(t, err)
		public, err := wrong.PublicKey()
		require.NoError(t, err)
		_, err = e.tryLogin("own", token, fields{"user_public_key": public})
		e.isStatus(err, 400, "user_public_key is "+kind)
		e.credsRefused(runner.client, "own", fields{"jwt": token, "user_public_key": public}, "user_public_key is "+kind)
	}
}
