package chain

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// planAccount is the account as the write makes it, checked.
func (c *Chain) planAccount(ctx context.Context, s logical.Storage, name string, stored *namedEntry, change Change) (*namedEntry, error) {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	given := change.accountImport()
	var entry *namedEntry
	switch {
	case given.any() && change.Config != nil:
		return nil, fault.In("config", "is given with an account that was made elsewhere: import that first, then write its config")
	case given.any():
		entry, err = c.planImport(ctx, s, name, stored, given, operator)
	case stored != nil:
		entry = stored.clone()
	case !operator.signs():
		return nil, fault.In("type", "account needs an operator in the mount: write config first; for an account of someone else's NATS give its public_key and signing_seeds")
	default:
		entry, err = generateAccount(time.Now())
	}
	if err != nil {
		return nil, err
	}
	if change.Config != nil && entry.External {
		return nil, fault.In("config", "cannot be written: someone else operates the account's NATS")
	}
	if change.Config != nil {
		if err := entry.takeConfig(*change.Config, change.Patch); err != nil {
			return nil, err
		}
	}
	if err := entry.takeName(name, change.NATSName, given.jwt != ""); err != nil {
		return nil, err
	}
	if stored != nil && !given.any() {
		entry.noteRemoved(stored)
	}
	if stored == nil {
		err = c.checkNewIdentity(ctx, s, name, entry)
	} else {
		err = c.checkWayIn(ctx, s, stored, entry)
	}
	if err != nil {
		return nil, err
	}
	if entry.External {
		return entry, nil
	}
	if given.jwt == "" {
		if err := c.checkImports(ctx, s, entry); err != nil {
			return nil, err
		}
	}
	if change.Account.Check != nil {
		if err := change.Account.Check(entry.Claims); err != nil {
			return nil, err
		}
	}
	if err := c.checkUsers(ctx, s, name, entry); err != nil {
		return nil, err
	}
	return entry, c.checkAccount(ctx, s, name, entry)
}

// planImport is the account that is taken over from elsewhere, where the mount may
// have it already.
func (c *Chain) planImport(ctx context.Context, s logical.Storage, name string, stored *namedEntry, given accountImport, o *operator) (*namedEntry, error) {
	entry, err := given.account(name, stored, o, time.Now())
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return entry, c.checkDeleted(ctx, s, entry, given.force)
	}
	if entry.notes, err = entry.takePlaceOf(name, stored); err != nil {
		return nil, err
	}
	return entry, c.checkUnscoped(ctx, s, name, stored, entry)
}

func generateAccount(now time.Time) (*namedEntry, error) {
	identity, err := trust.Generate(trust.Account)
	if err != nil {
		return nil, err
	}
	key, err := newSigningKey(DefaultKey, now.Unix())
	if err != nil {
		return nil, err
	}
	claims, err := trust.ParseAccountConfig([]byte("{}"))
	if err != nil {
		return nil, err
	}
	return &namedEntry{Type: TypeAccount, PublicKey: identity.Public(), Seed: identity.Seed(), Claims: claims, Keys: []signingKey{key}}, nil
}

// errNoAccount is returned by changeAccount; its message is for callers who did
// not check that the account exists.
var errNoAccount = fault.In("account", "does not exist")

// changeAccount stores what change makes of an account, if it makes a
// difference.
func (c *Chain) changeAccount(ctx context.Context, s logical.Storage, name string, change func(*namedEntry) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, err := c.planChange(ctx, s, name, change)
	if entry == nil || err != nil {
		return err
	}
	if err := noteRetiring(ctx, s, name, entry); err != nil {
		return err
	}
	return c.storeAccount(ctx, s, name, entry)
}

// planChange is what change makes of an account, checked; nil if that is what it is.
func (c *Chain) planChange(ctx context.Context, s logical.Storage, name string, change func(*namedEntry) error) (*namedEntry, error) {
	stored, err := readNamed(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if stored == nil || stored.Type != TypeAccount {
		return nil, errNoAccount
	}
	entry := stored.clone()
	if err := change(entry); err != nil {
		return nil, err
	}
	entry.noteRemoved(stored)
	if same(stored, entry) {
		return nil, nil
	}
	if err := c.checkWayIn(ctx, s, stored, entry); err != nil {
		return nil, err
	}
	return entry, c.checkAccount(ctx, s, name, entry)
}
