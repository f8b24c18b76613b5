package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// A callout is one entry, and its user and its place in its account's JWT follow from
// it. So a write is done once the entry says what is to be, and the rest is made to be
// that: at once, and where that dies half way when the mount starts, about once a
// minute, and by the next write of the callout.

// settleCallouts does that for all callouts of which it is to be done. The caller holds
// writing.
func (b *backend) settleCallouts(ctx context.Context, s logical.Storage) error {
	names, err := store.List(ctx, s, calloutPrefix)
	failures := []error{err}
	for _, name := range names {
		if err := b.settleCallout(ctx, s, name); err != nil {
			failures = append(failures, fmt.Errorf("finishing a write of callout %q: %w", name, err))
		}
	}
	return errors.Join(failures...)
}

func (b *backend) settleCallout(ctx context.Context, s logical.Storage, name string) error {
	entry, err := store.Read[calloutEntry](ctx, s, calloutPrefix+name)
	switch {
	case entry == nil || err != nil:
		return err
	case entry.Deleted:
		_, err = b.settleDeleted(ctx, s, name, entry)
	case entry.Unsettled:
		_, err = b.settleKept(ctx, s, name, entry)
	}
	return err
}

// settleKept returns the public key of the callout's account.
func (b *backend) settleKept(ctx context.Context, s logical.Storage, name string, entry *calloutEntry) (account string, err error) {
	ctx, done := store.Whole(ctx)
	defer done()
	if account, err = b.putIntoAccount(ctx, s, name, entry); err != nil {
		return "", err
	}
	settled := *entry
	settled.Unsettled = false
	return account, b.putCallout(ctx, s, name, &settled)
}

// deleteCallout deletes a callout, and returns the public key of its account, if that
// is there.
func (b *backend) deleteCallout(ctx context.Context, s logical.Storage, name string) (accounts []string, err error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	entry, err := readCallout(ctx, s, name)
	if entry == nil || err != nil {
		return nil, errors.Join(err, b.settleCallout(ctx, s, name))
	}
	ctx, done := store.Whole(ctx)
	defer done()
	deleted := *entry
	deleted.Deleted = true
	if err := b.putCallout(ctx, s, name, &deleted); err != nil {
		return nil, err
	}
	return b.settleDeleted(ctx, s, name, &deleted)
}

// settleDeleted takes the callout out of its account first, so that no server asks what
// nobody answers.
func (b *backend) settleDeleted(ctx context.Context, s logical.Storage, name string, entry *calloutEntry) (accounts []string, err error) {
	ctx, done := store.Whole(ctx)
	defer done()
	account, err := b.chain.Account(ctx, s, entry.Account)
	if err != nil {
		return nil, err
	}
	if account != nil {
		id, err := b.chain.DropCallout(ctx, s, entry.Account, name)
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, id)
	}
	if entry.MadeUser {
		if err := b.dropResponder(ctx, s, entry); err != nil {
			return nil, err
		}
	}
	return accounts, b.dropCallout(ctx, s, name)
}

func (b *backend) dropResponder(ctx context.Context, s logical.Storage, entry *calloutEntry) error {
	longest, err := b.limits.longestLife(ctx, s, b.System(), time.Now())
	if err != nil {
		return err
	}
	_, err = b.chain.Delete(ctx, s, entry.User, chain.Deletion{Longest: longest})
	return err
}
