package chain

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// A Deletion says under which conditions something may be deleted.
type Deletion struct {
	Roles    []string      // that depend on an account; the caller keeps others from coming
	Callouts []string      // that depend on an account or a user; the caller keeps others from coming
	Force    bool          // delete it although roles or users depend on it, or although it cannot be read
	Longest  time.Duration // what a user JWT lives at most
}

// Delete deletes the account or user of that name, a user after it is revoked,
// and returns the public keys of the accounts that are changed by that.
func (c *Chain) Delete(ctx context.Context, s logical.Storage, name string, given Deletion) ([]string, error) {
	// A user is revoked before it is deleted, so that a crash leaves none that is
	// gone and let in; and after, for a JWT that a reader was given meanwhile.
	ctx, done := store.Whole(ctx)
	defer done()
	stored, err := readNamed(ctx, s, name)
	switch {
	case err != nil && given.Force:
		return nil, c.dropUnreadable(ctx, s, name)
	case err != nil:
		return nil, fault.In("name", "%q cannot be read: with force=true it is deleted all the same, and a user of that name is not revoked (%s)", name, err)
	case stored == nil:
		return nil, nil
	}
	if len(given.Callouts) > 0 && !given.Force {
		return nil, fault.In("name", "%q cannot be deleted: callouts depend on it (%s); with force=true it is, and they cannot be used", name, fault.ShortList(given.Callouts))
	}
	if _, err := c.revokeNamed(ctx, s, stored, given.Longest); err != nil {
		return nil, err
	}
	deleted, err := c.deleteStored(ctx, s, name, given)
	if deleted == nil || err != nil {
		return nil, err
	}
	changed, err := c.revokeNamed(ctx, s, deleted, given.Longest)
	if deleted.Type == TypeAccount && !deleted.External {
		changed = append(changed, deleted.PublicKey)
	}
	return changed, err
}

// dropUnreadable deletes an entry that cannot be read, if it still cannot be.
func (c *Chain) dropUnreadable(ctx context.Context, s logical.Storage, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := readNamed(ctx, s, name); err == nil {
		return fault.In("name", "%q can be read again: try once more", name)
	}
	return c.dropNamed(ctx, s, name)
}

// revokeNamed revokes a user that is about to be deleted, and returns the public
// key of its account. There is nothing to be done for what is not a user, nor
// where someone else makes the account's JWT.
func (c *Chain) revokeNamed(ctx context.Context, s logical.Storage, user *namedEntry, longest time.Duration) ([]string, error) {
	if user.Type != TypeUser {
		return nil, nil
	}
	account, err := readNamed(ctx, s, user.Account)
	if account == nil || err != nil || account.External {
		return nil, err
	}
	of := &Revocable{Account: account.PublicKey, Foreign: user.mayHaveForeignUsers()}
	return []string{account.PublicKey}, c.RevokeNow(ctx, s, of, user.PublicKey, longest)
}

// deleteStored deletes what has that name and returns what it was, nil if there
// was none.
func (c *Chain) deleteStored(ctx context.Context, s logical.Storage, name string, given Deletion) (*namedEntry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, err := readNamed(ctx, s, name)
	if entry == nil || err != nil {
		return nil, err
	}
	if entry.Type == TypeUser {
		if err := c.dropNamed(ctx, s, name); err != nil {
			return nil, err
		}
		return entry, store.AccountOfUsers.Drop(ctx, s, entry.Account, name)
	}
	operator, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	if operator.signs() && operator.entry.SystemAccount == entry.PublicKey {
		return nil, fault.In("name", "%q is the system account, which the NATS servers cannot do without", name)
	}
	if !given.Force {
		if err := checkUnused(ctx, s, name, given.Roles); err != nil {
			return nil, err
		}
	}
	if err := noteDeleted(ctx, s, entry, time.Now()); err != nil {
		return nil, err
	}
	return entry, c.deleteAccount(ctx, s, name, entry)
}

// deletedAccount is what stays of an account that was imported and deleted here:
// that import, repeated, does not bring it back.
type deletedAccount struct {
	importedJWT
	At int64 `json:"at"` // Unix time
}

// noteDeleted is called before an account is deleted.
func noteDeleted(ctx context.Context, s logical.Storage, entry *namedEntry, now time.Time) error {
	if entry.Imported == nil {
		return nil
	}
	return store.Write(ctx, s, deletedPrefix+entry.PublicKey, deletedAccount{*entry.Imported, now.Unix()})
}

// checkDeleted refuses to bring back what was deleted here, unless its JWT is a
// later one or that is what is wanted.
func (c *Chain) checkDeleted(ctx context.Context, s logical.Storage, entry *namedEntry, force bool) error {
	if entry.Imported == nil || force {
		return nil
	}
	deleted, err := store.Read[deletedAccount](ctx, s, deletedPrefix+entry.PublicKey)
	if deleted == nil || err != nil || deleted.isBefore(entry.Imported) {
		return err
	}
	return fault.Conflict("account_jwt", "is of account %s, which was deleted here at %s: with force=true it is taken over all the same, and so it is once its JWT is a later one",
		entry.PublicKey, time.Unix(deleted.At, 0).UTC().Format(time.RFC3339))
}

// forgetDeleted is called once an account is stored.
func forgetDeleted(ctx context.Context, s logical.Storage, entry *namedEntry) error {
	if entry.Imported == nil {
		return nil
	}
	return store.Delete(ctx, s, deletedPrefix+entry.PublicKey)
}

func checkUnused(ctx context.Context, s logical.Storage, name string, roles []string) error {
	users, err := store.AccountOfUsers.Dependent(ctx, s, name, func(ctx context.Context, user string) bool {
		entry, err := readNamed(ctx, s, user)
		return err != nil || entry != nil && entry.Type == TypeUser && entry.Account == name
	})
	if err != nil {
		return err
	}
	for _, use := range []struct {
		what  string
		names []string
	}{{"roles", roles}, {"users", users}} {
		if len(use.names) > 0 {
			return fault.In("name", "%q cannot be deleted: %s depend on it (%s); with force=true it is, and they cannot be used", name, use.what, fault.ShortList(use.names))
		}
	}
	return nil
}
