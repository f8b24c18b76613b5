package plugin

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

// diesAt makes a write of which nothing is stored from the first operation on that
// fails says, as when the process dies there, and has the mount start again without
// what it does of its own accord.
func (m *chainMount) diesAt(path string, data map[string]any, fails func(operation, key string) bool) {
	m.t.Helper()
	dead := false
	m.storage.FailOn(func(operation, key string) bool { dead = dead || fails(operation, key); return dead })
	_, err := m.do(logical.UpdateOperation, path, data)
	require.ErrorIs(m.t, err, storetest.ErrStorage)
	m.storage.FailOn(nil)
	m.restart()
}

func puts(of string) func(operation, key string) bool {
	return func(operation, key string) bool { return operation == "put" && key == of }
}

// minute does what the mount does about once a minute.
func (m *chainMount) minute() {
	m.t.Helper()
	require.NoError(m.t, m.periodic(m.t.Context(), &logical.Request{Storage: m.storage}))
	m.deliverPending()
}

// What was stored ahead is stored before anything else that comes later, and not over
// it.
func TestACarriedOutWriteOfConfigUndoesNothing(t *testing.T) {
	type fields = map[string]any
	keys := func(port string) fields {
		return fields{"jwks_url": "https://127.0.0.1:" + port, "skip_jwks_validation": true}
	}
	for name, later := range map[string]struct {
		write func(m *chainMount)
		url   any
	}{
		"by config":            {func(m *chainMount) { m.write("config", keys("2")) }, "https://127.0.0.1:2"},
		"by the issuer's path": {func(m *chainMount) { m.write("issuer/default", keys("2")) }, "https://127.0.0.1:2"},
		"by its deletion":      {func(m *chainMount) { m.must(logical.DeleteOperation, "issuer/default", nil) }, ""},
		"by a rotation":        {func(m *chainMount) { m.write("config/rotate", nil) }, "https://127.0.0.1:1"},
		"by nothing":           {func(*chainMount) {}, "https://127.0.0.1:1"},
	} {
		for _, died := range []string{"issuer/default", "settings"} {
			t.Run(name+", died at "+died, func(t *testing.T) {
				m := newChainMount(t)
				m.write("config", nil)
				first := keys("1")
				first["operator_name"], first["default_role"] = "acme", "web"
				m.diesAt("config", first, puts(died))
				later.write(m)
				m.minute()
				shown := m.read("config")
				require.Equal(t, later.url, shown["jwks_url"])
				require.Equal(t, "acme", shown["operator_name"])
				require.Equal(t, "web", shown["default_role"])
				m.requireFinished()
			})
		}
	}
}

func TestTheSystemAccountThatCameWithAnOperatorIsNotStoredOverALaterOne(t *testing.T) {
	m := newChainMount(t)
	stored := 0
	m.diesAt("config", nil, func(operation, key string) bool { // at the operator's entry as it is once all is done
		if operation == "put" && key == "config" {
			stored++
		}
		return stored == 2
	})
	m.deliverPending()
	rotated := m.write("jwt/SYS/rotate", nil)["public_key"]
	m.minute()
	require.Equal(t, rotated, m.read("jwt/SYS/keys/default")["public_key"])
	m.requireFinished()
	m.requireInStep()
}

// The role's entry says what it is, and a note of an earlier write only where to look.
func TestANoteOfARoleUndoesNoLaterWrite(t *testing.T) {
	type fields = map[string]any
	for name, later := range map[string]func(m *chainMount){
		"a write of the role": func(m *chainMount) { m.write("role/dev", scopedRole("b")) },
		"its deletion":        func(m *chainMount) { m.must(logical.DeleteOperation, "role/dev", nil) },
		"a revocation":        func(m *chainMount) { m.write("jwt/orders/revoke", fields{"role": "dev"}) },
		"its account's end":   func(m *chainMount) { m.must(logical.DeleteOperation, "jwt/billing", fields{"force": true}) },
		"another account of the name": func(m *chainMount) {
			m.must(logical.DeleteOperation, "jwt/billing", fields{"force": true})
			m.write("jwt/billing", fields{"type": "account"})
		},
	} {
		for _, died := range []string{"role/dev", "jwt/orders", "unsettled-role/dev"} {
			t.Run(name+", died at "+died, func(t *testing.T) {
				m := newChainMount(t)
				crashBase(m)
				m.diesAt("role/dev", fields{"account": "billing"}, func(operation, key string) bool {
					return key == died && (operation == "put" && died != "unsettled-role/dev" || operation == "delete")
				})
				if name == "a revocation" && died != "role/dev" {
					m.write("jwt/billing/revoke", fields{"role": "dev"})
				} else {
					later(m)
				}
				m.deliverPending()
				shown, keys := m.look("role/dev"), func() (keys []any) {
					for _, account := range []string{"orders", "billing"} {
						if read, ok := m.look("jwt/" + account).(fields); ok {
							keys = append(keys, read["signing_keys"])
						}
					}
					return keys
				}
				before := keys()
				m.minute()
				require.Equal(t, shown, m.look("role/dev"))
				require.Equal(t, len(before), len(keys()))
				if shown != nil && m.look("jwt/"+shown.(fields)["account"].(string)) != nil {
					require.Equal(t, "yes, scoped: true", m.signs("dev"))
				}
				for _, account := range []string{"orders", "billing"} {
					read, ok := m.look("jwt/" + account).(fields)
					if !ok || shown != nil && shown.(fields)["account"] == account {
						continue
					}
					for _, key := range read["signing_keys"].([]map[string]any) {
						require.NotContains(t, key, "role", "a key of the role is left in %s", account)
					}
				}
				m.requireFinished()
				m.requireInStep()
			})
		}
	}
}

// What a full disk leaves of a note, or of one beside it, is cleared away, and the role
// is cleared up after all the same.
func TestANoteThatCannotBeReadIsClearedAway(t *testing.T) {
	m := newChainMount(t)
	crashBase(m)
	m.diesAt("role/dev", map[string]any{"account": "billing"}, puts("jwt/orders"))
	for _, key := range []string{"unsettled-role/dev", "unsettled-role/dev1391283192"} {
		require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(`{"places":[{`)}))
	}
	m.minute()
	require.Equal(t, "billing", m.read("role/dev")["account"])
	for _, key := range m.read("jwt/orders")["signing_keys"].([]map[string]any) {
		require.NotContains(t, key, "role")
	}
	m.requireFinished()
	m.requireInStep()
}

// What cannot be carried to its end stops nothing else, and is tried again.
func TestARoleThatCannotBeSettledStopsNoOther(t *testing.T) {
	m := newChainMount(t)
	crashBase(m)
	m.write("role/other", scopedRole("a"))
	m.diesAt("role/dev", map[string]any{"account": "billing"}, puts("jwt/orders"))
	m.diesAt("role/other", map[string]any{"account": "unused"}, puts("jwt/orders"))
	m.storage.FailOn(func(operation, key string) bool { return operation == "get" && key == "role/dev" })
	require.ErrorContains(t, m.periodic(t.Context(), &logical.Request{Storage: m.storage}), `clearing up after a write of role "dev"`)
	require.Equal(t, []string{"unsettled-role/dev"}, storetest.KeysBelow(t, m.storage, "unsettled"))
	m.storage.FailOn(nil)
	m.minute()
	m.requireFinished()
}

func TestAStandbyLeavesWhatIsHalfDoneToTheLeader(t *testing.T) {
	m := newChainMount(t)
	crashBase(m)
	m.diesAt("role/dev", map[string]any{"account": "billing"}, puts("jwt/orders"))
	m.diesAt("config", map[string]any{"operator_name": "acme", "default_role": "dev"}, puts("settings"))
	standby := standbyOn(t, m.storage)
	before := m.stored()
	require.NoError(t, standby.initialize(t.Context(), &logical.InitializationRequest{Storage: m.storage}))
	require.NoError(t, standby.periodic(t.Context(), &logical.Request{Storage: m.storage}))
	require.Equal(t, before, m.stored())
	m.recoverMount()
	require.Equal(t, "dev", m.read("config")["default_role"])
	m.requireFinished()
}

// A dry run stores nothing of what another write has left either.
func TestADryRunFinishesNothing(t *testing.T) {
	m := newChainMount(t)
	crashBase(m)
	m.diesAt("config", map[string]any{"operator_name": "acme", "default_role": "dev"}, puts("settings"))
	before := m.stored()
	m.write("config", map[string]any{"default_account": "orders", "dry_run": true})
	require.Equal(t, before, m.stored())
}

// What is stored ahead holds secrets, and so has to lie where they are sealed twice.
func requireSecretsSealed(t *testing.T, m *chainMount, secrets ...string) {
	t.Helper()
	for key, value := range m.stored() {
		secret := seedForm.MatchString(value)
		for _, text := range secrets {
			secret = secret || strings.Contains(value, text)
		}
		sealed := false
		for _, prefix := range m.SpecialPaths().SealWrapStorage {
			sealed = sealed || strings.HasPrefix(key, prefix)
		}
		require.True(t, sealed || !secret, "%s has a secret in it", key)
	}
}

func TestASecretThatIsStoredAheadIsSealed(t *testing.T) {
	m := newChainMount(t)
	m.diesAt("config", map[string]any{"kubernetes_host": "https://127.0.0.1:1", "token_reviewer_jwt": "c2VjcmV0LXJldmlld2Vy", "disable_local_ca_jwt": true, "skip_jwks_validation": true}, puts("issuer/default"))
	requireSecretsSealed(t, m, "c2VjcmV0LXJldmlld2Vy")
	before, err := store.Get(t.Context(), m.storage, "config")
	require.NoError(t, err)
	require.Contains(t, string(before.Value), `"unfinished"`)
	m.recoverMount()
	require.Equal(t, true, m.read("config")["token_reviewer_jwt_set"])
	m.requireFinished()
}
