package chain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A RevocationLoad is how full an account's JWT is with revocations.
type RevocationLoad struct {
	Count int // of those there are
	Room  int // for how many there is room
}

// revocationBytes is what one revocation takes in a JWT: a key of 56 characters
// and a time of 10 with their quotes, colon and comma, in base64, rounded up.
const revocationBytes = (56+10+4)*4/3 + 1

// RevocationLoad returns the load of an account by its public key.
func (c *Chain) RevocationLoad(ctx context.Context, s logical.Storage, id string) (RevocationLoad, error) {
	count, err := c.revocations.count(ctx, s, id)
	if err != nil {
		return RevocationLoad{}, err
	}
	bare, err := c.bareSize(ctx, s, id)
	return RevocationLoad{Count: count, Room: max(0, trust.MaxJWT-bare) / revocationBytes}, err
}

// bareSize is the size of the account's JWT without revocations.
func (c *Chain) bareSize(ctx context.Context, s logical.Storage, id string) (int, error) {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() {
		return 0, err
	}
	index, err := readIndex(ctx, s, id)
	if index == nil || err != nil {
		return 0, err
	}
	entry, err := readNamed(ctx, s, index.Name)
	if entry == nil || err != nil {
		return 0, err
	}
	token, _, err := entry.encode(operator, index.Name, nil, index.at(operator.entry))
	return len(token), err
}

// NearlyFull is how full an account's JWT may be, of what nats-server takes, before its
// operator is told.
const NearlyFull = 0.75

// share is how full the JWT is, 1 being what nats-server takes.
func (l RevocationLoad) share() float64 {
	return 1 - float64((l.Room-l.Count)*revocationBytes)/trust.MaxJWT
}

// Warning tells the operator while there is still room; it is empty while there
// is enough.
func (l RevocationLoad) Warning() string {
	const remedy = "shorten the life of its users, or revoke everyone once"
	switch {
	case l.Count > l.Room:
		return fmt.Sprintf("the account has %d revocations, but only %d fit into its JWT: users that were issued before the oldest of them "+
			"are cut off too, and have to log in again; %s", l.Count, l.Room, remedy)
	case l.share() > NearlyFull:
		return fmt.Sprintf("the account has %d revocations, and %d fit into its JWT; beyond that, other users are cut off too; %s", l.Count, l.Room, remedy)
	}
	return ""
}

// fewRevocations are so few that it is not asked every minute how many fit.
const fewRevocations = 500

// newestKept is how many revocations stay in an account's JWT by themselves when
// not all of them fit.
const newestKept = 5000

// condense makes room where not all revocations fit into the account's JWT: the
// oldest become one that revokes everyone up to the time of the last of them. So
// whoever was revoked stays so. It cuts off others, too, who can log in again.
func condense(revoked []Revocation, keep int) []Revocation {
	if len(revoked) <= keep {
		return revoked
	}
	newestFirst := slices.Clone(revoked)
	slices.SortFunc(newestFirst, func(x, y Revocation) int { return cmp.Compare(y.At, x.At) })
	everyone := Revocation{User: EveryUser, At: newestFirst[keep].At}
	// MaybeCompact of jwt/v2 drops those that it covers.
	return append(newestFirst[:keep], everyone)
}

// PruneRevocations drops the revocations that are over, and returns a warning for
// each account, by public key, that has little room left for more. An account that
// cannot be read is in the error, and stops no other.
func (c *Chain) PruneRevocations(ctx context.Context, s logical.Storage, now time.Time) (map[string]string, error) {
	skew, err := c.ClockSkew(ctx, s)
	if err != nil {
		return nil, err
	}
	left, err := c.revocations.prune(ctx, s, now, skew)
	failures := []error{err}
	warnings := map[string]string{}
	for account, count := range left {
		if count < fewRevocations {
			continue
		}
		load, err := c.RevocationLoad(ctx, s, account)
		failures = append(failures, err)
		if err != nil {
			continue
		}
		c.fullest.note(account, int(load.share()*trust.MaxJWT))
		if warning := load.Warning(); warning != "" {
			warnings[account] = warning
		}
	}
	return warnings, errors.Join(failures...)
}
