package delivery

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestChangedAccountsReachAFullResolver(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	r := w.reconciler(w.config(s.ClientURL()))
	ctx := testContext(t)

	a := w.addAccount("orders")
	require.NoError(t, r.Deliver(ctx, a.id))
	require.NoError(t, w.holds(dir))
	require.Zero(t, w.stillPending())
	w.eventually(func() error {
		if states := r.Pending("", 10); len(states) > 0 {
			return fmt.Errorf("%+v are pending", states)
		}
		return nil
	})

	client, err := w.connectAs(s, a)
	require.NoError(t, err)
	defer client.Close()

	w.set(a.id, w.accountJWT(a.id, "orders, changed", nil))
	require.NoError(t, r.Deliver(ctx, a.id))
	require.NoError(t, w.holds(dir))

	disconnected := make(chan struct{})
	client.SetDisconnectErrHandler(func(*nats.Conn, error) { close(disconnected) })
	w.remove(a.id)
	require.NoError(t, r.Deliver(ctx, a.id))
	require.NoError(t, w.holds(dir))
	select {
	case <-disconnected:
	case <-ctx.Done():
		t.Fatal("a client of a removed account stays connected")
	}
}

func TestAccountsAreDeliveredOnceTheServerIsUp(t *testing.T) {
	w := newWorld(t)
	o := w.full(w.serverOptions("n1"), t.TempDir(), true)
	s := w.start(o)
	url := s.ClientURL()
	o.Port = portOf(s)
	stop(s)

	r := w.reconciler(w.config(url))
	a := w.addAccount("orders")
	err := r.Deliver(testContext(t), a.id)
	require.ErrorIs(t, err, errNotConnected)
	require.Equal(t, 1, w.stillPending())
	states := r.Pending("", 10)
	require.Len(t, states, 1)
	require.Contains(t, states[0].Error, "not connected")
	require.NotNil(t, states[0].NextTry)

	dir := t.TempDir()
	w.start(w.full(o, dir, true))
	w.eventually(func() error {
		if n := w.stillPending(); n > 0 {
			return fmt.Errorf("%d accounts are pending", n)
		}
		return nil
	})
	w.eventually(func() error { return w.holds(dir) })
}

func TestWhatAnEarlierProcessLeftPendingIsDelivered(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	for i := range 20 {
		w.addAccount(fmt.Sprint("account ", i))
	}
	w.reconciler(w.config(s.ClientURL()))
	w.eventually(func() error {
		if w.stillPending() > 0 {
			return errors.New("accounts are pending")
		}
		return w.holds(dir)
	})
}

// Somebody who waits for a delivery does not wait for the pause between two
// attempts to connect as well.
func TestADeliveryThatSomebodyWaitsForConnectsAtOnce(t *testing.T) {
	w := newWorld(t)
	o := w.full(w.serverOptions("one"), t.TempDir(), false)
	s := w.start(o)
	port := portOf(s)
	stop(s)
	r := w.reconciler(w.config(fmt.Sprintf("nats://127.0.0.1:%d", port)))
	a := w.addAccount("a")
	// After a few failures the pause is longer than this test may take.
	for range 8 {
		if err := r.Deliver(t.Context(), a.id); !errors.Is(err, errNotConnected) {
			t.Fatalf("with no server a delivery ends with %v", err)
		}
	}
	o.Port = port
	w.start(o)
	begun := time.Now()
	if err := r.Deliver(t.Context(), a.id); err != nil {
		t.Fatalf("a delivery with the server up: %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Fatalf("the delivery took %s: it waited for the next attempt to connect", took)
	}
}

// Whoever connects first has everything compared, and what the connect asks for is
// done with it. Done again at once it would hold up the changes of a large mount.
func TestAComparisonIsNotMadeTwiceForOneReason(t *testing.T) {
	w := newWorld(t)
	s, _ := w.fullServer()
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	first, err := r.Sync(testContext(t), Options{})
	require.NoError(t, err)
	asked := r.askedAt()
	require.False(t, asked.IsZero(), "the connect asks for no comparison")

	same, err := r.Sync(testContext(t), Options{since: asked})
	require.NoError(t, err)
	require.Same(t, first, same, "what was asked for before the first comparison began was compared twice")

	r.compareSoon()
	next, err := r.Sync(testContext(t), Options{since: r.askedAt()})
	require.NoError(t, err)
	require.NotSame(t, first, next, "what was asked for after the comparison was not compared")
}
