package chain

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// noteRetiring notes when the overlaps of the account's former keys end, so that
// finding them then does not take a look at every account.
func noteRetiring(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	for _, former := range entry.Keys {
		if former.signs() {
			continue
		}
		key := retirePrefix + strconv.FormatInt(former.RetireAt, 10) + "/" + name
		if err := s.Put(ctx, &logical.StorageEntry{Key: key, Value: []byte("{}")}); err != nil {
			return fmt.Errorf("writing %s: %w", key, err)
		}
	}
	return nil
}

// Retire drops all keys whose overlap is over, and returns the public keys of
// the accounts that had any.
func (c *Chain) Retire(ctx context.Context, s logical.Storage, now time.Time) ([]string, error) {
	times, err := s.List(ctx, retirePrefix)
	if err != nil {
		return nil, fmt.Errorf("listing the keys to retire: %w", err)
	}
	var changed []string
	for _, at := range times {
		unix, err := strconv.ParseInt(strings.TrimSuffix(at, "/"), 10, 64)
		if err != nil || unix > now.Unix() {
			continue
		}
		names, err := s.List(ctx, retirePrefix+at)
		if err != nil {
			return changed, fmt.Errorf("listing the keys to retire: %w", err)
		}
		for _, name := range names {
			id, err := c.retireKeysOf(ctx, s, name, now)
			if err != nil {
				return changed, err
			}
			if id != "" {
				changed = append(changed, id)
			}
			if err := s.Delete(ctx, retirePrefix+at+name); err != nil {
				return changed, fmt.Errorf("deleting %s: %w", retirePrefix+at+name, err)
			}
		}
	}
	return changed, c.retireOperatorKeys(ctx, s, now)
}

func (c *Chain) retireKeysOf(ctx context.Context, s logical.Storage, name string, now time.Time) (string, error) {
	id := ""
	err := c.changeAccount(ctx, s, name, func(entry *namedEntry) error {
		entry.dropRetired(now)
		id = entry.PublicKey
		return nil
	})
	if errors.Is(err, errNoAccount) {
		return "", nil // deleted meanwhile
	}
	return id, err
}
