package delivery

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A message that was found good (hold.go) can be in this process's hands for a while
// yet: in a buffer of nats.go's, before a TLS handshake, or because the machine has much
// to do. If the process stands still there, it would send the message when it goes on.
// So the connections themselves look, right before the network, whether it has stood
// still since they were made, and end if it has, with all that was in hand.

// A pulse knows whether the process has stood still for longer than LeadTime.
type pulse struct {
	mu    sync.Mutex
	last  time.Time // when it surely ran
	stops uint64
}

func newPulse() *pulse { return &pulse{last: time.Now()} }

// beat is called while the process runs, and returns how often it has stood still before.
func (p *pulse) beat() (stops uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if SinceAsked(p.last) > LeadTime {
		p.stops++
	}
	p.last = time.Now()
	return p.stops
}

// keep has it beat until the context ends.
func (p *pulse) keep(ctx context.Context) {
	ticker := time.NewTicker(LeadTime / 8)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.beat()
		case <-ctx.Done():
			return
		}
	}
}

// DialContext makes a connection that ends when it finds that the process has stood
// still.
func (p *pulse) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	stops := p.beat()
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &awakeConn{Conn: conn, pulse: p, stops: stops}, nil
}

// Dial implements nats.CustomDialer.
func (p *pulse) Dial(network, address string) (net.Conn, error) {
	return p.DialContext(context.Background(), network, address)
}

type awakeConn struct {
	net.Conn
	pulse *pulse
	stops uint64 // when it was made
}

var errStoodStill = errors.New("the process stood still, and what it had in hand is not sent")

func (c *awakeConn) Write(data []byte) (int, error) {
	if c.pulse.beat() != c.stops {
		_ = c.Conn.Close() // whoever reads notices too
		return 0, errStoodStill
	}
	return c.Conn.Write(data)
}

// An awakeBody is the body of a request that is not sent on another connection either, if
// the process has stood still since the body was made.
type awakeBody struct {
	text  string
	rest  *strings.Reader
	pulse *pulse
	stops uint64
}

func (p *pulse) body(text string) *awakeBody {
	return &awakeBody{text: text, rest: strings.NewReader(text), pulse: p, stops: p.beat()}
}

// again is the same body, from its beginning.
func (b *awakeBody) again() io.ReadCloser {
	from := *b
	from.rest = strings.NewReader(b.text)
	return &from
}

func (b *awakeBody) Read(into []byte) (int, error) {
	if b.pulse.beat() != b.stops {
		return 0, errStoodStill
	}
	return b.rest.Read(into)
}

// Close implements io.Closer.
func (b *awakeBody) Close() error { return nil }
