package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A revocationLoad is how full an account's JWT is with revocations.
type revocationLoad struct {
	count, room int
}

// revocationBytes is what one revocation takes in a JWT: a key of 56 characters
// and a time of 10 with their quotes, colon and comma, in base64, rounded up.
const revocationBytes = (56+10+4)*4/3 + 1

// revocationLoad returns the load of an account by its public key.
func (c *chain) revocationLoad(ctx context.Context, s logical.Storage, id string) (revocationLoad, error) {
	count, err := c.revocations.count(ctx, s, id)
	if err != nil {
		return revocationLoad{}, err
	}
	bare, err := c.bareSize(ctx, s, id)
	return revocationLoad{count: count, room: max(0, trust.MaxJWT-bare) / revocationBytes}, err
}

// bareSize is the size of the account's JWT without revocations.
func (c *chain) bareSize(ctx context.Context, s logical.Storage, id string) (int, error) {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() {
		return 0, err
	}
	index, err := readEntry[accountIndex](ctx, s, accountIDPrefix+id)
	if index == nil || err != nil {
		return 0, err
	}
	entry, err := readNamed(ctx, s, index.Name)
	if entry == nil || err != nil {
		return 0, err
	}
	token, err := entry.encode(operator, index.Name, nil, index.at(operator.entry))
	return len(token), err
}

// warning tells the operator while there is still room; it is empty while there
// is enough.
func (l revocationLoad) warning() string {
	const remedy = "shorten the life of its users, or revoke everyone once"
	switch {
	case l.count > l.room:
		return fmt.Sprintf("the account has %d revocations, but only %d fit into its JWT: users that were issued before the oldest of them "+
			"are cut off too, and have to log in again; %s", l.count, l.room, remedy)
	case l.count > l.room*3/4:
		return fmt.Sprintf("the account has %d revocations, and %d fit into its JWT; beyond that, other users are cut off too; %s", l.count, l.room, remedy)
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
func condense(revoked []revocation, keep int) []revocation {
	if len(revoked) <= keep {
		return revoked
	}
	newestFirst := slices.Clone(revoked)
	slices.SortFunc(newestFirst, func(x, y revocation) int { return cmp.Compare(y.At, x.At) })
	everyone := revocation{User: everyUser, At: newestFirst[keep].At}
	// MaybeCompact of jwt/v2 drops those that it covers.
	return append(newestFirst[:keep], everyone)
}

// pruneRevocations runs about once a minute on the node that may write. It drops
// what is over, and tells the operator of accounts that have little room left.
func (b *backend) pruneRevocations(ctx context.Context, s logical.Storage) error {
	if !b.writesAllowed() {
		return nil
	}
	left, err := b.chain.revocations.prune(ctx, s, time.Now())
	if err != nil {
		return err
	}
	for account, count := range left {
		if count < fewRevocations {
			continue
		}
		load, err := b.chain.revocationLoad(ctx, s, account)
		if err != nil {
			return err
		}
		if warning := load.warning(); warning != "" {
			b.Logger().Warn(warning, "account", account)
		}
	}
	return nil
}
