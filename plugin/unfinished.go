package plugin

import (
	"context"
	"errors"

	"github.com/hashicorp/vault/sdk/logical"
)

// A write that takes several storage entries can die between two of them: with the
// process, or because storage fails. One of config is carried to its end then, since
// all that it stores stands in its first entry (chain.Finish). What stands
// for a role or an auth callout is made to be what its entry is (settleRoles,
// settleCallouts).

// finish does all of this, when the mount starts and about once a minute, on the node that may
// write.
func (b *backend) finish(ctx context.Context, s logical.Storage) error {
	if !b.writesAllowed() {
		return nil
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	return errors.Join(b.finishConfig(ctx, s), b.settleRoles(ctx, s), b.settleCallouts(ctx, s))
}

// finishConfig carries a write of config to its end, if there is one that has died half
// way. Whoever writes config, an issuer or an account calls it, holding writing, before
// anything is read that may be of it.
func (b *backend) finishConfig(ctx context.Context, s logical.Storage) error {
	return b.chain.Finish(ctx, s, b.forget)
}

// finishConfigFirst is finishConfig for who does not hold writing yet, but configuring:
// nobody begins such a write until that is given back.
func (b *backend) finishConfigFirst(ctx context.Context, s logical.Storage) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.finishConfig(ctx, s)
}

// forget drops what was made of an entry that is another one now.
func (b *backend) forget(key string) { b.invalidate(context.Background(), key) }
