package chain

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// leaderEntry is what the node that pushes to the servers stores, again and again
// while it does. That it could is the proof that it leads: Vault's storage takes
// writes from no other node.
type leaderEntry struct {
	At time.Time `json:"at"` // the leader's clock
}

// lead is what is known of this node's lead.
type lead struct {
	mu     sync.Mutex
	asked  time.Time // when the last proof was asked for
	stored bool      // whether an entry of this process was
	former time.Time // what the clock of the node that led before said last
}

// renewLead is how old a proof may be so that it is taken once more: what is begun
// with it needs some time.
const renewLead = delivery.LeadTime / 2

// Lead proves that this node leads, and returns when the proof was asked for; see
// delivery.LeadTime. It writes to storage, unless it did so a moment ago.
func (c *Chain) Lead(ctx context.Context, s logical.Storage) (time.Time, error) {
	l := &c.lead
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored && delivery.SinceAsked(l.asked) < renewLead {
		return l.asked, nil
	}
	if !l.stored {
		c.lookAtFormer(ctx, s)
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, delivery.LeadTime)
	defer cancel()
	if err := store.Write(ctx, s, leaderKey, leaderEntry{At: asked}); err != nil {
		return time.Time{}, fmt.Errorf("writing to storage: %w", err)
	}
	l.stored, l.asked = true, asked
	return asked, nil
}

// changed takes a change of an account that was stored for the proof that it is, so
// that its delivery needs no other.
func (l *lead) changed(asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if delivery.SinceAsked(asked) < delivery.SinceAsked(l.asked) {
		l.asked = asked
	}
}

// lookAtFormer notes the clock of the node that led before, and warns if it is ahead of
// the one here by more than clock_skew. One that was behind cannot be told from one
// that has led long ago, and does no harm (see clock.go). The caller holds the lock.
func (c *Chain) lookAtFormer(ctx context.Context, s logical.Storage) {
	entry, err := store.Read[leaderEntry](ctx, s, leaderKey)
	if err != nil {
		c.logger.Warn("it cannot be read what the clock of the node said that led before", "error", err)
	}
	if entry == nil || err != nil {
		return
	}
	c.lead.former = entry.At
	skew, err := c.ClockSkew(ctx, s)
	if ahead := time.Until(entry.At.Round(0)); err == nil && ahead > skew {
		c.logger.Warn("the clock of the node that led before was ahead of this one's by more than clock_skew: what it has issued may not be revoked by what is revoked here", "ahead", ahead)
	}
}

// FormerAhead is how far the clock of the node that led before is known to be ahead of
// the one here; 0 if it is not known to be, or the time that it said has come.
func (c *Chain) FormerAhead() time.Duration {
	c.lead.mu.Lock()
	defer c.lead.mu.Unlock()
	return max(0, time.Until(c.lead.former))
}
