package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// steady is the account, and the role, of those who are to be let in at all times.
const steady = "steady"

// A trial is a cluster under load, to which things happen.
type trial struct {
	*cluster
	load
	ledger  *ledger
	revoker *revoker
	logins  *probe
	plain   *probe
	conn    *nats.Conn // of a good user

	// behind is set while servers may be behind the mount, for a good reason: they were
	// away. restored is set while they go back with it to the time of a snapshot.
	behind, restored atomic.Bool

	mutex    sync.Mutex
	found    map[string]map[string]bool // what may not be, by kind and in words
	versions []map[string]version
}

func startTrial(t *testing.T) *trial {
	t.Helper()
	r := &trial{cluster: startCluster(t), ledger: newLedger(), found: map[string]map[string]bool{}}
	r.forgetVersions()
	r.write("jwt/"+steady, fields{"type": "account"})
	r.write("role/"+steady, roleOf(steady))
	r.ledger.accounts[steady] = account{id: r.read("jwt/" + steady)["public_key"].(string)}
	for range size {
		r.ledger.good = append(r.ledger.good, r.login(steady))
	}
	r.revoker = &revoker{writer: writer{trial: r, at: 2}}
	accounts, roles := &writer{trial: r, at: 0}, &writer{trial: r, at: 1}

	ctx, cancel := context.WithCancel(context.Background())
	r.every(ctx, pace, accounts.changeAccount)
	r.every(ctx, pace, roles.changeRole)
	r.every(ctx, pace, r.revoker.step)
	r.every(ctx, filesPace, r.watchVersions)
	r.every(ctx, triesPace, r.watchRevoked)
	r.logins, r.plain = r.probes(ctx)
	r.connected(ctx, r.ledger.good[0])
	t.Cleanup(func() {
		cancel()
		r.group.Wait()
	})
	return r
}

// finds notes what may not be, and fails the test.
func (r *trial) finds(kind, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.found[kind] == nil {
		r.found[kind] = map[string]bool{}
	}
	if r.found[kind][what] {
		return
	}
	r.found[kind][what] = true
	if len(r.found[kind]) <= 5 { // the first tell enough
		r.t.Errorf("%s: %s", kind, what)
	}
}

// findings counts what was found since the last call.
func (r *trial) findings() map[string]int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	counts := map[string]int{}
	for kind, found := range r.found {
		counts[kind] = len(found)
	}
	r.found = map[string]map[string]bool{}
	return counts
}

// suffer has a fault happen, and checks all that was acknowledged afterwards.
func (r *trial) suffer(f fault) outcome {
	r.t.Helper()
	began, writes := time.Now(), r.ledger.acknowledged()
	r.logins.begin()
	r.plain.begin()
	r.behind.Store(f.behind)
	r.restored.Store(f.restores)

	f.strike(r)
	r.waitFor("logins and plain requests", r.available)
	after := r.ledger.acknowledged()
	r.waitFor("writes to go on", func() error { return r.writesSince(after, calm) })

	o := outcome{fault: f.name, logins: r.logins.away(), plain: r.plain.away()}
	o.writes = r.ledger.acknowledged() - writes
	r.quiet.Lock()
	defer r.quiet.Unlock()
	o.converged = r.converges()
	r.behind.Store(false)
	if f.restores { // a file that is just being written cannot be read, and would be held against one from before
		r.forgetVersions()
	}
	r.watchVersions()
	r.restored.Store(false)
	r.check()
	o.found, o.took = r.findings(), time.Since(began)
	return o
}

// calm is how many writes are acknowledged after a fault before its check.
const calm = 10

// writesSince returns nil once so many writes were acknowledged since there were n.
func (r *trial) writesSince(n, more int) error {
	if now := r.ledger.acknowledged(); now < n+more {
		return fmt.Errorf("%d of %d writes", now-n, more)
	}
	return nil
}

func TestNoFaultOfAClusterUndoesWhatWasAcknowledged(t *testing.T) {
	r := startTrial(t)
	r.waitFor("the load to be there", func() error { return r.writesSince(0, calm) })
	var outcomes []outcome
	for f := range r.plan() {
		o := r.suffer(f)
		t.Logf("%s: %s", f.name, o.took.Round(time.Millisecond))
		outcomes = append(outcomes, o)
	}
	t.Log("\n" + table(outcomes))
	for _, o := range outcomes {
		require.Positive(t, o.writes, o.fault)
	}
}
