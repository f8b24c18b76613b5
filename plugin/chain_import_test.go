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

// A tree is an operator as nsc makes one, with its keys at hand.
type tree struct {
	t                       *testing.T
	identity, signing       *trust.Key
	system, systemSigning   *trust.Key
	orders                  *trust.Key
	ordersPlain, ordersRole *trust.Key
	operatorJWT             string
	systemJWT, ordersJWT    string
	issued                  int64
}

func newTree(t *testing.T, strict bool) *tree {
	t.Helper()
	n := &tree{
		t: t, identity: newKey(t, trust.Operator), signing: newKey(t, trust.Operator),
		system: newKey(t, trust.Account), systemSigning: newKey(t, trust.Account),
		orders: newKey(t, trust.Account), ordersPlain: newKey(t, trust.Account), ordersRole: newKey(t, trust.Account),
		issued: time.Now().Unix() - 3600,
	}
	var err error
	n.operatorJWT, err = trust.EncodeOperator(n.identity, "ACME", jwt.Operator{
		SigningKeys: jwt.StringList{n.signing.Public()}, SystemAccount: n.system.Public(), StrictSigningKeyUsage: strict,
		AccountServerURL: "nats://nats.acme:4222", OperatorServiceURLs: jwt.StringList{"nats://nats.acme:4222"},
	}, n.issued)
	require.NoError(t, err)
	system := trust.SystemAccount()
	system.SigningKeys = jwt.SigningKeys{n.systemSigning.Public(): nil}
	n.systemJWT = n.account(n.signing, n.system, "SYS", system)
	orders, err := trust.ParseAccountConfig([]byte(`{"limits":{"conn":100,"disk_storage":1000000},"description":"of nsc"}`))
	require.NoError(t, err)
	orders.SigningKeys = jwt.SigningKeys{n.ordersPlain.Public(): nil}
	scope := jwt.NewUserScope()
	scope.Key, scope.Role, scope.Template.Sub.Allow = n.ordersRole.Public(), "reader", jwt.StringList{"orders.{{tag(team)}}.>"}
	orders.SigningKeys.AddScopedSigner(scope)
	n.ordersJWT = n.account(n.signing, n.orders, "orders", orders)
	return n
}

func (n *tree) account(signer, identity *trust.Key, name string, account *jwt.Account) string {
	n.t.Helper()
	token, err := trust.EncodeAccount(signer, identity.Public(), name, *account, n.issued)
	require.NoError(n.t, err)
	return token
}

// user is one that nsc issued.
func (n *tree) user(signer *trust.Key) *jwt.UserClaims {
	n.t.Helper()
	token, err := trust.UserToken{Issuer: signer, Subject: newKey(n.t, trust.User).Public(), Name: "legacy", IssuedAt: time.Unix(n.issued, 0),
		NATS: []byte(`{"pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1,"issuer_account":"` + n.orders.Public() + `","type":"user","version":2}`)}.Encode()
	require.NoError(n.t, err)
	return userClaims(n.t, token)
}

func (n *tree) importOperator(m *chainMount) map[string]any {
	return m.write("config", map[string]any{"operator_jwt": n.operatorJWT, "operator_signing_seeds": n.signing.Seed()})
}

func (n *tree) importAccounts(m *chainMount) {
	m.write("jwt/SYS", map[string]any{"type": "account", "account_jwt": n.systemJWT, "signing_seeds": n.systemSigning.Seed()})
	m.write("jwt/orders", map[string]any{"type": "account", "account_jwt": n.ordersJWT, "seed": n.orders.Seed(), "signing_seeds": []any{n.ordersRole.Seed(), n.ordersPlain.Seed()}})
}

func TestAnNscOperatorIsTakenOverWithItsIdentities(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	data := n.importOperator(m)
	require.Equal(t, n.operatorJWT, data["operator_jwt"], "servers run with that JWT")
	settings, err := m.chain.DeliverySettings(t.Context(), m.storage)
	require.NoError(t, err)
	require.Nil(t, settings, "without the system account nothing can be delivered")
	m.refuse(logical.ReadOperation, "config/server", nil, "is not in the mount: import it")

	n.importAccounts(m)
	settings, err = m.chain.DeliverySettings(t.Context(), m.storage)
	require.NoError(t, err)
	require.Equal(t, []string{"nats://nats.acme:4222"}, m.chain.DeliveryConfig(m.storage, settings).ServerURLs)

	// The accounts are the same but for who signed them and when.
	operator := operatorClaims(t, n.operatorJWT)
	before, after := accountClaims(t, n.ordersJWT), accountClaims(t, m.read("jwt/orders")["jwt"])
	require.True(t, operator.DidSign(after))
	require.Greater(t, after.IssuedAt, before.IssuedAt)
	after.IssuedAt, after.ID = before.IssuedAt, before.ID
	require.Equal(t, before.String(), after.String())

	// Users issued before and after are both of the account.
	require.True(t, after.DidSign(n.user(n.ordersPlain)))
	opened, err := m.chain.Account(t.Context(), m.storage, "orders")
	require.NoError(t, err)
	signer, err := opened.Signer(chain.PlainSigner)
	require.NoError(t, err)
	require.Equal(t, n.ordersPlain.Public(), signer.Public())
	scoped := userClaims(t, m.write("jwt/bob", map[string]any{"type": "user", "account": "orders", "signing_key": "reader", "config": `{"tags":["team:a"]}`})["jwt"])
	require.Equal(t, n.ordersRole.Public(), scoped.Issuer)

	system, err := m.chain.Account(t.Context(), m.storage, "SYS")
	require.NoError(t, err)
	require.True(t, system.System)
	token, sign, err := m.chain.DeliveryConfig(m.storage, settings).User()
	require.NoError(t, err)
	require.NotNil(t, sign)
	require.True(t, accountClaims(t, n.systemJWT).DidSign(userClaims(t, token)), "the running servers let the user in that delivers")
	m.refuse(logical.DeleteOperation, "jwt/SYS", nil, "is the system account")

	m.restart()
	m.deliverPending()
	m.requireInStep()
}

func TestAnImportedOperatorCannotBeChangedWithoutItsIdentityKey(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	n.importOperator(m)
	n.importAccounts(m)
	m.refuse(logical.UpdateOperation, "config", map[string]any{"tags": "a"}, "tags cannot be changed: the operator's identity key is not in the mount")
	m.refuse(logical.UpdateOperation, "config", map[string]any{"operator_name": "a"}, "operator_name cannot be changed")
	m.refuse(logical.UpdateOperation, "config/rotate", nil, "has no other signing key of the operator")
	m.write("config", map[string]any{"service_url": "nats://other:4222"})
	require.Equal(t, n.operatorJWT, m.read("config")["operator_jwt"])

	// Whoever has the identity key makes a new signing key and imports both.
	next := newKey(t, trust.Operator)
	later, err := trust.EncodeOperator(n.identity, "ACME", jwt.Operator{
		SigningKeys: jwt.StringList{n.signing.Public(), next.Public()}, SystemAccount: n.system.Public(), StrictSigningKeyUsage: true}, n.issued+1)
	require.NoError(t, err)
	m.write("config", map[string]any{"operator_jwt": later, "operator_signing_seeds": next.Seed()})
	require.Equal(t, n.signing.Public(), accountClaims(t, m.read("jwt/orders")["jwt"]).Issuer)
	m.deliverPending()
	require.Equal(t, true, m.write("config/rotate", nil)["rotated"])
	require.Equal(t, next.Public(), accountClaims(t, m.read("jwt/orders")["jwt"]).Issuer)
	require.Equal(t, later, m.read("config")["operator_jwt"])
	m.deliverPending()
	m.requireInStep()
}

func TestALaterOperatorJWTWithAnotherSigningKeyIsARotation(t *testing.T) {
	n, next := newTree(t, true), newKey(t, trust.Operator)
	later, err := trust.EncodeOperator(n.identity, "ACME", jwt.Operator{
		SigningKeys: jwt.StringList{next.Public()}, SystemAccount: n.system.Public(), StrictSigningKeyUsage: true}, n.issued+1)
	require.NoError(t, err)
	for step := 0; ; step++ {
		m := newChainMount(t)
		n.importOperator(m)
		n.importAccounts(m)
		m.deliverPending()
		puts, failed := 0, false
		m.storage.FailOn(func(operation, _ string) bool {
			if operation == "put" {
				puts++
				failed = failed || puts > step
			}
			return failed // nothing works after a crash
		})
		_, err := m.do(logical.UpdateOperation, "config", map[string]any{"operator_jwt": later, "operator_signing_seeds": next.Seed()})
		m.storage.FailOn(nil)
		m.restart()
		m.deliverPending() // checks that servers take what is new for newer
		m.requireInStep()
		if !failed {
			require.NoError(t, err)
			require.Equal(t, next.Public(), accountClaims(t, m.servers[n.orders.Public()]).Issuer)
			require.Equal(t, 2, step, "the marker comes ahead of the operator")
			return
		}
		require.Error(t, err)
	}
}

func TestAnImportedOperatorWithItsIdentityKeyIsRotatedInTwoSteps(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	n.importOperator(m)
	n.importAccounts(m)
	m.write("config", map[string]any{"operator_seed": n.identity.Seed()})
	first := m.write("config/rotate", nil)
	require.Equal(t, false, first["rotated"], "no server trusts a new key yet")
	require.Contains(t, operatorClaims(t, first["operator_jwt"]).SigningKeys, n.signing.Public())
	require.Equal(t, n.signing.Public(), accountClaims(t, m.read("jwt/orders")["jwt"]).Issuer)
	second := m.write("config/rotate", nil)
	require.Equal(t, true, second["rotated"])
	require.True(t, operatorClaims(t, first["operator_jwt"]).DidSign(accountClaims(t, m.read("jwt/orders")["jwt"])))
}

func TestAnOperatorWithoutSigningKeysSignsWithItsIdentity(t *testing.T) {
	n, m := newTree(t, false), newChainMount(t)
	m.write("config", map[string]any{"operator_jwt": n.operatorJWT, "operator_seed": n.identity.Seed()})
	n.importAccounts(m)
	require.Equal(t, n.identity.Public(), accountClaims(t, m.read("jwt/orders")["jwt"]).Issuer)
	require.NotContains(t, operatorClaims(t, m.read("config")["operator_jwt"]).SigningKeys, n.identity.Public())
}

func TestAFaultInAnImportedOperatorIsNamed(t *testing.T) {
	n, other := newTree(t, true), newTree(t, true)
	noSystem, err := trust.EncodeOperator(n.identity, "ACME", jwt.Operator{SigningKeys: jwt.StringList{n.signing.Public()}}, n.issued)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		data  map[string]any
		fault string
	}{
		"a signing seed of another operator":   {map[string]any{"operator_jwt": n.operatorJWT, "operator_signing_seeds": other.signing.Seed()}, "operator_signing_seeds number 1 is that of " + other.signing.Public() + ", which operator_jwt does not list"},
		"an account's seed as signing seed":    {map[string]any{"operator_jwt": n.operatorJWT, "operator_signing_seeds": []any{n.signing.Seed(), n.orders.Seed()}}, "operator_signing_seeds number 2 is an account seed where an operator seed is wanted"},
		"another operator's identity":          {map[string]any{"operator_jwt": n.operatorJWT, "operator_seed": other.identity.Seed()}, "operator_seed is that of " + other.identity.Public()},
		"an account's seed as identity":        {map[string]any{"operator_jwt": n.operatorJWT, "operator_seed": n.orders.Seed()}, "operator_seed is an account seed"},
		"no seed":                              {map[string]any{"operator_jwt": n.operatorJWT}, "operator_signing_seeds is missing"},
		"only the identity of a strict one":    {map[string]any{"operator_jwt": n.operatorJWT, "operator_seed": n.identity.Seed()}, "the operator has strict_signing_key_usage"},
		"the identity of a strict one to sign": {map[string]any{"operator_jwt": n.operatorJWT, "operator_signing_seeds": n.identity.Seed()}, "which operator_jwt does not list"},
		"an account's JWT":                     {map[string]any{"operator_jwt": n.ordersJWT, "operator_signing_seeds": n.signing.Seed()}, "operator_jwt is the JWT of an account"},
		"an operator without a system account": {map[string]any{"operator_jwt": noSystem, "operator_signing_seeds": n.signing.Seed()}, "operator_jwt names no system account"},
	} {
		t.Run(name, func(t *testing.T) {
			newChainMount(t).refuse(logical.UpdateOperation, "config", test.data, test.fault)
		})
	}
	m := newChainMount(t)
	n.importOperator(m)
	m.refuse(logical.UpdateOperation, "config", map[string]any{"operator_jwt": other.operatorJWT, "operator_signing_seeds": other.signing.Seed()}, "an operator never changes")
	generated := newChainMount(t)
	generated.write("config", nil)
	generated.refuse(logical.UpdateOperation, "config", map[string]any{"operator_jwt": other.operatorJWT, "operator_signing_seeds": other.signing.Seed()}, "an operator never changes")
}

func TestAFaultInAnImportedAccountIsNamed(t *testing.T) {
	n, other := newTree(t, true), newTree(t, true)
	byIdentity := n.account(n.identity, n.orders, "orders", &accountClaims(t, n.ordersJWT).Account)
	for name, test := range map[string]struct {
		path  string
		data  map[string]any
		fault string
	}{
		"signed by another operator":         {"jwt/new", map[string]any{"account_jwt": other.ordersJWT}, "account_jwt is signed by " + other.signing.Public() + ", which is not a key of the mount's operator"},
		"signed by the identity of a strict": {"jwt/new", map[string]any{"account_jwt": byIdentity}, "account_jwt is signed by " + n.identity.Public()},
		"an operator's JWT":                  {"jwt/new", map[string]any{"account_jwt": n.operatorJWT}, "account_jwt is the JWT of an operator"},
		"a damaged JWT":                      {"jwt/new", map[string]any{"account_jwt": n.ordersJWT[:len(n.ordersJWT)-5] + "AAAAA"}, "account_jwt is not a valid NATS JWT"},
		"another account's identity":         {"jwt/new", map[string]any{"account_jwt": n.ordersJWT, "seed": other.orders.Seed()}, "seed is that of " + other.orders.Public()},
		"a user's seed as identity":          {"jwt/new", map[string]any{"account_jwt": n.ordersJWT, "seed": newKey(t, trust.User).Seed()}, "seed is a user seed"},
		"a signing seed it does not list":    {"jwt/new", map[string]any{"account_jwt": n.ordersJWT, "signing_seeds": other.ordersPlain.Seed()}, "signing_seeds number 1 is that of " + other.ordersPlain.Public() + ", which account_jwt does not list"},
		"an operator's seed as signing seed": {"jwt/new", map[string]any{"account_jwt": n.ordersJWT, "signing_seeds": n.signing.Seed()}, "signing_seeds number 1 is an operator seed"},
		"a second name":                      {"jwt/new", map[string]any{"account_jwt": n.ordersJWT}, `name "new" would be a second name of account ` + n.orders.Public() + `, which the mount has as "orders"`},
		"a name that exists":                 {"jwt/orders", map[string]any{"account_jwt": n.systemJWT}, `name "orders" exists already`},
		"a JWT and a public key":             {"jwt/new", map[string]any{"account_jwt": n.ordersJWT, "public_key": n.orders.Public()}, "public_key is given with account_jwt"},
		"a JWT and a config":                 {"jwt/new", map[string]any{"account_jwt": n.ordersJWT, "config": "{}"}, "config is given with an account that was made elsewhere"},
		"a user's public key":                {"jwt/new", map[string]any{"public_key": newKey(t, trust.User).Public()}, "public_key is a user public key"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newChainMount(t)
			n.importOperator(m)
			n.importAccounts(m)
			test.data["type"] = "account"
			m.refuse(logical.CreateOperation, test.path, test.data, test.fault)
		})
	}
	newChainMount(t).refuse(logical.CreateOperation, "jwt/orders", map[string]any{"type": "account", "account_jwt": n.ordersJWT}, "account_jwt needs an operator in the mount")
}

func TestImportingOnceMoreBringsALaterJWTAndFurtherSeeds(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	n.importOperator(m)
	m.write("jwt/orders", map[string]any{"type": "account", "account_jwt": n.ordersJWT})
	_, err := func() (*trust.Key, error) {
		opened, err := m.chain.Account(t.Context(), m.storage, "orders")
		require.NoError(t, err)
		return opened.Signer(chain.PlainSigner)
	}()
	require.ErrorContains(t, err, `"orders" has no signing key in the mount`)
	n.importAccounts(m)
	before := m.read("jwt/orders")
	n.importAccounts(m)
	require.Equal(t, before, m.read("jwt/orders"), "an import that is repeated changed the account")
	keys := before["signing_keys"].([]map[string]any)
	require.Equal(t, "reader", keys[0]["name"])
	require.Equal(t, "default", keys[1]["name"])
}

func TestImportingOnceMoreUndoesNothing(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	importAll := func() {
		m.write("config", map[string]any{"operator_jwt": n.operatorJWT, "operator_seed": n.identity.Seed(), "operator_signing_seeds": n.signing.Seed()})
		n.importAccounts(m)
	}
	importAll()
	m.deliverPending()
	m.write("config/rotate", nil)
	m.write("config/rotate", map[string]any{"overlap": 0})
	m.deliverPending()
	m.write("jwt/SYS/rotate", nil) // its former key is the way in for now
	user := newKey(t, trust.User).Public()
	m.write("jwt/orders", map[string]any{"config": `{"limits":{"conn":7},"revocations":{"` + user + `":5}}`})
	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	m.write("jwt/orders/keys/reader", map[string]any{"config": `{"role":"reader","template":{"sub":{"allow":["less"]}}}`})
	before := m.stored()
	importAll()
	require.Equal(t, before, m.stored())

	// A later JWT is taken over.
	n.issued++
	later := accountClaims(t, n.ordersJWT).Account
	later.Limits.Conn = 9
	m.write("config", map[string]any{"operator_seed": n.identity.Seed()})
	operator, err := trust.EncodeOperator(n.identity, "ACME2", jwt.Operator{SigningKeys: jwt.StringList{n.signing.Public()}, SystemAccount: n.system.Public(), StrictSigningKeyUsage: true}, n.issued)
	require.NoError(t, err)
	m.write("config", map[string]any{"operator_jwt": operator, "operator_signing_seeds": n.signing.Seed()})
	require.Equal(t, "ACME2", m.read("config")["operator_name"])
	m.write("jwt/orders", map[string]any{"account_jwt": n.account(n.signing, n.orders, "orders", &later)})
	require.EqualValues(t, 9, accountClaims(t, m.read("jwt/orders")["jwt"]).Limits.Conn)
}

func TestAFormerOperatorKeyIsNotImportedOnceMoreWithoutTheIdentityKey(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	next := newKey(t, trust.Operator)
	both, err := trust.EncodeOperator(n.identity, "ACME", jwt.Operator{
		SigningKeys: jwt.StringList{n.signing.Public(), next.Public()}, SystemAccount: n.system.Public(), StrictSigningKeyUsage: true}, n.issued)
	require.NoError(t, err)
	importOperator := map[string]any{"operator_jwt": both, "operator_signing_seeds": []any{n.signing.Seed(), next.Seed()}}
	m.write("config", importOperator)
	n.importAccounts(m)
	m.write("config/rotate", map[string]any{"overlap": 0})
	_, err = m.chain.Retire(t.Context(), m.storage, time.Now().Add(time.Hour))
	require.NoError(t, err)
	before := m.stored()
	m.write("config", importOperator)
	require.Equal(t, before, m.stored())
	require.Equal(t, next.Public(), accountClaims(t, m.read("jwt/orders")["jwt"]).Issuer)
}
