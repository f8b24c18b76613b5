package plugin

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

// TestEachWriteIsDoneOrNotWhereverStorageFails: whatever storage does at any operation
// of a write, the mount is as before the write or as after it in the end, and so are
// the servers; and to write once more succeeds.
func TestEachWriteIsDoneOrNotWhereverStorageFails(t *testing.T) {
	base := newChainMount(t)
	crashBase(base)
	for name, write := range crashWrites(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of := newCrashTest(t, write, base)
			each(0, 1, of.fails)
			each(0, crashStep, of.dies)
			each(crashStep-1, crashStep, of.isTorn)
			each(0, crashStep, of.takesLong)
		})
	}
}

// each tries operations until there are no more.
func each(first, step int, broke func(at int) bool) {
	for at := first; broke(at); {
		at += step
	}
}

// A crashTest is one write that is broken at each of its operations in turn.
type crashTest struct {
	t     *testing.T
	write crashWrite

	base      *chainMount // what the write finds
	known     map[string]bool
	untouched map[string]string

	before, after crashState
	between       *crashState // what else it may be, if anything
}

// A crashState is what a mount shows, and what it has stored.
type crashState struct{ shown, stored map[string]string }

func (c *crashTest) stateOf(m *chainMount) crashState {
	return crashState{m.state(c.known), m.storedState(c.known)}
}

func newCrashTest(t *testing.T, write crashWrite, base *chainMount) *crashTest {
	c := &crashTest{t: t, write: write}
	if c.base = newChainMount(t); !write.first {
		c.base = c.copyOf(base)
	}
	if write.given != nil {
		write.given(c.base)
	}
	if !write.unseen {
		c.base.deliverPending()
	}
	c.known, c.untouched = c.base.known(), c.base.stored()
	before, undisturbed := c.start(), c.start()
	before.recoverMount()
	c.again(undisturbed)
	c.before, c.after = c.stateOf(before), c.stateOf(undisturbed)
	if !write.unseen {
		require.NotEqual(t, c.before.shown, c.after.shown, "the write changes nothing that is looked at")
	}
	if write.between != nil {
		between := c.start()
		write.between(between)
		between.recoverMount()
		state := c.stateOf(between)
		c.between = &state
	}
	return c
}

// start is a mount as the write finds it, with servers of its own.
func (c *crashTest) start() *chainMount { return c.copyOf(c.base) }

// copyOf is a mount that starts on what another one has stored.
func (c *crashTest) copyOf(of *chainMount) *chainMount {
	m := &chainMount{t: c.t, storage: &storetest.Storage{Storage: store.NewOverlay(of.storage.Storage)}, servers: maps.Clone(of.servers)}
	m.restart()
	return m
}

// do makes the write on storage that may break, and says whether it did.
func (c *crashTest) do(m *chainMount, how storetest.Breakage, at int) (broke bool, failed error) {
	c.t.Logf("it breaks at operation %d", at)
	s := &storetest.Breaking{Storage: m.storage, Breakage: how, At: at}
	resp, failed := c.write.do(m, s)
	if failed == nil {
		failed = resp.Error()
	}
	return s.Broke(), failed
}

// again makes the write once more, on storage that works, which has to succeed.
func (c *crashTest) again(m *chainMount) {
	c.t.Helper()
	resp, err := c.write.do(m, m.storage)
	require.NoError(c.t, err)
	if resp.IsError() {
		require.NotEmpty(c.t, c.write.repeated, "it was refused: %v", resp.Error())
		require.ErrorContains(c.t, resp.Error(), c.write.repeated)
	}
	m.deliverPending()
	c.inStep(m)
}

// mayBe checks that the mount is in a state that the write may leave, and says whether
// it is that after it.
func (c *crashTest) mayBe(m *chainMount) (after bool) {
	c.t.Helper()
	c.inStep(m)
	is := m.storedState(c.known)
	after = maps.Equal(is, c.after.stored)
	if !after && !maps.Equal(is, c.before.stored) && (c.between == nil || !maps.Equal(is, c.between.stored)) {
		require.Fail(c.t, "this is neither before nor after", "other than before:\n%s\nother than after:\n%s", difference(c.before.stored, is), difference(c.after.stored, is))
	}
	return after
}

// isDone makes the write once more, and checks that it is done. If it was done before,
// twice may be more than once.
func (c *crashTest) isDone(m *chainMount, before bool) {
	c.t.Helper()
	c.again(m)
	if !before {
		c.isAfter(m)
	}
}

// isAfter checks that the mount is as after the write.
func (c *crashTest) isAfter(m *chainMount) {
	c.t.Helper()
	if is := m.storedState(c.known); !maps.Equal(is, c.after.stored) {
		require.Fail(c.t, "it was answered to be done", "other than after:\n%s", difference(c.after.stored, is))
	}
}

// showsIt checks that a process that goes on shows what it has stored.
func (c *crashTest) showsIt(m *chainMount) {
	c.t.Helper()
	if is := m.state(c.known); !maps.Equal(is, c.after.shown) {
		require.Fail(c.t, "it does not show what is stored", "other than after:\n%s", difference(c.after.shown, is))
	}
}

func (c *crashTest) inStep(m *chainMount) {
	c.t.Helper()
	if c.write.quiet { // the servers have no use for it
		m.servers = m.wanted()
	}
	m.requireInStep()
}

// dies has the process die ahead of a write to storage, and start again.
func (c *crashTest) dies(at int) bool {
	dead := c.start()
	broke, _ := c.do(dead, storetest.Breakage{WritesOnly: true, ForGood: true}, at)
	if !broke {
		return false
	}
	requireSecretsSealed(c.t, dead)
	m := c.copyOf(dead)
	m.recoverMount()
	c.isDone(m, c.mayBe(m))
	return true
}

// fails has one operation fail, and those after it work again: the caller, who has got
// an error, writes once more.
func (c *crashTest) fails(at int) bool {
	m := c.start()
	broke, failed := c.do(m, storetest.Breakage{}, at)
	if !broke {
		return false
	}
	touched := !maps.Equal(c.untouched, m.stored())
	if failed == nil {
		m.deliverPending()
	} else {
		c.again(m)
	}
	if touched && !c.write.counts {
		c.isAfter(m)
	}
	return true
}

// isTorn has a write to storage be done that is reported to have failed, and the
// process go on by itself.
func (c *crashTest) isTorn(at int) bool {
	m := c.start()
	broke, _ := c.do(m, storetest.Breakage{WritesOnly: true, Done: true}, at)
	if !broke {
		return false
	}
	require.NoError(c.t, m.periodic(c.t.Context(), &logical.Request{Storage: m.storage}))
	m.deliverPending()
	after := c.mayBe(m)
	c.isDone(m, after)
	if !after || !c.write.counts {
		c.showsIt(m)
	}
	return true
}

// takesLong has what is pending be delivered in the midst of the write.
func (c *crashTest) takesLong(at int) bool {
	m := c.start()
	delivered := make(chan struct{})
	broke, failed := c.do(m, storetest.Breakage{WritesOnly: true, Meanwhile: func() { m.deliverMeanwhile(delivered) }}, at)
	if !broke {
		return false
	}
	<-delivered
	require.NoError(c.t, failed)
	m.deliverPending()
	c.inStep(m)
	c.isAfter(m)
	c.showsIt(m)
	return true
}

// recoverMount makes the mount anew, as after a crash, and does what a mount does of
// its own accord.
func (m *chainMount) recoverMount() {
	m.t.Helper()
	m.restart()
	require.NoError(m.t, m.initialize(m.t.Context(), &logical.InitializationRequest{Storage: m.storage}))
	m.deliverPending()
}

// wanted is what the servers are to hold.
func (m *chainMount) wanted() map[string]string {
	m.t.Helper()
	source, wanted := m.chain.Source(m.storage), map[string]string{}
	for id, err := range source.All(m.t.Context()) {
		require.NoError(m.t, err)
		var ok bool
		wanted[id], ok, err = source.Wanted(m.t.Context(), id)
		require.NoError(m.t, err)
		require.True(m.t, ok)
	}
	return wanted
}

// meanwhile is how long a delivery in the midst of a write has before the write goes
// on. What waits for the write itself is done after it.
const meanwhile = 2 * time.Millisecond

// deliverMeanwhile delivers what is pending while a write is under way, and closes done
// once that has come to an end.
func (m *chainMount) deliverMeanwhile(done chan struct{}) {
	came := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		defer close(came)
		source := m.chain.Source(m.storage)
		pending, err := source.Pending(ctx)
		for _, id := range pending {
			wanted, ok, failed := source.Wanted(ctx, id)
			if err != nil || failed != nil {
				return
			}
			if m.servers[id] = wanted; !ok {
				delete(m.servers, id)
			}
			err = source.Delivered(ctx, id, wanted)
		}
	}()
	select {
	case <-came:
	case <-time.After(meanwhile):
	}
}
