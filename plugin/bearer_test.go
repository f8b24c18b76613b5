package plugin

import (
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A nats-server refuses every bearer of an account with disallow_bearer, without a
// word to whoever wrote the role, the user or the account.
func TestABearerIsNotOfAnAccountThatDisallowsBearers(t *testing.T) {
	const disallow, bearer, fault = `{"limits":{"disallow_bearer":true}}`, `{"bearer_token":true}`, "disallow_bearer"
	role := map[string]any{"role_type": "vault", "account": "orders", "user_template": `{"bearer_token":true,"pub":{"allow":["a"]}}`}
	scoped := map[string]any{"role_type": "vault", "account": "orders", "user_template": role["user_template"], "scoped": true}
	scope := map[string]any{"config": `{"template":{"bearer_token":true}}`}

	m := newAccountMount(t)
	m.write("jwt/orders", map[string]any{"config": disallow})
	m.refuse(logical.CreateOperation, "role/dev", role, "user_template has bearer_token, which disallow_bearer of the account forbids")
	m.refuse(logical.CreateOperation, "role/dev", scoped, fault)
	m.refuse(logical.CreateOperation, "jwt/alice", map[string]any{"type": "user", "account": "orders", "config": bearer}, `config has bearer_token, which disallow_bearer of account "orders" forbids`)
	m.refuse(logical.UpdateOperation, "jwt/orders/keys/reader", scope, fault)

	for name, depend := range map[string]func(m *chainMount){
		`role "dev"`: func(m *chainMount) { m.must(logical.CreateOperation, "role/dev", role) },
		`user "alice"`: func(m *chainMount) {
			m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "config": bearer})
		},
		fault: func(m *chainMount) {
			m.write("jwt/orders/keys/reader", scope)
			m.write("jwt/carol", map[string]any{"type": "user", "account": "orders", "signing_key": "reader"})
		},
	} {
		t.Run("an account with "+name, func(t *testing.T) {
			m := newAccountMount(t)
			depend(m)
			m.refuse(logical.UpdateOperation, "jwt/orders", map[string]any{"config": disallow}, name)
			m.refuse(logical.PatchOperation, "jwt/orders", map[string]any{"config": disallow}, fault)
			m.write("jwt/orders", map[string]any{"config": `{"limits":{"conn":1}}`})
		})
	}
}

func TestAnEmptyChoiceIsTheDefaultOne(t *testing.T) {
	m := newAccountMount(t)
	m.must(logical.CreateOperation, "role/dev", map[string]any{"role_type": "vault", "account": "orders", "signing_key": "", "user_key": ""})
	require.Equal(t, "account", m.read("role/dev")["signing_key"])
	require.Equal(t, "any", m.read("role/dev")["user_key"])
}
