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

// A nscUser is a user of orders that nsc issued.
type nscUser struct {
	n    *tree
	key  *trust.Key
	name string
	jwt  string
}

func (n *tree) newUser(name string) *nscUser {
	return &nscUser{n: n, key: newKey(n.t, trust.User), name: name}
}

// issue has nsc issue the user once more.
func (u *nscUser) issue(signer *trust.Key, change func(*jwt.UserClaims, *trust.UserToken)) *nscUser {
	u.n.t.Helper()
	u.n.issued++
	claims := jwt.NewUserClaims(u.key.Public())
	claims.Type, claims.Version = jwt.UserClaim, 2
	token := trust.UserToken{Issuer: signer, Subject: u.key.Public(), Name: u.name, IssuedAt: time.Unix(u.n.issued, 0)}
	if signer != u.n.orders {
		claims.IssuerAccount = u.n.orders.Public()
	}
	if signer == u.n.ordersRole {
		claims.UserPermissionLimits = jwt.UserPermissionLimits{}
	}
	if change != nil {
		change(claims, &token)
	}
	var err error
	token.NATS, err = jsonOf(&claims.User)
	require.NoError(u.n.t, err)
	u.jwt, err = token.Encode()
	require.NoError(u.n.t, err)
	return u
}

// fields are those with which it is imported.
func (u *nscUser) fields() map[string]any {
	return map[string]any{"type": "user", "account": "orders", "user_jwt": u.jwt, "seed": u.key.Seed()}
}

func TestAnNscUserIsTakenOverAsItIs(t *testing.T) {
	n, m := importTree(t)
	starts, ends := time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(5*time.Minute).Truncate(time.Second)
	plain := n.newUser("tm *").issue(n.ordersPlain, func(c *jwt.UserClaims, token *trust.UserToken) {
		c.Pub.Allow.Add("orders.tm")
		c.Tags.Add("team:blue")
		c.NatsLimits = jwt.NatsLimits{Subs: 7, Data: jwt.NoLimit}
		token.Expires, token.Begins = ends, starts
	})
	written := m.write("jwt/orders.tm", plain.fields())
	before, after := userClaims(t, plain.jwt), userClaims(t, written["jwt"])
	require.Equal(t, n.ordersPlain.Public(), after.Issuer)
	after.IssuedAt, after.ID = before.IssuedAt, before.ID
	require.Equal(t, before.String(), after.String(), "all but its time is as it was")
	read := m.read("jwt/orders.tm")
	require.Equal(t, "tm *", read["nats_name"])
	require.Equal(t, ends.UTC().Format(time.RFC3339), read["fixed_end"])
	require.Equal(t, starts.UTC().Format(time.RFC3339), read["not_before"])
	require.Equal(t, "default", read["signing_key"])
	require.Equal(t, true, read["seed_set"])
	require.NotEmpty(t, m.write("jwt/orders.tm/sign", map[string]any{"nonce": "x"})["signed_nonce"])

	scoped := n.newUser("reader-1").issue(n.ordersRole, func(c *jwt.UserClaims, _ *trust.UserToken) { c.Tags.Add("team:blue") })
	fields := scoped.fields()
	delete(fields, "seed")
	after = userClaims(t, m.write("jwt/orders.reader-1", fields)["jwt"])
	require.Equal(t, n.ordersRole.Public(), after.Issuer)
	require.Equal(t, "reader-1", after.Name, "the scope may name it")
	require.True(t, after.HasEmptyPermissions())
	require.Equal(t, "reader", m.read("jwt/orders.reader-1")["signing_key"])
	m.refuse(logical.UpdateOperation, "jwt/orders.reader-1/sign", map[string]any{"nonce": "x"}, `name "orders.reader-1" was made of a public key alone: whoever has the key signs`)
	m.write("jwt/orders.reader-1", map[string]any{"user_jwt": scoped.jwt, "seed": scoped.key.Seed()})
	require.NotEmpty(t, m.write("jwt/orders.reader-1/sign", map[string]any{"nonce": "x"})["signed_nonce"], "the seed may come later")
}

func TestAUserOfTheAccountsIdentityKeyIsSignedByItsDefaultKey(t *testing.T) {
	n, m := importTree(t)
	user := n.newUser("old").issue(n.orders, nil)
	require.Equal(t, n.ordersPlain.Public(), userClaims(t, m.write("jwt/orders.old", user.fields())["jwt"]).Issuer)
}

func TestAUserOfARotatedKeyIsSignedByItsSuccessor(t *testing.T) {
	n, m := importTree(t)
	m.write("jwt/orders/rotate", map[string]any{"overlap": 600})
	user := n.newUser("app").issue(n.ordersPlain, nil)
	token := m.write("jwt/orders.app", user.fields())["jwt"]
	require.Equal(t, m.read("jwt/orders/keys/default")["public_key"], userClaims(t, token).Issuer)
}

func TestImportingAUserOnceMoreUndoesNothing(t *testing.T) {
	n, m := importTree(t)
	user := n.newUser("app").issue(n.ordersPlain, nil)
	m.write("jwt/orders.app", user.fields())
	m.must(logical.PatchOperation, "jwt/orders.app", map[string]any{"config": map[string]any{"pub": map[string]any{"allow": []any{"less"}}}})
	m.write("jwt/orders/keys/other", nil)
	m.write("jwt/orders.app", map[string]any{"signing_key": "other", "ttl": 60, "nats_name": "app2", "expiration": time.Now().Add(time.Hour).Unix()})
	before := m.stored()
	for _, again := range []*nscUser{user, {n: n, key: user.key, name: "app"}} {
		if again.jwt == "" {
			n.issued -= 10
			again.issue(n.ordersPlain, nil) // an older one
			n.issued += 10
		}
		require.Empty(t, m.written("jwt/orders.app", again.fields()))
		require.Equal(t, before, m.stored())
	}
	// Also when the key that signed it is gone.
	m.must(logical.DeleteOperation, "jwt/orders/keys/default", nil)
	require.Empty(t, m.written("jwt/orders.app", user.fields()))

	user.issue(n.ordersRole, nil)
	m.write("jwt/orders.app", user.fields())
	require.Equal(t, "reader", m.read("jwt/orders.app")["signing_key"], "a later one is taken over")
	require.Equal(t, "app", m.read("jwt/orders.app")["nats_name"])
	require.NotContains(t, m.read("jwt/orders.app"), "fixed_end")
}

func TestAUserThatWasDeletedOrRevokedHereDoesNotComeBackByItself(t *testing.T) {
	n, m := importTree(t)
	user := n.newUser("app").issue(n.ordersPlain, nil)
	m.write("jwt/orders.app", user.fields())
	m.must(logical.DeleteOperation, "jwt/orders.app", nil)
	m.conflict("jwt/orders.app", user.fields(), "user_jwt is of user "+user.key.Public()+", who was revoked or deleted: ")
	m.conflict("jwt/orders.again", user.fields(), "first take that back at jwt/orders/revoke")
	m.write("jwt/orders/revoke", map[string]any{"user_public_key": user.key.Public(), "undo": true})
	m.write("jwt/orders.app", user.fields())

	other := n.newUser("other").issue(n.ordersPlain, nil)
	m.write("jwt/orders/revoke", map[string]any{"everyone": true})
	m.conflict("jwt/orders.other", other.fields(), "revoked or deleted")
	n.issued = time.Now().Add(chain.DefaultClockSkew).Unix() + 1
	m.write("jwt/orders.other", other.issue(n.ordersPlain, nil).fields())

	theirs := n.newUser("theirs").issue(n.ordersPlain, nil)
	m.write("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { a.Revocations = jwt.RevocationList{theirs.key.Public(): n.issued} })})
	m.conflict("jwt/orders.theirs", theirs.fields(), "in the revocations of the account's config")
}

func TestAFaultInAnImportedUserIsNamed(t *testing.T) {
	n, m := importTree(t)
	other := newTree(t, true)
	stranger, listed := newKey(t, trust.Account), newKey(t, trust.Account)
	m.write("jwt/orders", map[string]any{"account_jwt": n.later(func(a *jwt.Account) { a.SigningKeys.Add(listed.Public()) })})
	m.write("jwt/taken", map[string]any{"type": "user", "account": "orders"})
	made := newKey(t, trust.User)
	m.write("jwt/made", map[string]any{"type": "user", "account": "orders", "seed": made.Seed()})
	with := func(more map[string]any, signer *trust.Key, change func(*jwt.UserClaims, *trust.UserToken)) map[string]any {
		fields := n.newUser("app").issue(signer, change).fields()
		for field, value := range more {
			fields[field] = value
		}
		return fields
	}
	for name, test := range map[string]struct {
		path  string
		data  map[string]any
		fault string
	}{
		"signed by a stranger":      {"jwt/app", with(nil, stranger, nil), "user_jwt is signed by " + stranger.Public() + `, which is not a key of account "orders"`},
		"signed by a key elsewhere": {"jwt/app", with(nil, listed, nil), "whose seed is not in the mount: give the seed at jwt/orders/keys/:key, or leave the user out"},
		"of another account": {"jwt/app", with(nil, n.ordersPlain, func(c *jwt.UserClaims, _ *trust.UserToken) { c.IssuerAccount = other.orders.Public() }),
			"user_jwt has the issuer_account " + other.orders.Public()},
		"expired": {"jwt/app", with(nil, n.ordersPlain, func(_ *jwt.UserClaims, token *trust.UserToken) { token.Expires = time.Unix(n.issued, 0) }), "user_jwt has expired at "},
		"with permissions and a scope": {"jwt/app", with(nil, n.ordersRole, func(c *jwt.UserClaims, _ *trust.UserToken) { c.Pub.Allow.Add("x") }),
			"user_jwt has permissions or limits, and is signed by a scoped key"},
		"with a name that widens a scope": {"jwt/app", with(nil, n.ordersRole, func(_ *jwt.UserClaims, token *trust.UserToken) { token.Name = ">" }), `nats_name is ">"`},
		"with a control character":        {"jwt/app", with(nil, n.ordersPlain, func(_ *jwt.UserClaims, token *trust.UserToken) { token.Name = "a\nb" }), "control character"},
		"another user's seed":             {"jwt/app", with(map[string]any{"seed": newKey(t, trust.User).Seed()}, n.ordersPlain, nil), "seed is that of "},
		"an account's seed":               {"jwt/app", with(map[string]any{"seed": n.orders.Seed()}, n.ordersPlain, nil), "seed is an account seed"},
		"a JWT and a config":              {"jwt/app", with(map[string]any{"config": "{}"}, n.ordersPlain, nil), "config is given with user_jwt, which holds it"},
		"a JWT and a name":                {"jwt/app", with(map[string]any{"nats_name": "x"}, n.ordersPlain, nil), "nats_name is given with user_jwt"},
		"a JWT and an end":                {"jwt/app", with(map[string]any{"expiration": "2100-01-01T00:00:00Z"}, n.ordersPlain, nil), "expiration is given with user_jwt"},
		"a JWT and a signing key":         {"jwt/app", with(map[string]any{"signing_key": "default"}, n.ordersPlain, nil), "signing_key is given with user_jwt"},
		"a JWT and creds":                 {"jwt/app", with(map[string]any{"creds": true}, n.ordersPlain, nil), "creds cannot be given for a key that was not made here"},
		"an account's JWT":                {"jwt/app", map[string]any{"type": "user", "account": "orders", "user_jwt": n.ordersJWT}, "user_jwt is the JWT of an account where that of a user is wanted"},
		"no account":                      {"jwt/app", map[string]any{"type": "user", "user_jwt": n.newUser("x").issue(n.ordersPlain, nil).jwt}, "account is missing"},
		"an unknown account":              {"jwt/app", with(map[string]any{"account": "nobody"}, n.ordersPlain, nil), `account "nobody" does not exist`},
		"a name that is taken":            {"jwt/taken", with(nil, n.ordersPlain, nil), `name "taken" exists already: it is user `},
		"a JWT for an account":            {"jwt/orders", map[string]any{"user_jwt": n.newUser("x").issue(n.ordersPlain, nil).jwt}, "user_jwt is a field of type user"},
	} {
		t.Run(name, func(t *testing.T) {
			m.refuse(logical.UpdateOperation, test.path, test.data, test.fault)
		})
	}
	mine := &nscUser{n: n, key: made, name: "made"}
	before := m.stored()
	require.Equal(t, []string{`user "made" was made here, so what it is here stays, and nothing is taken of user_jwt`},
		m.written("jwt/made", mine.issue(n.ordersPlain, nil).fields()))
	require.Equal(t, before, m.stored())
}
