package chain

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// refused says, as nats-server does, whether the account's JWT refuses a user JWT
// with that time of issue.
func (m *mount) refused(user string, issued int64) bool {
	m.t.Helper()
	token, err := m.AccountJWT(m.t.Context(), m.storage, m.orders)
	require.NoError(m.t, err)
	return accountClaims(m.t, token).Revocations.IsRevoked(user, time.Unix(issued, 0))
}

func (m *mount) notBefore(user string) int64 {
	m.t.Helper()
	account, err := m.Account(m.t.Context(), m.storage, "orders")
	require.NoError(m.t, err)
	at, err := m.NotBefore(m.t.Context(), m.storage, account, user)
	require.NoError(m.t, err)
	return at
}

// otherNode is the chain on another node, whose storage follows.
func (m *mount) otherNode() *mount {
	other := *m
	other.Chain = New(nil, m.Chain.deliver)
	return &other
}

func TestARevocationHoldsForWhatWasIssuedBeforeItAndNotAfter(t *testing.T) {
	user, err := trust.Generate(trust.User)
	require.NoError(t, err)
	for name, whom := range map[string]string{"one user": user.Public(), "everyone": EveryUser} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			standby := m.otherNode()
			require.Equal(t, int64(1), m.notBefore(user.Public()), "nothing is revoked")
			require.Equal(t, int64(1), standby.notBefore(user.Public()))
			of, err := m.Revocable(t.Context(), m.storage, "orders")
			require.NoError(t, err)
			before := time.Now()
			require.NoError(t, m.RevokeNow(t.Context(), m.storage, of, whom, 24*time.Hour))
			after := time.Now()

			for _, ahead := range []time.Duration{-DefaultClockSkew, -time.Second, 0, time.Second, DefaultClockSkew} {
				require.True(t, m.refused(user.Public(), before.Add(ahead).Unix()), "what a node whose clock is %s ahead issued before is let in", ahead)
			}
			standby.Invalidate(revokedPrefix + m.orders + "/0")
			standby.Invalidate(accountIDPrefix + m.orders)
			for node, chain := range map[string]*mount{"this node": m, "a standby": standby, "the next leader": m.otherNode()} {
				at := chain.notBefore(user.Public())
				require.False(t, m.refused(user.Public(), at), "what %s issues now is refused", node)
				require.LessOrEqual(t, at, after.Add(DefaultClockSkew).Unix()+1, "it is further ahead than it has to be")
				if whom == EveryUser {
					require.Equal(t, at, chain.notBefore(""), "that holds for new keys too")
				} else {
					require.Equal(t, int64(1), chain.notBefore(""), "others have no part in it")
				}
			}

			undone, err := m.UndoRevocation(t.Context(), m.storage, m.orders, whom)
			require.NoError(t, err)
			require.True(t, undone)
			require.Equal(t, int64(1), m.notBefore(user.Public()))
		})
	}
}

func TestARevocationIsKeptUntilTheSlowestClockHasSeenTheEnd(t *testing.T) {
	m := newMount(t)
	now := time.Now()
	require.NoError(t, m.Revoke(t.Context(), m.storage, m.orders, Revocation{User: "U", At: now.Unix(), Until: now.Unix() + 60}, false))
	for after, kept := range map[time.Duration]bool{61 * time.Second: true, time.Minute + DefaultClockSkew - time.Second: true, time.Minute + DefaultClockSkew: false} {
		live, err := m.revocations.list(t.Context(), m.storage, m.orders, now.Add(after), DefaultClockSkew)
		require.NoError(t, err)
		require.Equal(t, kept, len(live) == 1, "after %s", after)
	}
}

// Where more is revoked than fits into the account's JWT, the oldest revocations
// become one of everyone, which may be ahead of the clock as they were.
func TestWhatIsIssuedIsGoodAlsoWhereNotAllRevocationsFit(t *testing.T) {
	m := newMount(t)
	first := time.Now().Add(DefaultClockSkew).Unix()
	a, release := m.revocations.of(m.orders)
	defer release()
	for i := range 15000 { // one by one they would take minutes
		wanted := Revocation{User: fmt.Sprintf("U%055d", i), At: first + int64(i/1000), Until: first + 1e6}
		a.queue.waiting = append(a.queue.waiting, &waitingRevocation{Revocation: wanted})
	}
	require.NoError(t, m.Revoke(t.Context(), m.storage, m.orders, Revocation{User: "U", At: first, Until: first + 1e6}, true))
	require.True(t, m.refused("someone else", first), "not all of them fit: else this tests nothing")
	require.False(t, m.refused("someone else", m.notBefore("")))
}

func TestARevocationOfTheConfigHoldsToo(t *testing.T) {
	m := newMount(t)
	at := time.Now().Unix() + 5
	config := fmt.Sprintf(`{"revocations":{"*":%d}}`, at)
	_, err := m.Write(t.Context(), m.storage, "orders", Change{Config: &config})
	require.NoError(t, err)
	require.Equal(t, at+1, m.notBefore(""))
	require.False(t, m.refused("U", m.notBefore("")))
}

// The mount is a user of the system account itself.
func TestTheMountIsNotLockedOutByARevocationOfEveryone(t *testing.T) {
	m := newMount(t)
	of, err := m.Revocable(t.Context(), m.storage, "SYS")
	require.NoError(t, err)
	require.NoError(t, m.RevokeNow(t.Context(), m.storage, of, EveryUser, time.Hour))
	token, _, err := m.systemUser(t.Context(), m.storage)
	require.NoError(t, err)
	system, err := m.AccountJWT(t.Context(), m.storage, of.Account)
	require.NoError(t, err)
	var issued struct {
		IssuedAt int64 `json:"iat"`
	}
	require.NoError(t, trust.DecodePart(token, 1, &issued))
	require.False(t, accountClaims(t, system).Revocations.IsRevoked("U", time.Unix(issued.IssuedAt, 0)))
}

// A login asks it each time.
func TestToKnowWhatIsRevokedReadsNoStorage(t *testing.T) {
	for name, revoked := range map[string]bool{"an account without revocations": false, "an account with some": true} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			if revoked {
				require.NoError(t, m.Revoke(t.Context(), m.storage, m.orders, Revocation{User: "U", At: 1, Until: time.Now().Unix() + 1000}, false))
			}
			node := m.otherNode()
			node.notBefore("U")
			before := m.storage.All()
			for range 10 {
				node.notBefore("U")
				node.notBefore("")
			}
			require.Equal(t, before, m.storage.All())
		})
	}
}
