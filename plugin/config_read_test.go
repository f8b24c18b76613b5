package plugin

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A tool that keeps configuration compares what it reads with what it wrote.
func TestAConfigReadsBackAsItWasWritten(t *testing.T) {
	for name, config := range map[string]string{
		"nothing":               `{}`,
		"a limit":               `{"limits":{"conn":7}}`,
		"a default spelled out": `{"limits":{"conn":-1,"wildcards":true},"description":""}`,
		"an export":             `{"exports":[{"subject":"a","type":"stream"}]}`,
		"permissions":           `{"default_permissions":{"pub":{"allow":["a.>"]},"sub":{}}}`,
		"tiers of JetStream":    `{"limits":{"tiered_limits":{"R1":{"mem_storage":1024,"disk_storage":-1}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := newAccountMount(t)
			m.write("jwt/orders", map[string]any{"config": config})
			shown := func() string {
				text, err := json.Marshal(m.read("jwt/orders")["config"])
				require.NoError(t, err)
				return string(text)
			}
			require.JSONEq(t, config, shown())
			m.restart()
			before := m.stored()
			m.write("jwt/orders", map[string]any{"config": shown()})
			require.Equal(t, before, m.stored(), "what was read, written again, changes something")
			m.write("jwt/orders/keys/other", nil) // which is the mount's, and no part of the config
			require.JSONEq(t, config, shown())
			m.must(logical.PatchOperation, "jwt/orders", map[string]any{"config": `{"tags":["a"]}`})
			require.Contains(t, shown(), `"tags":["a"]`)
			m.must(logical.PatchOperation, "jwt/orders", map[string]any{"config": `{"tags":null}`})
			require.JSONEq(t, config, shown())
		})
	}
	m := newAccountMount(t)
	const user = `{"pub":{"allow":["a"]},"subs":-1}`
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "config": user})
	text, err := json.Marshal(m.read("jwt/alice")["config"])
	require.NoError(t, err)
	require.JSONEq(t, user, string(text))
}

// What nats-server would leave out of an account without a word is refused.
func TestAnImportThatAServerWouldLeaveOutIsRefused(t *testing.T) {
	m := newAccountMount(t)
	orders := m.read("jwt/orders")["public_key"].(string)
	other := m.write("jwt/billing", map[string]any{"type": "account"})["public_key"].(string)
	m.write("jwt/orders", map[string]any{"config": `{"exports":[{"subject":"to.*.new","type":"stream","account_token_position":2}]}`})
	imports := func(subject string) map[string]any {
		return map[string]any{"config": `{"imports":[{"type":"stream","account":"` + orders + `","subject":"` + subject + `"}]}`}
	}
	m.refuse(logical.UpdateOperation, "jwt/billing", imports("to."+orders+".new"), "account_token_position of the export")
	m.write("jwt/billing", imports("to."+other+".new"))
}
