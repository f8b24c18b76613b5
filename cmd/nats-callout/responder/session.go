package responder

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
)

const (
	// reconnectWait is between two attempts to connect to a server. It is short, as
	// nobody is let in meanwhile.
	reconnectWait = 250 * time.Millisecond

	// signTimeout is how long Vault may take for a signature in the middle of a
	// handshake, for all of which a nats-server gives two seconds, as a rule.
	signTimeout = 1500 * time.Millisecond
)

// A session is a connection with one JWT of the callout's user after another: nats.go
// reconnects it by itself.
type session struct {
	conn         *nats.Conn
	subscription *nats.Subscription
	lost         chan struct{}  // closed when the connection is closed for good
	pending      sync.WaitGroup // requests that are not answered yet

	mu      sync.Mutex
	jwt     string
	expires time.Time
	asked   time.Time // when Vault was asked for it
}

// connect returns a session that hears requests.
func (r *Responder) connect(ctx context.Context) (*session, error) {
	s := &session{lost: make(chan struct{})}
	log := r.config.Logger
	options := append([]nats.Option{
		nats.Name("nats-callout"),
		nats.UserJWT(func() (string, error) { return s.userJWT(ctx, r.config.Vault) }, func(nonce []byte) ([]byte, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTimeout)
			defer cancel()
			return r.config.Vault.sign(ctx, nonce)
		}),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.IgnoreAuthErrorAbort(), // the next attempt is with a new JWT
		// A responder that hangs in the middle of the way is noticed by nobody else.
		nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ClosedHandler(func(*nats.Conn) { close(s.lost) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the connection to NATS is lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) { log.Info("connected to NATS again", "server", conn.ConnectedServerName()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS", "error", err) }),
	}, r.config.Options...)
	conn, err := nats.Connect(r.config.NATS, options...)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	s.subscription, err = conn.QueueSubscribe(callout.Subject, callout.Queue, func(message *nats.Msg) { r.hear(s, message) })
	if err == nil {
		err = conn.FlushTimeout(r.config.Timeout) // the server has the subscription now
	}
	if err == nil {
		err = conn.LastError()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	log.Info("connected to NATS, and answering", "server", conn.ConnectedServerName())
	return s, nil
}

// userJWT is called in each handshake. A JWT is shown again only while most of its
// life is ahead, and not after a server may have refused it.
func (s *session) userJWT(ctx context.Context, vault *Vault) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jwt != "" && time.Since(s.asked) < time.Second {
		return s.jwt, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTimeout)
	defer cancel()
	asked := time.Now()
	jwt, expires, err := vault.userJWT(ctx)
	if err != nil {
		return "", err
	}
	s.jwt, s.expires, s.asked = jwt, expires, asked
	return jwt, nil
}

// waitForRenewal returns when it is time for another session, or the context ends.
func (s *session) waitForRenewal(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		life, age := s.expires.Sub(s.asked), time.Since(s.asked)
		s.mu.Unlock()
		left := life*7/10 + rand.N(life/10+1) - age
		if left <= 0 {
			return
		}
		// A reconnect brings another JWT, so it is looked at again now and then.
		timer := time.NewTimer(min(left, time.Minute))
		select {
		case <-timer.C:
		case <-s.lost:
		case <-ctx.Done():
		}
		timer.Stop()
		select {
		case <-s.lost:
			return
		default:
		}
	}
}

// end stops requests from coming, waits until all that have come are answered, and
// closes the connection.
func (s *session) end(grace time.Duration) {
	defer s.conn.Close()
	closed := s.subscription.StatusChanged(nats.SubscriptionClosed)
	if err := s.subscription.Drain(); err != nil {
		return // the connection is lost
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-closed:
	case <-s.lost:
		return
	case <-timer.C:
		return
	}
	s.pending.Wait() // not longer than the timeout of a request
	_ = s.conn.FlushTimeout(time.Second)
}
