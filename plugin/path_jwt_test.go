package plugin

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// newAccountMount is a mount with an operator and the account orders.
func newAccountMount(t *testing.T) *chainMount {
	t.Helper()
	m := newChainMount(t)
	m.write("config", nil)
	m.must(logical.CreateOperation, "jwt/orders", map[string]any{"type": "account", "config": `{"limits":{"conn":100},"tags":["prod"]}`})
	return m
}

func TestAnAccountIsMadeReadChangedAndDeleted(t *testing.T) {
	m := newAccountMount(t)
	operator := operatorClaims(t, m.read("config")["operator_jwt"])
	read := m.read("jwt/orders")
	claims := accountClaims(t, read["jwt"])
	require.True(t, operator.DidSign(claims))
	require.Equal(t, read["public_key"], claims.Subject)
	require.Equal(t, "orders", claims.Name)
	require.EqualValues(t, 100, claims.Limits.Conn)
	require.EqualValues(t, jwt.NoLimit, claims.Limits.Subs)
	require.Len(t, claims.SigningKeys, 1)
	require.Equal(t, "account", read["type"])
	require.Equal(t, false, read["delivered"])
	require.Equal(t, []any{"prod"}, read["config"].(map[string]any)["tags"])
	require.NotContains(t, read["config"], "signing_keys", "the mount's own keys are not the user's to write")

	m.deliverPending()
	require.Equal(t, true, m.read("jwt/orders")["delivered"])

	// Writing what was read changes nothing, and gives the same JWT.
	require.Equal(t, read["jwt"], m.write("jwt/orders", map[string]any{"config": read["config"]})["jwt"])
	m.requireInStep()

	// A write replaces config as a whole, a patch merges.
	patched := accountClaims(t, m.must(logical.PatchOperation, "jwt/orders", map[string]any{"config": `{"limits":{"subs":5},"description":"x","tags":null}`})["jwt"])
	require.EqualValues(t, 100, patched.Limits.Conn)
	require.EqualValues(t, 5, patched.Limits.Subs)
	require.Empty(t, patched.Tags)
	written := accountClaims(t, m.write("jwt/orders", map[string]any{"config": `{"description":"y"}`})["jwt"])
	require.EqualValues(t, jwt.NoLimit, written.Limits.Conn)
	require.Equal(t, "y", written.Description)
	require.Equal(t, claims.SigningKeys, written.SigningKeys)

	require.Nil(t, m.must(logical.DeleteOperation, "jwt/orders", nil))
	require.Nil(t, m.read("jwt/orders"))
	m.deliverPending()
	m.requireInStep()
	require.Len(t, m.servers, 1, "only the system account is left")
}

func TestAnAccountMadeAnewUnderANameIsAnother(t *testing.T) {
	m := newAccountMount(t)
	m.deliverPending()
	before := m.read("jwt/orders")["public_key"]
	m.must(logical.DeleteOperation, "jwt/orders", nil)
	after := m.write("jwt/orders", map[string]any{"type": "account"})["public_key"]
	require.NotEqual(t, before, after)
	m.deliverPending()
	m.requireInStep()
	require.Contains(t, m.servers, after)
}

func TestAccountsAreListedWithWhatIsBehindThem(t *testing.T) {
	m := newAccountMount(t)
	m.deliverPending()
	m.write("jwt/billing", map[string]any{"type": "account"})
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})
	listed := m.must(logical.ListOperation, "jwt/", nil)
	require.Equal(t, []string{"SYS", "alice", "billing", "orders"}, listed["keys"])
	info := listed["key_info"].(map[string]any)
	require.Equal(t, map[string]any{"type": "account", "public_key": m.read("jwt/billing")["public_key"], "delivered": false}, info["billing"])
	require.Equal(t, true, info["orders"].(map[string]any)["delivered"])
	require.Equal(t, "orders", info["alice"].(map[string]any)["account"])

	require.Equal(t, []string{"billing"}, m.must(logical.ListOperation, "jwt/", map[string]any{"after": "alice", "limit": 1})["keys"])
	require.Equal(t, []string{"alice", "billing", "orders"}, m.must(logical.ListOperation, "jwt/", map[string]any{"after": "SZZ"})["keys"])
}

func TestAFaultInAnAccountIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		path  string
		data  map[string]any
		fault string
	}{
		"no type":                             {"jwt/new", nil, `type is missing`},
		"an unknown type":                     {"jwt/new", map[string]any{"type": "operator"}, `type is "operator"`},
		"another type than it has":            {"jwt/orders", map[string]any{"type": "user"}, `type is user, but "orders" is the name of an existing account`},
		"a name with a slash":                 {"jwt/a/b", map[string]any{"type": "account"}, `name "a/b" is not a name`},
		"a name with a space":                 {"jwt/a b", map[string]any{"type": "account"}, `name "a b" is not a name`},
		"an unknown key":                      {"jwt/new", map[string]any{"type": "account", "config": `{"limit":1}`}, `config has an unknown key "limit"`},
		"an unknown key as an object":         {"jwt/new", map[string]any{"type": "account", "config": map[string]any{"limits": map[string]any{"conns": 1}}}, `config has an unknown key "conns" at limits`},
		"a config that is no JSON":            {"jwt/new", map[string]any{"type": "account", "config": `limits`}, `config is not valid JSON`},
		"overlapping exports":                 {"jwt/orders", map[string]any{"config": `{"exports":[{"subject":"a.>","type":"stream"},{"subject":"a.b","type":"stream"}]}`}, `config is not valid`},
		"a field of users":                    {"jwt/orders", map[string]any{"nonce": "x"}, `nonce is a field of type user`},
		"an import from an unknown account":   {"jwt/orders", map[string]any{"config": `{"imports":[{"subject":"a","type":"stream","account":"ACWLFX4PBYEADUSKKVUS2QYYWPIEWIRXUVQAM7JSRTBMERFRLPLUJ3SP"}]}`}, `imports[0] is from account ACWLFX4PBYEADUSKKVUS2QYYWPIEWIRXUVQAM7JSRTBMERFRLPLUJ3SP, which is not in the mount`},
		"seeds without an account":            {"jwt/new", map[string]any{"type": "account", "seed": newKey(t, trust.Account).Seed()}, `account_jwt is missing`},
		"the system account deleted by write": {"jwt/SYS", map[string]any{"type": "user"}, `type is user, but "SYS"`},
		"a scope for the default key":         {"jwt/orders/keys/default", map[string]any{"config": `{"template":{}}`}, `config cannot be given for "default"`},
		"a scope with an unknown key":         {"jwt/orders/keys/ci", map[string]any{"config": `{"templates":{}}`}, `config has an unknown key "templates"`},
		"a signing key that is a user's":      {"jwt/orders/keys/ci", map[string]any{"seed": newKey(t, trust.User).Seed()}, `seed is a user seed where an account seed is wanted`},
		"a signing key's name with a slash":   {"jwt/orders/keys/a/b", nil, `key "a/b" is not a name`},
		"a signing key of nobody":             {"jwt/nobody/keys/ci", nil, `name "nobody" is not an account`},
		"rotating a key it does not have":     {"jwt/orders/rotate", map[string]any{"key": "ci"}, `key "ci" is not a signing key`},
		"rotating with a negative overlap":    {"jwt/orders/rotate", map[string]any{"overlap": -1}, `field "overlap": cannot provide negative value`},
		"signing with an account":             {"jwt/orders/sign", map[string]any{"nonce": "x"}, `name "orders" is an account: only users sign`},
		"signing with nobody":                 {"jwt/nobody/sign", map[string]any{"nonce": "x"}, `name "nobody" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			newAccountMount(t).refuse(logical.UpdateOperation, test.path, test.data, test.fault)
		})
	}
	m := newAccountMount(t)
	m.refuse(logical.PatchOperation, "jwt/new", map[string]any{"type": "account"}, `name "new" does not exist`)
	m.refuse(logical.PatchOperation, "jwt/orders", map[string]any{"config": `[]`}, `config is not a JSON object`)
	m.refuse(logical.DeleteOperation, "jwt/SYS", map[string]any{"force": true}, `name "SYS" is the system account`)
}

func TestAnAccountTooLargeForTheServersIsRefused(t *testing.T) {
	m := newAccountMount(t)
	var config strings.Builder
	config.WriteString(`{"exports":[`)
	for i := range 150 {
		fmt.Fprintf(&config, `{"subject":"s.%d","type":"stream","description":"%s"},`, i, strings.Repeat("d", 8000))
	}
	config.WriteString(`{"subject":"last","type":"stream"}]}`)
	m.refuse(logical.UpdateOperation, "jwt/orders", map[string]any{"config": config.String()}, "config is too large: its JWT has ")
}

func TestAnImportNamesAnExport(t *testing.T) {
	m := newAccountMount(t)
	m.write("jwt/orders", map[string]any{"config": `{"exports":[{"subject":"orders.>","type":"stream"},{"subject":"place","type":"service","token_req":true}]}`})
	orders := m.read("jwt/orders")["public_key"].(string)
	imports := func(kind, subject, token string) map[string]any {
		return map[string]any{"type": "account", "config": fmt.Sprintf(`{"imports":[{"account":"%s","subject":"%s","type":"%s","token":"%s"}]}`, orders, subject, kind, token)}
	}
	m.write("jwt/billing", imports("stream", "orders.new", ""))
	m.refuse(logical.UpdateOperation, "jwt/other", imports("stream", "invoices.new", ""), `imports[0] names an unknown export: account "orders" exports no stream that holds "invoices.new"`)
	m.refuse(logical.UpdateOperation, "jwt/other", imports("service", "orders.new", ""), `exports no service that holds "orders.new"`)
	m.refuse(logical.UpdateOperation, "jwt/billing", imports("service", "place", ""), `imports[0] needs a token`)

	token := m.write("jwt/orders/activation", map[string]any{"account": "billing", "subject": "place", "type": "service"})["token"].(string)
	require.Len(t, accountClaims(t, m.write("jwt/billing", imports("service", "place", token))["jwt"]).Imports, 1)
	m.refuse(logical.UpdateOperation, "jwt/other", imports("service", "place", token), `activation token doesn't match account`)

	for fault, data := range map[string]map[string]any{
		`subject "pay" is in no service`: {"account": "billing", "subject": "pay", "type": "service"},
		`with token_req`:                 {"account": "billing", "subject": "orders.a", "type": "stream"},
		`type is "queue"`:                {"account": "billing", "subject": "place", "type": "queue"},
		`account "nobody" is neither`:    {"account": "nobody", "subject": "place", "type": "service"},
		`field "ttl": cannot provide`:    {"account": "billing", "subject": "place", "type": "service", "ttl": -5},
	} {
		m.refuse(logical.UpdateOperation, "jwt/orders/activation", data, fault)
	}
	m.refuse(logical.UpdateOperation, "jwt/nobody/activation", map[string]any{"account": "billing", "subject": "place", "type": "service"}, `name "nobody" is not an account`)
}

func TestAUserSignsWithAKeyThatStaysInTheMount(t *testing.T) {
	m := newAccountMount(t)
	written := m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "config": map[string]any{"pub": map[string]any{"allow": []any{"a.>"}}}, "nonce": "abc", "ttl": 600})
	claims := userClaims(t, written["jwt"])
	account := accountClaims(t, m.read("jwt/orders")["jwt"])
	require.True(t, account.DidSign(claims))
	require.Equal(t, account.Subject, claims.IssuerAccount)
	require.Equal(t, "alice", claims.Name)
	require.Equal(t, jwt.StringList{"a.>"}, claims.Pub.Allow)
	require.InDelta(t, time.Now().Unix()+600, claims.Expires, 2)
	require.Equal(t, time.Unix(claims.Expires, 0).UTC().Format(time.RFC3339), written["expiration"])

	public, err := nkeys.FromPublicKey(claims.Subject)
	require.NoError(t, err)
	for _, signed := range []any{written["signed_nonce"], m.write("jwt/alice/sign", map[string]any{"nonce": "abc"})["signed_nonce"],
		m.write("jwt/alice", map[string]any{"nonce": "abc"})["signed_nonce"]} {
		signature, err := base64.StdEncoding.DecodeString(signed.(string))
		require.NoError(t, err)
		require.NoError(t, public.Verify([]byte("abc"), signature))
	}

	read := m.read("jwt/alice")
	require.Equal(t, claims.Subject, read["public_key"])
	require.Equal(t, "orders", read["account"])
	require.Equal(t, "default", read["signing_key"])
	require.EqualValues(t, 600, read["ttl"])
	require.NotContains(t, read, "signed_nonce")

	m.refuse(logical.DeleteOperation, "jwt/orders", nil, `name "orders" cannot be deleted: users depend on it (alice)`)
	m.must(logical.DeleteOperation, "jwt/alice", nil)
	m.must(logical.DeleteOperation, "jwt/orders", nil)
}

// The signature would be a proof that whoever asked for it has the user's key.
func TestATextThatProvesAKeyIsNotSignedAsANonce(t *testing.T) {
	m := newAccountMount(t)
	user := userClaims(t, m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})["jwt"]).Subject
	now := proof.Claim{Purpose: proof.Creds, Mount: "auth/nats/", Role: "ops", Entity: "entity-1", User: user, Time: time.Now().Unix()}
	for _, nonce := range []string{now.Text(), now.Text() + "\n", "vault-plugin-auth-nats user key proof v2\n", "vault-plugin-auth-nats "} {
		const fault = "nonce is the text of a proof that the caller has the user's key"
		m.refuse(logical.UpdateOperation, "jwt/alice/sign", map[string]any{"nonce": nonce}, fault)
		m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"nonce": nonce, "ttl": 600}, fault)
		m.refuse(logical.PatchOperation, "jwt/alice", map[string]any{"nonce": nonce, "ttl": 600}, fault)
		m.refuse(logical.CreateOperation, "jwt/bob", map[string]any{"type": "user", "account": "orders", "nonce": nonce}, fault)
	}
}

func TestAUsersJWTNeverOutlivesTheMountsMaximum(t *testing.T) {
	m := newAccountMount(t)
	for ttl, life := range map[int]time.Duration{0: time.Hour, 60: time.Minute, 1 << 30: 24 * time.Hour} {
		claims := userClaims(t, m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "ttl": ttl})["jwt"])
		require.InDelta(t, time.Now().Add(life).Unix(), claims.Expires, 2, "ttl %d", ttl)
	}
}

func TestAFaultInAUserIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		data  map[string]any
		fault string
	}{
		"no account":                {map[string]any{"type": "user"}, `account is missing`},
		"an unknown account":        {map[string]any{"type": "user", "account": "nobody"}, `account "nobody" does not exist`},
		"a user for an account":     {map[string]any{"type": "user", "account": "alice"}, `account "alice" does not exist`},
		"an unknown key":            {map[string]any{"type": "user", "account": "orders", "config": `{"permissions":{}}`}, `config has an unknown key "permissions"`},
		"another issuer":            {map[string]any{"type": "user", "account": "orders", "config": `{"issuer_account":"ACWLFX4PBYEADUSKKVUS2QYYWPIEWIRXUVQAM7JSRTBMERFRLPLUJ3SP"}`}, `config has the issuer_account`},
		"an empty nonce":            {map[string]any{"type": "user", "account": "orders", "nonce": ""}, `nonce is empty`},
		"a negative life":           {map[string]any{"type": "user", "account": "orders", "ttl": -5}, `field "ttl": cannot provide negative value`},
		"an account's seed":         {map[string]any{"type": "user", "account": "orders", "seed": newKey(t, trust.Account).Seed()}, `seed is an account seed where a user seed is wanted`},
		"an unknown signing key":    {map[string]any{"type": "user", "account": "orders", "signing_key": "ci"}, `signing_key "ci" is not a signing key of account "orders"`},
		"a field of accounts":       {map[string]any{"type": "user", "account": "orders", "signing_seeds": "x"}, `signing_seeds is a field of type account`},
		"limits under a scoped key": {map[string]any{"type": "user", "account": "orders", "signing_key": "scoped", "config": `{"subs":5}`}, `config has permissions or limits, which a user of the scoped signing key "scoped" takes from its scope`},
	} {
		t.Run(name, func(t *testing.T) {
			m := newAccountMount(t)
			m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})
			m.write("jwt/orders/keys/scoped", map[string]any{"config": `{"template":{"sub":{"allow":["x"]}}}`})
			m.refuse(logical.CreateOperation, "jwt/new", test.data, test.fault)
		})
	}
	m := newAccountMount(t)
	m.write("jwt/billing", map[string]any{"type": "account"})
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})
	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"account": "billing"}, `account cannot be changed`)
	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"seed": newKey(t, trust.User).Seed()}, `seed cannot be changed`)
	m.refuse(logical.UpdateOperation, "jwt/alice/sign", map[string]any{"nonce": ""}, `nonce is empty`)
}

func TestAUserOfAScopedKeyTakesItsPermissionsFromTheScope(t *testing.T) {
	m := newAccountMount(t)
	key := m.write("jwt/orders/keys/reader", map[string]any{"config": `{"template":{"sub":{"allow":["orders.>"]}},"description":"d"}`})
	scope, ok := accountClaims(t, m.read("jwt/orders")["jwt"]).SigningKeys[key["public_key"].(string)].(*jwt.UserScope)
	require.True(t, ok)
	require.Equal(t, "reader", scope.Role)
	require.Equal(t, jwt.StringList{"orders.>"}, scope.Template.Sub.Allow)

	claims := userClaims(t, m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "signing_key": "reader", "config": `{"tags":["a"]}`})["jwt"])
	require.NoError(t, scope.ValidateScopedSigner(claims))
	require.Equal(t, jwt.TagList{"a"}, claims.Tags)

	// The scope changes under the same key; a plain key stays plain.
	changed := m.write("jwt/orders/keys/reader", map[string]any{"config": `{"template":{"sub":{"allow":["x"]}}}`})
	require.Equal(t, key["public_key"], changed["public_key"])
	m.refuse(logical.UpdateOperation, "jwt/orders/keys/reader", nil, "config cannot make a plain key scoped or a scoped one plain")
	require.Equal(t, changed, m.read("jwt/orders/keys/reader"))

	m.must(logical.DeleteOperation, "jwt/orders/keys/reader", nil)
	require.Nil(t, m.read("jwt/orders/keys/reader"))
	require.Len(t, accountClaims(t, m.read("jwt/orders")["jwt"]).SigningKeys, 1)
}

func TestAScopedRolesKeyFollowsTheRole(t *testing.T) {
	m := newAccountMount(t)
	ctx := t.Context()
	scope := &jwt.NewUserScope().Template
	scope.Sub.Allow = jwt.StringList{"a"}
	require.NoError(t, m.chain.SetRoleKey(ctx, m.storage, "orders", "ci", scope))
	opened, err := m.chain.Account(ctx, m.storage, "orders")
	require.NoError(t, err)
	signer, err := opened.Signer(chain.SignerName{Role: "ci", Scoped: true})
	require.NoError(t, err)
	first := signer.Public()
	m.deliverPending()
	require.Equal(t, jwt.StringList{"a"}, accountClaims(t, m.servers[opened.PublicKey]).SigningKeys[first].(*jwt.UserScope).Template.Sub.Allow)

	// While a former key of the role is waited out, it has the role's scope too.
	m.write("jwt/orders/rotate", map[string]any{"key": "role/ci", "overlap": 60})
	scope.Sub.Allow = jwt.StringList{"b"}
	require.NoError(t, m.chain.SetRoleKey(ctx, m.storage, "orders", "ci", scope))
	keys := accountClaims(t, m.read("jwt/orders")["jwt"]).SigningKeys
	require.Len(t, keys, 3)
	require.Equal(t, jwt.StringList{"b"}, keys[first].(*jwt.UserScope).Template.Sub.Allow)
	m.refuse(logical.DeleteOperation, "jwt/orders/keys/role/ci", nil, `key "role/ci" belongs to role "ci"`)

	require.NoError(t, m.chain.RemoveRoleKeys(ctx, m.storage, "orders", "ci"))
	require.Len(t, accountClaims(t, m.read("jwt/orders")["jwt"]).SigningKeys, 1)
	opened, err = m.chain.Account(ctx, m.storage, "orders")
	require.NoError(t, err)
	_, err = opened.Signer(chain.SignerName{Role: "ci", Scoped: true})
	require.ErrorContains(t, err, `"orders" has no signing key of role "ci"`)
	require.NoError(t, m.chain.RemoveRoleKeys(ctx, m.storage, "gone", "ci"))
}

func TestAnAccountThatRolesDependOnIsDeletedOnlyByForce(t *testing.T) {
	m := newAccountMount(t)
	m.must(logical.CreateOperation, "role/ci", map[string]any{"role_type": "vault", "account": "orders"})
	m.refuse(logical.DeleteOperation, "jwt/orders", nil, `name "orders" cannot be deleted: roles depend on it (ci)`)
	m.must(logical.DeleteOperation, "jwt/orders", map[string]any{"force": true})
	opened, err := m.chain.Account(t.Context(), m.storage, "orders")
	require.NoError(t, err)
	require.Nil(t, opened)
}

// foreignAccountMount is a mount with the account "hosted" of someone else's NATS.
func foreignAccountMount(t *testing.T) *chainMount {
	t.Helper()
	m := newChainMount(t)
	m.write("config", map[string]any{"no_operator": true})
	m.write("jwt/hosted", map[string]any{"type": "account", "public_key": newKey(t, trust.Account).Public()})
	return m
}

func TestAScopedRoleUsesAForeignAccountsScopedKey(t *testing.T) {
	m := foreignAccountMount(t)
	unlimited := jwt.NewUserScope().Template
	require.ErrorContains(t, m.chain.SetRoleKey(t.Context(), m.storage, "hosted", "ci", &unlimited), `"hosted" has no scoped signing key for role "ci"`)
	shared, own := newKey(t, trust.Account), newKey(t, trust.Account)
	m.write("jwt/hosted/keys/default", map[string]any{"seed": shared.Seed(), "config": "{}"})
	m.write("jwt/hosted/keys/reader", map[string]any{"seed": own.Seed(), "config": "{}"})
	for role, key := range map[string]*trust.Key{"ci": shared, "reader": own} {
		require.NoError(t, m.chain.SetRoleKey(t.Context(), m.storage, "hosted", role, &unlimited))
		opened, err := m.chain.Account(t.Context(), m.storage, "hosted")
		require.NoError(t, err)
		signer, err := opened.Signer(chain.SignerName{Role: role, Scoped: true})
		require.NoError(t, err)
		require.Equal(t, key.Public(), signer.Public())
		_, err = opened.Signer(chain.PlainSigner)
		require.ErrorContains(t, err, `"hosted" has only scoped signing keys`)
	}

	limited := unlimited
	limited.Pub.Allow = jwt.StringList{"a"}
	for fault, scope := range map[string]*jwt.UserPermissionLimits{"user_template": &limited, "signing_key": nil} {
		require.ErrorContains(t, m.chain.SetRoleKey(t.Context(), m.storage, "hosted", "ci", scope), fault)
	}
	require.NoError(t, m.chain.RemoveRoleKeys(t.Context(), m.storage, "hosted", "reader"))
	require.NotNil(t, m.read("jwt/hosted/keys/reader"), "the key is the account's, not the role's")

	// A plain key is not taken for a scoped one, which nats-server tells apart.
	plain := foreignAccountMount(t)
	plain.write("jwt/hosted/keys/default", map[string]any{"seed": shared.Seed()})
	require.ErrorContains(t, plain.chain.SetRoleKey(t.Context(), plain.storage, "hosted", "ci", &unlimited), "has no scoped signing key")
}
