package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// ErrClosed is the error of a connection that needs credentials after [Client.Close].
var ErrClosed = errors.New("the client of the NATS credentials is closed")

const (
	// fetchTimeout bounds all requests to Vault for one set of credentials.
	fetchTimeout = 30 * time.Second
	// After a failure Vault is left alone for a time that doubles from the first of these
	// to the second.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// A Client holds the credentials of a workload and renews them for the connections that
// were made with its [Client.Option]. It may be used from several goroutines, by any
// number of connections.
type Client struct {
	source source
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	current *credentials
	// replaced are those before current: a connection may be in the middle of using them.
	replaced *credentials
	last     *attempt // nil before the first renewal
	failures int      // in a row
	retry    time.Time
}

// An attempt to get new credentials, which all who want them wait for together.
type attempt struct {
	done chan struct{}
	err  error // read after done
}

func (a *attempt) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// New logs in and returns when it has credentials; ctx bounds this first login. Every
// renewal is a login of its own. Of vault the address, namespace and other settings are
// used as they are now; its token is neither used nor changed, and the Vault tokens of
// the logins are revoked when they are not needed.
//
// A role with credentials_on_login=false needs a policy that lets its tokens update
// auth/<mount>/creds/<role>. The credentials of such a role are a lease, which
// [Client.Close] revokes.
func New(ctx context.Context, vault *api.Client, workload Workload) (*Client, error) {
	own, err := vault.CloneWithHeaders()
	if err != nil {
		return nil, fmt.Errorf("copying the Vault client: %w", err)
	}
	own.ClearToken() // the copy may have taken one from the environment
	return start(ctx, &fromLogin{vault: own, workload: workload})
}

// NewFromVaultToken gets credentials at creds/:role with the Vault token that the client
// vault holds, and returns when it has them; ctx bounds this. They are a lease: when the
// Vault token ends or is revoked, Vault revokes the NATS user too. Keeping the token
// alive is up to the caller, who may also replace it in vault at any time.
//
// The workload must have a Role. For a role of type vault it has no Token, and the
// token's policies must allow reading auth/<mount>/creds/<role>, and as Vault's policy
// default does auth/token/lookup-self, which tells the token's entity. For any other role
// it sends its Token again, and the policies must allow updating the path.
func NewFromVaultToken(ctx context.Context, vault *api.Client, workload Workload) (*Client, error) {
	if workload.Role == "" {
		return nil, errors.New("the Workload has no Role, which credentials for a Vault token need")
	}
	return start(ctx, &fromVaultToken{vault: vault, workload: workload})
}

func start(ctx context.Context, s source) (*Client, error) {
	first, err := s.fetch(ctx)
	if err != nil {
		s.close()
		return nil, err
	}
	c := &Client{source: s, current: first}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// URL is the NATS servers' URL as the mount tells it: its service_url.
func (c *Client) URL() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.url
}

// Close ends the renewal of credentials and wipes their keys. Close the connections
// first: those that are open stay so until their credentials end, and cannot reconnect.
// It takes five seconds at most, when Vault does not answer to the revocation of a token.
func (c *Client) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.cancel()
	c.mu.Unlock()

	c.work.Wait()
	c.replaced.wipe()
	c.current.wipe()
	c.source.close()
}

func (c *Client) newest() (*credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	return c.current, nil
}

// begin starts a task that Close waits for, unless the client is closed.
func (c *Client) begin(task func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Go(task)
	}
}

// fetch has new credentials got, unless that is being done or has just failed.
func (c *Client) fetch() *attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && (!c.last.ended() || time.Now().Before(c.retry)) {
		return c.last
	}
	a := &attempt{done: make(chan struct{})}
	if c.closed {
		a.err = ErrClosed
		close(a.done)
		return a
	}
	c.last = a
	c.work.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, fetchTimeout)
		defer cancel()
		got, err := c.source.fetch(ctx)
		c.fetched(a, got, err)
	})
	return a
}

func (c *Client) fetched(a *attempt, got *credentials, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(a.done)
	if err != nil {
		a.err = err
		wait := min(firstRetry<<min(c.failures, 10), lastRetry)
		c.failures++
		c.retry = time.Now().Add(wait/2 + rand.N(wait))
		return
	}
	c.failures, c.retry = 0, time.Time{}
	c.replaced.wipe()
	c.replaced, c.current = c.current, got
}

func (c *Client) untilRetry() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Until(c.retry)
}

// wait returns the attempt's error once it has ended.
func (a *attempt) wait(ctx context.Context) error {
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
