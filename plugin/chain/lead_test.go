package chain

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

func TestALeadIsProvenByAWrite(t *testing.T) {
	m := newMount(t)
	before := time.Now()
	asked, err := m.Lead(t.Context(), m.storage)
	require.NoError(t, err)
	require.False(t, asked.Before(before))
	writes := m.storage.Writes.Load()

	again, err := m.Lead(t.Context(), m.storage)
	require.NoError(t, err)
	require.Equal(t, asked, again, "what was proven a moment ago is not proven again")
	require.Equal(t, writes, m.storage.Writes.Load())

	m.lead.asked = m.lead.asked.Add(-renewLead)
	renewed, err := m.Lead(t.Context(), m.storage)
	require.NoError(t, err)
	require.True(t, renewed.After(asked))
	require.Equal(t, writes+1, m.storage.Writes.Load())
}

func TestWhereStorageCannotBeWrittenNoLeadIsProven(t *testing.T) {
	m := newMount(t)
	m.storage.FailOn(func(operation, _ string) bool { return operation == "put" })
	_, err := m.Lead(t.Context(), m.storage)
	require.ErrorIs(t, err, storetest.ErrStorage)

	m.storage.FailOn(nil)
	_, err = m.Lead(t.Context(), m.storage)
	require.NoError(t, err)
	m.storage.FailOn(func(operation, _ string) bool { return operation == "put" })
	m.lead.asked = m.lead.asked.Add(-delivery.LeadTime)
	_, err = m.Lead(t.Context(), m.storage)
	require.ErrorIs(t, err, storetest.ErrStorage, "a former proof is none")
}

// slowStorage takes its time to write. Its caller's clock goes on meanwhile.
type slowStorage struct{ logical.Storage }

func (s slowStorage) Put(ctx context.Context, _ *logical.StorageEntry) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAProofDoesNotWaitForStorageLongerThanItHolds(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	_, err := m.Lead(t.Context(), slowStorage{m.storage})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAStoredChangeProvesTheLeadToo(t *testing.T) {
	m := newMount(t)
	_, err := m.Lead(t.Context(), m.storage)
	require.NoError(t, err)
	m.lead.asked = m.lead.asked.Add(-delivery.LeadTime)
	before := time.Now()
	one, two := `{"limits":{"conn":1}}`, `{"limits":{"conn":2}}`
	_, err = m.Write(t.Context(), m.storage, "orders", Change{Config: &one})
	require.NoError(t, err)
	writes := m.storage.Writes.Load()
	asked, err := m.Lead(t.Context(), m.storage)
	require.NoError(t, err)
	require.False(t, asked.Before(before))
	require.Equal(t, writes, m.storage.Writes.Load())

	m.lead.asked = m.lead.asked.Add(-delivery.LeadTime)
	m.storage.FailOn(func(operation, key string) bool { return operation == "put" && strings.HasPrefix(key, namedPrefix) })
	_, err = m.Write(t.Context(), m.storage, "orders", Change{Config: &two})
	require.Error(t, err)
	require.False(t, delivery.LeadHolds(m.lead.asked), "one that failed proves nothing")
}

func TestTheClockOfTheNodeThatLedBeforeIsLookedAt(t *testing.T) {
	for name, test := range map[string]struct {
		stored any
		ahead  time.Duration
		warns  bool
	}{
		"nobody led":              {nil, 0, false},
		"a moment ago":            {leaderEntry{At: time.Now()}, 0, false},
		"ahead, within bounds":    {leaderEntry{At: time.Now().Add(9 * time.Minute)}, 9 * time.Minute, false},
		"ahead by too much":       {leaderEntry{At: time.Now().Add(time.Hour)}, time.Hour, true},
		"an entry that is broken": {"what a full disk left", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			var log strings.Builder
			m.logger = hclog.New(&hclog.LoggerOptions{Output: &log})
			if test.stored != nil {
				require.NoError(t, store.Write(t.Context(), m.storage, leaderKey, test.stored))
			}
			_, err := m.Lead(t.Context(), m.storage)
			require.NoError(t, err)
			require.InDelta(t, test.ahead, m.FormerAhead(), float64(time.Minute))
			require.Equal(t, test.warns, strings.Contains(log.String(), "the clock of the node that led before"), log.String())

			// Its own entry is not another node's.
			m.lead.asked = m.lead.asked.Add(-renewLead)
			log.Reset()
			_, err = m.Lead(t.Context(), m.storage)
			require.NoError(t, err)
			require.Empty(t, log.String())
		})
	}
}
