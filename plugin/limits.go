package plugin

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// longestLifeKey is where the longest life is stored that a user JWT of the
// mount was ever allowed.
const longestLifeKey = "longest-life"

type longestLife struct {
	Seconds int64 `json:"seconds"`
}

// limitsAge is how old the mount's lease limits may be: each look is a call to
// Vault, and a login makes none.
const limitsAge = 5 * time.Second

// leaseLimits are the mount's default and maximum lease TTL, which bound the
// life of everything that the mount issues.
//
// A maximum that is longer than all before is stored before anything is issued
// under it. So it is known for how long a user JWT that nobody has kept may
// still be valid, also after the maximum was lowered.
type leaseLimits struct {
	mu      sync.Mutex
	read    time.Time
	initial time.Duration
	most    time.Duration
	longest time.Duration // what is stored, as far as is known; 0 before it is read
}

// get returns the default and the maximum lease TTL.
func (l *leaseLimits) get(ctx context.Context, s logical.Storage, sys logical.SystemView, now time.Time) (initial, most time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(ctx, s, sys, now); err != nil {
		return 0, 0, err
	}
	return l.initial, l.most, nil
}

// longestLife returns how long a user JWT that was issued by now may live, at
// most.
func (l *leaseLimits) longestLife(ctx context.Context, s logical.Storage, sys logical.SystemView, now time.Time) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(ctx, s, sys, now); err != nil {
		return 0, err
	}
	return l.longest, nil
}

// invalidate is called when another node has stored a longer life.
func (l *leaseLimits) invalidate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest, l.read = 0, time.Time{}
}

func (l *leaseLimits) refresh(ctx context.Context, s logical.Storage, sys logical.SystemView, now time.Time) error {
	if age := now.Sub(l.read); age >= 0 && age <= limitsAge {
		return nil
	}
	initial, most := sys.DefaultLeaseTTL(), sys.MaxLeaseTTL()
	if most > l.longest {
		if err := l.raise(ctx, s, most); err != nil {
			return err
		}
	}
	l.initial, l.most, l.read = initial, most, now
	return nil
}

// raise makes sure that no shorter life than most is stored.
func (l *leaseLimits) raise(ctx context.Context, s logical.Storage, most time.Duration) error {
	stored, err := store.Read[longestLife](ctx, s, longestLifeKey)
	if err != nil {
		return err
	}
	// JWTs have whole seconds.
	wanted := longestLife{Seconds: int64((most + time.Second - 1) / time.Second)}
	if stored == nil || stored.Seconds < wanted.Seconds {
		entry, err := logical.StorageEntryJSON(longestLifeKey, wanted)
		if err != nil {
			return err
		}
		if err := s.Put(ctx, entry); err != nil {
			return err // as it is: by it Vault knows a node that may not write, and forwards the request
		}
		stored = &wanted
	}
	l.longest = time.Duration(stored.Seconds) * time.Second
	return nil
}

// userTTL is how long a user JWT of the role lives: as long as its user_ttl
// says, by default as long as the token, and never longer than the token or the
// mount allow.
func (l *leaseLimits) userTTL(ctx context.Context, s logical.Storage, sys logical.SystemView, now time.Time, role *roleEntry) (time.Duration, error) {
	initial, most, err := l.get(ctx, s, sys, now)
	if err != nil {
		return 0, err
	}
	for _, limit := range []time.Duration{role.TokenMaxTTL, role.TokenExplicitMaxTTL} {
		if limit > 0 {
			most = min(most, limit)
		}
	}
	ttl := role.userTTL()
	switch {
	case ttl > 0:
	case role.TokenPeriod > 0:
		ttl = role.TokenPeriod
	case role.TokenTTL > 0:
		ttl = role.TokenTTL
	default:
		ttl = initial
	}
	return min(ttl, most), nil
}
