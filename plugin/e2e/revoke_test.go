package e2e

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func TestAUserIsRevokedByHandAndLetInAgain(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", nil)
	login, other := e.login("dev", e.token(nil)), e.connect(e.login("dev", e.token(nil)).Creds)
	workload := e.connect(login.Creds)
	// The audit line of the login, and its token, name the user.
	key := login.Auth.Metadata["user_public_key"]

	e.cli("write", e.path("jwt/orders/revoke"), "user_public_key="+key)
	e.isCutOff(workload)
	e.connectRefused(login.Creds)
	other.publishes("anything")
	require.Contains(t, e.cli("read", "-format=json", e.path("jwt/orders/revoke")), key)

	e.cli("write", e.path("jwt/orders/revoke"), "user_public_key="+key, "undo=true")
	e.connect(login.Creds).publishes("anything")
	require.Empty(t, e.read("jwt/orders/revoke")["revocations"])
}

func TestEveryoneOfAnAccountIsRevokedUpToATime(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.account("billing", nil)
	e.role("dev", nil)
	e.role("bill", fields{"account": "billing"})
	first := e.login("dev", e.token(nil))
	workload, elsewhere := e.connect(first.Creds), e.connect(e.login("bill", e.token(nil)).Creds)
	issued := time.Unix(e.user(first.JWT).IssuedAt, 0)

	e.refused("jwt/orders/revoke", nil, "user_public_key is missing", "everyone=true")
	e.write("jwt/orders/revoke", fields{"everyone": true, "before": issued.Add(-time.Second).Format(time.RFC3339)})
	e.waitForDelivery("orders")
	workload.publishes("anything") // it was issued later
	e.connect(first.Creds)

	e.write("jwt/orders/revoke", fields{"everyone": true})
	e.isCutOff(workload)
	e.connectRefused(first.Creds)
	elsewhere.publishes("anything")
	e.waitFor("who logs in again to be let in", func() error {
		conn, err := e.tryConnect(e.login("dev", e.token(nil)).Creds)
		if err == nil {
			conn.Close()
		}
		return err
	})

	e.write("jwt/orders/revoke", fields{"everyone": true, "undo": true})
	e.connect(first.Creds)
}

func TestANamedUserIsRevoked(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.write("jwt/worker", fields{"type": "user", "account": "orders", "config": fields{}})
	jwt := e.read("jwt/worker")["jwt"].(string)
	sign := func(nonce []byte) ([]byte, error) { return e.signature("worker", nonce) }
	connect := func() (*workload, error) {
		return e.dial(nats.UserJWT(func() (string, error) { return jwt, nil }, sign))
	}
	workload, err := connect()
	require.NoError(t, err)
	e.write("jwt/worker/revoke", nil)
	e.isCutOff(workload)
	_, err = connect()
	require.Error(t, err)
	require.Len(t, e.read("jwt/worker/revoke")["revocations"], 1)
	e.write("jwt/worker/revoke", fields{"undo": true})
	workload, err = connect()
	require.NoError(t, err)
	e.remove("jwt/worker")
	e.isCutOff(workload)
}

// signature is that of a named user over a server's nonce.
func (e *env) signature(user string, nonce []byte) ([]byte, error) {
	secret, err := e.try("jwt/"+user+"/sign", fields{"nonce": string(nonce)})
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(secret.Data["signed_nonce"].(string))
}

func TestEveryoneOfARoleIsRevoked(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	for role, data := range map[string]fields{
		"plain":  nil,
		"own":    {"signing_key": "role"},
		"scoped": {"scoped": true, "user_template": `{"pub":{"allow":["a.>"]},"sub":{"allow":["_INBOX.>"]}}`},
	} {
		e.role(role, data)
	}
	plain := e.connect(e.login("plain", e.token(nil)).Creds)
	e.refused("jwt/orders/revoke", fields{"role": "plain"}, "role", "signing_key=role")
	for _, role := range []string{"own", "scoped"} {
		login := e.login(role, e.token(nil))
		workload := e.connect(login.Creds)
		workload.publishes("a.b")
		e.write("jwt/orders/revoke", fields{"role": role})
		e.isCutOff(workload)
		e.connectRefused(login.Creds)
		e.connect(e.login(role, e.token(nil)).Creds).publishes("a.b")
	}
	plain.publishes("anything")
	require.Empty(t, e.accountJWT("orders").Revocations)
}

// A role that has a key of its own takes its users with it.
func TestDeletingARoleWithAKeyOfItsOwnCutsItsUsersOff(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("own", fields{"signing_key": "role"})
	login := e.login("own", e.token(nil))
	workload := e.connect(login.Creds)
	e.remove("role/own")
	e.isCutOff(workload)
	e.connectRefused(login.Creds)
	e.loginRefused("own", e.token(nil), fmt.Sprintf("role %q could not be found", "own"))
}
