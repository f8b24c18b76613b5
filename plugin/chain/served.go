package chain

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// serveTime bounds a load that several wait for.
const serveTime = 30 * time.Second

// Served is an account JWT as it is given to unauthenticated callers.
type Served struct {
	JWT  string
	ETag string // the JWT's ID, quoted
}

func newServedCache() *store.Cache[Served] {
	c := store.NewCache[Served]()
	c.Size = func(s *Served) int { return len(s.JWT) + len(s.ETag) }
	return c
}

// Serve returns the JWT of the account with that public key, nil if the mount
// has none. Its cache is not the one that logins use.
func (c *Chain) Serve(ctx context.Context, s logical.Storage, id string) (*Served, error) {
	return c.served.Get(ctx, id, func(ctx context.Context, id string) (*Served, error) {
		// Anyone may ask, as often as they like: those who ask for the same account
		// at once cost one signature. The generation in the key keeps whoever comes
		// after a change from being given what was read before it; and the load goes
		// on for the others if the first of them leaves.
		key := fmt.Sprintf("%s/%d", id, c.served.Generation())
		loaded, err, _ := c.serving.Do(key, func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), serveTime)
			defer cancel()
			return c.loadServed(ctx, s, id)
		})
		if err != nil {
			return nil, err
		}
		return loaded.(*Served), nil
	})
}

// servedLoads is how many accounts are loaded at once for callers who may be anyone.
// Each takes the account's entry and its revocations, megabytes of a large one.
const servedLoads = 16

func (c *Chain) loadServed(ctx context.Context, s logical.Storage, id string) (*Served, error) {
	select {
	case c.loads <- struct{}{}:
		defer func() { <-c.loads }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	wanted, err := c.want(ctx, s, id)
	if wanted == nil || err != nil {
		return nil, err
	}
	return serving(wanted.jwt)
}

func serving(token string) (*Served, error) {
	var claims struct {
		ID string `json:"jti"`
	}
	if err := trust.DecodePart(token, 1, &claims); err != nil {
		return nil, err
	}
	return &Served{JWT: token, ETag: `"` + claims.ID + `"`}, nil
}

// ServeOperator returns the operator's JWT, nil if the mount has no operator. It
// reads no storage in the steady state.
func (c *Chain) ServeOperator(ctx context.Context, s logical.Storage) (*Served, error) {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() {
		return nil, err
	}
	return serving(operator.entry.JWT)
}

// issuedAt reads the time of issue of a JWT that was made here.
func issuedAt(token string) (int64, error) {
	var claims jwt.ClaimsData
	err := trust.DecodePart(token, 1, &claims)
	return claims.IssuedAt, err
}
