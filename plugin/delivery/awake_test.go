package delivery

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// standStill is what a process sees that was stopped for a while.
func (p *pulse) standStill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = p.last.Add(-2 * LeadTime)
}

func TestAConnectionEndsWhoseProcessHasStoodStill(t *testing.T) {
	for name, wakesUp := range map[string]func(*pulse){
		"and sends first":  func(*pulse) {},
		"and beats before": func(p *pulse) { p.beat() },
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			p := newPulse()
			conn := &awakeConn{Conn: here, pulse: p, stops: p.beat()}
			heard := make(chan string, 1)
			go func() {
				all, _ := io.ReadAll(there)
				heard <- string(all)
			}()
			_, err := conn.Write([]byte("before"))
			require.NoError(t, err)
			p.standStill()
			wakesUp(p)
			_, err = conn.Write([]byte("after"))
			require.ErrorIs(t, err, errStoodStill)
			require.Equal(t, "before", <-heard)
		})
	}
}

// What nats.go has in its buffer when the process is stopped is gone when it goes on,
// and the connection is made anew.
func TestWhatWasInHandWhenTheProcessStoodStillIsNotPushed(t *testing.T) {
	w := newWorld(t)
	s, _ := w.fullServer()
	account := w.addAccount("orders")
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	require.NoError(t, r.Deliver(testContext(t), w.systemID))

	watching := w.bareClient(s)
	defer watching.Close()
	var pushes atomic.Int64
	_, err := watching.Subscribe(updateSubject("*"), func(*nats.Msg) { pushes.Add(1) })
	require.NoError(t, err)
	require.NoError(t, watching.Flush())
	r.link.mu.Lock()
	conn := r.link.conn
	r.link.mu.Unlock()
	before := conn.Reconnects
	r.pulse.standStill()
	require.NoError(t, conn.Publish(updateSubject(account.id), []byte(w.wanted[account.id])))
	w.eventually(func() error { return conn.FlushTimeout(time.Second) })
	require.NoError(t, watching.Flush())
	require.Zero(t, pushes.Load())
	require.Greater(t, conn.Statistics.Reconnects, before)
	require.NoError(t, r.Deliver(testContext(t), account.id))
}

func TestAnAccountServerIsGivenNothingThatWasInHandWhenTheProcessStoodStill(t *testing.T) {
	var heard atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && string(body) == "x" {
			heard.Add(1)
		}
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	p := newPulse()
	servers := newAccountServers(endpoints{}, p)
	t.Cleanup(servers.close)
	require.NoError(t, servers.postTo(t.Context(), at, p.body("x")))
	inHand := p.body("x")
	p.standStill()
	require.ErrorContains(t, servers.postTo(t.Context(), at, inHand), errStoodStill.Error())
	require.EqualValues(t, 1, heard.Load())
	require.NoError(t, servers.postTo(t.Context(), at, p.body("x")), "it goes on with another connection")
	require.EqualValues(t, 2, heard.Load())
}
