package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// A role is one entry, and what stands elsewhere follows from it: its signing key in
// its account, and its place in the lists of its account's and its issuer's users. A
// write that dies after some of these leaves marks that the role does not stand for. So
// it is noted ahead of the first, at unsettledPrefix, where the role may have any, and
// they are brought to what the role is then: at the end of the write, when the mount
// starts, and about once a minute. The entry alone says what that is, so no later write
// can be undone by a note of an earlier one.

// unsettledPrefix is where roles are noted, by name, whose marks may be others than
// their entries stand for.
const unsettledPrefix = "unsettled-role/"

// unsettledRole says where a role may have marks beside those it is to have.
type unsettledRole struct {
	Places []place `json:"places"`
}

// storeRole stores the role, with its own signing key and its place in the lists of
// its account's and its issuer's users, and leaves none of them elsewhere. It returns
// all the places that it has to do with. What the role gets comes ahead of it, and
// what it loses goes after it, so that nobody who logs in meanwhile misses anything.
func (b *backend) storeRole(ctx context.Context, s logical.Storage, ready *role, stored *roleEntry) ([]place, error) {
	ctx, done := store.Whole(ctx)
	defer done()
	name, entry := ready.name, ready.entry
	places := []place{entry.place()}
	if stored != nil {
		places = append(places, stored.place())
	}
	if entry.OwnsKey() {
		if err := b.chain.CheckRoleKey(ctx, s, entry.Account, name, ready.compiled.Scope()); err != nil {
			return nil, err
		}
	}
	return b.whileUnsettled(ctx, s, name, places, func() error {
		if stored == nil || stored.place() != entry.place() {
			if err := store.AccountOfRoles.Add(ctx, s, entry.Account, name); err != nil {
				return err
			}
			if err := store.IssuerOfRoles.Add(ctx, s, entry.Issuer, name); err != nil {
				return err
			}
		}
		if entry.OwnsKey() {
			if err := b.chain.AddRoleKey(ctx, s, entry.Account, name, ready.compiled.Scope()); err != nil {
				return err
			}
		}
		err := store.Write(ctx, s, rolePrefix+name, entry)
		b.roleChanged(name)
		return err
	})
}

// dropRole deletes a role, and then all of its marks, and returns the places where it
// may have had any.
func (b *backend) dropRole(ctx context.Context, s logical.Storage, name string) ([]place, error) {
	ctx, done := store.Whole(ctx)
	defer done()
	var places []place
	stored, err := readRole(ctx, s, name)
	switch {
	case err != nil:
		places, err = b.listedPlaces(ctx, s, name)
	case stored != nil:
		places = []place{stored.place()}
	default:
		return b.settleRole(ctx, s, name)
	}
	if err != nil {
		return nil, err
	}
	return b.whileUnsettled(ctx, s, name, places, func() error {
		err := store.Delete(ctx, s, rolePrefix+name)
		b.roleChanged(name)
		return err
	})
}

// whileUnsettled makes a write of a role that has to do with these places, and with
// those of an earlier write that died, which it returns all. Where there is no key in
// any of them nothing is noted: a list may have one too many, see store.Kind.
func (b *backend) whileUnsettled(ctx context.Context, s logical.Storage, name string, places []place, write func() error) ([]place, error) {
	noted, err := store.Read[unsettledRole](ctx, s, unsettledPrefix+name)
	if err != nil {
		return nil, err
	}
	if noted != nil {
		places = append(places, noted.Places...)
	}
	if slices.ContainsFunc(places, func(p place) bool { return p.OwnsKey }) {
		noted = &unsettledRole{places}
		if err := store.Write(ctx, s, unsettledPrefix+name, noted); err != nil {
			return nil, err
		}
	}
	if err := write(); err != nil {
		return nil, err
	}
	if err := b.clearPlaces(ctx, s, name, places); err != nil || noted == nil {
		return places, err
	}
	return places, store.Delete(ctx, s, unsettledPrefix+name)
}

// clearPlaces brings the marks of a role, in these places, to what it is.
func (b *backend) clearPlaces(ctx context.Context, s logical.Storage, name string, places []place) error {
	entry, err := readRole(ctx, s, name)
	if err != nil {
		return err
	}
	present := place{}
	if entry != nil {
		present = entry.place()
		if err := b.setKey(ctx, s, name, entry); err != nil {
			return err
		}
	}
	for _, former := range places {
		if former.OwnsKey && (!present.OwnsKey || former.Account != present.Account) {
			if err := b.chain.RemoveRoleKeys(ctx, s, former.Account, name); err != nil {
				return err
			}
		}
		if former.Account != present.Account {
			if err := store.AccountOfRoles.Drop(ctx, s, former.Account, name); err != nil {
				return err
			}
		}
		if former.Issuer != present.Issuer {
			if err := store.IssuerOfRoles.Drop(ctx, s, former.Issuer, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// setKey makes the role's own signing key, if it has one, what the role says.
func (b *backend) setKey(ctx context.Context, s logical.Storage, name string, entry *roleEntry) error {
	if !entry.OwnsKey() {
		return nil
	}
	account, err := b.chain.Account(ctx, s, entry.Account)
	if account == nil || err != nil {
		return err // deleted under the role, and its keys with it
	}
	ready, err := entry.compile(name)
	if err != nil {
		return err
	}
	return b.chain.SetRoleKey(ctx, s, entry.Account, name, ready.compiled.Scope())
}

// settleRoles brings the marks of all roles that were being written when the mount, or
// its storage, failed to what the roles are. The caller holds writing.
func (b *backend) settleRoles(ctx context.Context, s logical.Storage) error {
	names, err := store.List(ctx, s, unsettledPrefix)
	failures := []error{err}
	for _, name := range names {
		if _, err := b.settleRole(ctx, s, name); err != nil {
			failures = append(failures, fmt.Errorf("clearing up after a write of role %q: %w", name, err))
		}
	}
	return errors.Join(failures...)
}

// settleRole does that for one role, if it is noted, and returns where it looked. A
// note that cannot be read is what a full disk has left.
func (b *backend) settleRole(ctx context.Context, s logical.Storage, name string) ([]place, error) {
	ctx, done := store.Whole(ctx)
	defer done()
	noted, err := store.Read[unsettledRole](ctx, s, unsettledPrefix+name)
	if err != nil {
		b.Logger().Warn("the note of a role that was being written cannot be read: all that list the role are looked at", "role", name, "error", err)
		noted = &unsettledRole{}
		noted.Places, err = b.listedPlaces(ctx, s, name)
	}
	if noted == nil || err != nil {
		return nil, err
	}
	if err := b.clearPlaces(ctx, s, name, noted.Places); err != nil {
		return nil, err
	}
	return noted.Places, store.Delete(ctx, s, unsettledPrefix+name)
}

// listedPlaces are those of a role of which it cannot be read where it is: every one
// where it is listed.
func (b *backend) listedPlaces(ctx context.Context, s logical.Storage, name string) ([]place, error) {
	accounts, err := store.AccountOfRoles.UsedBy(ctx, s, name)
	if err != nil {
		return nil, err
	}
	issuers, err := store.IssuerOfRoles.UsedBy(ctx, s, name)
	if err != nil {
		return nil, err
	}
	var found []place
	for _, account := range accounts {
		found = append(found, place{Account: account, OwnsKey: true})
	}
	for _, issuer := range issuers {
		found = append(found, place{Issuer: issuer})
	}
	return found, nil
}
