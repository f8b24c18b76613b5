package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
)

// errNotConnected is the state of every account while no server is reached.
var errNotConnected = errors.New("not connected to NATS")

// A link is the one connection to the cluster. It is made when first needed,
// and remade for as long as the link is open.
type link struct {
	pulse  *pulse
	urls   []string
	tls    *tls.Config
	user   func() (string, func([]byte) ([]byte, error), error)
	logger hclog.Logger

	// up is called after each connect; renewed is true when only the user's JWT
	// had run out. heard gets every event of the servers, pushed what others tell the
	// servers of accounts; overrun is called when some of that was lost. None may block.
	up      func(renewed bool)
	heard   func(*nats.Msg)
	pushed  func(*nats.Msg)
	overrun func()

	start sync.Once
	tasks sync.WaitGroup
	first chan struct{} // closed once the first round of connecting is over
	inbox string        // prefix of the reply subjects, ending in a dot; there once first is closed
	next  atomic.Uint64 // the last token of a reply subject
	sign  atomic.Pointer[func([]byte) ([]byte, error)]

	// The lock is not held while the connection's methods are called: it calls
	// back while it holds a lock of its own.
	mu      sync.Mutex
	conn    *nats.Conn
	waiting map[string]chan *nats.Msg // by the last token of the reply subject
	down    chan struct{}             // closed when the connection is lost; nil while there is none
	err     error                     // why the last connect failed or the connection ended
	lost    time.Time                 // when the connection ended, or was first tried to be made
	tried   chan struct{}             // closed after each attempt to connect, and then another
	closed  bool
}

func newLink(e endpoints, cfg Config, p *pulse) *link {
	return &link{
		pulse: p, urls: e.nats, tls: e.tls, user: cfg.User, logger: cfg.Logger,
		first:   make(chan struct{}),
		waiting: make(map[string]chan *nats.Msg),
		tried:   make(chan struct{}),
	}
}

// ready makes sure that the link is being connected, and reports whether it
// stands. The first time it waits for the outcome of the first round.
func (l *link) ready(ctx context.Context) error {
	l.start.Do(func() {
		l.tasks.Add(1)
		go func() {
			defer l.tasks.Done()
			l.connect()
		}()
	})
	select {
	case <-l.first:
	case <-ctx.Done():
		return ctx.Err()
	}
	return l.standing()
}

// standing is nil while there is a connection.
func (l *link) standing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return nil
	}
	return l.gone()
}

// gone is the error of having no connection. It needs the lock.
func (l *link) gone() error {
	if l.err != nil {
		return fmt.Errorf("%w: %w", errNotConnected, l.err)
	}
	return errNotConnected
}

func (l *link) connect() {
	defer close(l.first)
	options := []nats.Option{
		nats.Name("vault-plugin-auth-nats"),
		// Not nats.UserJWT: it asks for a user right away, and a fault then would
		// be final.
		func(o *nats.Options) error {
			o.UserJWT, o.SignatureCB = l.userJWT, l.signNonce
			return nil
		},
		nats.Timeout(dialTimeout),
		nats.SetCustomDialer(l.pulse),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // the user's JWT is a new one each time
		nats.CustomReconnectDelay(func(int) time.Duration { return l.pause() }),
		nats.ReconnectBufSize(-1), // what is sent while it is down fails at once, and is tried again
		nats.NoEcho(),             // what is pushed from here is not what others push
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(*nats.Conn) { l.connected() }),
		nats.ReconnectHandler(func(*nats.Conn) { l.connected() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { l.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { l.failed(err) }), // see pause too
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.logger.Warn("error on the connection to NATS", "error", err)
			if errors.Is(err, nats.ErrSlowConsumer) {
				l.overrun()
			}
		}),
	}
	if l.tls != nil {
		options = append(options, nats.Secure(l.tls.Clone()))
	}
	l.mu.Lock()
	l.lost = time.Now()
	l.mu.Unlock()
	conn, err := nats.Connect(strings.Join(l.urls, ","), options...)
	if err != nil {
		// Only for options that nats.go refuses: connecting itself is retried.
		l.failed(err)
		return
	}
	l.inbox = conn.NewInbox() + "."
	if err := l.subscribe(conn); err != nil {
		l.failed(err)
		conn.Close()
		return
	}
	l.mu.Lock()
	l.conn = conn
	closed := l.closed
	l.mu.Unlock()
	switch {
	case closed:
		conn.Close()
	case conn.IsConnected():
		l.connected()
	case conn.LastError() != nil:
		l.failed(conn.LastError())
	}
}

// subscribe is done before the first connect too: nats.go sends it then.
func (l *link) subscribe(conn *nats.Conn) error {
	if _, err := conn.Subscribe(l.inbox+"*", l.replied); err != nil {
		return err
	}
	for _, subject := range []string{statszSubject, shutdownSubject} {
		if _, err := conn.Subscribe(subject, l.heard); err != nil {
			return err
		}
	}
	for _, subject := range pushSubjects {
		if _, err := conn.Subscribe(subject, l.pushed); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) userJWT() (string, error) {
	userJWT, sign, err := l.user()
	if err != nil {
		err = fmt.Errorf("system user: %w", err)
		l.failed(err)
		return "", err
	}
	l.sign.Store(&sign)
	return userJWT, nil
}

func (l *link) signNonce(nonce []byte) ([]byte, error) { return (*l.sign.Load())(nonce) }

func (l *link) connected() {
	l.mu.Lock()
	if l.conn == nil || l.down != nil || l.closed { // connect is not done with it yet, or was here first
		l.mu.Unlock()
		return
	}
	renewed := errors.Is(l.err, nats.ErrAuthExpired)
	l.down, l.err = make(chan struct{}), nil
	l.attempted()
	l.mu.Unlock()
	if !renewed {
		l.logger.Info("connected to NATS")
	}
	l.up(renewed)
}

func (l *link) disconnected(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		close(l.down)
		l.down, l.lost = nil, time.Now()
	}
	l.err = err
	if l.closed {
		return
	}
	if !errors.Is(err, nats.ErrAuthExpired) {
		l.logger.Warn("connection to NATS lost", "error", err)
	}
}

func (l *link) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempted()
	if l.closed {
		return
	}
	if l.err == nil || l.err.Error() != err.Error() {
		l.logger.Warn("cannot connect to NATS", "error", err)
	}
	l.err = err
}

// pause is how long nats.go waits after it has tried every server. It grows with
// the time that the servers are away, and not with the attempts that hurry makes
// meanwhile: so it prolongs an outage by a half at most.
func (l *link) pause() time.Duration {
	l.mu.Lock()
	conn, down, lost := l.conn, l.down, l.lost
	l.mu.Unlock()
	if conn != nil && down == nil {
		// nats.go does not call its error handler for what fails once a server has
		// taken the connection: TLS, or that the user is refused.
		if err := conn.LastError(); err != nil {
			l.failed(err)
		}
	}
	d := min(max(time.Since(lost)/2, minBackoff), maxBackoff)
	return d - rand.N(d/4+1)
}

// attempted wakes those who wait in hurry. The caller holds the lock.
func (l *link) attempted() {
	close(l.tried)
	l.tried = make(chan struct{})
}

// hurry has a link that is down try every server now, instead of after its
// pause, and waits for how that ends: somebody waits for the delivery.
func (l *link) hurry(ctx context.Context) {
	for range l.urls {
		l.mu.Lock()
		conn, tried := l.conn, l.tried
		stands := l.down != nil
		l.mu.Unlock()
		if conn == nil || stands || !conn.IsReconnecting() {
			return
		}
		if err := conn.ForceReconnect(); err != nil {
			return // closed meanwhile
		}
		select {
		case <-tried:
		case <-ctx.Done():
			return
		}
	}
}

// serverID is the ID of the server that the link stands to, empty if there is none.
func (l *link) serverID() string {
	l.mu.Lock()
	conn, down := l.conn, l.down
	l.mu.Unlock()
	if down == nil {
		return ""
	}
	return conn.ConnectedServerId()
}

// replied hands an answer to whom it is for. An answer that comes too late, or
// one beyond what is waited for, is dropped.
func (l *link) replied(msg *nats.Msg) {
	l.mu.Lock()
	answers := l.waiting[msg.Subject[len(l.inbox):]]
	l.mu.Unlock()
	if answers == nil {
		return
	}
	select {
	case answers <- msg:
	default:
	}
}

// A request is one that every server may answer.
type request struct {
	subject string
	data    []byte
	servers int           // how many are expected to answer
	quiet   time.Duration // if not zero, how long to wait after an answer for another

	// If not nil, good is called right before the request leaves, which it does not if
	// that fails.
	good func(context.Context) error

	// If not nil, take is called with nil when the channel is closed, and the
	// next channel is waited for.
	left func() <-chan struct{}
}

// errNoAnswer is that a request was not answered in answerTimeout, or not by all.
var errNoAnswer = errors.New("no answer in time")

// ask sends a request and hands each answer to take until that returns true.
func (l *link) ask(ctx context.Context, r request, take func([]byte) bool) error {
	token := strconv.FormatUint(l.next.Add(1), 36)
	answers := make(chan *nats.Msg, r.servers+unexpected)
	l.mu.Lock()
	conn, down := l.conn, l.down
	if down == nil {
		defer l.mu.Unlock()
		return l.gone()
	}
	l.waiting[token] = answers
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, token)
		l.mu.Unlock()
	}()

	if r.good != nil {
		stops := l.pulse.beat()
		if err := r.good(ctx); err != nil {
			return err
		}
		if l.pulse.beat() != stops { // the connection may be one that was made since
			return fmt.Errorf("%w: %w", errNotConnected, errStoodStill)
		}
	}
	if err := conn.PublishRequest(r.subject, l.inbox+token, r.data); err != nil {
		return sendError(err, conn, len(r.data))
	}
	late := time.NewTimer(answerTimeout)
	defer late.Stop()
	var still <-chan time.Time
	var left <-chan struct{}
	if r.left != nil {
		left = r.left()
		take(nil) // for one that was lost before
	}
	for {
		select {
		case msg := <-answers:
			if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
				return nats.ErrNoResponders
			}
			if take(msg.Data) {
				return nil
			}
			if r.quiet > 0 {
				still = time.After(r.quiet)
			}
		case <-left:
			left = r.left() // before take, or the next loss could fall in between
			if take(nil) {
				return nil
			}
		case <-still:
			return nil
		case <-late.C:
			return errNoAnswer
		case <-down:
			return errNotConnected
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendError tells a message that is too large, which would be so again, from
// everything that a connection can fail of.
func sendError(err error, conn *nats.Conn, size int) error {
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("the account JWT has %d bytes, and the server's max_payload is %d", size, conn.MaxPayload())
	}
	return fmt.Errorf("%w: %w", errNotConnected, err)
}

// close ends the connection and waits for what the link started.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	l.tasks.Wait()
}

// backoff is how long to wait before attempt n+1, n counted from 1: doubling up
// to a bound, and up to a quarter less, so that many do not come at once.
func backoff(n int) time.Duration {
	d := maxBackoff
	if n < 16 {
		d = min(minBackoff<<max(n-1, 0), maxBackoff)
	}
	return d - rand.N(d/4+1)
}
