package plugin

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A countingView counts the calls to Vault that a plugin may make at a login.
type countingView struct {
	logical.SystemView
	asked atomic.Int64
	state atomic.Uint32
}

func (v *countingView) ReplicationState() consts.ReplicationState {
	v.asked.Add(1)
	return consts.ReplicationState(v.state.Load())
}

func (v *countingView) DefaultLeaseTTL() time.Duration {
	v.asked.Add(1)
	return v.SystemView.DefaultLeaseTTL()
}

func (v *countingView) MaxLeaseTTL() time.Duration {
	v.asked.Add(1)
	return v.SystemView.MaxLeaseTTL()
}

func TestVaultIsAskedForReplicationOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &countingView{SystemView: logical.StaticSystemView{}}
		view := &systemView{SystemView: vault}
		for range 100 {
			require.Zero(t, view.ReplicationState())
		}
		require.EqualValues(t, 1, vault.asked.Load())

		vault.state.Store(uint32(consts.ReplicationPerformanceStandby))
		time.Sleep(replicationAge)
		require.Equal(t, consts.ReplicationPerformanceStandby, view.ReplicationState(), "another part was not noticed in time")
	})
}

// Each call to Vault costs a login a tenth of its time.
func TestALoginMakesNoCallToVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes
		m := newLoginMount(t, newWorkloads(t)[0])
		before := m.vault.asked.Load()
		for range 100 {
			m.login()
			_, err := m.HandleRequest(t.Context(), &logical.Request{
				Operation: logical.ResolveRoleOperation, Path: "login", Storage: m.storage,
				Data: map[string]any{"role": "dev", "jwt": m.workload.token},
			})
			require.NoError(t, err)
		}
		require.Equal(t, before, m.vault.asked.Load())
	})
}
