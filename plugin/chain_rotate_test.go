package plugin

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

func TestARotatedKeyIsWaitedOutAndThenGone(t *testing.T) {
	m := newAccountMount(t)
	before := userClaims(t, m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})["jwt"])
	begun := time.Now()
	rotated := m.write("jwt/orders/rotate", map[string]any{"overlap": 600})
	after := userClaims(t, m.read("jwt/alice")["jwt"])
	require.Equal(t, rotated["public_key"], after.Issuer)
	require.NotEqual(t, before.Issuer, after.Issuer)

	account := accountClaims(t, m.read("jwt/orders")["jwt"])
	require.True(t, account.DidSign(before), "a user that was there is cut off")
	require.True(t, account.DidSign(after))
	keys := m.read("jwt/orders")["signing_keys"].([]map[string]any)
	require.Equal(t, "retiring", keys[0]["state"])
	require.Equal(t, before.Issuer, keys[0]["public_key"])
	require.Equal(t, "signing", keys[1]["state"])
	m.deliverPending()

	changed, err := m.chain.Retire(t.Context(), m.storage, begun.Add(599*time.Second))
	require.NoError(t, err)
	require.Empty(t, changed)
	m.restart()
	changed, err = m.chain.Retire(t.Context(), m.storage, time.Now().Add(601*time.Second))
	require.NoError(t, err)
	require.Equal(t, []string{account.Subject}, changed)
	require.Empty(t, storetest.KeysBelow(t, m.storage, "retire/"))
	account = accountClaims(t, m.read("jwt/orders")["jwt"])
	require.False(t, account.DidSign(before))
	require.True(t, account.DidSign(after))
	m.deliverPending()
	m.requireInStep()
}

func TestTheOverlapIsTheLongestLifeOfAUserJWTUnlessGiven(t *testing.T) {
	m := newAccountMount(t)
	m.write("jwt/orders/rotate", nil)
	retires, err := time.Parse(time.RFC3339, m.read("jwt/orders")["signing_keys"].([]map[string]any)[0]["retires"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), retires, 2*time.Second)

	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	require.Len(t, accountClaims(t, m.read("jwt/orders")["jwt"]).SigningKeys, 2, "the one that was rotated away without overlap is gone")

	seed := newKey(t, trust.Account)
	require.Equal(t, seed.Public(), m.write("jwt/orders/rotate", map[string]any{"seed": seed.Seed()})["public_key"])
	m.refuse(logical.UpdateOperation, "jwt/orders/rotate", map[string]any{"seed": seed.Seed()}, "seed is that of a key that the account has already")
}

func TestRotatingTheOperatorsKeySignsEverythingAnew(t *testing.T) {
	m := newAccountMount(t)
	m.write("jwt/billing", map[string]any{"type": "account"})
	m.deliverPending()
	before := operatorClaims(t, m.read("config")["operator_jwt"])
	writes := m.storage.Writes.Load()
	rotated := m.write("config/rotate", map[string]any{"overlap": 600})
	require.EqualValues(t, 2, m.storage.Writes.Load()-writes, "a rotation writes no account")
	require.Equal(t, true, rotated["rotated"])

	after := operatorClaims(t, rotated["operator_jwt"])
	require.Equal(t, before.Subject, after.Subject)
	require.Len(t, after.SigningKeys, 3, "the former, the present and the next key")
	for _, name := range []string{"SYS", "orders", "billing"} {
		account := accountClaims(t, m.read("jwt/" + name)["jwt"])
		require.NotEqual(t, before.SigningKeys[0], account.Issuer)
		require.True(t, before.DidSign(account), "a server that was not restarted does not trust %s", name)
		require.True(t, after.DidSign(account))
		require.Equal(t, false, m.read("jwt/" + name)["delivered"])
	}
	// The mount goes down half way: what is left is delivered after it.
	m.restart()
	require.Len(t, m.servers, 3)
	m.deliverPending()
	m.requireInStep()

	_, err := m.chain.Retire(t.Context(), m.storage, time.Now().Add(601*time.Second))
	require.NoError(t, err)
	later := operatorClaims(t, m.read("config")["operator_jwt"])
	require.NotContains(t, later.SigningKeys, before.SigningKeys[0])
	require.Len(t, later.SigningKeys, 2)
	m.requireInStep()
}

func TestAFormerOperatorKeyCanBeDroppedAtOnce(t *testing.T) {
	m := newAccountMount(t)
	before := operatorClaims(t, m.read("config")["operator_jwt"])
	after := operatorClaims(t, m.write("config/rotate", map[string]any{"overlap": 0})["operator_jwt"])
	require.NotContains(t, after.SigningKeys, before.SigningKeys[0])
	m.refuse(logical.UpdateOperation, "config/rotate", map[string]any{"overlap": -1}, `field "overlap": cannot provide negative value`)
}

// What of a first rotation is delivered while a second one is stored leaves the
// second one's marker alone.
func TestARotationIsNotForgottenOverTheDeliveryOfTheLastOne(t *testing.T) {
	m := newAccountMount(t)
	m.write("config/rotate", nil)
	source := m.chain.Source(m.storage)
	ids, err := source.Pending(t.Context())
	require.NoError(t, err)
	of := map[string]string{}
	for _, id := range ids {
		of[id], _, err = source.Wanted(t.Context(), id)
		require.NoError(t, err)
	}
	delivered := make(chan error, 1)
	storage := &interruptedStorage{Storage: m.storage, key: "config", interrupt: func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for id, token := range of {
				if err := source.Delivered(context.Background(), id, token); err != nil {
					delivered <- err
					return
				}
			}
			delivered <- nil
		}()
		select { // they come in between unless something holds them
		case <-done:
		case <-time.After(20 * time.Millisecond):
		}
	}}
	_, err = m.HandleRequest(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: "config/rotate", Storage: storage, MountPoint: "auth/nats/"})
	require.NoError(t, err)
	require.NoError(t, <-delivered)
	for _, name := range []string{"SYS", "orders"} {
		require.Equal(t, false, m.read("jwt/" + name)["delivered"])
	}
	m.restart()
	pending, err := m.chain.Source(m.storage).Pending(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, ids, pending)
	m.deliverPending()
	m.requireInStep()
}

// An interruptedStorage lets something happen ahead of the write of a key.
type interruptedStorage struct {
	logical.Storage
	key       string
	interrupt func()
}

func (s *interruptedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if entry.Key == s.key {
		s.interrupt()
	}
	return s.Storage.Put(ctx, entry)
}

func TestRotatingAKeyThatSignedActivationTokensIsWarnedOf(t *testing.T) {
	m := newAccountMount(t)
	warnings := func() string {
		resp, err := m.do(logical.UpdateOperation, "jwt/orders/rotate", nil)
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		return strings.Join(resp.Warnings, " ")
	}
	require.NotContains(t, warnings(), "activation tokens")
	m.write("jwt/orders", map[string]any{"config": `{"exports":[{"subject":"orders.new","type":"stream","token_req":true}]}`})
	require.Contains(t, warnings(), "activation tokens signed with the former key end with the overlap")
}
