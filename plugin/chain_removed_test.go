package plugin

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
)

func TestARemovedAccountIsRememberedAsLongAsAServerMayBringItBack(t *testing.T) {
	ctx := t.Context()
	m := newChainMount(t)
	m.write("config", nil)
	m.write("jwt/orders", map[string]any{"type": "account"})
	id := m.read("jwt/orders")["public_key"].(string)
	m.deliverPending()
	removed := func() []string {
		ids, err := m.chain.source(m.storage).Removed(ctx)
		require.NoError(t, err)
		return ids
	}
	require.Empty(t, removed())

	m.must(logical.DeleteOperation, "jwt/orders", map[string]any{"force": true})
	require.Empty(t, removed(), "that is still pending")
	require.NoError(t, m.chain.source(m.storage).Delivered(ctx, id, ""))
	require.Empty(t, keysBelow(t, m.storage, pendingPrefix))
	m.restart()
	require.Equal(t, []string{id}, removed())

	age := func(d time.Duration) {
		marker := removedMarker{At: time.Now().Add(-d).Unix()}
		require.NoError(t, writeEntry(ctx, m.storage, removedPrefix+id, marker))
	}
	age(delivery.RememberRemoved - time.Minute)
	require.Equal(t, []string{id}, removed())
	age(delivery.RememberRemoved + time.Minute)
	require.Empty(t, removed())
	require.Empty(t, keysBelow(t, m.storage, removedPrefix))

	age(0)
	external := &namedEntry{Type: typeAccount, PublicKey: id, External: true}
	require.NoError(t, m.chain.storeAccount(ctx, m.storage, "orders", external))
	require.Empty(t, removed(), "another operator holds it now")
}
