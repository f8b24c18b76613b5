package chain

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// An Account is made ready to sign users. It is shared and never changed.
type Account struct {
	Name      string // in the mount
	NATSName  string // in its JWT
	PublicKey string // which its users' JWTs name as issuer_account, whichever of its keys signs
	Tags      []string
	System    bool // it is the operator's system account
	External  bool // someone else operates its NATS

	// Claims is what its JWT says of all users, not to be changed; nil where that is
	// not known, since someone else makes it.
	Claims *jwt.Account

	Callout *AccountCallout // that nats-servers ask about its users; nil if there is none

	revoked       bool             // it had revocations of its own when it was made ready
	configRevoked map[string]int64 // what its config revokes

	former  func() (*trust.Key, error) // the system account's plain signing key before the present one; nil if there is none
	signers map[SignerName]func() (*trust.Key, error)
}

// A SignerName says which of an account's keys signs.
type SignerName struct {
	Role   string // that owns the key; empty for the account's own
	Scoped bool
}

// PlainSigner is the key that signs for all who have none of their own.
var PlainSigner = SignerName{}

// Account returns the account of that name ready for use, nil if there is none.
// It reads no storage in the steady state.
func (c *Chain) Account(ctx context.Context, s logical.Storage, name string) (*Account, error) {
	return c.accounts.Get(ctx, name, func(ctx context.Context, name string) (*Account, error) {
		entry, err := readNamed(ctx, s, name)
		if entry == nil || err != nil || entry.Type != TypeAccount {
			return nil, err
		}
		operator, err := c.operator(ctx, s)
		if err != nil {
			return nil, err
		}
		opened := entry.open(name, operator)
		if !entry.External {
			_, opened.revoked, err = c.Known(ctx, s, entry.PublicKey)
		}
		return opened, err
	})
}

// Signer returns the key of a role that has one of its own, or the account's
// plain signing key. A scoped role of someone else's account has the account's
// scoped key of its name, or else the default one.
//
// A scoped role is signed for by a scoped key and by no other, and one that is
// not by a plain key: a scoped user holds no permissions of its own, and signed
// with a plain key it would have them all.
func (a *Account) Signer(name SignerName) (*trust.Key, error) {
	open, ok := a.signers[name]
	if !ok && a.External && name.Scoped {
		open, ok = a.signers[SignerName{DefaultKey, true}]
	}
	if ok {
		return open()
	}
	if name == PlainSigner {
		if err := a.CheckPlain(); err != nil {
			return nil, err
		}
		return nil, fault.In("account", "%q has no signing key in the mount: add one at jwt/%s/keys/default", a.Name, a.Name)
	}
	if a.External {
		return nil, noForeignScope(a.Name, name.Role)
	}
	return nil, fault.In("account", "%q has no signing key of role %q: write the role again", a.Name, name.Role)
}

// CheckPlain refuses someone else's account that has keys in the mount, and none
// but scoped ones, for what only a plain key signs.
func (a *Account) CheckPlain() error {
	if a.External && len(a.signers) > 0 && a.signers[PlainSigner] == nil {
		return fault.In("account", "%q has only scoped signing keys, which sign for roles with scoped=true", a.Name)
	}
	return nil
}

// open makes the account ready to sign users. The operator is nil for an
// account of someone else's.
func (e *namedEntry) open(name string, o *operator) *Account {
	opened := &Account{
		Name:      name,
		NATSName:  e.natsName(name),
		PublicKey: e.PublicKey,
		External:  e.External,
		System:    o != nil && o.entry.SystemAccount == e.PublicKey,
		Callout:   e.Callout.open(),
		signers:   map[SignerName]func() (*trust.Key, error){},
	}
	if !e.External {
		opened.Claims = e.Claims
	}
	if e.Claims != nil {
		opened.Tags, opened.configRevoked = e.Claims.Tags, e.Claims.Revocations
	}
	for _, key := range e.Keys {
		switch {
		case !key.signs() || key.Seed == "":
		case e.External && key.Scope != nil:
			opened.signers[SignerName{key.Name, true}] = lazyKey(key.Seed)
		case key.Role != "":
			opened.signers[SignerName{key.Role, key.Scope != nil}] = lazyKey(key.Seed)
		}
	}
	if seed := e.plainSeed(o.strict()); seed != "" {
		opened.signers[PlainSigner] = lazyKey(seed)
	}
	if e.Former != "" {
		opened.former = lazyKey(e.Former)
	}
	return opened
}

// lazyKey expands a seed when it is first used: an account may have many.
func lazyKey(seed string) func() (*trust.Key, error) {
	return sync.OnceValues(func() (*trust.Key, error) {
		key, err := trust.ParseSeed(trust.Account, seed)
		if err != nil {
			return nil, fmt.Errorf("the stored signing key %w", err)
		}
		return key, nil
	})
}

// plainSeed is the seed of the key that signs users who have no scope. The
// identity key takes the place of one that is not there, where nats-server lets
// its users in: without strict_signing_key_usage.
func (e *namedEntry) plainSeed(strict bool) string {
	if key := e.key(DefaultKey); key != nil && key.Scope == nil && key.Seed != "" {
		return key.Seed
	}
	if strict {
		return ""
	}
	return e.Seed
}
