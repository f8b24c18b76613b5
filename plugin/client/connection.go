package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// patience is how long a connection waits for Vault in the middle of a handshake. A
	// nats-server gives a client two seconds for all of it, as a rule.
	patience = time.Second
	// flushTimeout bounds the flush before a reconnect.
	flushTimeout = 5 * time.Second
	// sameAge is how old credentials may be to be shown a second time: the times in a JWT,
	// and in its revocation, are whole seconds, so that others of the same second are
	// worth no more.
	sameAge = time.Second
)

// Option has a connection use the client's credentials and renews them. It may be used
// for any number of connections. It sets:
//
//   - the user JWT and the signature of the server's nonce;
//   - IgnoreAuthErrorAbort: after a refusal the next attempt is with a new JWT;
//   - MaxReconnects(-1), unless another number was chosen before: a connection outlives
//     an outage of Vault or NATS of any length;
//   - the connect handler, from which it learns of the connection. It calls the one that
//     was set before; a [nats.ConnectHandler] that comes after it would have the
//     connection reconnect only when the server has ended it.
//
// So it is best the last of the options.
func (c *Client) Option() nats.Option {
	return func(o *nats.Options) error {
		h := &handshakes{client: c, changed: make(chan struct{})}
		o.UserJWT, o.SignatureCB = h.userJWT, h.sign
		o.IgnoreAuthErrorAbort = true
		if o.MaxReconnect == nats.DefaultMaxReconnect {
			o.MaxReconnect = -1
		}
		connected := o.ConnectedCB
		o.ConnectedCB = func(conn *nats.Conn) {
			c.begin(func() { h.renew(conn) })
			if connected != nil {
				connected(conn)
			}
		}
		return nil
	}
}

// handshakes are those of one connection with the servers: one at a time.
type handshakes struct {
	client *Client

	mu      sync.Mutex
	shown   *credentials  // nil before the first
	changed chan struct{} // closed when others are shown
}

// userJWT is called in each handshake, under the connection's lock. It shows credentials
// once, if Vault gives others in time, and as long as they are valid if it does not.
func (h *handshakes) userJWT() (string, error) {
	next, err := h.next()
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if next != h.shown {
		h.shown = next
		close(h.changed)
		h.changed = make(chan struct{})
	}
	return next.jwt, nil
}

func (h *handshakes) next() (*credentials, error) {
	shown, _ := h.last()
	held, err := h.client.newest()
	if err != nil {
		return nil, err
	}
	if held.valid() && (held != shown && held.fresh() || held == shown && time.Since(held.asked) < sameAge) {
		return held, nil
	}
	ctx, cancel := context.WithTimeout(h.client.ctx, patience)
	defer cancel()
	fetchErr := h.client.fetch().wait(ctx)
	if held, err = h.client.newest(); err != nil {
		return nil, err
	}
	if held.valid() {
		return held, nil
	}
	if errors.Is(fetchErr, context.DeadlineExceeded) {
		return nil, fmt.Errorf("the NATS user JWT has ended, and Vault did not give another in %s", patience)
	}
	return nil, fmt.Errorf("the NATS user JWT has ended, and there is no other: %w", fetchErr)
}

// sign is called in each handshake after userJWT.
func (h *handshakes) sign(nonce []byte) ([]byte, error) {
	shown, _ := h.last()
	if shown == nil {
		return nil, errors.New("a nonce is to be signed before a NATS user JWT was asked for")
	}
	return shown.sign(nonce)
}

func (h *handshakes) last() (*credentials, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shown, h.changed
}

// renew has the connection reconnect with others before the credentials that it has shown
// end, until it is closed or the client is.
func (h *handshakes) renew(conn *nats.Conn) {
	ctx, cancel := context.WithCancel(h.client.ctx)
	defer cancel()
	closed := conn.StatusChanged(nats.CLOSED)
	defer conn.RemoveStatusListener(closed)
	h.client.begin(func() {
		select {
		case <-closed:
			cancel()
		case <-ctx.Done():
		}
	})

	for !conn.IsClosed() && ctx.Err() == nil {
		shown, changed := h.last()
		if !sleep(ctx, time.Until(shown.renew), changed) {
			continue
		}
		if err := h.client.renew(ctx, shown); err != nil {
			if ctx.Err() == nil {
				report(conn, err)
				sleep(ctx, h.client.untilRetry(), changed)
			}
			continue
		}
		reconnect(ctx, conn, changed)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// sleep reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
	case <-ctx.Done():
	}
	return false
}

// report tells the connection's error handler. That may close the client, and so wait
// for the task that reports.
func report(conn *nats.Conn, err error) {
	if handle := conn.ErrorHandler(); handle != nil {
		go handle(conn, nil, fmt.Errorf("renewing the NATS user JWT: %w", err))
	}
}

// reconnect has the connection log in to NATS again, unless it just did or is about to be
// closed. What it has published is with the server before; a flush that fails was on its
// way to a reconnect anyway.
func reconnect(ctx context.Context, conn *nats.Conn, changed <-chan struct{}) {
	if conn.IsConnected() {
		flush, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		_ = conn.FlushWithContext(flush)
	}
	select {
	case <-changed:
	case <-ctx.Done():
	default:
		if !conn.IsDraining() {
			_ = conn.ForceReconnect() // it fails only when the connection is closed
		}
	}
}

// renew returns when the newest credentials are others than old, and fresh.
func (c *Client) renew(ctx context.Context, old *credentials) error {
	held, err := c.newest()
	if err != nil || held != old && held.fresh() {
		return err
	}
	return c.fetch().wait(ctx)
}
