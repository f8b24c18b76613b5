package plugin

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/singleflight"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// Storage keys of the trust chain. Those with seeds in them are seal-wrapped.
const (
	operatorEntryKey = "config"      // the operator
	namedPrefix      = "jwt/"        // accounts and users by name
	accountIDPrefix  = "account-id/" // accounts by public key: their name and version
	pendingPrefix    = "pending/"    // accounts by public key that are to be delivered
	pendingAllKey    = "pending-all" // all of them are
	removedPrefix    = "removed/"    // accounts by public key that the servers were made to drop of late
	retirePrefix     = "retire/"     // by time, accounts with a key whose overlap ends then
)

// chainSealWrapped lists the storage prefixes that hold seeds.
func chainSealWrapped() []string { return []string{operatorEntryKey, namedPrefix} }

// chain is the NATS trust chain in storage: an operator, its accounts, and
// users whose keys stay in the mount.
//
// An account's JWT is not stored but made from what is: its entry, its
// revocations, the operator's signing key and its version. So one change of the
// operator is one write, however many accounts it has.
//
// Writers take turns; readers go through caches and never wait for a writer.
type chain struct {
	logger      hclog.Logger
	revocations *revocations

	operators *cache[operatorSlot] // by operatorEntryKey
	accounts  *cache[account]      // by name: what a login needs
	served    *cache[served]       // by public key: what unauthenticated callers are given
	serving   singleflight.Group   // loads for served

	// making holds a value for each account JWT that is being made: half of the
	// plugin's processors make them at most. Else a login would wait its turn behind
	// all that a comparison makes at a time, for tenths of a second if they have
	// thousands of revocations.
	making chan struct{}

	mu sync.Mutex // held by writers of entries

	// versions guards the index and the pending markers, which the writers of
	// revocations change too.
	versions sync.Mutex
	writing  map[string]underway // by public key
	marks    [markSlots]uint64   // by markSlot: how often a change was marked
	everyone map[string]bool     // accounts that pendingAllKey still stands for; nil if it is not set
}

// underway is a change that was marked as pending and may not be stored yet.
type underway struct {
	writers int
	since   time.Time     // the last of them began
	over    chan struct{} // closed when the last of them is done
}

func newChain(logger hclog.Logger) *chain {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &chain{
		logger:      logger,
		revocations: newRevocations(),
		operators:   newCache[operatorSlot](),
		accounts:    newCache[account](),
		served:      newServedCache(),
		making:      make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		writing:     map[string]underway{},
	}
}

// invalidate is called when another node changed the storage entry at key.
func (c *chain) invalidate(key string) {
	switch {
	case key == operatorEntryKey:
		c.operatorChanged()
	case strings.HasPrefix(key, namedPrefix):
		c.accounts.forget(strings.TrimPrefix(key, namedPrefix))
		c.served.forgetAll()
	case strings.HasPrefix(key, accountIDPrefix):
		id := strings.TrimPrefix(key, accountIDPrefix)
		c.versions.Lock()
		c.marks[markSlot(id)]++
		c.versions.Unlock()
		c.served.forget(id)
	case strings.HasPrefix(key, revokedPrefix):
		c.revocations.invalidate(key)
		id, _, _ := strings.Cut(strings.TrimPrefix(key, revokedPrefix), "/")
		c.served.forget(id)
	}
}

// operatorChanged drops everything that was made with the operator's keys.
func (c *chain) operatorChanged() {
	c.operators.forget(operatorEntryKey)
	c.accounts.forgetAll()
	c.served.forgetAll()
}

// operator returns the operator ready for use, nil before the first write of
// config.
func (c *chain) operator(ctx context.Context, s logical.Storage) (*operator, error) {
	slot, err := c.operators.get(ctx, operatorEntryKey, func(ctx context.Context, key string) (*operatorSlot, error) {
		entry, err := readEntry[operatorEntry](ctx, s, key)
		if entry == nil || err != nil {
			return &operatorSlot{}, err
		}
		opened, err := entry.open()
		return &operatorSlot{opened}, err
	})
	if err != nil {
		return nil, err
	}
	return slot.operator, nil
}

// operatorSlot holds the operator, or that there is none, which is cached too:
// logins ask for it.
type operatorSlot struct{ *operator }

// serviceURL is where clients find the NATS servers, several URLs separated by
// commas as nats.go takes them.
func (c *chain) serviceURL(ctx context.Context, s logical.Storage) (string, error) {
	operator, err := c.operator(ctx, s)
	if err != nil {
		return "", err
	}
	if operator == nil {
		return defaultNATSURL, nil
	}
	return strings.Join(operator.entry.ServiceURL, ","), nil
}

// account is an account made ready to sign users.
type account struct {
	natsName  string // in its JWT
	name      string
	publicKey string
	tags      []string
	system    bool
	external  bool                       // someone else operates its NATS
	former    func() (*trust.Key, error) // the system account's plain signing key before the present one; nil if there is none
	signers   map[signerName]func() (*trust.Key, error)
}

func (a *account) isSystem() bool { return a.system }

// issuerAccount is what the user JWTs of the account have to name, so that
// nats-server finds the account whichever of its keys signed.
func (a *account) issuerAccount() string { return a.publicKey }

// signer returns the key of a role that has one of its own, or the account's
// plain signing key. A scoped role of someone else's account has the account's
// scoped key of its name, or else the default one.
//
// A scoped role is signed for by a scoped key and by no other, and one that is
// not by a plain key: a scoped user holds no permissions of its own, and signed
// with a plain key it would have them all.
func (a *account) signer(name signerName) (*trust.Key, error) {
	open, ok := a.signers[name]
	if !ok && a.external && name.scoped {
		open, ok = a.signers[signerName{defaultKey, true}]
	}
	switch {
	case ok:
		return open()
	case name == plainSigner && a.onlyScoped():
		return nil, noPlainKey(a.name)
	case a.external && name.role != "":
		return nil, noForeignScope(a.name, name.role)
	case name == plainSigner:
		return nil, badField("account", "%q has no signing key in the mount: add one at jwt/%s/keys/default", a.name, a.name)
	default:
		return nil, badField("account", "%q has no signing key of role %q: write the role again", a.name, name.role)
	}
}

// onlyScoped reports whether someone else's account has keys in the mount, and
// none but scoped ones.
func (a *account) onlyScoped() bool {
	return a.external && len(a.signers) > 0 && a.signers[plainSigner] == nil
}

func noPlainKey(account string) error {
	return badField("account", "%q has only scoped signing keys, which sign for roles with scoped=true", account)
}

// signerName says which of an account's keys signs.
type signerName struct {
	role   string // that owns the key; empty for the account's own
	scoped bool
}

// plainSigner is the key that signs for all who have none of their own.
var plainSigner = signerName{}

// account returns the account of that name ready for use, nil if there is none.
func (c *chain) account(ctx context.Context, s logical.Storage, name string) (*account, error) {
	return c.accounts.get(ctx, name, func(ctx context.Context, name string) (*account, error) {
		entry, err := readNamed(ctx, s, name)
		if entry == nil || err != nil || entry.Type != typeAccount {
			return nil, err
		}
		operator, err := c.operator(ctx, s)
		if err != nil {
			return nil, err
		}
		return entry.open(name, operator), nil
	})
}

// readNamed returns the account or user of that name as it is stored, nil if
// there is none.
func readNamed(ctx context.Context, s logical.Storage, name string) (*namedEntry, error) {
	return readEntry[namedEntry](ctx, s, namedPrefix+name)
}

// accountIndex is what is stored under an account's public key.
type accountIndex struct {
	Name    string `json:"name"`
	Revoked bool   `json:"revoked,omitempty"` // it has, or had, revocations of its own
	version
}

// version orders the JWTs of one account. nats-servers that compare what they
// hold take the one with the later time of issue, which has only seconds, so
// each change takes a later one than the last had, ahead of the clock if need
// be.
type version struct {
	Issued     int64 `json:"issued"`     // Unix time
	Generation int64 `json:"generation"` // of the operator's signing key at that time
}

// at is the time of issue of the account's JWT under the operator as it is now:
// every new signing key makes all JWTs a second later.
func (v version) at(o *operatorEntry) int64 {
	return max(v.Issued+o.Generation-v.Generation, o.SignedSince)
}

// after is the version of the next change.
func (v version) after(o *operatorEntry, now time.Time) version {
	return version{Issued: max(v.at(o)+1, now.Unix()), Generation: o.Generation}
}

// wanted is an account as the servers are to hold it.
type wanted struct {
	name   string
	jwt    string
	issued int64
}

// want makes the JWT of the account with that public key, nil if there is no
// such account or it is not the mount's to deliver.
func (c *chain) want(ctx context.Context, s logical.Storage, id string) (*wanted, error) {
	operator, err := c.operator(ctx, s)
	if err != nil || !operator.signs() {
		return nil, err
	}
	index, err := readEntry[accountIndex](ctx, s, accountIDPrefix+id)
	if index == nil || err != nil {
		return nil, err
	}
	var revoked []revocation
	if index.Revoked {
		// Those that are over now are of no use in the JWT. Its time of issue does not
		// say that, since many changes take it ahead of the clock.
		if revoked, err = c.revocations.list(ctx, s, id, time.Now()); err != nil {
			return nil, err
		}
	}
	stored, err := getEntry(ctx, s, namedPrefix+index.Name)
	if err != nil {
		return nil, err
	}

	c.making <- struct{}{}
	defer func() { <-c.making }()
	entry, err := decodeEntry[namedEntry](stored)
	// The index is written before the entry and deleted after it.
	if entry == nil || err != nil || entry.PublicKey != id {
		return nil, err
	}
	issued := index.at(operator.entry)
	token, err := entry.encode(operator, index.Name, revoked, issued)
	if err != nil {
		return nil, fmt.Errorf("making the JWT of account %q: %w", index.Name, err)
	}
	return &wanted{name: index.Name, jwt: token, issued: issued}, nil
}

// encode makes the JWT with as many of the revocations as fit.
func (e *namedEntry) encode(operator *operator, name string, revoked []revocation, issued int64) (string, error) {
	encode := func(revoked []revocation) (string, error) {
		claims := e.claims()
		addRevocations(claims, revoked)
		return trust.EncodeAccount(operator.signing, e.PublicKey, e.natsName(name), *claims, issued)
	}
	token, err := encode(revoked)
	for _, keep := range []int{newestKept, 0} {
		if errors.Is(err, trust.ErrTooLarge) && len(revoked) > keep {
			token, err = encode(condense(revoked, keep))
		}
	}
	return token, err
}
