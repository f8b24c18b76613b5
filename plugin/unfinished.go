package plugin

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"
)

// A write that takes several storage entries can die between two of them: with the
// process, or because storage fails.

// finish makes good what such a write has left, when the mount starts and about once a
// minute, on the node that may write.
func (b *backend) finish(ctx context.Context, s logical.Storage) error {
	if !b.writesAllowed() {
		return nil
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.settleRoles(ctx, s)
}
