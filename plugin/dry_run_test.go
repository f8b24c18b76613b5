package plugin

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// dry makes a write as a dry run, which stores nothing, and says whether it would
// change anything, and its warnings.
func (m *chainMount) dry(operation logical.Operation, path string, data map[string]any) (changes bool, warnings []string) {
	m.t.Helper()
	data = maps.Clone(data)
	if data == nil {
		data = map[string]any{}
	}
	data["dry_run"] = true
	before, writes := m.stored(), m.storage.Writes.Load()+m.storage.Deletes.Load()
	resp, err := m.do(operation, path, data)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	require.Equal(m.t, before, m.stored())
	require.Equal(m.t, writes, m.storage.Writes.Load()+m.storage.Deletes.Load())
	changes = resp.Data["changes"].(bool)
	require.Equal(m.t, map[string]any{"dry_run": true, "changes": changes}, resp.Data)
	return changes, resp.Warnings
}

func TestADryRunAnswersAsTheWriteWouldAndStoresNothing(t *testing.T) {
	n, empty := newTree(t, true), newChainMount(t)
	operator := map[string]any{"operator_jwt": n.operatorJWT, "operator_seed": n.identity.Seed(), "operator_signing_seeds": n.signing.Seed()}
	for _, data := range []map[string]any{nil, operator, {"no_operator": true}} {
		changes, _ := empty.dry(logical.UpdateOperation, "config", data)
		require.True(t, changes)
		require.Nil(t, empty.read("config"))
	}

	_, m := importTree(t)
	m.deliverPending()
	for name, test := range map[string]struct {
		operation logical.Operation
		path      string
		data      map[string]any
		changes   bool
	}{
		"a new account":                  {logical.CreateOperation, "jwt/new", map[string]any{"type": "account"}, true},
		"a new user":                     {logical.CreateOperation, "jwt/new", map[string]any{"type": "user", "account": "orders", "creds": true, "nonce": "x"}, true},
		"a change":                       {logical.UpdateOperation, "jwt/orders", map[string]any{"config": `{"limits":{"conn":1}}`}, true},
		"a patch":                        {logical.PatchOperation, "jwt/orders", map[string]any{"config": `{"limits":{"conn":1}}`}, true},
		"a deletion":                     {logical.DeleteOperation, "jwt/orders", nil, true},
		"a deletion of nothing":          {logical.DeleteOperation, "jwt/nothing", nil, false},
		"what is there":                  {logical.UpdateOperation, "jwt/orders", map[string]any{"type": "account"}, false},
		"a new key":                      {logical.UpdateOperation, "jwt/orders/keys/other", nil, true},
		"a scope":                        {logical.UpdateOperation, "jwt/orders/keys/reader", map[string]any{"config": "{}"}, true},
		"the deletion of a key":          {logical.DeleteOperation, "jwt/orders/keys/reader", nil, true},
		"a setting":                      {logical.UpdateOperation, "config", map[string]any{"default_role": "x"}, true},
		"an issuer":                      {logical.UpdateOperation, "config", map[string]any{"jwt_validation_pubkeys": newWorkloads(t)[2].publicPEM(t)}, true},
		"what the operator has":          {logical.UpdateOperation, "config", map[string]any{"service_url": "nats://nats.acme:4222"}, false},
		"what the operator does not yet": {logical.UpdateOperation, "config", map[string]any{"service_url": "nats://other:4222"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			changes, _ := m.dry(test.operation, test.path, test.data)
			require.Equal(t, test.changes, changes)
			require.NotEmpty(t, m.read("jwt/orders")["jwt"], "nothing of it is in a cache")
		})
	}
	m.t = t
	m.requireInStep()
}

func TestADryRunIsRefusedWhereTheWriteIs(t *testing.T) {
	n, m := importTree(t)
	user := n.newUser("app").issue(n.ordersPlain, nil)
	m.write("jwt/orders.app", user.fields())
	m.must(logical.DeleteOperation, "jwt/orders.app", nil)
	again := user.fields()
	again["dry_run"] = true
	m.conflict("jwt/orders.app", again, "was revoked or deleted")
	for path, data := range map[string]map[string]any{
		"config":               {"operator_jwt": newTree(t, true).operatorJWT},
		"jwt/orders":           {"type": "user"},
		"jwt/..":               {"type": "account"},
		"jwt/orders/keys/x/y":  {},
		"jwt/new":              {"type": "user", "account": "nobody"},
		"jwt/orders/keys/more": {"seed": n.ordersPlain.Seed()},
	} {
		resp, err := m.do(logical.UpdateOperation, path, data)
		require.NoError(t, err)
		want := resp.Error()
		require.Error(t, want, path)
		data["dry_run"] = true
		m.refuse(logical.UpdateOperation, path, data, want.Error())
	}
	m.refuse(logical.DeleteOperation, "jwt/SYS", map[string]any{"dry_run": true}, "is the system account")
}

func TestADryRunWarnsAsTheWriteDoes(t *testing.T) {
	n, m := importTree(t)
	token := n.later(func(a *jwt.Account) { delete(a.SigningKeys, n.ordersPlain.Public()) })
	_, dry := m.dry(logical.UpdateOperation, "jwt/orders", map[string]any{"account_jwt": token})
	require.Len(t, dry, 1)
	require.Equal(t, dry, m.written("jwt/orders", map[string]any{"account_jwt": token}))
}

func TestADryRunMayComeAfterAnImport(t *testing.T) {
	n, m := newTree(t, true), newChainMount(t)
	assume := func(steps ...map[string]any) string {
		text, err := json.Marshal(steps)
		require.NoError(t, err)
		return string(text)
	}
	operator := map[string]any{"path": "config", "data": map[string]any{"operator_jwt": n.operatorJWT, "operator_signing_seeds": n.signing.Seed()}}
	orders := map[string]any{"path": "jwt/orders", "data": map[string]any{"type": "account", "account_jwt": n.ordersJWT, "signing_seeds": n.ordersPlain.Seed() + "," + n.ordersRole.Seed()}}
	account := map[string]any{"type": "account", "account_jwt": n.ordersJWT}
	m.refuse(logical.CreateOperation, "jwt/orders", map[string]any{"type": "account", "account_jwt": n.ordersJWT, "dry_run": true}, "account_jwt needs an operator in the mount")
	account["assume"] = assume(operator)
	changes, _ := m.dry(logical.CreateOperation, "jwt/orders", account)
	require.True(t, changes)

	user := n.newUser("app").issue(n.ordersRole, nil).fields()
	user["assume"] = assume(operator, orders)
	changes, _ = m.dry(logical.CreateOperation, "jwt/orders.app", user)
	require.True(t, changes)
	user = n.newUser("app").issue(newKey(t, trust.Account), nil).fields()
	user["assume"], user["dry_run"] = assume(operator, orders), true
	m.refuse(logical.CreateOperation, "jwt/orders.app", user, "which is not a key of account")

	// In a mount that has all of it nothing is new.
	n.importOperator(m)
	n.importAccounts(m)
	account["assume"] = assume(operator, orders)
	changes, _ = m.dry(logical.UpdateOperation, "jwt/orders", account)
	require.False(t, changes)

	for fault, text := range map[string]string{
		"assume is not a JSON list of objects":               "{",
		`assume [0] has the path "issuer/x"`:                 assume(map[string]any{"path": "issuer/x"}),
		`assume [0] has the path "jwt/orders/rotate"`:        assume(map[string]any{"path": "jwt/orders/rotate"}),
		`assume [1] has the field "config"`:                  assume(operator, map[string]any{"path": "jwt/x", "data": map[string]any{"config": "{}"}}),
		`assume [0] has the field "oidc_discovery_url"`:      assume(map[string]any{"path": "config", "data": map[string]any{"oidc_discovery_url": "http://x"}}),
		"assume has 11 writes: 10 are the most":              assume(operator, operator, operator, operator, operator, operator, operator, operator, operator, operator, operator),
		"assume [0], the write of jwt/new, would be refused": assume(map[string]any{"path": "jwt/new", "data": map[string]any{"type": "account", "account_jwt": newTree(t, true).ordersJWT}}),
	} {
		m.refuse(logical.UpdateOperation, "jwt/orders", map[string]any{"dry_run": true, "assume": text}, fault)
	}
	m.refuse(logical.UpdateOperation, "jwt/orders", map[string]any{"assume": assume(operator)}, "assume is given without dry_run")
}
