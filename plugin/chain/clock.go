package chain

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// How revocations hold although clocks differ and NATS counts in seconds.
//
// nats-server refuses a user JWT if its time of issue (iat) is at or before the
// account's revocation (before) of its key or of everyone, and if it has expired
// by the server's clock. The nodes of a Vault cluster and the nats-servers have
// clocks of their own. Let skew be the bound on how far any two of them are apart
// (clock_skew in config), and let a revocation that is acknowledged by a node at
// its time t revoke what was issued until then. The rules are:
//
//   - before is t + skew. Whatever was issued before the acknowledgement, by any
//     node, has an iat of at most t + skew by that node's clock: it is refused.
//   - Whatever is issued has an iat of at least before + 1 of every revocation
//     that concerns it (NotBefore). So what is issued after the acknowledgement is
//     good, at the same second and on a node whose clock is behind. Such an iat may
//     be ahead of the clocks by up to skew; nats-server does not mind.
//   - until is before + the longest life that the mount gives a user JWT, and the
//     revocation is pruned at until + skew. By then the JWT has expired by every
//     server's clock: its iat was at most before, so its end at most until.
//   - The last JWT of a removed account ends skew later than it has to, and revokes
//     what was issued up to skew from now: a server whose clock is ahead takes it,
//     and one whose clock is behind cuts everyone off.
//
// A revocation with a time of the caller's (the field before of jwt/:name/revoke)
// and that of a lease, which knows the iat of its JWT, are exact: they concern what
// has that iat, and nothing is added.
//
// An account's own JWT needs no clock: see version.

// DefaultClockSkew is how far clocks may be apart unless config says otherwise:
// with NTP they are within a second, and a virtual machine without it that was
// suspended is some minutes behind until someone notices.
const DefaultClockSkew = 10 * time.Minute

// maxClockSkew bounds clock_skew: what is issued after a revocation may be that far
// ahead of the clocks.
const maxClockSkew = 24 * time.Hour

// ClockSkew is how far any two clocks of Vault's nodes and the nats-servers may be
// apart.
func (c *Chain) ClockSkew(ctx context.Context, s logical.Storage) (time.Duration, error) {
	operator, err := c.operator(ctx, s)
	if operator == nil || err != nil {
		return DefaultClockSkew, err
	}
	return operator.entry.clockSkew(), nil
}

func (e *operatorEntry) clockSkew() time.Duration {
	if e.ClockSkew == nil {
		return DefaultClockSkew
	}
	return time.Duration(*e.ClockSkew) * time.Second
}

// NotBefore returns the earliest time of issue (Unix time) of a JWT of the
// account that no revocation refuses: of a user by its public key, or of any user
// whose key is new if that is empty. It reads no storage in the steady state, and
// does not wait for those who revoke.
func (c *Chain) NotBefore(ctx context.Context, s logical.Storage, account *Account, user string) (int64, error) {
	floor := max(account.configRevoked[EveryUser], account.configRevoked[user])
	if account.revoked || c.revocations.haveCome(account.PublicKey) {
		stored, err := c.revocations.floor(ctx, s, account.PublicKey, user)
		if err != nil {
			return 0, err
		}
		floor = max(floor, stored)
	}
	return floor + 1, nil
}
