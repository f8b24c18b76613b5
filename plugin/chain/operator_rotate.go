package chain

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// RotateOperator puts the operator's next signing key into use, and has another
// one follow it. Every account's JWT is another one from then on, without any
// account being written: they are marked as pending all at once. The key that
// was in use stays in the operator's JWT for the overlap.
//
// Without a next key, which servers know already, one is made and rotated is
// false: the rotation then takes another call, once the servers have been
// started with the new operator JWT. atOnce forces it.
func (c *Chain) RotateOperator(ctx context.Context, s logical.Storage, overlap time.Duration, atOnce bool) (*Operator, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, err := c.operator(ctx, s)
	if err != nil {
		return nil, false, err
	}
	if !stored.signs() {
		return nil, false, fault.In("config", "has no operator yet: write config first")
	}
	now := time.Now()
	after := stored.entry.clone()
	live := after.live()
	if len(live) == 1 {
		if after.Seed == "" {
			return nil, false, fault.In("config", "has no other signing key of the operator, and cannot make one without its identity key: make one where that is, and write the new operator_jwt and operator_signing_seeds to config")
		}
		if err := after.addNextKey(now); err != nil {
			return nil, false, err
		}
	}
	rotated := len(live) > 1 || atOnce
	if rotated {
		after.retireCurrent(now, overlap)
		after.signsSince(now)
		if after.Seed != "" && len(after.live()) == 1 {
			if err := after.addNextKey(now); err != nil {
				return nil, false, err
			}
		}
	}
	if err := after.sign(now); err != nil {
		return nil, false, err
	}
	if rotated {
		return after.view(), true, c.storeNewSigner(ctx, s, after, now)
	}
	return after.view(), false, c.storeOperator(ctx, s, after)
}

// signsSince notes that another key signs from now on, which makes another JWT
// of every account.
func (e *operatorEntry) signsSince(now time.Time) {
	e.Generation++
	e.SignedSince = max(now.Unix(), e.SignedSince+1)
}

func (e *operatorEntry) addNextKey(now time.Time) error {
	key, err := newOperatorKey(now)
	if err != nil {
		return err
	}
	e.Keys = append(e.Keys, key)
	return nil
}

// retireCurrent takes the key in use out of use, and out of the operator's JWT
// when the overlap ends.
func (e *operatorEntry) retireCurrent(now time.Time, overlap time.Duration) {
	i := slices.IndexFunc(e.Keys, func(key operatorKey) bool { return key.RetireAt == 0 })
	e.Keys[i].RetireAt = now.Add(overlap).Unix()
	e.Keys[i].Seed = "" // it signs no more
	e.dropRetired(now)
}

// dropRetired drops the keys whose overlap is over and says whether there were
// any. Without the identity key they stay in the imported JWT, and here as long as
// they do: so an import that is repeated does not bring them back.
func (e *operatorEntry) dropRetired(now time.Time) bool {
	before := len(e.Keys)
	e.Keys = slices.DeleteFunc(e.Keys, func(key operatorKey) bool {
		over := key.RetireAt != 0 && key.RetireAt <= now.Unix() && (e.Seed != "" || !e.lists(key.PublicKey))
		if over && key.Imported {
			e.Removed = append(e.Removed, key.PublicKey)
		}
		if over {
			e.Claims.SigningKeys = slices.DeleteFunc(slices.Clone(e.Claims.SigningKeys), func(public string) bool { return public == key.PublicKey })
		}
		return over
	})
	return len(e.Keys) < before
}

func (c *Chain) retireOperatorKeys(ctx context.Context, s logical.Storage, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, err := c.operator(ctx, s)
	if err != nil || !stored.signs() {
		return err
	}
	after := stored.entry.clone()
	if !after.dropRetired(now) {
		return nil
	}
	if err := after.sign(now); err != nil {
		return err
	}
	return c.storeOperator(ctx, s, after)
}
