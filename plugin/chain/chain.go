// Package chain is the NATS trust chain as the mount stores and changes it: an
// operator, its accounts and their signing keys, users whose keys stay in the
// mount, and what is revoked. It knows Vault's storage, and neither request
// fields nor roles; what callers give and get are plain values.
//
// Every change of an account goes one way, which is in change.go: mark, write,
// forget, deliver. Writers take turns; readers go through caches and never wait
// for a writer.
package chain

import (
	"context"
	"runtime"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/singleflight"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// Storage keys of the trust chain. Those with seeds in them are seal-wrapped.
const (
	operatorEntryKey = "config"      // the operator
	namedPrefix      = "jwt/"        // accounts and users by name
	accountIDPrefix  = "account-id/" // accounts by public key: their name and version
	pendingPrefix    = "pending/"    // accounts by public key that are to be delivered
	pendingAllKey    = "pending-all" // all of them are
	removedPrefix    = "removed/"    // accounts by public key that the servers were made to drop of late
	deletedPrefix    = "deleted/"    // by public key, accounts that were imported and deleted here
	retirePrefix     = "retire/"     // by time, accounts with a key whose overlap ends then
	revokedPrefix    = "revoked/"    // by account, segments of its revocations
	leaderKey        = "leader"      // the node that delivers: that it does, and its clock
)

// SealWrapped lists the storage prefixes that hold seeds.
func SealWrapped() []string { return []string{operatorEntryKey, namedPrefix} }

// Stored lists the storage prefixes of what is given or made, and not derived.
func Stored() []string { return []string{operatorEntryKey, namedPrefix, deletedPrefix, revokedPrefix} }

// A Chain is the trust chain of one mount. Its methods may be called
// concurrently.
//
// An account's JWT is not stored but made from what is: its entry, its
// revocations, the operator's signing key and its version. So one change of the
// operator is one write, however many accounts it has.
type Chain struct {
	logger      hclog.Logger
	deliver     Deliver
	revocations *revocations

	operators *store.Cache[operatorSlot] // by operatorEntryKey
	accounts  *store.Cache[Account]      // by name: what a login needs
	served    *store.Cache[Served]       // by public key: what unauthenticated callers are given
	serving   singleflight.Group         // loads for served
	loads     chan struct{}              // holds a value for each of these that is under way

	// making holds a value for each account JWT that is being made: half of the
	// plugin's processors make them at most. Else a login would wait its turn behind
	// all that a comparison makes at a time, for tenths of a second if they have
	// thousands of revocations.
	making chan struct{}

	lead lead // whether this node may deliver

	fullest fullest // account JWTs, by their size

	mu sync.Mutex // held by writers of entries

	// versions guards the index and the pending markers, which the writers of
	// revocations change too.
	versions sync.Mutex
	writing  map[string]underway // by public key
	marks    [markSlots]uint64   // by markSlot: how often a change was marked
	everyone map[string]bool     // accounts that pendingAllKey still stands for; nil if it is not set
}

// Deliver is called once accounts, by public key, have been changed in storage,
// and has them brought to the NATS servers. It does not wait for that, and does
// not end with the request that made the change. What is paced may be one of
// many changes that come together, of which few need to be updates.
type Deliver func(ctx context.Context, s logical.Storage, paced bool, accounts ...string)

// New returns the chain of a mount; deliver is told of all that is to be
// delivered.
func New(logger hclog.Logger, deliver Deliver) *Chain {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Chain{
		logger:      logger,
		deliver:     deliver,
		revocations: newRevocations(logger),
		operators:   store.NewCache[operatorSlot](),
		accounts:    store.NewCache[Account](),
		served:      newServedCache(),
		loads:       make(chan struct{}, servedLoads),
		making:      make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		writing:     map[string]underway{},
	}
}

// Invalidate is called when another node changed the storage entry at key.
func (c *Chain) Invalidate(key string) {
	switch {
	case key == operatorEntryKey:
		c.operatorChanged()
	case strings.HasPrefix(key, namedPrefix):
		c.accounts.Forget(strings.TrimPrefix(key, namedPrefix))
		c.served.ForgetAll()
	case strings.HasPrefix(key, accountIDPrefix):
		id := strings.TrimPrefix(key, accountIDPrefix)
		c.versions.Lock()
		c.marks[markSlot(id)]++
		c.versions.Unlock()
		c.served.Forget(id)
	case strings.HasPrefix(key, revokedPrefix):
		c.revocations.invalidate(key)
		id, _, _ := strings.Cut(strings.TrimPrefix(key, revokedPrefix), "/")
		c.served.Forget(id)
	}
}

// operatorChanged drops everything that was made with the operator's keys.
func (c *Chain) operatorChanged() {
	c.operators.Forget(operatorEntryKey)
	c.accounts.ForgetAll()
	c.served.ForgetAll()
}
