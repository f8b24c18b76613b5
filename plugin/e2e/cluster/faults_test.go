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

	// rare is set for what only a soak takes the time for.
	rare bool
}

// faults are what a cluster has to bear.
var faults = []fault{
	{name: "nothing", strike: func(r *trial) { r.goOn(calm) }, rare: true},
	{name: "the leader is killed", strike: killLeader, restarts: true},
	{name: "the leader steps down", strike: stepDown, restarts: true},
	{name: "the leader and its plugin stand still, and go on as a former one", strike: freezeLeader, restarts: true},
	{name: "the plugin stands still", strike: freezePlugin},
	{name: "the plugin is killed", strike: killPlugin, restarts: true},
	{name: "the plugin is reloaded", strike: reloadPlugin, restarts: true},
	{name: "a NATS server is killed, and starts again", strike: killServer, behind: true},
	{name: "all NATS servers are away", strike: stopServers, behind: true},
	{name: "the leader is killed while all NATS servers are away", strike: killLeaderAlone, behind: true, restarts: true, rare: true},
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
	former := r.waitForLeader()
	r.vaults[former].Kill()
	r.waitForLeader(former)
	r.goOn(calm)
	require.NoError(r.t, r.vaults[former].Start(r.ctx()))
}

func stepDown(r *trial) {
	former := r.waitForLeader()
	require.NoError(r.t, r.vaults[former].StepDown(r.ctx()))
	r.waitForLeader(former)
}

// freezeLeader has the leader stand still with an account in hand that one server cannot
// store, until another has taken over and all servers have what was changed meanwhile.
func freezeLeader(r *trial) {
	former := r.waitForLeader()
	var name string
	var mend func()
	r.inQuiet(func() {
		name = r.revoker.current()
		mend = block(r.t, r.servers[rand.IntN(size)], r.ledger.accounts[name].id)
	})
	r.waitFor("an account that is pending", func() error {
		if entry, err := r.entry(name); err != nil || entry["delivered"] == true {
			return fmt.Errorf("it is delivered (%v)", err)
		}
		return nil
	})
	r.freeze(former)
	r.waitForLeader(former)
	r.goOn(calm)
	mend()
	r.waitFor("nothing to be pending", func() error { return r.delivers(name) })
	r.thaw(former)
	r.waitFor("the former leader to know it", func() error { return r.follows(former) })
	r.last(time.Second)
}

// entry reads an account; there is nothing in it if there is none.
func (r *trial) entry(name string) (fields, error) {
	secret, err := r.asks().Logical().ReadWithContext(r.t.Context(), r.path("jwt/"+name))
	if secret == nil || err != nil {
		return nil, err
	}
	return secret.Data, nil
}

// delivers has an account delivered now, and returns nil if it is, or is gone.
func (r *trial) delivers(name string) error {
	if _, err := r.asks().Logical().WriteWithContext(r.t.Context(), r.path("sync"), nil); err != nil {
		return err
	}
	entry, err := r.entry(name)
	if entry != nil && entry["delivered"] != true {
		return fmt.Errorf("account %s is pending", name)
	}
	return err
}

// frozenPlugin is how long a plugin stands still whose Vault goes on.
const frozenPlugin = 2 * time.Second

func freezePlugin(r *trial) {
	leader := r.vaults[r.waitForLeader()]
	require.NoError(r.t, leader.SignalPlugins(syscall.SIGSTOP))
	r.last(frozenPlugin)
	require.NoError(r.t, leader.SignalPlugins(syscall.SIGCONT))
}

func killPlugin(r *trial) {
	require.NoError(r.t, r.vaults[r.waitForLeader()].SignalPlugins(syscall.SIGKILL))
}

func reloadPlugin(r *trial) {
	require.NoError(r.t, r.vaults[r.waitForLeader()].ReloadPlugin(r.ctx()))
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
	start := r.allAway()
	r.last(awayTime)
	start()
	r.waitForServers()
}

// allAway stops all NATS servers, until start is called.
func (r *trial) allAway() (start func()) {
	for _, server := range r.servers {
		server.Stop()
	}
	return func() {
		for _, server := range r.servers {
			require.NoError(r.t, server.Restart(r.ctx()))
		}
	}
}

// killLeaderAlone leaves it to another node to deliver what was acknowledged.
func killLeaderAlone(r *trial) {
	start := r.allAway()
	r.goOn(size) // each is answered after five seconds
	former := r.waitForLeader()
	r.vaults[former].Kill()
	start()
	r.waitForLeader(former)
	r.waitForServers()
	require.NoError(r.t, r.vaults[former].Start(r.ctx()))
}

// rotateKeys does as docs/operations.md says: the servers are restarted, one after the
// other, to know the key of the operator's next rotation.
func rotateKeys(r *trial) {
	for _, path := range []string{"config/rotate", "jwt/" + steady + "/rotate", "jwt/SYS/rotate"} {
		r.write(path, nil)
	}
	r.goOn(calm)
	r.startServers()
}

// restoreSnapshot brings back what was: of what was written since then nothing is certain.
func restoreSnapshot(r *trial) {
	var snapshot bytes.Buffer
	var then *ledger
	r.inQuiet(func() {
		r.waitFor("a snapshot", func() error {
			snapshot.Reset()
			return r.asks().Sys().RaftSnapshotWithContext(r.t.Context(), &snapshot)
		})
		then = r.ledger.copy()
	})
	r.goOn(calm)
	r.inQuiet(func() {
		r.waitFor("the snapshot to be restored", func() error {
			return r.asks().Sys().RaftSnapshotRestoreWithContext(r.t.Context(), bytes.NewReader(snapshot.Bytes()), false)
		})
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
