package delivery

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A load balancer takes connections for servers that are not there.
func TestAServerThatHangsUpIsToldAndNotWaitedFor(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var taken atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			_ = conn.Close()
		}
	}()
	w := newWorld(t)
	r := w.reconcilerThatWaits(w.config("nats://"+listener.Addr().String()), time.Hour)
	a := w.addAccount("a")
	for range 5 {
		begun := time.Now()
		err := r.Deliver(testContext(t), a.id)
		require.ErrorIs(t, err, errNotConnected)
		require.Less(t, time.Since(begun), answerTimeout)
	}
	require.ErrorContains(t, r.link.standing(), "EOF")
	require.Greater(t, taken.Load(), int64(2), "deliveries that somebody waits for made no attempts to connect")
}

// However often somebody asked meanwhile, the servers are found soon after they
// are back.
func TestDeliveriesThatAreAskedForDoNotProlongAnOutage(t *testing.T) {
	w := newWorld(t)
	s := w.start(w.full(w.serverOptions("one"), t.TempDir(), false))
	port := portOf(s)
	r := w.reconciler(w.config(s.ClientURL()))
	a := w.addAccount("a")
	require.NoError(t, r.Deliver(testContext(t), a.id))
	stop(s)
	for range 20 {
		require.ErrorIs(t, r.Deliver(testContext(t), a.id), errNotConnected)
	}
	o := w.full(w.serverOptions("one"), t.TempDir(), false)
	o.Port = port
	begun := time.Now()
	w.start(o)
	w.eventually(func() error { return r.link.standing() })
	require.Less(t, time.Since(begun), 5*time.Second)
}

// A server that was killed did not say goodbye. It is told apart from one that
// cannot delete, so that no last JWT is left on those that have deleted.
func TestADeletionLeavesNothingBehindForAServerThatIsAway(t *testing.T) {
	const away = `{"server":{"name":"n2","id":"N2","ver":"2.0.0"},"statsz":{"active_servers":2}}`
	w := newWorld(t)
	s, dir := w.fullServer()
	w.isOurs(s, "N2")
	there := w.answerToo(s, pingSubject, func(m *nats.Msg) { _ = m.Respond([]byte(away)) })
	took := w.answerToo(s, updateSubject("*"), func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"server":{"name":"n2","id":"N2","ver":"2.0.0"},"data":{"code":200,"message":"jwt updated"}}`))
	})
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	require.NoError(t, r.link.ready(testContext(t)))
	w.knows(r, 2)
	a := w.addAccount("orders")
	require.NoError(t, r.Deliver(testContext(t), a.id))
	require.NoError(t, there.Unsubscribe())
	require.NoError(t, took.Unsubscribe())

	w.remove(a.id)
	require.ErrorContains(t, r.Deliver(testContext(t), a.id), "server n2 is away, and may still hold the account")
	require.NoError(t, w.holds(dir))
	require.Error(t, w.nothingPending())
}
