package chain

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// A Revocable is an account whose users can be revoked here, and perhaps one
// user of it.
type Revocable struct {
	Name    string // of the account
	Account string // its public key
	User    string // public key of the named user; empty for the account
	Foreign bool   // there may be user JWTs that were issued elsewhere, and perhaps never expire
}

// Revocable returns what revocations under the name of an account or a user are
// about, nil if there is nothing of that name.
func (c *Chain) Revocable(ctx context.Context, s logical.Storage, name string) (*Revocable, error) {
	entry, err := readNamed(ctx, s, name)
	if entry == nil || err != nil {
		return nil, err
	}
	found := &Revocable{Name: name}
	foreignUser := entry.Type == TypeUser && entry.mayHaveForeignUsers()
	if entry.Type == TypeUser {
		found.Name, found.User = entry.Account, entry.PublicKey
		if entry, err = readNamed(ctx, s, entry.Account); err != nil {
			return nil, err
		}
		if entry == nil || entry.Type != TypeAccount {
			return nil, fault.In("name", "%q is a user of account %q, which does not exist any more", name, found.Name)
		}
	}
	if entry.External {
		return nil, fault.In("name", "%q is of an account of someone else's NATS: users are revoked where its JWT is made", name)
	}
	found.Account, found.Foreign = entry.PublicKey, foreignUser || entry.mayHaveForeignUsers()
	return found, nil
}

// Revoke stores a revocation of users of the account with that public key; it is
// durable when Revoke returns. paced is for one of many that come together, as
// when leases are revoked: of those few are updates of the NATS servers.
func (c *Chain) Revoke(ctx context.Context, s logical.Storage, account string, wanted Revocation, paced bool) error {
	return c.revocations.add(ctx, s, account, wanted, c.revoking(s, account, paced))
}

// RevokeNow revokes what has been issued to a user, or to EveryUser, whatever the
// clock of the node that issued it: see clock.go.
func (c *Chain) RevokeNow(ctx context.Context, s logical.Storage, of *Revocable, user string, longest time.Duration) error {
	skew, err := c.ClockSkew(ctx, s)
	if err != nil {
		return err
	}
	return c.RevokeUpTo(ctx, s, of, user, time.Now().Add(skew), longest)
}

// RevokeUpTo revokes what was issued to a user, or to EveryUser, up to a time,
// until all of that has expired: longest is what a user JWT lives at most. It is
// kept until it is undone where something of it may be foreign.
func (c *Chain) RevokeUpTo(ctx context.Context, s logical.Storage, of *Revocable, user string, at time.Time, longest time.Duration) error {
	wanted := Revocation{User: user, At: at.Unix(), Until: at.Add(longest).Unix() + 1}
	if of.Foreign {
		wanted.Until = 0
	}
	return c.Revoke(ctx, s, of.Account, wanted, false)
}

// UndoRevocation takes the revocation of a user, or of EveryUser, back, and says
// whether there was one.
func (c *Chain) UndoRevocation(ctx context.Context, s logical.Storage, account, user string) (bool, error) {
	match := func(r Revocation) bool { return r.User == user }
	removed, err := c.revocations.remove(ctx, s, account, match, c.revoking(s, account, false))
	return removed > 0, err
}

// Revocations returns those of an account that are not over yet.
func (c *Chain) Revocations(ctx context.Context, s logical.Storage, account string) ([]Revocation, error) {
	skew, err := c.ClockSkew(ctx, s)
	if err != nil {
		return nil, err
	}
	return c.revocations.list(ctx, s, account, time.Now(), skew)
}

// Revocation returns the one of a user, or of EveryUser; the zero value if there
// is none.
func (c *Chain) Revocation(ctx context.Context, s logical.Storage, account, user string) (Revocation, error) {
	return c.revocations.get(ctx, s, account, user)
}

// revoking makes a change of an account's revocations one of the account.
func (c *Chain) revoking(s logical.Storage, account string, paced bool) around {
	return func(ctx context.Context, write writer) error {
		return c.change(ctx, s, changeOf{id: account, paced: paced}, write)
	}
}
