package plugin

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// replicationAge is how old may be what is known of the node's part in
// replication.
const replicationAge = time.Second

// A systemView is Vault as a mount sees it. The framework asks for the node's
// part in replication at each request, also at those that it then does not
// forward, and each time that is a call to Vault: two of them at a login, which
// took a tenth of its time. So the answer is kept for a moment.
//
// No write depends on it: Vault's storage refuses a node that may not write.
type systemView struct {
	logical.SystemView
	last atomic.Pointer[replication]
	env  atomic.Pointer[logical.PluginEnvironment]
}

// replication is the node's part in it at some time.
type replication struct {
	state consts.ReplicationState
	asked time.Time
}

// ReplicationState is Vault's, up to replicationAge old.
func (v *systemView) ReplicationState() consts.ReplicationState {
	now := time.Now()
	if last := v.last.Load(); last != nil && now.Sub(last.asked) < replicationAge {
		return last.state
	}
	state := v.SystemView.ReplicationState()
	v.last.Store(&replication{state: state, asked: now})
	return state
}

// PluginEnv is Vault's version, which is asked for once.
func (v *systemView) PluginEnv(ctx context.Context) (*logical.PluginEnvironment, error) {
	if env := v.env.Load(); env != nil {
		return env, nil
	}
	env, err := v.SystemView.PluginEnv(ctx)
	if err != nil || env == nil {
		return nil, err
	}
	v.env.Store(env)
	return env, nil
}
