package chain

import (
	"context"
	"slices"
	"strconv"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// Vault's file storage writes to a file of the key's name with some digits after it
// (os.CreateTemp), and renames that. Where the disk is full, or Vault ends, it stays:
// it is listed like any entry, and cannot be read. What cannot be a key of the mount's
// own is such a leftover, which nobody will ever write over or delete.

// accountKeys lists the accounts, by public key, that stand below a prefix. Leftovers
// are cleared away: only the node that writes has a use for these lists.
func (c *Chain) accountKeys(ctx context.Context, s logical.Storage, prefix string) ([]string, error) {
	keys, err := store.List(ctx, s, prefix)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(keys, func(key string) bool {
		if trust.CheckPublicKey(trust.Account, key) == nil {
			return false
		}
		c.clear(ctx, s, prefix+key)
		return true
	}), nil
}

// clear deletes a leftover. That it fails harms nobody.
func (c *Chain) clear(ctx context.Context, s logical.Storage, key string) {
	c.logger.Warn("the storage has a leftover of a write that failed, which is passed over", "key", key)
	if err := s.Delete(ctx, key); err != nil {
		c.logger.Warn("a leftover cannot be deleted", "key", key, "error", err)
	}
}

// maxSegments is far beyond what an account's revocations can come to, and below
// almost every number that os.CreateTemp makes of that of a segment.
const maxSegments = 100_000

// segmentNumber is the number of the segment at a key below an account's
// revocations; ok is false for a key that no segment can have.
func segmentNumber(key string) (number int, ok bool) {
	number, err := strconv.Atoi(key)
	return number, err == nil && number >= 0 && number < maxSegments && strconv.Itoa(number) == key
}
