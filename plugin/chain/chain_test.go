package chain

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

// A mount is a chain with the account "orders", all of which is delivered.
type mount struct {
	*Chain
	t         *testing.T
	storage   *storetest.Storage
	orders    string   // public key
	delivered []string // what was to be delivered, in order
}

func newMount(t *testing.T) *mount {
	t.Helper()
	m := &mount{t: t, storage: storetest.New()}
	m.Chain = New(nil, func(_ context.Context, _ logical.Storage, _ bool, ids ...string) {
		m.delivered = append(m.delivered, ids...)
	})
	plan, err := m.PlanOperator(t.Context(), m.storage, OperatorChange{})
	require.NoError(t, err)
	_, _, err = m.CommitOperator(t.Context(), m.storage, plan, nil, nil)
	require.NoError(t, err)
	orders, err := m.Write(t.Context(), m.storage, "orders", Change{Type: TypeAccount})
	require.NoError(t, err)
	m.orders = orders.PublicKey
	m.settleAll()
	return m
}

// settleAll has the servers agree with all that is pending.
func (m *mount) settleAll() {
	m.t.Helper()
	source := m.Source(m.storage)
	pending, err := source.Pending(m.t.Context())
	require.NoError(m.t, err)
	for _, id := range pending {
		wanted, _, err := source.Wanted(m.t.Context(), id)
		require.NoError(m.t, err)
		require.NoError(m.t, source.Delivered(m.t.Context(), id, wanted))
	}
	m.delivered = nil
}

func accountClaims(t *testing.T, token string) *jwt.AccountClaims {
	t.Helper()
	claims, err := jwt.DecodeAccountClaims(token)
	require.NoError(t, err)
	return claims
}

// Every change goes the one way: it is told of as to be delivered, and marked.
func TestWhateverChangesAnAccountIsToBeDelivered(t *testing.T) {
	config := `{"limits":{"conn":7}}`
	for name, change := range map[string]func(m *mount) error{
		"a write": func(m *mount) error {
			_, err := m.Write(t.Context(), m.storage, "orders", Change{Config: &config})
			return err
		},
		"a signing key": func(m *mount) error {
			_, err := m.PutKey(t.Context(), m.storage, "orders", "second", "", "")
			return err
		},
		"a rotation": func(m *mount) error {
			_, err := m.RotateKey(t.Context(), m.storage, "orders", DefaultKey, "", time.Minute)
			return err
		},
		"the key of a role": func(m *mount) error { return m.SetRoleKey(t.Context(), m.storage, "orders", "dev", nil) },
		"a revocation": func(m *mount) error {
			return m.Revoke(t.Context(), m.storage, m.orders, Revocation{User: EveryUser, At: 1}, true)
		},
		"a deletion": func(m *mount) error {
			_, err := m.Delete(t.Context(), m.storage, "orders", Deletion{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			require.NoError(t, change(m))
			require.Equal(t, []string{m.orders}, m.delivered)
			pending, err := m.Source(m.storage).Pending(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{m.orders}, pending)
		})
	}
	m := newMount(t)
	_, rotated, err := m.RotateOperator(t.Context(), m.storage, time.Minute, false)
	require.NoError(t, err)
	require.True(t, rotated)
	require.Contains(t, m.delivered, m.orders, "a rotation of the operator's key changes every account")
	require.Len(t, m.delivered, 2)
}

// markOrders begins a change of the account, as change does.
func (m *mount) markOrders() {
	m.t.Helper()
	operator, err := m.operator(m.t.Context(), m.storage)
	require.NoError(m.t, err)
	marked, err := m.mark(m.t.Context(), m.storage, operator.entry, changeOf{id: m.orders, name: "orders"})
	require.NoError(m.t, err)
	require.True(m.t, marked)
}

// TestAHalfDoneChangeIsNotReportedDelivered: between the marker and the change
// the servers get the account as it was.
func TestAHalfDoneChangeIsNotReportedDelivered(t *testing.T) {
	m := newMount(t)
	id := m.orders
	m.markOrders()

	before, err := m.want(t.Context(), m.storage, id)
	require.NoError(t, err)
	source := m.Source(m.storage)
	require.NoError(t, source.Delivered(t.Context(), id, before.jwt))
	pending, err := source.Pending(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{id}, pending)

	waiting := make(chan string)
	go func() {
		wanted, _, err := source.Wanted(context.Background(), id)
		if err != nil {
			wanted = err.Error()
		}
		waiting <- wanted
	}()
	select {
	case <-waiting:
		t.Fatal("an account was delivered half done")
	case <-time.After(20 * time.Millisecond):
	}
	m.settle(id)
	require.NoError(t, source.Delivered(t.Context(), id, <-waiting))
	pending, err = source.Pending(t.Context())
	require.NoError(t, err)
	require.Empty(t, pending)
}

// The node that leads knows which accounts the marker for all still stands for; any
// other, and one that has just come to lead, that it stands.
func TestEveryNodeKnowsThatAllAccountsArePending(t *testing.T) {
	m := newMount(t)
	_, _, err := m.RotateOperator(t.Context(), m.storage, time.Minute, false)
	require.NoError(t, err)
	other := New(nil, m.deliver)
	for node, chain := range map[string]*Chain{"leader": m.Chain, "standby": other} {
		pending, err := chain.Pending(t.Context(), m.storage, m.orders)
		require.NoError(t, err)
		require.True(t, pending, node)
	}
	m.settleAll()
	for node, chain := range map[string]*Chain{"leader": m.Chain, "standby": other} {
		pending, err := chain.Pending(t.Context(), m.storage, m.orders)
		require.NoError(t, err)
		require.False(t, pending, node)
	}
}

// Who asks what is pending while a rotation is being delivered does not have those
// accounts pending for ever that are delivered already.
func TestToAskWhatIsPendingBringsNothingBack(t *testing.T) {
	m := newMount(t)
	_, _, err := m.RotateOperator(t.Context(), m.storage, time.Minute, false)
	require.NoError(t, err)
	source := m.Source(m.storage)
	all, err := source.Pending(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 2)
	for i, id := range all {
		wanted, _, err := source.Wanted(t.Context(), id)
		require.NoError(t, err)
		require.NoError(t, source.Delivered(t.Context(), id, wanted))
		pending, err := source.Pending(t.Context())
		require.NoError(t, err)
		require.Equal(t, all[i+1:], append([]string{}, pending...))
	}
	require.Empty(t, storetest.KeysBelow(t, m.storage, "pending"))
}

func TestARemovedAccountIsRememberedAsLongAsAServerMayBringItBack(t *testing.T) {
	ctx := t.Context()
	m := newMount(t)
	id := m.orders
	removed := func() []string {
		ids, err := m.Source(m.storage).Removed(ctx)
		require.NoError(t, err)
		return ids
	}
	require.Empty(t, removed())

	_, err := m.Delete(ctx, m.storage, "orders", Deletion{Force: true})
	require.NoError(t, err)
	require.Empty(t, removed(), "that is still pending")
	require.NoError(t, m.Source(m.storage).Delivered(ctx, id, ""))
	require.Empty(t, storetest.KeysBelow(t, m.storage, pendingPrefix))
	m.Chain = New(nil, m.Chain.deliver)
	require.Equal(t, []string{id}, removed())

	age := func(d time.Duration) {
		marker := removedMarker{At: time.Now().Add(-d).Unix()}
		require.NoError(t, store.Write(ctx, m.storage, removedPrefix+id, marker))
	}
	age(delivery.RememberRemoved - time.Minute)
	require.Equal(t, []string{id}, removed())
	age(delivery.RememberRemoved + time.Minute)
	require.Empty(t, removed())
	require.Empty(t, storetest.KeysBelow(t, m.storage, removedPrefix))

	age(0)
	external := &namedEntry{Type: TypeAccount, PublicKey: id, External: true}
	require.NoError(t, m.storeAccount(ctx, m.storage, "orders", external))
	require.Empty(t, removed(), "another operator holds it now")
}
