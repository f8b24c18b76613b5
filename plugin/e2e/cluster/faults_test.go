package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// A fault is what happens to a cluster under load. strike returns when all is running
// again.
type fault struct {
	name   string
	strike func(*trial)

	// behind is set where servers are behind the mount for a while, and cannot but be.
	behind bool

	// restores is set where the mount goes back to another time, and the servers with it.
	restores bool

	// restarts is set where the leader's plugin is another process afterwards.
	restarts bool
}

// faults are what a cluster has to bear.
var faults = []fault{
	{name: "nothing", strike: func(r *trial) { r.goOn(calm) }},
	{name: "the leader is killed", strike: killLeader, restarts: true},
	{name: "the leader steps down", strike: stepDown, restarts: true},
	{name: "the leader and its plugin stand still, and go on as a former one", strike: freezeLeader, restarts: true},
	{name: "the plugin stands still", strike: freezePlugin},
	{name: "the plugin is killed", strike: killPlugin, restarts: true},
	{name: "the plugin is reloaded", strike: reloadPlugin, restarts: true},
	{name: "a NATS server is killed, and starts again", strike: killServer, behind: true},
	{name: "all NATS servers are away", strike: stopServers, behind: true},
	{name: "all keys are rotated, and the servers restarted", strike: rotateKeys, behind: true},
	{name: "a snapshot is restored", strike: restoreSnapshot, behind: true, restores: true, restarts: true},
}

// goOn waits until so many more writes were acknowledged.
func (r *trial) goOn(writes int) {
	r.t.Helper()
	n := r.ledger.acknowledged()
	r.waitFor("writes", func() error { return r.writesSince(n, writes) })
}

// last waits for a time in which nothing can be waited for.
func (r *trial) last(d time.Duration) {
	r.t.Helper()
	began := time.Now()
	r.waitFor("time to pass", func() error {
		if time.Since(began) < d {
			return errors.New("not yet")
		}
		return nil
	})
}

func killLeader(r *trial) {
	former := r.leader()
	r.vaults[former].Kill()
	r.waitForLeader(former)
	r.goOn(calm)
	require.NoError(r.t, r.vaults[former].Start(r.ctx()))
}

func stepDown(r *trial) {
	former := r.leader()
	require.NoError(r.t, r.vaults[former].StepDown(r.ctx()))
	r.waitForLeader(former)
}

// freezeLeader has the leader stand still with an account in hand that one server cannot
// store, until another has taken over and all servers have what was changed meanwhile.
func freezeLeader(r *trial) {
	former := r.leader()
	var name string
	r.inQuiet(func() { name = r.revoker.current() })
	id, _ := r.read("jwt/" + name)["public_key"].(string)
	mend := block(r.t, r.servers[rand.IntN(size)], id)
	r.waitFor("an account that is pending", func() error {
		if r.read("jwt/" + name)["delivered"] == true {
			return errors.New("it is delivered")
		}
		return nil
	})
	r.freeze(former)
	leader := r.waitForLeader(former)
	r.goOn(calm)
	mend()
	r.waitFor("nothing to be pending", func() error {
		_, err := r.clients[leader].Logical().WriteWithContext(r.t.Context(), r.path("sync"), nil)
		if err != nil {
			return err
		}
		if entry, err := r.clients[leader].Logical().ReadWithContext(r.t.Context(), r.path("jwt/"+name)); err != nil || entry != nil && entry.Data["delivered"] != true {
			return fmt.Errorf("account %s is pending (%v)", name, err)
		}
		return nil
	})
	r.thaw(former)
	r.waitFor("the former leader to know it", func() error { return r.follows(former) })
	r.last(time.Second)
}

// frozenPlugin is how long a plugin stands still whose Vault goes on.
const frozenPlugin = 2 * time.Second

func freezePlugin(r *trial) {
	leader := r.vaults[r.leader()]
	require.NoError(r.t, leader.SignalPlugins(syscall.SIGSTOP))
	r.last(frozenPlugin)
	require.NoError(r.t, leader.SignalPlugins(syscall.SIGCONT))
}

func killPlugin(r *trial) {
	require.NoError(r.t, r.vaults[r.leader()].SignalPlugins(syscall.SIGKILL))
}

func reloadPlugin(r *trial) {
	require.NoError(r.t, r.vaults[r.leader()].ReloadPlugin(r.ctx()))
}

func killServer(r *trial) {
	server := r.servers[rand.IntN(size)]
	server.Kill()
	r.goOn(calm)
	require.NoError(r.t, server.Restart(r.ctx()))
	r.waitForServers()
}

// awayTime is how long all NATS servers are away. Writes wait for them for five seconds,
// so that few are made.
const awayTime = 2 * time.Second

func stopServers(r *trial) {
	for _, server := range r.servers {
		server.Stop()
	}
	r.last(awayTime)
	for _, server := range r.servers {
		require.NoError(r.t, server.Restart(r.ctx()))
	}
	r.waitForServers()
}

// rotateKeys does as docs/operations.md says: the servers are restarted, one after the
// other, to know the key of the operator's next rotation.
func rotateKeys(r *trial) {
	for _, path := range []string{"config/rotate", "jwt/" + steady + "/rotate", "jwt/SYS/rotate"} {
		r.waitFor("the rotation of "+path, func() error {
			_, err := r.try().Logical().WriteWithContext(r.ctx(), r.path(path), nil)
			return err
		})
	}
	r.goOn(calm)
	r.startServers()
}

// restoreSnapshot brings back what was: of what was written since then nothing is certain.
func restoreSnapshot(r *trial) {
	var snapshot bytes.Buffer
	var then *ledger
	r.inQuiet(func() {
		require.NoError(r.t, r.try().Sys().RaftSnapshotWithContext(r.ctx(), &snapshot))
		then = r.ledger.copy()
	})
	r.goOn(calm)
	r.inQuiet(func() {
		require.NoError(r.t, r.try().Sys().RaftSnapshotRestoreWithContext(r.ctx(), &snapshot, false))
		r.ledger.become(then)
		r.revoker.name, r.revoker.former = "", ""
		r.waitForLeader()
	})
}

// inQuiet does something while nobody writes, or looks at the servers.
func (r *trial) inQuiet(do func()) {
	r.quiet.Lock()
	defer r.quiet.Unlock()
	do()
}
