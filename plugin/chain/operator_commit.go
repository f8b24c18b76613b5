package chain

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// CommitOperator carries a plan out, stores with it what else belongs to the same
// write, and returns the JWTs of the operator and the system account, both empty
// without an operator. If it fails after the operator is stored, Finish does the rest.
func (c *Chain) CommitOperator(ctx context.Context, s logical.Storage, plan *OperatorPlan, together []*logical.StorageEntry, stored func(key string)) (operatorJWT, systemJWT string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, done := store.Whole(ctx)
	defer done()
	now := time.Now()
	after := plan.after
	present, err := c.operator(ctx, s)
	switch {
	case err != nil:
		return "", "", err
	case present == nil && plan.before != nil, present != nil && (plan.before == nil || !same(present.entry, plan.before)):
		return "", "", errors.New("the operator was changed meanwhile: try again")
	}
	rest := unfinished{With: together}
	if !after.None && after.SystemAccount == "" {
		if rest.System, err = newSystemAccount(ctx, s, now); err != nil {
			return "", "", err
		}
		after.SystemAccount = rest.System.PublicKey
	}
	if !after.None {
		if err := after.sign(now); err != nil {
			return "", "", err
		}
	}
	if rest.System != nil || len(together) > 0 {
		after.Unfinished = &rest
	}
	if err := c.storePlan(ctx, s, plan, now); err != nil {
		return "", "", err
	}
	if err := c.finish(ctx, s, stored); err != nil || after.None {
		return "", "", err
	}
	systemJWT, err = c.AccountJWT(ctx, s, after.SystemAccount)
	return after.JWT, systemJWT, err
}

// Changes reports whether the plan makes another operator.
func (p *OperatorPlan) Changes() bool { return p.before == nil || !same(p.before, p.after) }

// storePlan stores the operator if it is another one. A key that came to sign
// with a later operator_jwt is a rotation like any.
func (c *Chain) storePlan(ctx context.Context, s logical.Storage, plan *OperatorPlan, now time.Time) error {
	switch {
	case !plan.Changes():
		return nil
	case plan.resigns():
		plan.after.signsSince(now)
		return c.storeNewSigner(ctx, s, plan.after, now)
	}
	return c.storeOperator(ctx, s, plan.after)
}

// storeOperator stores an operator by whose change no account becomes another.
func (c *Chain) storeOperator(ctx context.Context, s logical.Storage, after *operatorEntry) error {
	err := store.Write(ctx, s, operatorEntryKey, after)
	c.operatorChanged()
	return err
}

// storeNewSigner stores an operator whose accounts another key signs: all of them
// are changed, in the same way as one is (see change). They are marked as pending
// first, so that a crash in between forgets none. What is delivered meanwhile is
// of the former key, and does not count for the marker.
func (c *Chain) storeNewSigner(ctx context.Context, s logical.Storage, after *operatorEntry, now time.Time) error {
	ctx, done := store.Whole(ctx)
	defer done()
	ids, err := c.markAll(ctx, s, now, func() error { return c.storeOperator(ctx, s, after) })
	if len(ids) > 0 {
		c.deliver(context.WithoutCancel(ctx), s, false, ids...)
	}
	return err
}

// markAll marks every account as pending, and returns them, before it writes; also
// where the marker failed, since it may be stored all the same.
func (c *Chain) markAll(ctx context.Context, s logical.Storage, now time.Time, write func() error) ([]string, error) {
	c.versions.Lock()
	defer c.versions.Unlock()
	ids, err := c.accountKeys(ctx, s, accountIDPrefix)
	if err != nil {
		return nil, err
	}
	c.everyonePending(ids)
	if err := store.Write(ctx, s, pendingAllKey, pendingMarker{Since: now.Unix()}); err != nil {
		return ids, err
	}
	return ids, write()
}

// resigns reports whether the accounts of the operator get another signer.
func (p *OperatorPlan) resigns() bool {
	return p.before != nil && !p.before.None && p.before.live()[0].PublicKey != p.after.live()[0].PublicKey
}
