package plugin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func jsonOf(value any) ([]byte, error) { return json.Marshal(value) }

func TestAUserHasItsOwnNameInItsJWT(t *testing.T) {
	m := newAccountMount(t)
	m.write("jwt/orders/keys/reader", map[string]any{"config": `{"template":{"sub":{"allow":["orders.{{name()}}"]}}}`})
	user := map[string]any{"type": "user", "account": "orders", "signing_key": "reader", "nats_name": "tm"}
	require.Equal(t, "tm", userClaims(t, m.write("jwt/orders.tm", user)["jwt"]).Name)
	require.Equal(t, "tm", m.read("jwt/orders.tm")["nats_name"])
	m.write("jwt/orders.tm", map[string]any{"ttl": 60})
	require.Equal(t, "tm", m.read("jwt/orders.tm")["nats_name"])
	for _, name := range []string{"*", ">", "a b", "a\tb", "orders.>"} {
		m.refuse(logical.UpdateOperation, "jwt/orders.tm", map[string]any{"nats_name": name}, "nats_name ")
	}
	for _, name := range []string{"", "orders.tm"} {
		require.Equal(t, "orders.tm", userClaims(t, m.write("jwt/orders.tm", map[string]any{"nats_name": name})["jwt"]).Name)
	}
	m.write("jwt/plain", map[string]any{"type": "user", "account": "orders", "nats_name": "a b > *"})
	m.refuse(logical.UpdateOperation, "jwt/plain", map[string]any{"signing_key": "reader"}, `nats_name is "a b > *"`)

	account := m.write("jwt/orders", map[string]any{"nats_name": "Orders of all"})["jwt"]
	require.Equal(t, "Orders of all", accountClaims(t, account).Name)
	require.Equal(t, "Orders of all", m.read("jwt/orders")["nats_name"])
}

// A number of a request's body comes to a plugin's process as a float64.
func TestATimeIsTakenAsANumberToo(t *testing.T) {
	m := newAccountMount(t)
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	written := m.write("jwt/alice", map[string]any{
		"type": "user", "account": "orders", "expiration": float64(soon.Unix()), "not_before": float64(soon.Add(-time.Minute).Unix()),
	})
	require.Contains(t, written, "jwt")
	read := m.read("jwt/alice")
	require.Equal(t, soon.UTC().Format(time.RFC3339), read["fixed_end"])
	require.Equal(t, soon.Add(-time.Minute).UTC().Format(time.RFC3339), read["not_before"])
	m.write("jwt/orders/revoke", map[string]any{"everyone": true, "before": float64(time.Now().Unix() - 60)})
	for _, value := range []float64{1.5, 1e300, -1e300} {
		m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"expiration": value}, "expiration is not a Unix time in whole seconds")
	}
}

func TestAUserEndsWhenItsExpirationSays(t *testing.T) {
	m := newAccountMount(t)
	soon := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	written := m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "expiration": soon.Format(time.RFC3339)})
	require.Equal(t, soon.Unix(), userClaims(t, written["jwt"]).Expires)
	require.Equal(t, soon.UTC().Format(time.RFC3339), m.read("jwt/alice")["fixed_end"])
	far := time.Now().Add(100 * time.Hour)
	written = m.write("jwt/alice", map[string]any{"expiration": far.Unix()})
	require.InDelta(t, time.Now().Add(time.Hour).Unix(), userClaims(t, written["jwt"]).Expires, 2, "its JWTs end with the mount's TTL")

	for value, fault := range map[any]string{
		"2001-01-01T00:00:00Z": "expiration is in the past: 2001-01-01T00:00:00Z",
		-5:                     "expiration is before the time when anything was issued",
		"soon":                 "expiration",
	} {
		m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"expiration": value}, fault)
	}
	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"not_before": far.Add(time.Hour).Unix()}, "expiration is not after not_before")
	m.write("jwt/alice", map[string]any{"expiration": 0})
	require.NotContains(t, m.read("jwt/alice"), "fixed_end")

	// Once it has come, there is no JWT any more, and what is written otherwise is.
	m.write("jwt/alice", map[string]any{"expiration": soon.Unix()})
	key := "jwt/alice"
	entry, err := m.storage.Get(t.Context(), key)
	require.NoError(t, err)
	var stored map[string]any
	require.NoError(t, json.Unmarshal(entry.Value, &stored))
	stored["expires"] = 1000000000
	entry.Value, err = json.Marshal(stored)
	require.NoError(t, err)
	require.NoError(t, m.storage.Put(t.Context(), entry))
	read := m.read("jwt/alice")
	require.NotContains(t, read, "jwt")
	require.NotContains(t, read, "expiration")
	require.Equal(t, "2001-09-09T01:46:40Z", read["fixed_end"])
	require.Equal(t, []string{`user "alice" has ended at 2001-09-09T01:46:40Z, and has no JWT any more`}, m.written("jwt/alice", map[string]any{"ttl": 60, "expiration": 1000000000}))
}

func TestAUserStartsWhenItsNotBeforeSays(t *testing.T) {
	m := newAccountMount(t)
	soon, later := time.Now().Add(10*time.Minute).Truncate(time.Second), time.Now().Add(10*time.Hour).Truncate(time.Second)
	written := m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "not_before": soon.Unix()})
	require.Equal(t, soon.Unix(), userClaims(t, written["jwt"]).NotBefore)
	require.Equal(t, soon.UTC().Format(time.RFC3339), m.read("jwt/alice")["not_before"])
	require.Equal(t, []string{`user "alice" starts at ` + later.UTC().Format(time.RFC3339) + `, which a JWT that is made now would not live to see`},
		m.written("jwt/alice", map[string]any{"not_before": later.Format(time.RFC3339)}))
	require.NotContains(t, m.read("jwt/alice"), "jwt")
	written = m.write("jwt/alice", map[string]any{"not_before": 0})
	require.Zero(t, userClaims(t, written["jwt"]).NotBefore)
}

func TestAUserIsMadeOfAPublicKeyAlone(t *testing.T) {
	m := newAccountMount(t)
	key := newKey(t, trust.User)
	written := m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "public_key": key.Public()})
	require.Equal(t, key.Public(), userClaims(t, written["jwt"]).Subject)
	require.Equal(t, false, m.read("jwt/alice")["seed_set"])
	m.refuse(logical.UpdateOperation, "jwt/alice/sign", map[string]any{"nonce": "x"}, `name "alice" was made of a public key alone: whoever has the key signs`)
	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"nonce": "x"}, `was made of a public key alone`)
	m.write("jwt/alice", map[string]any{"public_key": key.Public() + "\n", "ttl": 60})
	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"public_key": newKey(t, trust.User).Public()}, "public_key cannot be changed")
	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"seed": newKey(t, trust.User).Seed()}, "seed is that of ")
	m.write("jwt/alice", map[string]any{"seed": key.Seed() + "\n"})
	require.Equal(t, true, m.read("jwt/alice")["seed_set"])
	m.write("jwt/alice", map[string]any{"seed": key.Seed() + "\n"})
	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"seed": newKey(t, trust.User).Seed()}, "seed cannot be changed")

	for fault, data := range map[string]map[string]any{
		"public_key is an account public key": {"public_key": newKey(t, trust.Account).Public()},
		"the seed of a user key":              {"public_key": key.Seed()},
		"seed is that of":                     {"public_key": newKey(t, trust.User).Public(), "seed": key.Seed()},
	} {
		data["type"], data["account"] = "user", "orders"
		m.refuse(logical.CreateOperation, "jwt/bob", data, fault)
	}
	both := m.write("jwt/bob", map[string]any{"type": "user", "account": "orders", "public_key": key.Public(), "seed": key.Seed()})
	require.Equal(t, key.Public(), both["public_key"])
}

// The only seed that leaves the mount is that of a key in the answer to the write
// that has made it.
func TestAUsersCredsAreGivenOnceAsItIsCreated(t *testing.T) {
	m := newAccountMount(t)
	create := func(path string, data map[string]any) (*logical.Response, error) {
		return m.HandleRequest(t.Context(), &logical.Request{Operation: logical.CreateOperation, Path: path, Data: data, Storage: m.storage})
	}
	resp, err := create("jwt/alice", map[string]any{"type": "user", "account": "orders", "creds": true})
	require.NoError(t, err)
	creds := []byte(resp.Data["creds"].(string))
	token, err := jwt.ParseDecoratedJWT(creds)
	require.NoError(t, err)
	require.Equal(t, resp.Data["jwt"], token)
	pair, err := jwt.ParseDecoratedUserNKey(creds)
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	require.Equal(t, public, userClaims(t, token).Subject)
	require.Equal(t, true, m.read("jwt/alice")["seed_set"], "its key stays here too")
	require.NotContains(t, m.read("jwt/alice"), "creds")

	m.refuse(logical.UpdateOperation, "jwt/alice", map[string]any{"creds": true}, "creds can be given only as the user is created")
	m.refuse(logical.PatchOperation, "jwt/alice", map[string]any{"creds": true}, "creds can be given only as the user is created")
	for fault, data := range map[string]map[string]any{
		"creds cannot be given for a key that was not made here":   {"seed": newKey(t, trust.User).Seed()},
		"creds cannot be given for a key that was not made here: ": {"public_key": newKey(t, trust.User).Public()},
		"creds cannot be given for a user who starts later":        {"not_before": time.Now().Add(time.Hour).Unix()},
	} {
		data["type"], data["account"], data["creds"] = "user", "orders", true
		m.refuse(logical.CreateOperation, "jwt/bob", data, fault)
	}
	m.refuse(logical.UpdateOperation, "jwt/orders", map[string]any{"creds": true}, "creds is a field of type user")
	resp, err = create("jwt/carol", map[string]any{"type": "user", "account": "orders", "creds": false})
	require.NoError(t, err)
	require.NotContains(t, resp.Data, "creds")
}

func TestNoNameHasTwoDotsInARow(t *testing.T) {
	m := newAccountMount(t)
	m.refuse(logical.CreateOperation, "jwt/a..b", map[string]any{"type": "account"}, `name "a..b" has two dots in a row`)
	require.False(t, strings.Contains(strings.Join(m.must(logical.ListOperation, "jwt/", nil)["keys"].([]string), " "), ".."))
}
