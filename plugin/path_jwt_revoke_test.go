package plugin

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// revocationsOf is what the account's JWT revokes.
func (m *chainMount) revocationsOf(account string) jwt.RevocationList {
	m.t.Helper()
	return accountClaims(m.t, m.read("jwt/" + account)["jwt"]).Revocations
}

func TestAUserIsRevokedByItsKeyAndUndone(t *testing.T) {
	m := newAccountMount(t)
	user := newKey(t, trust.User).Public()
	before := time.Now().Unix()
	data := m.write("jwt/orders/revoke", map[string]any{"user_public_key": user})
	require.Equal(t, user, data["user_public_key"])
	require.Equal(t, 1, data["revocations"])
	require.Greater(t, data["revocations_room"], 10000)
	at := m.revocationsOf("orders")[user]
	require.GreaterOrEqual(t, at, before)
	require.Equal(t, rfc3339(time.Unix(at, 0)), data["before"])
	require.Equal(t, rfc3339(time.Unix(at+24*60*60+1, 0)), data["until"], "no user JWT lives longer than the mount's maximum lease TTL")
	require.NotEmpty(t, storetest.KeysBelow(t, m.storage, "pending/"))
	m.deliverPending()
	m.requireInStep()

	listed := m.read("jwt/orders/revoke")
	require.Equal(t, []map[string]any{{"user_public_key": user, "before": data["before"], "until": data["until"]}}, listed["revocations"])

	undone := m.write("jwt/orders/revoke", map[string]any{"user_public_key": user, "undo": true})
	require.Equal(t, 0, undone["revocations"])
	require.NotContains(t, undone, "before")
	require.Empty(t, m.revocationsOf("orders"))
	require.Empty(t, m.read("jwt/orders/revoke")["revocations"])
	m.deliverPending()
	m.requireInStep()
}

func TestEveryoneIsRevokedUpToATime(t *testing.T) {
	m := newAccountMount(t)
	hourAgo := time.Now().Add(-time.Hour)
	data := m.write("jwt/orders/revoke", map[string]any{"everyone": true, "before": hourAgo.UTC().Format(time.RFC3339)})
	require.Equal(t, jwt.RevocationList{jwt.All: hourAgo.Unix()}, m.revocationsOf("orders"))
	require.Equal(t, "*", data["user_public_key"])

	// A later time takes its place, and an earlier one does not lessen it.
	m.write("jwt/orders/revoke", map[string]any{"everyone": true, "before": hourAgo.Unix() + 60})
	data = m.write("jwt/orders/revoke", map[string]any{"everyone": true, "before": hourAgo.Unix()})
	require.Equal(t, rfc3339(hourAgo.Add(time.Minute)), data["before"])
	require.Equal(t, jwt.RevocationList{jwt.All: hourAgo.Unix() + 60}, m.revocationsOf("orders"))

	m.write("jwt/orders/revoke", map[string]any{"everyone": true, "undo": true})
	require.Empty(t, m.revocationsOf("orders"))
}

func TestANamedUserIsRevokedByItsName(t *testing.T) {
	m := newAccountMount(t)
	alice := userClaims(t, m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})["jwt"])
	bob := userClaims(t, m.write("jwt/bob", map[string]any{"type": "user", "account": "orders"})["jwt"])
	m.write("jwt/alice/revoke", nil)
	claims := accountClaims(t, m.read("jwt/orders")["jwt"])
	require.True(t, claims.IsClaimRevoked(alice))
	require.False(t, claims.IsClaimRevoked(bob))
	require.Len(t, m.read("jwt/alice/revoke")["revocations"], 1)
	require.Empty(t, m.read("jwt/bob/revoke")["revocations"])
	require.Len(t, m.read("jwt/orders/revoke")["revocations"], 1)
	m.write("jwt/alice/revoke", map[string]any{"undo": true})
	require.Empty(t, m.revocationsOf("orders"))
}

// The mount keeps no record of whom it issues to, and so says what it can: a slip in
// a key, or the key of a user who may have a new JWT at once, is to be seen.
func TestARevocationSaysWhatItRevokes(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"signing_key": "role"})
	alice := m.must(logical.CreateOperation, "jwt/alice", map[string]any{"type": "user", "account": "orders"})["public_key"].(string)
	unheard := newKey(t, trust.User).Public()
	const hourAgo = "2026-01-02T15:04:05Z"
	for name, test := range map[string]struct {
		path    string
		data    map[string]any
		revokes string
		user    any
	}{
		"a named user": {"jwt/alice/revoke", nil, `what was issued up to TIME to "alice", a named user of account "orders"`, "alice"},
		"a named user's key": {"jwt/orders/revoke", map[string]any{"user_public_key": alice},
			`what was issued up to TIME to "alice", a named user of account "orders"`, "alice"},
		"a key": {"jwt/orders/revoke", map[string]any{"user_public_key": unheard + "\n"},
			`what was issued up to TIME to the user key ` + unheard + ` in account "orders", if anything was: the mount keeps no record of the keys that it issues to`, nil},
		"everyone": {"jwt/orders/revoke", map[string]any{"everyone": true, "before": hourAgo}, `what was issued up to ` + hourAgo + ` to any user of account "orders"`, nil},
		"a role":   {"jwt/orders/revoke", map[string]any{"role": "dev"}, `all that was issued to users of role "dev" of account "orders", whose signing key is replaced`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			data := m.write(test.path, test.data)
			before, _ := data["before"].(string)
			require.Equal(t, strings.ReplaceAll(test.revokes, "TIME", before), data["revokes"])
			require.Equal(t, "orders", data["account"])
			require.Equal(t, test.user, data["user"])
		})
	}
	m.t = t
	undone := m.write("jwt/orders/revoke", map[string]any{"user_public_key": alice, "undo": true})
	require.NotContains(t, undone, "revokes")
	require.Equal(t, "alice", undone["user"])

	// A revocation does not wait for a thousand users to be read.
	for i := range mostSearched {
		require.NoError(t, store.AccountOfUsers.Add(t.Context(), m.storage, "orders", fmt.Sprintf("user-%d", i)))
	}
	require.Contains(t, m.write("jwt/orders/revoke", map[string]any{"user_public_key": alice})["revokes"], "to the user key "+alice)
}

func TestANamedUserThatIsDeletedIsRevoked(t *testing.T) {
	m := newAccountMount(t)
	alice := userClaims(t, m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})["jwt"])
	m.must(logical.DeleteOperation, "jwt/alice", nil)
	require.True(t, accountClaims(t, m.read("jwt/orders")["jwt"]).IsClaimRevoked(alice))
	m.deliverPending()
	m.requireInStep()

	// Its account may be gone before it.
	m.write("jwt/bob", map[string]any{"type": "user", "account": "orders"})
	m.must(logical.DeleteOperation, "jwt/orders", map[string]any{"force": true})
	m.must(logical.DeleteOperation, "jwt/bob", nil)
	require.Nil(t, m.read("jwt/bob"))
}

func TestEveryoneOfARoleIsRevokedWithItsKey(t *testing.T) {
	for name, fields := range map[string]map[string]any{
		"a scoped role":                {"scoped": true, "user_template": `{"pub":{"allow":["a"]},"sub":{"allow":["b"]}}`},
		"a role with a key of its own": {"signing_key": "role"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newCredsMount(t)
			m.role("dev", fields)
			m.role("other", nil)
			token := m.token(nil)
			dev := userClaims(t, m.lease("dev", map[string]any{"jwt": token}).Data["jwt"])
			other := userClaims(t, m.lease("other", map[string]any{"jwt": token}).Data["jwt"])
			require.NotEqual(t, other.Issuer, dev.Issuer)
			// Users of a key that was rotated with an overlap are its users too.
			m.write("jwt/orders/rotate", map[string]any{"key": "role/dev"})
			rotated := userClaims(t, m.lease("dev", map[string]any{"jwt": token}).Data["jwt"])
			account := accountClaims(t, m.read("jwt/orders")["jwt"])
			for _, user := range []*jwt.UserClaims{dev, rotated, other} {
				require.True(t, account.DidSign(user))
			}

			data := m.write("jwt/orders/revoke", map[string]any{"role": "dev"})
			require.NotContains(t, data, "before")
			account = accountClaims(t, m.read("jwt/orders")["jwt"])
			require.False(t, account.DidSign(dev))
			require.False(t, account.DidSign(rotated))
			require.True(t, account.DidSign(other))
			require.Empty(t, account.Revocations)
			again := userClaims(t, m.lease("dev", map[string]any{"jwt": token}).Data["jwt"])
			require.True(t, account.DidSign(again), "who may log in goes on")
			require.Equal(t, dev.UserPermissionLimits, again.UserPermissionLimits)
		})
	}
}

func TestARoleKeepsItsOwnKeyAsLongAsItHasOne(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", map[string]any{"signing_key": "role"})
	issuer := func() string {
		return userClaims(t, m.lease("dev", map[string]any{"jwt": m.token(nil)}).Data["jwt"]).Issuer
	}
	keys := func() jwt.SigningKeys { return accountClaims(t, m.read("jwt/orders")["jwt"]).SigningKeys }
	own := issuer()
	m.role("dev", map[string]any{"user_ttl": "5m"})
	require.Equal(t, own, issuer())
	require.Equal(t, "role", m.read("role/dev")["signing_key"])

	// A plain key cannot become a scoped one under its users.
	scoped := map[string]any{"scoped": true, "user_template": `{"pub":{"allow":["a"]},"sub":{"allow":["b"]}}`}
	m.role("dev", scoped)
	require.NotContains(t, keys(), own)
	require.NotEqual(t, own, issuer())
	require.Len(t, keys(), 2)

	m.role("dev", map[string]any{"scoped": false, "signing_key": "account"})
	require.Len(t, keys(), 1)
	m.role("dev", map[string]any{"signing_key": "role"})
	require.Len(t, keys(), 2)
	m.must(logical.DeleteOperation, "role/dev", nil)
	require.Len(t, keys(), 1)
}

func TestAFaultInARevocationIsNamedAndNothingIsRevoked(t *testing.T) {
	m := newCredsMount(t)
	m.role("dev", nil)
	m.must(logical.CreateOperation, "jwt/billing", map[string]any{"type": "account"})
	m.must(logical.CreateOperation, "jwt/alice", map[string]any{"type": "user", "account": "orders"})
	m.write("role/bill", map[string]any{"account": "billing", "role_type": "vault", "signing_key": "role"})
	user, account := newKey(t, trust.User).Public(), newKey(t, trust.Account).Public()
	for name, test := range map[string]struct {
		path  string
		data  map[string]any
		fault string
	}{
		"nobody said":                         {"jwt/orders/revoke", nil, "user_public_key is missing: say whom to revoke"},
		"everyone said no":                    {"jwt/orders/revoke", map[string]any{"everyone": false}, "user_public_key is missing"},
		"a time without anyone":               {"jwt/orders/revoke", map[string]any{"before": 5}, "user_public_key is missing"},
		"everyone and one":                    {"jwt/orders/revoke", map[string]any{"everyone": true, "user_public_key": user}, "everyone cannot be given with user_public_key"},
		"a key of another kind":               {"jwt/orders/revoke", map[string]any{"user_public_key": account}, "user_public_key is an account"},
		"the star that NATS has for everyone": {"jwt/orders/revoke", map[string]any{"user_public_key": "*"}, "user_public_key"},
		"a time in the future":                {"jwt/orders/revoke", map[string]any{"everyone": true, "before": time.Now().Add(time.Hour).Unix()}, "before is in the future"},
		"a time before all":                   {"jwt/orders/revoke", map[string]any{"everyone": true, "before": -5}, "before is before"},
		"a time that is none":                 {"jwt/orders/revoke", map[string]any{"everyone": true, "before": "yesterday"}, "before"},
		"undoing what is not revoked":         {"jwt/orders/revoke", map[string]any{"user_public_key": user, "undo": true}, "is not revoked"},
		"undoing everyone not revoked":        {"jwt/orders/revoke", map[string]any{"everyone": true, "undo": true}, "everyone is not revoked"},
		"undoing up to a time":                {"jwt/orders/revoke", map[string]any{"everyone": true, "undo": true, "before": 5}, "before cannot be given with undo"},
		"an unknown name":                     {"jwt/nobody/revoke", map[string]any{"everyone": true}, `name "nobody" does not exist`},
		"a name that is none":                 {"jwt/a b/revoke", map[string]any{"everyone": true}, `name "a b" is not a name`},
		"a role without a key of its own":     {"jwt/orders/revoke", map[string]any{"role": "dev"}, `write signing_key=role to it`},
		"a role of another account":           {"jwt/orders/revoke", map[string]any{"role": "bill"}, `role "bill" is of account "billing"`},
		"an unknown role":                     {"jwt/orders/revoke", map[string]any{"role": "nobody"}, `role "nobody" does not exist`},
		"a role up to a time":                 {"jwt/billing/revoke", map[string]any{"role": "bill", "before": 5}, "before cannot be given with role"},
		"undoing a role":                      {"jwt/billing/revoke", map[string]any{"role": "bill", "undo": true}, "undo cannot be given with role"},
		"a role of a user":                    {"jwt/alice/revoke", map[string]any{"role": "dev"}, `role is given, but "alice" is a user`},
		"everyone of a user":                  {"jwt/alice/revoke", map[string]any{"everyone": true}, `name "alice" is a user`},
		"another user than the named one":     {"jwt/alice/revoke", map[string]any{"user_public_key": user}, `name "alice" is a user`},
		"a signing key that there is not":     {"role/dev", map[string]any{"signing_key": "mine"}, `signing_key is "mine"`},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			m.refuse(logical.UpdateOperation, test.path, test.data, test.fault)
		})
	}
	m.t = t
	require.Nil(t, m.read("jwt/nobody/revoke"))
	require.Empty(t, m.revocationsOf("orders"))
}

func TestVaultsTickForgetsRevocationsThatAreOver(t *testing.T) {
	m := newAccountMount(t)
	id, now := m.read("jwt/orders")["public_key"].(string), time.Now().Unix()
	over, live := newKey(t, trust.User).Public(), newKey(t, trust.User).Public()
	require.NoError(t, m.chain.Revoke(t.Context(), m.storage, id, chain.Revocation{User: over, At: now - 10000, Until: now - 9000}, true))
	require.NoError(t, m.chain.Revoke(t.Context(), m.storage, id, chain.Revocation{User: live, At: now, Until: now + 100}, true))
	m.must(logical.RollbackOperation, "", nil)
	m.restart()
	require.Equal(t, 1, m.write("jwt/orders/revoke", map[string]any{"user_public_key": live})["revocations"])
	require.NotContains(t, m.revocationsOf("orders"), over)
}

// fill revokes so many users of the account orders, at rising times.
func (m *chainMount) fill(count int) (id string, first int64) {
	m.t.Helper()
	id = m.read("jwt/orders")["public_key"].(string)
	first = time.Now().Unix()
	var list []chain.Revocation
	for i := range count {
		list = append(list, chain.Revocation{User: fmt.Sprintf("U%055d", i), At: first + int64(i), Until: first + 1e6})
	}
	// Written as the mount stores them: one by one they would take minutes.
	for number := 0; len(list) > 0; number++ {
		size := min(len(list), 1000)
		key := fmt.Sprintf("revoked/%s/%d", id, number)
		require.NoError(m.t, store.Write(m.t.Context(), m.storage, key, list[:size]))
		list = list[size:]
		m.chain.Invalidate(key)
	}
	require.NoError(m.t, m.chain.Revoke(m.t.Context(), m.storage, id, chain.Revocation{User: fmt.Sprintf("U%055d", 0), At: first, Until: first + 1e6}, true))
	return id, first
}

func TestTheOperatorIsToldWhileThereIsRoomForRevocations(t *testing.T) {
	m, _, logs := deliveringMount(t)
	m.write("jwt/orders", map[string]any{"type": "account"})
	user := newKey(t, trust.User).Public()
	answer := func(path string, data map[string]any, operation logical.Operation) []string {
		resp, err := m.do(operation, path, data)
		require.NoError(t, err)
		return resp.Warnings
	}
	m.fill(8000)
	require.NoError(t, m.pruneRevocations(t.Context(), m.storage))
	require.NotContains(t, logs.String(), "fit into its JWT")
	require.Empty(t, answer("jwt/orders/revoke", map[string]any{"user_public_key": user}, logical.UpdateOperation))

	m.fill(9000)
	require.NoError(t, m.pruneRevocations(t.Context(), m.storage))
	require.Contains(t, logs.String(), "the account has 9000 revocations, and 11")
	for name, warnings := range map[string][]string{
		"a revocation": answer("jwt/orders/revoke", map[string]any{"user_public_key": user}, logical.UpdateOperation),
		"the list":     answer("jwt/orders/revoke", nil, logical.ReadOperation),
		"sync":         answer("sync", nil, logical.ReadOperation),
	} {
		require.Len(t, warnings, 1, name)
		require.Contains(t, warnings[0], "fit into its JWT", name)
	}
	states := m.read("sync")["accounts"].([]syncAccount)
	for _, state := range states {
		if state.Name == "orders" {
			require.Equal(t, 9001, state.Revocations)
			require.InDelta(t, 11200, state.RevocationsRoom, 100)
		}
	}
}

func TestTheRoomForRevocationsIsWhatFits(t *testing.T) {
	m := newAccountMount(t)
	id, _ := m.fill(1)
	load, err := m.chain.RevocationLoad(t.Context(), m.storage, id)
	require.NoError(t, err)
	m.fill(load.Room)
	claims := accountClaims(t, m.read("jwt/orders")["jwt"])
	require.Equal(t, load.Room, len(claims.Revocations))
	require.InDelta(t, trust.MaxJWT, len(m.read("jwt/orders")["jwt"].(string)), 20000)

	// Beyond it, everyone who was revoked stays revoked, and those that were
	// revoked last are still by themselves.
	_, first := m.fill(load.Room + 1000)
	claims = accountClaims(t, m.read("jwt/orders")["jwt"])
	require.Equal(t, 5000+1, len(claims.Revocations))
	require.InDelta(t, first+int64(load.Room+1000-5000)-1, claims.Revocations[jwt.All], 3)
	for i := range load.Room + 1000 {
		user := fmt.Sprintf("U%055d", i)
		at := max(claims.Revocations[user], claims.Revocations[jwt.All])
		if at < first+int64(i) {
			t.Fatalf("%s is not revoked any more", user)
		}
	}
	load, err = m.chain.RevocationLoad(t.Context(), m.storage, id)
	require.NoError(t, err)
	require.True(t, strings.Contains(load.Warning(), "are cut off too, and have to log in again"))
	m.write("role/dev", map[string]any{"account": "orders", "role_type": "vault", "signing_key": "role"})
}

func TestARevocationIsKeptWhereUsersMayHaveBeenIssuedElsewhere(t *testing.T) {
	n := newTree(t, true)
	seed := newKey(t, trust.Account).Seed()
	for name, prepare := range map[string]func(m *chainMount){
		"an imported account": func(m *chainMount) {
			n.importOperator(m)
			n.importAccounts(m)
		},
		"a signing key from outside": func(m *chainMount) {
			m.write("config", nil)
			m.write("jwt/orders", map[string]any{"type": "account"})
			m.write("jwt/orders/keys/other", map[string]any{"seed": seed})
		},
		"a rotation to a key from outside": func(m *chainMount) {
			m.write("config", nil)
			m.write("jwt/orders", map[string]any{"type": "account"})
			m.write("jwt/orders/rotate", map[string]any{"seed": seed})
		},
		"a signing key that only the config lists": func(m *chainMount) {
			m.write("config", nil)
			m.write("jwt/orders", map[string]any{"type": "account", "config": `{"signing_keys":["` + n.ordersPlain.Public() + `"]}`})
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newChainMount(t)
			prepare(m)
			user := newKey(t, trust.User).Public()
			require.NotContains(t, m.write("jwt/orders/revoke", map[string]any{"user_public_key": user}), "until")
			m.requireKept("orders", user)
			require.NotContains(t, m.read("jwt/orders/revoke")["revocations"].([]map[string]any)[0], "until")
			m.write("jwt/orders/revoke", map[string]any{"user_public_key": user, "undo": true})
			require.Empty(t, m.revocationsOf("orders"))
		})
	}
}

func TestADeletedUserWhoseKeyCameFromOutsideStaysRevoked(t *testing.T) {
	m := newAccountMount(t)
	key := newKey(t, trust.User)
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "seed": key.Seed()})
	m.must(logical.DeleteOperation, "jwt/alice", nil)
	m.requireKept("orders", key.Public())
}

// requireKept checks that time does not undo the revocation.
func (m *chainMount) requireKept(account, user string) {
	m.t.Helper()
	_, err := m.chain.PruneRevocations(m.t.Context(), m.storage, time.Now().AddDate(10, 0, 0))
	require.NoError(m.t, err)
	require.Contains(m.t, m.revocationsOf(account), user)
}

// A reader who came between the revocation and the deletion of a user, in a later
// second, has a JWT that is newer than the revocation.
func TestAJWTReadWhileItsUserIsDeletedIsRevokedToo(t *testing.T) {
	m := newAccountMount(t)
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})
	var readAt int64
	m.storage.FailOn(func(operation, key string) bool {
		if operation == "delete" && key == "jwt/alice" {
			for second := time.Now().Unix(); time.Now().Unix() == second; {
				runtime.Gosched()
			}
			readAt = time.Now().Unix()
		}
		return false
	})
	_, err := m.do(logical.DeleteOperation, "jwt/alice", nil)
	require.NoError(t, err)
	revoked, err := m.chain.Revocations(t.Context(), m.storage, m.read("jwt/orders")["public_key"].(string))
	require.NoError(t, err)
	require.Len(t, revoked, 1)
	require.GreaterOrEqual(t, revoked[0].At, readAt)
}
