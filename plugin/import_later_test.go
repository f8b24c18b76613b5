package plugin

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// importTree is a mount into which the whole of n was imported.
func importTree(t *testing.T) (*tree, *chainMount) {
	t.Helper()
	n, m := newTree(t, true), newChainMount(t)
	n.importOperator(m)
	n.importAccounts(m)
	return n, m
}

// later has nsc write the account orders once more.
func (n *tree) later(change func(*jwt.Account)) string {
	n.t.Helper()
	account := accountClaims(n.t, n.ordersJWT).Account
	change(&account)
	n.issued++
	n.ordersJWT = n.account(n.signing, n.orders, "orders", &account)
	return n.ordersJWT
}

// written makes a write that succeeds, and returns its warnings.
func (m *chainMount) written(path string, data map[string]any) []string {
	m.t.Helper()
	resp, err := m.do(logical.UpdateOperation, path, data)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	return resp.Warnings
}

// conflict makes a write that is answered with status 409, and stores nothing.
func (m *chainMount) conflict(path string, data map[string]any, fault string) {
	m.t.Helper()
	before := m.stored()
	_, err := m.do(logical.UpdateOperation, path, data)
	require.ErrorContains(m.t, err, fault)
	var coded logical.HTTPCodedError
	require.ErrorAs(m.t, err, &coded)
	require.Equal(m.t, http.StatusConflict, coded.Code())
	require.Equal(m.t, before, m.stored())
}

func (m *chainMount) listedKeys(account string) jwt.SigningKeys {
	m.t.Helper()
	return accountClaims(m.t, m.read("jwt/" + account)["jwt"]).SigningKeys
}

func TestALaterOperatorJWTUndoesNoRotation(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	next := newKey(t, trust.Operator)
	later := func(keys ...*trust.Key) map[string]any {
		n.issued++
		operator := jwt.Operator{SystemAccount: n.system.Public(), StrictSigningKeyUsage: true}
		var seeds []any
		for _, key := range keys {
			operator.SigningKeys.Add(key.Public())
			seeds = append(seeds, key.Seed())
		}
		token, err := trust.EncodeOperator(n.identity, "ACME", operator, n.issued)
		require.NoError(t, err)
		return map[string]any{"operator_jwt": token, "operator_signing_seeds": seeds}
	}
	first := later(n.signing)
	first["operator_seed"] = n.identity.Seed()
	m.write("config", first)
	n.importAccounts(m)
	m.deliverPending()
	m.write("config/rotate", nil)
	m.write("config/rotate", map[string]any{"overlap": 0})
	m.deliverPending()
	made := m.read("config")["operator_signing_keys"].([]map[string]any)
	require.Len(t, made, 2)

	// It lists the former key still, and a further one.
	m.write("config", later(n.signing, next))
	listed := operatorClaims(t, m.read("config")["operator_jwt"]).SigningKeys
	require.ElementsMatch(t, []string{made[0]["public_key"].(string), made[1]["public_key"].(string), next.Public()}, listed)
	require.Equal(t, made[0]["public_key"], accountClaims(t, m.read("jwt/orders")["jwt"]).Issuer)
	m.write("config", later(n.signing, next))
	require.NotContains(t, operatorClaims(t, m.read("config")["operator_jwt"]).SigningKeys, n.signing.Public())

	// What an import brought and is not listed any more goes.
	m.write("config", later(n.signing))
	require.NotContains(t, operatorClaims(t, m.read("config")["operator_jwt"]).SigningKeys, next.Public())
	m.deliverPending()
	m.requireInStep()
}

func TestAKeyThatALaterAccountJWTDoesNotListGoes(t *testing.T) {
	n, m := importTree(t)
	m.write("jwt/orders/keys/own", nil)
	next := newKey(t, trust.Account)
	token := n.later(func(a *jwt.Account) {
		delete(a.SigningKeys, n.ordersPlain.Public())
		delete(a.SigningKeys, n.ordersRole.Public())
		a.SigningKeys.Add(next.Public())
	})
	warnings := m.written("jwt/orders", map[string]any{"account_jwt": token, "signing_seeds": next.Seed()})
	require.Len(t, warnings, 2)
	require.Contains(t, warnings[0], `does not list signing key "reader" (`+n.ordersRole.Public()+`) any more, so it is gone, and whom it signed is cut off: users with signing_key=reader need another`)
	require.Contains(t, warnings[1], `signing key "default" (`+n.ordersPlain.Public()+`) any more, so it is gone, and whom it signed is cut off: another key has its name now`)

	listed := m.listedKeys("orders")
	require.NotContains(t, listed, n.ordersPlain.Public())
	require.NotContains(t, listed, n.ordersRole.Public())
	require.Contains(t, listed, next.Public())
	require.Len(t, listed, 2, "the key that was made here stays")
	require.Equal(t, next.Public(), m.read("jwt/orders/keys/default")["public_key"])
	require.Empty(t, m.written("jwt/orders", map[string]any{"account_jwt": token, "signing_seeds": next.Seed()}))

	// Without another key logins have none; the identity key may not sign.
	token = n.later(func(a *jwt.Account) { delete(a.SigningKeys, next.Public()) })
	require.Contains(t, m.written("jwt/orders", map[string]any{"account_jwt": token})[0], "logins need another")
}

func TestARoleWhoseKeyALaterAccountJWTDoesNotListHasANewOne(t *testing.T) {
	n, m := importTree(t)
	theirs := newKey(t, trust.Account)
	m.write("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { a.SigningKeys.Add(theirs.Public()) })})
	require.NoError(t, m.chain.SetRoleKey(t.Context(), m.storage, "orders", "ci", nil))
	m.write("jwt/orders/rotate", map[string]any{"key": "role/ci", "seed": theirs.Seed(), "overlap": 0})
	warnings := m.written("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { delete(a.SigningKeys, theirs.Public()) })})
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], `signing key "role/ci" (`+theirs.Public()+`) any more, so it is gone, and whom it signed is cut off: the role has a new one`)
	require.NotContains(t, m.listedKeys("orders"), theirs.Public())
	require.Equal(t, "ci", m.read("jwt/orders/keys/role/ci")["role"])
}

func TestScopesFollowALaterAccountJWT(t *testing.T) {
	n, m := importTree(t)
	scoped := func(key *trust.Key, subject string) func(*jwt.Account) {
		return func(a *jwt.Account) {
			scope := jwt.NewUserScope()
			scope.Key, scope.Role, scope.Template.Sub.Allow = key.Public(), "reader", jwt.StringList{subject}
			a.SigningKeys.AddScopedSigner(scope)
		}
	}
	m.write("jwt/orders/keys/reader", map[string]any{"config": `{"template":{"sub":{"allow":["here"]}}}`})
	require.Empty(t, m.written("jwt/orders", map[string]any{"account_jwt": n.later(scoped(n.ordersRole, "narrow"))}))
	require.Equal(t, jwt.StringList{"narrow"}, m.listedKeys("orders")[n.ordersRole.Public()].(*jwt.UserScope).Template.Sub.Allow)
	require.Equal(t, n.ordersRole.Public(), m.read("jwt/orders/keys/reader")["public_key"])

	// A plain key that becomes a scoped one signs no logins any more.
	warnings := m.written("jwt/orders", map[string]any{"account_jwt": n.later(scoped(n.ordersPlain, "narrow"))})
	require.Contains(t, warnings[0], `signing key "default" (`+n.ordersPlain.Public()+`) is scoped in account_jwt, and so it is here now`)
	require.Nil(t, m.read("jwt/orders/keys/default"))

	// The other way round users with no permissions of their own would have all.
	m.write("jwt/bob", map[string]any{"type": "user", "account": "orders", "signing_key": "reader"})
	plain := n.later(func(a *jwt.Account) { a.SigningKeys[n.ordersRole.Public()] = nil })
	m.refuse(logical.UpdateOperation, "jwt/orders", map[string]any{"account_jwt": plain}, "account_jwt makes a scoped signing key a plain one, with which users would have all permissions who have none of their own (bob)")
	m.must(logical.DeleteOperation, "jwt/bob", nil)
	require.Contains(t, m.written("jwt/orders", map[string]any{"account_jwt": plain})[0], "is plain in account_jwt")
	require.Nil(t, m.listedKeys("orders")[n.ordersRole.Public()])
}

func TestAKeyThatWasTakenOutHereStaysOut(t *testing.T) {
	listed := newKey(t, trust.Account)
	for name, takeOut := range map[string]struct {
		write  func(n *tree, m *chainMount)
		public func(n *tree) string
	}{
		"by a rotation": {func(_ *tree, m *chainMount) { m.write("jwt/orders/rotate", map[string]any{"overlap": 0}) },
			func(n *tree) string { return n.ordersPlain.Public() }},
		"by a rotation whose overlap is over": {func(_ *tree, m *chainMount) {
			m.write("jwt/orders/rotate", map[string]any{"overlap": 60})
			_, err := m.chain.Retire(m.t.Context(), m.storage, time.Now().Add(time.Hour))
			require.NoError(m.t, err)
		}, func(n *tree) string { return n.ordersPlain.Public() }},
		"by a deletion": {func(_ *tree, m *chainMount) { m.must(logical.DeleteOperation, "jwt/orders/keys/reader", nil) },
			func(n *tree) string { return n.ordersRole.Public() }},
		"out of the config": {func(_ *tree, m *chainMount) { m.write("jwt/orders", map[string]any{"config": "{}"}) },
			func(*tree) string { return listed.Public() }},
	} {
		t.Run(name, func(t *testing.T) {
			n, m := importTree(t)
			m.write("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { a.SigningKeys.Add(listed.Public()) })})
			takeOut.write(n, m)
			public := takeOut.public(n)
			require.NotContains(t, m.listedKeys("orders"), public)
			for range 2 { // and again with the next one
				token := n.later(func(a *jwt.Account) { a.Limits.Conn++ })
				warnings := m.written("jwt/orders", map[string]any{"account_jwt": token, "signing_seeds": []any{n.ordersPlain.Seed(), n.ordersRole.Seed()}})
				require.Contains(t, warnings[0], "signing key "+public+" was taken out of the account here, and stays out")
				require.NotContains(t, m.listedKeys("orders"), public)
			}
		})
	}
}

func TestAKeyThatWasTakenOutHereComesBackByHandAndGoesWithItsAccountJWT(t *testing.T) {
	n, m := importTree(t)
	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	m.write("jwt/orders/keys/former", map[string]any{"seed": n.ordersPlain.Seed()})
	require.Empty(t, m.written("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { a.Limits.Conn = 5 })}))
	require.Contains(t, m.listedKeys("orders"), n.ordersPlain.Public())
	m.write("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { delete(a.SigningKeys, n.ordersPlain.Public()) })})
	require.NotContains(t, m.listedKeys("orders"), n.ordersPlain.Public())

	// They bring it back themselves: nothing here is against that.
	require.Empty(t, m.written("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { a.SigningKeys.Add(n.ordersPlain.Public()) })}))
	require.Contains(t, m.listedKeys("orders"), n.ordersPlain.Public())
}

// jwt/v2 makes a JWT's ID of the subject, the name and the second.
func TestTwoJWTsOfOneSecondAreTwo(t *testing.T) {
	n, m := importTree(t)
	pair, err := nkeys.FromSeed([]byte(n.signing.Seed()))
	require.NoError(t, err)
	claims := accountClaims(t, n.ordersJWT)
	var first string
	for conn := int64(1); ; conn++ {
		claims.Limits.Conn = conn
		token, err := claims.Encode(pair)
		require.NoError(t, err)
		m.write("jwt/orders", map[string]any{"account_jwt": token})
		require.Equal(t, conn, accountClaims(t, m.read("jwt/orders")["jwt"]).Limits.Conn)
		if first != "" && accountClaims(t, first).ID == accountClaims(t, token).ID {
			return
		}
		first = token
	}
}

func TestARevocationInTheConfigIsNotUndoneByALaterAccountJWT(t *testing.T) {
	n, m := importTree(t)
	here, both := newKey(t, trust.User).Public(), newKey(t, trust.User).Public()
	m.must(logical.PatchOperation, "jwt/orders", map[string]any{"config": map[string]any{"revocations": map[string]any{here: 100, both: 100}}})
	warnings := m.written("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { a.Revocations = jwt.RevocationList{both: 200} })})
	require.Equal(t, []string{"1 revocations of the account are not in account_jwt, or are later than there, and stay: patch its config to take one back"}, warnings)
	require.Equal(t, jwt.RevocationList{here: 100, both: 200}, accountClaims(t, m.read("jwt/orders")["jwt"]).Revocations)
}

func TestAnAccountThatWasDeletedHereDoesNotComeBackByItself(t *testing.T) {
	n, m := importTree(t)
	m.must(logical.DeleteOperation, "jwt/orders", nil)
	m.deliverPending()
	m.restart()
	again := map[string]any{"type": "account", "account_jwt": n.ordersJWT, "signing_seeds": n.ordersPlain.Seed()}
	m.conflict("jwt/orders", again, "account_jwt is of account "+n.orders.Public()+", which was deleted here at ")
	m.conflict("jwt/other", again, "was deleted here at ")
	again["force"] = true
	m.write("jwt/orders", again)
	delete(again, "force")
	m.write("jwt/orders", again)

	m.must(logical.DeleteOperation, "jwt/orders", nil)
	m.conflict("jwt/orders", again, "was deleted here at ")
	again["account_jwt"] = n.later(func(*jwt.Account) {})
	m.write("jwt/orders", again)
	for key := range m.stored() {
		require.NotContains(t, key, "deleted/")
	}
}

// The mount delivers as a user of the system account, which servers know by its keys.
func TestTheSystemAccountsKeyGoesOnlyForAnother(t *testing.T) {
	n, m := importTree(t)
	m.deliverPending()
	system := func(keys ...*trust.Key) map[string]any {
		n.issued++
		account := accountClaims(t, n.systemJWT).Account
		account.SigningKeys = jwt.SigningKeys{}
		fields := map[string]any{}
		for _, key := range keys {
			account.SigningKeys.Add(key.Public())
			fields["signing_seeds"] = key.Seed()
		}
		fields["account_jwt"] = n.account(n.signing, n.system, "SYS", &account)
		return fields
	}
	m.refuse(logical.UpdateOperation, "jwt/SYS", system(), `key "default" signs the user with which the mount delivers accounts`)
	next := newKey(t, trust.Account)
	m.write("jwt/SYS", system(next))
	require.NotContains(t, m.listedKeys("SYS"), n.systemSigning.Public())
	settings, err := m.chain.DeliverySettings(t.Context(), m.storage)
	require.NoError(t, err)
	signers := map[string]bool{}
	for len(signers) < 2 { // servers may have either JWT
		token, _, err := m.chain.DeliveryConfig(m.storage, settings).User()
		require.NoError(t, err)
		signers[userClaims(t, token).Issuer] = true
	}
	require.Equal(t, map[string]bool{next.Public(): true, n.systemSigning.Public(): true}, signers)
	m.deliverPending()
	m.requireInStep()
}
