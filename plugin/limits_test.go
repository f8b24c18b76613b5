package plugin

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

func TestTheLongestLifeOfAUserIsKnownAfterTheMaximumWasLowered(t *testing.T) {
	s := storetest.New()
	sys := &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 10 * time.Hour}
	limits, now := &leaseLimits{}, time.Now()
	look := func(l *leaseLimits, wantMost, wantLongest time.Duration) {
		t.Helper()
		now = now.Add(time.Minute) // older than a look is kept
		initial, most, err := l.get(t.Context(), s, sys, now)
		require.NoError(t, err)
		require.Equal(t, time.Hour, initial)
		require.Equal(t, wantMost, most)
		longest, err := l.longestLife(t.Context(), s, sys, now)
		require.NoError(t, err)
		require.Equal(t, wantLongest, longest)
	}
	look(limits, 10*time.Hour, 10*time.Hour)
	require.EqualValues(t, 1, s.Writes.Load())

	sys.MaxLeaseTTLVal = 2 * time.Hour
	look(limits, 2*time.Hour, 10*time.Hour)
	look(&leaseLimits{}, 2*time.Hour, 10*time.Hour) // another node, or this one after a restart

	sys.MaxLeaseTTLVal = 20*time.Hour + time.Millisecond
	look(limits, 20*time.Hour+time.Millisecond, 20*time.Hour+time.Second)
	require.EqualValues(t, 2, s.Writes.Load(), "only a longer life is stored")
	before := s.All()
	look(limits, 20*time.Hour+time.Millisecond, 20*time.Hour+time.Second)
	require.Equal(t, before, s.All(), "storage is left alone in the steady state")
}

func TestNothingIsIssuedUnderALimitThatCouldNotBeStored(t *testing.T) {
	s := storetest.New()
	sys := &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: time.Hour}
	limits, now := &leaseLimits{}, time.Now()
	s.FailOn(func(operation, key string) bool { return operation == "put" && key == longestLifeKey })
	_, _, err := limits.get(t.Context(), s, sys, now)
	require.ErrorIs(t, err, storetest.ErrStorage)
	s.FailOn(nil)
	_, _, err = limits.get(t.Context(), s, sys, now)
	require.NoError(t, err)

	// One that another node stored counts too.
	require.NoError(t, store.Write(t.Context(), s, longestLifeKey, longestLife{Seconds: 7200}))
	limits.invalidate()
	longest, err := limits.longestLife(t.Context(), s, sys, now)
	require.NoError(t, err)
	require.Equal(t, 2*time.Hour, longest)
}
