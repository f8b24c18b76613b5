package chain

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

const revokingAccount = "AACCOUNT"

// directly writes without anything around it.
func directly(ctx context.Context, write writer) error { return write(ctx) }

func addRevocation(t *testing.T, r *revocations, s logical.Storage, wanted Revocation) {
	t.Helper()
	require.NoError(t, r.add(t.Context(), s, revokingAccount, wanted, directly))
}

func TestRevocationsAreReadBackByAnotherNode(t *testing.T) {
	s, now := &logical.InmemStorage{}, time.Now()
	r := newRevocations(hclog.NewNullLogger())
	want := []Revocation{}
	for i := range 2*segmentSize + 1 {
		wanted := Revocation{User: fmt.Sprintf("U%d", i), At: now.Unix(), Until: now.Unix() + 60}
		want = append(want, wanted)
		addRevocation(t, r, s, wanted)
	}
	require.Len(t, storetest.KeysBelow(t, s, revokedPrefix), 3, "segments hold a thousand each")
	for _, reader := range []*revocations{r, newRevocations(hclog.NewNullLogger())} {
		live, err := reader.list(t.Context(), s, revokingAccount, now, time.Minute)
		require.NoError(t, err)
		require.ElementsMatch(t, want, live)
	}
}

func TestAThousandRevocationsAtOnceAreAFewWrites(t *testing.T) {
	s := storetest.New()
	r := newRevocations(hclog.NewNullLogger())
	release := make(chan struct{})
	var changes int
	around := func(ctx context.Context, write writer) error {
		<-release // so that all have come before the second batch
		changes++
		return write(ctx)
	}
	var group sync.WaitGroup
	var came sync.WaitGroup
	came.Add(1000)
	for i := range 1000 {
		group.Go(func() {
			came.Done()
			wanted := Revocation{User: fmt.Sprintf("U%d", i), At: 1}
			require.NoError(t, r.add(t.Context(), s, revokingAccount, wanted, around))
		})
	}
	came.Wait()
	close(release)
	group.Wait()
	live, err := r.list(t.Context(), s, revokingAccount, time.Now(), time.Minute)
	require.NoError(t, err)
	require.Len(t, live, 1000)
	require.LessOrEqual(t, changes, 100, "revocations that come together are written together")
	require.LessOrEqual(t, s.Writes.Load(), int64(2*changes))
}

func TestARevocationAgainTakesTheLaterTimes(t *testing.T) {
	s := &logical.InmemStorage{}
	r := newRevocations(hclog.NewNullLogger())
	addRevocation(t, r, s, Revocation{User: "U", At: 10, Until: 100})
	addRevocation(t, r, s, Revocation{User: "U", At: 5, Until: 200})
	live, err := r.list(t.Context(), s, revokingAccount, time.Unix(20, 0), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []Revocation{{User: "U", At: 10, Until: 200}}, live)
	addRevocation(t, r, s, Revocation{User: "U", At: 30})
	live, err = r.list(t.Context(), s, revokingAccount, time.Unix(1e9, 0), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []Revocation{{User: "U", At: 30}}, live, "one without end does not get one")
}

func TestRevocationsThatAreOverAreForgotten(t *testing.T) {
	s := &logical.InmemStorage{}
	r := newRevocations(hclog.NewNullLogger())
	addRevocation(t, r, s, Revocation{User: "short", At: 1, Until: 10})
	addRevocation(t, r, s, Revocation{User: "long", At: 1, Until: 1000})
	prune := func(now time.Time) map[string]int {
		left, err := r.prune(t.Context(), s, now, time.Minute)
		require.NoError(t, err)
		return left
	}
	require.Equal(t, map[string]int{revokingAccount: 1}, prune(time.Unix(500, 0)))
	live, err := newRevocations(hclog.NewNullLogger()).list(t.Context(), s, revokingAccount, time.Unix(0, 0), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []Revocation{{User: "long", At: 1, Until: 1000}}, live)
	prune(time.Unix(1000, 0))
	require.NotEmpty(t, storetest.KeysBelow(t, s, revokedPrefix), "a nats-server's clock may be behind")
	prune(time.Unix(1000, 0).Add(time.Minute))
	require.Empty(t, storetest.KeysBelow(t, s, revokedPrefix), "nothing is left in storage")
	require.Empty(t, prune(time.Unix(2000, 0)))
	require.Empty(t, r.accounts, "nor in memory")
}

func TestARevocationThatIsNotStoredIsNotAcknowledged(t *testing.T) {
	s := storetest.New()
	r := newRevocations(hclog.NewNullLogger())
	addRevocation(t, r, s, Revocation{User: "first", At: 1})
	s.FailOn(func(operation, _ string) bool { return operation == "put" })
	require.ErrorIs(t, r.add(t.Context(), s, revokingAccount, Revocation{User: "second", At: 1}, directly), storetest.ErrStorage)
	s.FailOn(nil)
	live, err := r.list(t.Context(), s, revokingAccount, time.Now(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []Revocation{{User: "first", At: 1}}, live)
	addRevocation(t, r, s, Revocation{User: "second", At: 1})
	live, err = r.list(t.Context(), s, revokingAccount, time.Now(), time.Minute)
	require.NoError(t, err)
	require.Len(t, live, 2)
}

func TestRevocationsAreUndone(t *testing.T) {
	s := &logical.InmemStorage{}
	r := newRevocations(hclog.NewNullLogger())
	addRevocation(t, r, s, Revocation{User: "kept", At: 1})
	addRevocation(t, r, s, Revocation{User: "undone", At: 1})
	count, err := r.remove(t.Context(), s, revokingAccount, func(r Revocation) bool { return r.User == "undone" }, directly)
	require.NoError(t, err)
	require.Equal(t, 1, count)
	live, err := newRevocations(hclog.NewNullLogger()).list(t.Context(), s, revokingAccount, time.Now(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []Revocation{{User: "kept", At: 1}}, live)
}
