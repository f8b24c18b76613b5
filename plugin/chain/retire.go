package chain

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// noteRetiring notes when the overlaps of the account's former keys end, so that
// finding them then does not take a look at every account.
func noteRetiring(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	for _, former := range entry.Keys {
		if former.signs() {
			continue
		}
		key := retirePrefix + strconv.FormatInt(former.RetireAt, 10) + "/" + name
		if err := store.Write(ctx, s, key, struct{}{}); err != nil {
			return err
		}
	}
	return nil
}

// Retire drops all keys whose overlap is over, and returns the public keys of
// the accounts that had any. An account that cannot be changed is in the error, and
// stops no other.
func (c *Chain) Retire(ctx context.Context, s logical.Storage, now time.Time) ([]string, error) {
	failures := []error{c.retireOperatorKeys(ctx, s, now)}
	times, err := store.List(ctx, s, retirePrefix)
	if err != nil {
		return nil, errors.Join(append(failures, err)...)
	}
	var changed []string
	for _, at := range times {
		unix, err := strconv.ParseInt(strings.TrimSuffix(at, "/"), 10, 64)
		if err != nil || unix > now.Unix() {
			continue
		}
		names, err := store.List(ctx, s, retirePrefix+at)
		failures = append(failures, err)
		for _, name := range names {
			id, err := c.retireKeysOf(ctx, s, name, now)
			if id != "" {
				changed = append(changed, id)
			}
			if err == nil {
				err = store.Delete(ctx, s, retirePrefix+at+name)
			}
			failures = append(failures, err)
		}
	}
	return changed, errors.Join(failures...)
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
