package plugin

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/go-secure-stdlib/strutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

const calloutPrefix = "callout/"

// calloutEntry is an auth callout in storage.
type calloutEntry struct {
	Account         string       `json:"account"`
	Roles           []string     `json:"roles"` // globs
	DefaultRole     string       `json:"default_role,omitempty"`
	AllowedAccounts []string     `json:"allowed_accounts,omitempty"` // names; empty: all
	User            string       `json:"user"`
	MadeUser        bool         `json:"made_user,omitempty"` // it goes with the callout
	Sealed          bool         `json:"sealed"`
	XKeys           []storedXKey `json:"xkeys,omitempty"` // the present one first, if it is sealed

	// Unsettled says that its account and its user may not be yet what the entry says;
	// Deleted that they are to go, and the entry after them.
	Unsettled bool `json:"unsettled,omitempty"`
	Deleted   bool `json:"deleted,omitempty"`
}

// storedXKey is a curve key of a callout in storage.
type storedXKey struct {
	Seed     string `json:"seed"`
	RetireAt int64  `json:"retire_at,omitempty"` // Unix time until which requests sealed for it are taken; 0: it is the present one
}

// authCallout is a calloutEntry ready for use.
type authCallout struct {
	name  string
	entry *calloutEntry
	xkeys []*callout.XKey // as in the entry
}

// readCallout returns nil also for one that is being deleted.
func readCallout(ctx context.Context, s logical.Storage, name string) (*calloutEntry, error) {
	entry, err := store.Read[calloutEntry](ctx, s, calloutPrefix+name)
	if entry != nil && entry.Deleted {
		entry = nil
	}
	return entry, err
}

// callout returns the callout of that name ready for use, nil if there is none. It
// reads no storage in the steady state.
func (b *backend) callout(ctx context.Context, s logical.Storage, name string) (*authCallout, error) {
	return b.callouts.Get(ctx, name, func(ctx context.Context, name string) (*authCallout, error) {
		entry, err := readCallout(ctx, s, name)
		if entry == nil || err != nil {
			return nil, err
		}
		return entry.open(name)
	})
}

func (e *calloutEntry) open(name string) (*authCallout, error) {
	opened := &authCallout{name: name, entry: e}
	for _, stored := range e.XKeys {
		key, err := callout.ParseXKey(stored.Seed)
		if err != nil {
			return nil, err
		}
		opened.xkeys = append(opened.xkeys, key)
	}
	return opened, nil
}

// seal is how requests may come now.
func (c *authCallout) seal(now time.Time) callout.Seal {
	seal := callout.Seal{Required: c.entry.Sealed}
	for i, stored := range c.entry.XKeys {
		if stored.isGood(now) {
			seal.Keys = append(seal.Keys, c.xkeys[i])
		}
	}
	return seal
}

func (k storedXKey) isGood(now time.Time) bool { return k.RetireAt == 0 || k.RetireAt > now.Unix() }

// xkey is the public key that the account's JWT names; empty if nothing is sealed.
func (c *authCallout) xkey() string {
	if !c.entry.Sealed {
		return ""
	}
	return c.xkeys[0].Public()
}

// newXKey puts a new key into use, and lets the one before retire.
func (e *calloutEntry) newXKey(now time.Time, overlap time.Duration) error {
	key, err := callout.NewXKey()
	if err != nil {
		return err
	}
	seed, err := key.Seed()
	if err != nil {
		return err
	}
	e.retireXKey(now, overlap)
	e.XKeys = append([]storedXKey{{Seed: seed}}, e.XKeys...)
	return nil
}

// retireXKey has the present key end with the overlap.
func (e *calloutEntry) retireXKey(now time.Time, overlap time.Duration) {
	e.XKeys = slices.Clone(e.XKeys)
	for i := range e.XKeys {
		if e.XKeys[i].RetireAt == 0 {
			e.XKeys[i].RetireAt = now.Add(overlap).Unix()
		}
	}
	e.dropXKeys(now)
}

// dropXKeys drops the keys whose overlap is over, and says whether there were any.
func (e *calloutEntry) dropXKeys(now time.Time) bool {
	before := len(e.XKeys)
	e.XKeys = slices.DeleteFunc(slices.Clone(e.XKeys), func(key storedXKey) bool { return !key.isGood(now) })
	return len(e.XKeys) < before
}

// takes reports whether clients may ask for the role of that name.
func (e *calloutEntry) takes(role string) bool { return strutil.StrListContainsGlob(e.Roles, role) }

// checkRole says why clients of the callout cannot be given users of a role that it
// takes, or nothing. account is the role's.
func (e *calloutEntry) checkRole(role *role, account *chain.Account) error {
	switch {
	case role.entry.RoleType == roles.TypeVault:
		return fault.In("roles", "has %q, which is of type vault: its users are callers of Vault", role.name)
	case role.entry.RoleType == roles.TypeOIDC:
		return fault.In("roles", "has %q, which is of type oidc: its users are people with a browser", role.name)
	case account == nil:
		return fault.In("roles", "has %q, whose account %q does not exist", role.name, role.entry.Account)
	case account.External:
		return fault.In("roles", "has %q, whose account %q is of someone else's NATS", role.name, account.Name)
	case account.Name == e.Account:
		return fault.In("roles", "has %q, which is of the callout's own account: who is in that could hear what is asked, and stand in the way of the answers", role.name)
	case !e.allows(account.Name):
		return fault.In("roles", "has %q, whose account %q is not among the allowed_accounts", role.name, account.Name)
	}
	if err := role.compiled.CheckCallout(); err != nil {
		return fault.In("roles", "has %q, whose %s", role.name, err)
	}
	return nil
}

// allows reports whether clients may be put into the account of that name.
func (e *calloutEntry) allows(account string) bool {
	return len(e.AllowedAccounts) == 0 || slices.Contains(e.AllowedAccounts, account)
}

// calloutsOf lists the callouts that depend on the account or user of that name.
// One that cannot be read may.
func (b *backend) calloutsOf(ctx context.Context, s logical.Storage, name string) ([]string, error) {
	names, err := store.List(ctx, s, calloutPrefix)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(of string) bool {
		entry, err := readCallout(ctx, s, of)
		return err == nil && (entry == nil ||
			entry.Account != name && entry.User != name && !slices.Contains(entry.AllowedAccounts, name))
	}), nil
}

// retireXKeys drops the curve keys whose overlap is over.
func (b *backend) retireXKeys(ctx context.Context, s logical.Storage) error {
	if !b.writesAllowed() {
		return nil
	}
	names, err := store.List(ctx, s, calloutPrefix)
	if err != nil {
		return err
	}
	var failures []error
	for _, name := range names {
		failures = append(failures, b.retireXKeysOf(ctx, s, name, time.Now()))
	}
	return errors.Join(failures...)
}

func (b *backend) retireXKeysOf(ctx context.Context, s logical.Storage, name string, now time.Time) error {
	ready, err := b.callout(ctx, s, name)
	if ready == nil || err != nil || !slices.ContainsFunc(ready.entry.XKeys, func(key storedXKey) bool { return !key.isGood(now) }) {
		return err
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	entry, err := readCallout(ctx, s, name)
	if entry == nil || err != nil || !entry.dropXKeys(now) {
		return err
	}
	return b.putCallout(ctx, s, name, entry)
}

func (b *backend) putCallout(ctx context.Context, s logical.Storage, name string, entry *calloutEntry) error {
	err := store.Write(ctx, s, calloutPrefix+name, entry)
	b.callouts.Forget(name)
	return err
}

func (b *backend) dropCallout(ctx context.Context, s logical.Storage, name string) error {
	err := store.Delete(ctx, s, calloutPrefix+name)
	b.callouts.Forget(name)
	return err
}
