package plugin

import (
	"context"
	"encoding/base64"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func TestTheAccountsJWTNamesItsCallout(t *testing.T) {
	m := newCalloutMount(t, map[string]any{"allowed_accounts": "orders"})
	shown := m.get("callout/edge")
	orders := m.get("jwt/orders")["public_key"].(string)
	require.Equal(t, natsjwt.ExternalAuthorization{
		AuthUsers:       natsjwt.StringList{shown["user_public_key"].(string)},
		AllowedAccounts: natsjwt.StringList{orders},
		XKey:            shown["xkey_public_key"].(string),
	}, m.account.Authorization)
	require.Equal(t, m.account.Subject, shown["account_public_key"])
	require.NotContains(t, m.get("jwt/auth")["config"], "authorization", "what was not written is not shown as written")
	require.Equal(t, "auth", m.get("jwt/callout-edge")["account"])

	m.write("callout/edge", map[string]any{"allowed_accounts": ""})
	require.Equal(t, natsjwt.StringList{natsjwt.AnyAccount}, m.accountClaims("auth").Authorization.AllowedAccounts)
	m.write("callout/edge", map[string]any{"xkey": false})
	require.Empty(t, m.accountClaims("auth").Authorization.XKey)

	sentinel, err := natsjwt.DecodeUserClaims(shown["sentinel"].(string))
	require.NoError(t, err)
	require.Contains(t, m.account.SigningKeys, sentinel.Issuer)
	resp, err := m.try(logical.DeleteOperation, "callout/edge", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	after := m.accountClaims("auth")
	require.Equal(t, natsjwt.ExternalAuthorization{}, after.Authorization)
	require.NotContains(t, after.SigningKeys, sentinel.Issuer, "nobody is let in with the sentinel any more")
	for _, gone := range []string{"callout/edge", "jwt/callout-edge"} {
		resp, err := m.try(logical.ReadOperation, gone, nil)
		require.NoError(t, err)
		require.Nil(t, resp)
	}
	listed, err := m.try(logical.ListOperation, "callout/", nil)
	require.NoError(t, err)
	require.Empty(t, listed.Data["keys"])
	m.write("role/now", map[string]any{"account": "auth", "bound_audiences": "vault", "user_claim": "sub"})
}

func TestTheSentinelStaysUntilItIsRevoked(t *testing.T) {
	m := newCalloutMount(t, nil)
	sentinel := func() *natsjwt.UserClaims {
		claims, err := natsjwt.DecodeUserClaims(m.get("callout/edge")["sentinel"].(string))
		require.NoError(t, err)
		return claims
	}
	first := sentinel()
	require.Zero(t, first.Expires)
	require.True(t, first.HasEmptyPermissions(), "what it may do stands in the scope of its key")
	scope, _ := m.account.SigningKeys.GetScope(first.Issuer)
	template := scope.(*natsjwt.UserScope).Template
	require.True(t, template.BearerToken)
	require.Equal(t, natsjwt.StringList{">"}, template.Pub.Deny)
	require.Equal(t, natsjwt.StringList{">"}, template.Sub.Deny)

	m.write("callout/edge", map[string]any{"roles": "*"})
	m.write("jwt/auth/rotate", map[string]any{"overlap": 0})
	require.Equal(t, first.ID, sentinel().ID, "servers go on with the one in their configuration")
	m.write("jwt/auth/revoke", map[string]any{"everyone": true})
	require.Greater(t, sentinel().IssuedAt, first.IssuedAt)
	require.False(t, m.accountClaims("auth").IsClaimRevoked(sentinel()))

	server := m.get("config/server")
	require.Equal(t, "edge", server["callout"])
	require.Contains(t, server["config"], "default_sentinel: "+m.get("callout/edge")["sentinel"].(string)+"\n")
	m.write("jwt/second", map[string]any{"type": "account"})
	m.write("callout/second", map[string]any{"account": "second", "roles": "dev"})
	require.NotContains(t, m.get("config/server")["config"], "default_sentinel", "which of two is not guessed")
	resp, err := m.try(logical.ReadOperation, "config/server", map[string]any{"callout": "second"})
	require.NoError(t, err)
	require.Contains(t, resp.Data["config"], m.get("callout/second")["sentinel"].(string))
	m.refused(logical.ReadOperation, "config/server", map[string]any{"callout": "third"}, `"third" does not exist`)
}

func TestAUserThatIsNotThereIsMadeAndGoesWithTheCallout(t *testing.T) {
	m := newCalloutMount(t, nil)
	m.write("jwt/spare", map[string]any{"type": "account"})
	m.write("callout/second", map[string]any{"account": "spare", "roles": "dev", "user": "second-answers"})
	require.Equal(t, "spare", m.get("jwt/second-answers")["account"])
	require.Equal(t, m.get("jwt/second-answers")["public_key"], m.get("callout/second")["user_public_key"])

	resp, err := m.try(logical.DeleteOperation, "callout/second", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	resp, err = m.try(logical.ReadOperation, "jwt/second-answers", nil)
	require.NoError(t, err)
	require.Nil(t, resp)
}

func TestCalloutsThatCouldNotWorkAreRefused(t *testing.T) {
	m := newCalloutMount(t, nil)
	m.write("jwt/spare", map[string]any{"type": "account"})
	m.write("jwt/theirs", map[string]any{"type": "account", "public_key": newKey(t, trust.Account).Public()})
	m.write("jwt/own", map[string]any{"type": "account", "config": map[string]any{"authorization": map[string]any{
		"auth_users": []string{m.get("jwt/callout-edge")["public_key"].(string)},
	}}})
	m.write("jwt/strict", map[string]any{"type": "account", "config": `{"limits":{"disallow_bearer":true}}`})
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})
	for name, refused := range map[string]struct {
		path  string
		data  map[string]any
		fault string
	}{
		"without an account":            {"callout/new", map[string]any{"roles": "dev"}, "account is missing"},
		"of an account that is not":     {"callout/new", map[string]any{"account": "gone", "roles": "dev"}, "does not exist"},
		"of a user":                     {"callout/new", map[string]any{"account": "alice", "roles": "dev"}, "does not exist"},
		"of someone else's account":     {"callout/new", map[string]any{"account": "theirs", "roles": "dev"}, "someone else's NATS"},
		"of the system account":         {"callout/new", map[string]any{"account": "SYS", "roles": "dev"}, "system account"},
		"of another callout's account":  {"callout/new", map[string]any{"account": "auth", "roles": "dev"}, `that of callout "edge"`},
		"of an account with roles":      {"callout/new", map[string]any{"account": "orders", "roles": "dev"}, "has roles (dev)"},
		"against an own authorization":  {"callout/new", map[string]any{"account": "own", "roles": "dev"}, "has an authorization in its config"},
		"where no bearers may be":       {"callout/new", map[string]any{"account": "strict", "roles": "dev"}, "disallow_bearer"},
		"without roles":                 {"callout/new", map[string]any{"account": "spare"}, "roles is missing"},
		"with a role that is no name":   {"callout/new", map[string]any{"account": "spare", "roles": "a/b"}, "not a name"},
		"whose default is no role":      {"callout/new", map[string]any{"account": "spare", "roles": "x*", "default_role": "dev"}, "not among the roles"},
		"with an unknown account":       {"callout/new", map[string]any{"account": "spare", "roles": "dev", "allowed_accounts": "gone"}, "does not exist"},
		"that lets into its own":        {"callout/new", map[string]any{"account": "spare", "roles": "dev", "allowed_accounts": "spare"}, "own account"},
		"that lets into someone else's": {"callout/new", map[string]any{"account": "spare", "roles": "dev", "allowed_accounts": "theirs"}, "someone else's"},
		"with another's user":           {"callout/new", map[string]any{"account": "spare", "roles": "dev", "user": "alice"}, "not a user of account"},
		"with an account as user":       {"callout/new", map[string]any{"account": "spare", "roles": "dev", "user": "orders"}, "not a user of account"},
		"with a user that is no name":   {"callout/new", map[string]any{"account": "spare", "roles": "dev", "user": "a b"}, "not a name"},
		"that is no name":               {"callout/a..b", map[string]any{"account": "spare", "roles": "dev"}, "two dots"},
		"that moves":                    {"callout/edge", map[string]any{"account": "spare"}, "cannot be changed"},
		"that gets another user":        {"callout/edge", map[string]any{"user": "alice"}, "cannot be changed"},

		"an account's own authorization later":  {"jwt/auth", map[string]any{"config": `{"authorization":{"auth_users":["` + m.get("jwt/alice")["public_key"].(string) + `"]}}`}, `callout "edge" of the account sets`},
		"an account that forbids bearers later": {"jwt/auth", map[string]any{"config": `{"limits":{"disallow_bearer":true}}`}, "sentinel"},
		"a role of the callout's account":       {"role/new", map[string]any{"account": "auth", "bound_audiences": "vault", "user_claim": "sub"}, "an account of its own"},
		"a rotation of what is not":             {"callout/new/rotate", nil, "not a callout"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &calloutMount{m.loginMount, t, m.asker}
			m.refused(logical.UpdateOperation, refused.path, refused.data, refused.fault)
		})
	}
	for _, name := range []string{"auth", "callout-edge"} {
		m.refused(logical.DeleteOperation, "jwt/"+name, nil, "callouts depend on it (edge)")
	}
	m.write("callout/edge", map[string]any{"allowed_accounts": "orders,spare"})
	m.refused(logical.DeleteOperation, "jwt/spare", nil, "callouts depend on it (edge)")
}

func TestACalloutWhoseAccountIsGoneLetsNobodyIn(t *testing.T) {
	m := newCalloutMount(t, nil)
	q := m.question(m.client())
	_, err := m.try(logical.DeleteOperation, "jwt/auth", map[string]any{"force": true})
	require.NoError(t, err)
	resp, err := m.authorize(q)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "lost its account")
	m.write("jwt/auth", map[string]any{"type": "account"})
	resp, err = m.authorize(q)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "lost its account", "an account of the same name is another")
	require.NotContains(t, m.get("config/server")["config"], "default_sentinel")
	_, err = m.try(logical.DeleteOperation, "callout/edge", nil)
	require.NoError(t, err)
}

func TestACurveKeyIsRotatedWithAnOverlap(t *testing.T) {
	m := newCalloutMount(t, nil)
	before, behind := m.account.Authorization.XKey, m.question(m.client())
	old := *m.account
	m.write("callout/edge/rotate", nil)
	m.learn()
	require.NotEqual(t, before, m.account.Authorization.XKey)
	require.Len(t, m.get("callout/edge")["xkeys_retiring"], 1)
	_, err := m.ask(m.client())
	require.NoError(t, err)

	// The server that has not heard of it opens the answer with the key that it knows.
	late := &asker{t: t, key: m.key, public: m.public, curve: m.curve, xkey: m.xkey, account: &old}
	resp, err := m.authorize(behind)
	require.NoError(t, err)
	_, err = late.open(behind, resp.Data["response"].(string))
	require.NoError(t, err)

	m.write("callout/edge/rotate", map[string]any{"overlap": 0})
	require.Len(t, m.get("callout/edge")["xkeys_retiring"], 1, "one that is over at once is gone")
	entry, err := readCallout(t.Context(), m.storage, "edge")
	require.NoError(t, err)
	require.Len(t, entry.XKeys, 2)
	entry.XKeys[1].RetireAt = time.Now().Add(-time.Second).Unix()
	require.NoError(t, m.putCallout(t.Context(), m.storage, "edge", entry))
	resp, err = m.authorize(behind)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "sealed for a key that the callout does not have")
	require.NoError(t, m.retireXKeys(t.Context(), m.storage))
	entry, err = readCallout(t.Context(), m.storage, "edge")
	require.NoError(t, err)
	require.Len(t, entry.XKeys, 1, "no seed is kept that is of no use")

	m.write("callout/edge", map[string]any{"xkey": false})
	m.refused(logical.UpdateOperation, "callout/edge/rotate", nil, "no key to rotate")
}

// A server learns of a change of xkey a moment later.
func TestTurningSealsOffDoesNotStopServersThatStillSeal(t *testing.T) {
	m := newCalloutMount(t, nil)
	m.write("callout/edge", map[string]any{"xkey": false})
	_, err := m.ask(m.client())
	require.NoError(t, err)
	m.learn()
	_, err = m.ask(m.client())
	require.NoError(t, err)
	m.write("callout/edge", map[string]any{"xkey": true})
	m.learn()
	_, err = m.ask(m.client())
	require.NoError(t, err)
}

// A write that fails on the way is mended by the next one of the same, and a deletion
// by the next deletion.
func TestACalloutThatWasWrittenInPartIsWrittenAgain(t *testing.T) {
	fields := map[string]any{"account": "auth", "roles": "dev", "default_role": "dev"}
	workload := newWorkloads(t)[2]
	for name, write := range map[string]struct {
		operation logical.Operation
		before    bool
	}{"made": {logical.UpdateOperation, false}, "deleted": {logical.DeleteOperation, true}} {
		t.Run(name, func(t *testing.T) {
			for at, over := 0, false; !over; at++ {
				m := &calloutMount{loginMount: newLoginMount(t, workload), t: t, asker: newAsker(t)}
				m.write("jwt/auth", map[string]any{"type": "account"})
				if write.before {
					m.write("callout/edge", fields)
				}
				writes := 0
				m.storage.FailOn(func(operation, _ string) bool {
					if operation == "get" || operation == "list" {
						return false
					}
					writes++
					return writes-1 == at
				})
				_, err := m.try(write.operation, "callout/edge", fields)
				over = err == nil
				if !over {
					require.ErrorIs(t, err, storetest.ErrStorage)
				}
				m.storage.FailOn(nil)
				resp, err := m.try(write.operation, "callout/edge", fields)
				require.NoError(t, err)
				if resp != nil {
					require.NoError(t, resp.Error())
				}
				if write.before {
					require.Equal(t, natsjwt.ExternalAuthorization{}, m.accountClaims("auth").Authorization)
					m.write("callout/edge", fields)
				}
				m.learn()
				_, err = m.ask(m.client())
				require.NoError(t, err)
			}
		})
	}
}

func TestAnotherNodesCalloutIsReadAnew(t *testing.T) {
	m := newCalloutMount(t, nil)
	_, err := m.ask(m.client())
	require.NoError(t, err)
	other := newLoginMountOn(t, m.loginMount)
	other.write("callout/edge", map[string]any{"roles": "ops", "default_role": "ops"})
	m.InvalidateKey(context.Background(), "callout/edge")
	_, err = m.ask(m.client())
	require.ErrorContains(t, err, "could not be found")
}

// A standby answers, and what it does not have yet it leaves to the leader.
func TestAStandbyAnswersWhatAServerAsks(t *testing.T) {
	m := newCalloutMount(t, nil)
	standby := standbyOn(t, m.storage)
	authorize := func(name string, q question) (*logical.Response, error) {
		return standby.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "callout/" + name + "/authorize", Storage: m.storage,
			Data: map[string]any{"request": base64.StdEncoding.EncodeToString(q.raw), "server_xkey": q.header},
		})
	}
	q := m.question(m.client())
	before := m.storage.Writes.Load()
	resp, err := authorize("edge", q)
	require.NoError(t, err)
	_, refusal := m.open(q, resp.Data["response"].(string))
	require.NoError(t, refusal)
	require.Equal(t, before, m.storage.Writes.Load())

	_, err = authorize("edge", m.question(natsjwt.ConnectOptions{Username: "new", Password: m.workload.token}))
	require.ErrorIs(t, err, logical.ErrReadOnly)
	_, err = authorize("new", q)
	require.ErrorIs(t, err, logical.ErrReadOnly)
	q.raw = q.raw[1:]
	_, err = authorize("edge", q)
	require.ErrorIs(t, err, logical.ErrReadOnly, "it may be sealed for a key that is new")
}
