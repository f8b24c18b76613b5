package delivery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// holdEverywhere waits until each directory has what the source wants.
func (w *world) holdEverywhere(dirs ...string) {
	w.t.Helper()
	w.eventually(func() error {
		for _, dir := range dirs {
			if err := w.holds(dir); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestAServerThatWasDownIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.cluster(3)
	r := w.reconciler(w.config(c.servers[0].ClientURL()))
	ctx := testContext(t)
	orders, billing := w.addAccount("orders"), w.addAccount("billing")
	require.NoError(t, r.Deliver(ctx, orders.id, billing.id))
	w.holdEverywhere(c.dirs...)
	w.eventually(func() error {
		state, err := r.Status(ctx, orders.id)
		if err == nil && state.Servers != 3 {
			err = fmt.Errorf("the state is %+v", state)
		}
		return err
	})

	stop(c.servers[2])
	w.set(orders.id, w.accountJWT(orders.id, "changed", nil))
	require.NoError(t, r.Deliver(ctx, orders.id), "the servers that are there agree")
	w.holdEverywhere(c.dirs[:2]...)
	require.Error(t, w.holds(c.dirs[2]))
	require.NotNil(t, r.State().Servers[2].MissingSince)
	state, err := r.Status(ctx, orders.id)
	require.NoError(t, err)
	require.Equal(t, 2, state.Servers)

	// A removal is not done as long as the third could bring the account back.
	w.remove(billing.id)
	require.ErrorContains(t, r.Deliver(ctx, billing.id), "n3")
	w.holdEverywhere(c.dirs[:2]...)

	c.restart(2, c.dirs[2])
	w.holdEverywhere(c.dirs...)
	w.eventually(func() error {
		if n := w.stillPending(); n > 0 {
			return fmt.Errorf("%d accounts are pending", n)
		}
		return nil
	})
	require.Nil(t, r.State().Servers[2].MissingSince)
	require.Len(t, r.State().Servers, 3)
}

// A process that starts while a server is away does not know of that server, and
// so takes a removal as done without it.
func TestARemovedAccountDoesNotComeBackWithAServerThatAnEarlierProcessKnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.cluster(3)
	ctx := testContext(t)
	before := w.reconciler(w.config(c.servers[0].ClientURL()))
	orders, billing := w.addAccount("orders"), w.addAccount("billing")
	require.NoError(t, before.Deliver(ctx, orders.id, billing.id))
	w.holdEverywhere(c.dirs...)
	w.knows(before, len(c.servers))

	stop(c.servers[2])
	w.remove(billing.id)
	require.ErrorContains(t, before.Deliver(ctx, billing.id), "n3")
	before.Close()

	r := w.reconciler(w.config(c.servers[0].ClientURL()))
	w.eventually(w.nothingPending)
	w.holdEverywhere(c.dirs[:2]...)
	require.FileExists(t, filepath.Join(c.dirs[2], billing.id+".jwt"))

	c.restart(2, c.dirs[2])
	w.holdEverywhere(c.dirs...)
	w.knows(r, len(c.servers)) // which is told of it apart
}

func TestServersThatComeBackWithEmptyDirectoriesAreFilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.cluster(3)
	r := w.reconciler(w.config(c.urls()...))
	for i := range 30 {
		r.Changed(w.addAccount(fmt.Sprint("account ", i)).id)
	}
	w.holdEverywhere(c.dirs...)

	for i := range c.servers {
		stop(c.servers[i])
	}
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	for i := range c.servers {
		c.restart(i, dirs[i])
	}
	w.holdEverywhere(dirs...)
}

func TestADirectoryWipedUnderARunningServerIsFilledAgain(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	ctx := testContext(t)
	for i := range 5 {
		r.Changed(w.addAccount(fmt.Sprint("account ", i)).id)
	}
	_, err := r.Sync(ctx, Options{})
	require.NoError(t, err)
	w.holdEverywhere(dir)

	files, err := filepath.Glob(filepath.Join(dir, "*.jwt"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		require.NoError(t, os.Remove(file))
	}
	report, err := r.Sync(ctx, Options{})
	require.NoError(t, err)
	require.Equal(t, 6, report.Delivered)
	require.True(t, report.Rewritten)
	require.NoError(t, w.holds(dir))
	report, err = r.Sync(ctx, Options{})
	require.NoError(t, err)
	require.False(t, report.Rewritten)
}

// What is pending in the source and was never asked for, as after a write that died
// half way, is settled by a comparison: of accounts that are there, and of those that
// are gone.
func TestAComparisonSettlesWhatNobodyAskedFor(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	ctx := testContext(t)
	orders, gone := w.addAccount("orders"), w.addAccount("gone")
	require.NoError(t, r.Deliver(ctx, orders.id, gone.id))
	require.Zero(t, w.stillPending())

	w.set(orders.id, w.accountJWT(orders.id, "changed", nil))
	w.remove(gone.id)
	report, err := r.Sync(ctx, Options{})
	require.NoError(t, err)
	require.Equal(t, 2, report.Delivered)
	require.Zero(t, w.stillPending())
	require.NoError(t, w.holds(dir))
}

func TestAccountsThatTheSourceDoesNotKnowAreListedAndPrunedWhenAsked(t *testing.T) {
	for _, allowDelete := range []bool{true, false} {
		t.Run(fmt.Sprint("servers delete: ", allowDelete), func(t *testing.T) {
			w := newWorld(t)
			dir := t.TempDir()
			s := w.start(w.full(w.serverOptions("n1"), dir, allowDelete))
			r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
			ctx := testContext(t)
			known, stray := w.addAccount("known"), w.addAccount("stray")
			require.NoError(t, r.Deliver(ctx, known.id, stray.id))
			client, err := w.connectAs(s, stray)
			require.NoError(t, err)
			defer client.Close()
			w.mu.Lock()
			delete(w.wanted, stray.id)
			w.mu.Unlock()

			report, err := r.Sync(ctx, Options{Unknown: true})
			require.NoError(t, err)
			require.Equal(t, []Unknown{{Account: stray.id}}, report.Unknown)
			require.True(t, client.IsConnected())

			report, err = r.Sync(ctx, Options{Prune: true})
			require.NoError(t, err)
			require.Equal(t, []Unknown{{Account: stray.id, Pruned: true}}, report.Unknown)
			require.Equal(t, 1, report.Pruned)
			require.Zero(t, report.Failed)
			w.eventually(func() error {
				if client.IsConnected() {
					return errors.New("a client of the pruned account stays connected")
				}
				return nil
			})

			report, err = r.Sync(ctx, Options{Unknown: true})
			require.NoError(t, err)
			require.Empty(t, report.Unknown)
			require.Equal(t, 2, report.Delivered)
		})
	}
}

func TestAnUnnamedServerThatRestartsIsNotMissed(t *testing.T) {
	f := newFleet()
	require.True(t, f.heard(serverInfo{ID: "A", Name: "A", Cluster: "c"}))
	require.True(t, f.heard(serverInfo{ID: "B", Name: "B", Cluster: "c"}))
	require.False(t, f.heard(serverInfo{ID: "B", Name: "B", Cluster: "c"}))
	f.lost("A")
	require.Equal(t, []string{"A"}, f.missing())
	require.True(t, f.heard(serverInfo{ID: "X", Name: "X", Cluster: "other"}))
	require.Equal(t, []string{"A"}, f.missing(), "a server of another cluster is not its successor")
	require.True(t, f.heard(serverInfo{ID: "C", Name: "C", Cluster: "c"}))
	require.Empty(t, f.missing())

	f.lost("B")
	require.True(t, f.heard(serverInfo{ID: "B", Name: "B", Cluster: "c"}), "it was away")
	require.Len(t, f.present(), 3)
}

// A testCluster has the options of each of its servers, with the ports they got.
type testCluster struct {
	w       *world
	servers []*natsserver.Server
	options []*natsserver.Options
	dirs    []string
}

func (c *testCluster) urls() (urls []string) {
	for _, s := range c.servers {
		urls = append(urls, s.ClientURL())
	}
	return urls
}

// restart starts a stopped server again, on a directory.
func (c *testCluster) restart(i int, dir string) {
	c.w.t.Helper()
	c.servers[i] = c.w.start(c.w.full(c.options[i], dir, true))
}
