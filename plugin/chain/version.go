package chain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// accountIndex is what is stored under an account's public key.
type accountIndex struct {
	Name    string `json:"name"`
	Revoked bool   `json:"revoked,omitempty"` // it has, or had, revocations of its own
	version
}

// readIndex returns the index of the account with that public key, nil if the
// mount does not deliver one.
func readIndex(ctx context.Context, s logical.Storage, id string) (*accountIndex, error) {
	return store.Read[accountIndex](ctx, s, accountIDPrefix+id)
}

// Known returns the name of the account with that public key, empty if the mount
// delivers none, and whether it has, or had, revocations of its own.
func (c *Chain) Known(ctx context.Context, s logical.Storage, id string) (name string, revoked bool, err error) {
	index, err := readIndex(ctx, s, id)
	if index == nil || err != nil {
		return "", false, err
	}
	return index.Name, index.Revoked, nil
}

// version orders the JWTs of one account. nats-servers that compare what they
// hold take the one with the later time of issue, which has only seconds, so
// each change takes a later one than the last had, ahead of the clock if need
// be.
type version struct {
	Issued     int64 `json:"issued"`     // Unix time
	Generation int64 `json:"generation"` // of the operator's signing key at that time
}

// at is the time of issue of the account's JWT under the operator as it is now:
// every new signing key makes all JWTs a second later.
func (v version) at(o *operatorEntry) int64 {
	return max(v.Issued+o.Generation-v.Generation, o.SignedSince)
}

// after is the version of the next change.
func (v version) after(o *operatorEntry, now time.Time) version {
	return version{Issued: max(v.at(o)+1, now.Unix()), Generation: o.Generation}
}

// wanted is an account as the servers are to hold it.
type wanted struct {
	name   string
	jwt    string
	issued int64
	size   int // that the JWT would have, had it room for all that belongs into it
}

// AccountJWT makes the JWT of the account with that public key, empty if there is
// no such account or it is not the mount's to deliver.
func (c *Chain) AccountJWT(ctx context.Context, s logical.Storage, id string) (string, error) {
	wanted, err := c.want(ctx, s, id)
	if wanted == nil || err != nil {
		return "", err
	}
	return wanted.jwt, nil
}

// want makes the JWT of the account with that public key, nil if there is no
// such account or it is not the mount's to deliver.
func (c *Chain) want(ctx context.Context, s logical.Storage, id string) (*wanted, error) {
	wanted, err := c.makeWanted(ctx, s, id)
	switch {
	case err != nil:
	case wanted == nil:
		c.fullest.note(id, 0)
	default:
		c.fullest.note(id, wanted.size)
	}
	return wanted, err
}

func (c *Chain) makeWanted(ctx context.Context, s logical.Storage, id string) (*wanted, error) {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() {
		return nil, err
	}
	index, err := readIndex(ctx, s, id)
	if index == nil || err != nil {
		return nil, err
	}
	var revoked []Revocation
	if index.Revoked {
		// Those that are over now are of no use in the JWT. Its time of issue does not
		// say that, since many changes take it ahead of the clock.
		if revoked, err = c.revocations.list(ctx, s, id, time.Now(), operator.entry.clockSkew()); err != nil {
			return nil, err
		}
	}
	stored, err := store.Get(ctx, s, namedPrefix+index.Name)
	if err != nil {
		return nil, err
	}

	c.making <- struct{}{}
	defer func() { <-c.making }()
	entry, err := store.Decode[namedEntry](stored)
	// The index is written before the entry and deleted after it.
	if entry == nil || err != nil || entry.PublicKey != id {
		return nil, err
	}
	issued := index.at(operator.entry)
	token, left, err := entry.encode(operator, index.Name, revoked, issued)
	if err != nil {
		return nil, fmt.Errorf("making the JWT of account %q: %w", index.Name, err)
	}
	return &wanted{name: index.Name, jwt: token, issued: issued, size: len(token) + left*revocationBytes}, nil
}

// encode makes the JWT with as many of the revocations as fit, and says how many there
// was no room for.
func (e *namedEntry) encode(operator *operator, name string, revoked []Revocation, issued int64) (token string, left int, err error) {
	encode := func(revoked []Revocation) (string, error) {
		claims := e.claims()
		addRevocations(claims, revoked)
		return trust.EncodeAccount(operator.signing, e.PublicKey, e.natsName(name), *claims, issued)
	}
	token, err = encode(revoked)
	for _, keep := range []int{newestKept, 0} {
		if errors.Is(err, trust.ErrTooLarge) && len(revoked) > keep {
			left = len(revoked) - keep
			token, err = encode(condense(revoked, keep))
		}
	}
	return token, left, err
}

// addRevocations adds what was revoked here to what the account's config
// revokes; of two for one key the later counts.
func addRevocations(claims *jwt.Account, revoked []Revocation) {
	if len(revoked) == 0 {
		return
	}
	merged := maps.Clone(claims.Revocations)
	if merged == nil {
		merged = jwt.RevocationList{}
	}
	for _, r := range revoked {
		merged[r.User] = max(merged[r.User], r.At)
	}
	merged.MaybeCompact()
	claims.Revocations = merged
}
