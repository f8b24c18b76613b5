package chain

import (
	"sync"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// mostNoted is how many accounts are noted by the size of their JWTs.
const mostNoted = 64

// fullest notes the accounts that have the largest JWTs, as of when they were last made:
// that is whenever an account has changed, and all of them at each comparison.
type fullest struct {
	mu    sync.Mutex
	sizes map[string]int // by public key, in bytes
}

// note notes the size of an account's JWT; 0 if there is none any more.
func (f *fullest) note(id string, size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size == 0 {
		delete(f.sizes, id)
		return
	}
	if _, ok := f.sizes[id]; !ok && len(f.sizes) >= mostNoted {
		smallest := id
		for other, has := range f.sizes {
			if least, ok := f.sizes[smallest]; has < size && (!ok || has < least) {
				smallest = other
			}
		}
		if smallest == id {
			return
		}
		delete(f.sizes, smallest)
	}
	if f.sizes == nil {
		f.sizes = make(map[string]int, mostNoted)
	}
	f.sizes[id] = size
}

// Fullest returns the public key of the account with the largest JWT, and how full that
// is, 1 being what nats-server takes; more than 1 where not all of its revocations fit.
// It is empty until one was made here.
func (c *Chain) Fullest() (id string, share float64) {
	c.fullest.mu.Lock()
	defer c.fullest.mu.Unlock()
	largest := 0
	for of, size := range c.fullest.sizes {
		if size > largest {
			id, largest = of, size
		}
	}
	return id, float64(largest) / trust.MaxJWT
}

// LiveRevocations is how many there are of all accounts that this node knows of: on the one
// that delivers of all that have any, of which those that are over go within a minute.
func (c *Chain) LiveRevocations() int {
	c.revocations.mu.Lock()
	defer c.revocations.mu.Unlock()
	sum := 0
	for _, a := range c.revocations.accounts {
		a.view.RLock()
		sum += len(a.number)
		a.view.RUnlock()
	}
	return sum
}

// CacheUses is how the chain's caches were used, by what they hold.
func (c *Chain) CacheUses() map[string]store.CacheUses {
	return map[string]store.CacheUses{
		"operator":        c.operators.Uses(),
		"accounts":        c.accounts.Uses(),
		"served_accounts": c.served.Uses(),
	}
}
