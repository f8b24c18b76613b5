package chain

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A change that begins while an account is read for delivery is not delivered
// half: under its time of issue and without what it changes.
func TestAChangeThatBeginsWhileAnAccountIsReadIsDeliveredWhole(t *testing.T) {
	m := newMount(t)
	id := m.orders
	changed := false
	storage := &readStorage{Storage: m.storage, after: func(key string) {
		if key != namedPrefix+"orders" || changed {
			return
		}
		changed = true
		entry, err := readNamed(t.Context(), m.storage, "orders")
		require.NoError(t, err)
		entry.Claims.Limits.Conn = 7
		require.NoError(t, m.putNamed(t.Context(), m.storage, "orders", entry))
		m.settle(id)
	}}
	marked := false
	storage.before = func(key string) {
		// The index is read ahead of the account.
		if key == accountIDPrefix+id && !marked {
			marked = true
			m.markOrders()
		}
	}
	wanted, _, err := m.Source(storage).Wanted(t.Context(), id)
	require.NoError(t, err)
	require.True(t, changed)
	require.True(t, marked)
	require.EqualValues(t, 7, accountClaims(t, wanted).Limits.Conn)
}

// To say what the servers are to hold takes two reads, and none of them while
// others wait: the rate of a reconcile hangs on it.
func TestAnAccountIsReadForDeliveryWithoutTheLock(t *testing.T) {
	m := newMount(t)
	id := m.orders
	storage := &readStorage{Storage: m.storage, after: func(string) {}, before: func(key string) {
		require.True(t, m.versions.TryLock(), "the lock is held while %s is read", key)
		m.versions.Unlock()
	}}
	before := m.storage.All()
	_, _, err := m.Source(storage).Wanted(t.Context(), id)
	require.NoError(t, err)
	require.EqualValues(t, 2, m.storage.All()-before)
}

// A login is not to wait behind the JWTs of all accounts that are delivered at a
// time: they wait for each other, and no login waits with them.
func TestAccountJWTsAreMadeByFewAtATime(t *testing.T) {
	m := newMount(t)
	id := m.orders
	require.Equal(t, max(1, runtime.GOMAXPROCS(0)/2), cap(m.making))
	synctest.Test(t, func(t *testing.T) {
		m.making = make(chan struct{}, 1)
		m.making <- struct{}{}
		made := make(chan error, 1)
		go func() {
			_, _, err := m.Source(m.storage).Wanted(t.Context(), id)
			made <- err
		}()
		synctest.Wait()
		require.Empty(t, made, "one more is made than there is room for")
		m.accounts.Forget("orders")
		opened, err := m.Account(t.Context(), m.storage, "orders") // what a login needs
		require.NoError(t, err)
		require.NotNil(t, opened)
		<-m.making
		require.NoError(t, <-made)
	})
}

// A readStorage lets something happen around reads.
type readStorage struct {
	logical.Storage
	before, after func(key string)
}

func (s *readStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.before(key)
	entry, err := s.Storage.Get(ctx, key)
	s.after(key)
	return entry, err
}
