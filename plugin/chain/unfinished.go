package chain

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// unfinished is what belongs to the same write as an operator, and has storage
// entries of its own. It stands in the operator's until they are written: so a write
// of config is done once the operator's entry is, and what dies after that is carried
// to its end. It may hold secrets, and so may the operator's entry.
type unfinished struct {
	System *namedEntry             `json:"system,omitempty"` // the system account that came with the operator
	With   []*logical.StorageEntry `json:"with,omitempty"`   // what only the paths know of, see store.Put
}

// Finish carries a write of the operator to its end that has died half way, if there
// is one, and tells of every entry that it has stored with it. Whoever else writes one
// of these calls it first, so that it undoes nothing of theirs later.
func (c *Chain) Finish(ctx context.Context, s logical.Storage, stored func(key string)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.finish(ctx, s, stored)
}

// finish is Finish for who holds c.mu.
func (c *Chain) finish(ctx context.Context, s logical.Storage, stored func(key string)) error {
	operator, err := c.operator(ctx, s)
	if operator == nil || err != nil || operator.entry.Unfinished == nil {
		return err
	}
	ctx, done := store.Whole(ctx)
	defer done()
	rest := operator.entry.Unfinished
	if rest.System != nil {
		if err := c.finishSystem(ctx, s, operator.entry, rest.System); err != nil {
			return err
		}
	}
	for _, entry := range rest.With {
		err := store.Put(ctx, s, entry)
		stored(entry.Key)
		if err != nil {
			return err
		}
	}
	finished := operator.entry.clone()
	finished.Unfinished = nil
	return c.storeOperator(ctx, s, finished)
}

// finishSystem stores the system account, but not over what became of it since.
func (c *Chain) finishSystem(ctx context.Context, s logical.Storage, o *operatorEntry, system *namedEntry) error {
	present, err := readNamed(ctx, s, systemAccountName)
	if err != nil {
		return err
	}
	if present != nil {
		system = present
	}
	return c.changeUnder(ctx, s, o, changeOf{id: system.PublicKey, name: systemAccountName}, func(ctx context.Context) error {
		return c.putNamed(ctx, s, systemAccountName, system)
	})
}

// newSystemAccount makes the system account of a new operator, or takes over the one
// that an earlier version left of a write that died.
func newSystemAccount(ctx context.Context, s logical.Storage, now time.Time) (*namedEntry, error) {
	system, err := readNamed(ctx, s, systemAccountName)
	if err != nil {
		return nil, err
	}
	if system == nil {
		return generateSystemAccount(now)
	}
	if system.Type != TypeAccount || system.External {
		return nil, fault.In("config", "needs the name %q for the system account, which jwt/%s has: delete it first", systemAccountName, systemAccountName)
	}
	return system, nil
}
