package chain

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A Named is an account or a user of the mount: what may be seen of it, which is
// all but its seeds.
type Named struct {
	Name      string
	Type      string // TypeAccount or TypeUser
	PublicKey string
	SeedSet   bool   // the mount has the identity key
	NATSName  string // in its JWT

	// Of an account.
	External bool // someone else operates its NATS: the mount delivers nothing
	Keys     []SigningKey

	// Of a user.
	Account    string        // its name
	SigningKey string        // name of the account's key that signs it
	TTL        time.Duration // life of its JWTs; 0 for the mount's default
	Expires    time.Time     // that no JWT of it outlives; the zero time for none
	NotBefore  time.Time     // from which on its JWTs are good; the zero time for at once

	entry *namedEntry
}

// A SigningKey is a key of an account that is listed in its JWT.
type SigningKey struct {
	Name      string
	PublicKey string
	State     string // KeySigning or KeyRetiring
	Created   time.Time
	Retires   time.Time // of one that is retiring
	Role      string    // the role that owns it
	Scope     []byte    // JSON, as NATS writes it in an account's JWT; nil of a plain key
}

// Delivers reports whether it is an account that the mount delivers.
func (n *Named) Delivers() bool { return n.Type == TypeAccount && !n.External }

// Config is the account or user as NATS writes it in the "nats" claim of its JWT:
// as it was written, or what can be written to have it.
func (n *Named) Config() ([]byte, error) { return n.entry.config() }

// HasGatedExports reports whether the account has exports that take an activation
// token to import.
func (n *Named) HasGatedExports() bool { return n.entry.hasGatedExports() }

// Key returns the signing key of that name that is in use, nil if there is none.
func (n *Named) Key(name string) *SigningKey {
	i := slices.IndexFunc(n.Keys, func(key SigningKey) bool { return key.Name == name && key.State == KeySigning })
	if i < 0 {
		return nil
	}
	return &n.Keys[i]
}

// Warnings are the things about it that are allowed and rarely meant.
func (n *Named) Warnings() []string { return n.entry.warnings(n.Name) }

// Named returns the account or user of that name, nil if there is none.
func (c *Chain) Named(ctx context.Context, s logical.Storage, name string) (*Named, error) {
	entry, err := readNamed(ctx, s, name)
	if entry == nil || err != nil {
		return nil, err
	}
	return entry.view(name)
}

// Exists reports whether there is an account or user of that name.
func (c *Chain) Exists(ctx context.Context, s logical.Storage, name string) (bool, error) {
	entry, err := store.Get(ctx, s, namedPrefix+name)
	return entry != nil, err
}

// Names lists the accounts and users, in order.
func (c *Chain) Names(ctx context.Context, s logical.Storage) ([]string, error) {
	names, err := store.List(ctx, s, namedPrefix)
	slices.Sort(names)
	return names, err
}

func (e *namedEntry) view(name string) (*Named, error) {
	view := &Named{
		Name:       name,
		Type:       e.Type,
		PublicKey:  e.PublicKey,
		SeedSet:    e.Seed != "",
		External:   e.External,
		Account:    e.Account,
		SigningKey: e.SigningKey,
		TTL:        time.Duration(e.TTL) * time.Second,
		Expires:    unixTime(e.Expires),
		NotBefore:  unixTime(e.NotBefore),
		NATSName:   e.natsName(name),
		entry:      e,
	}
	if e.Type == TypeUser {
		return view, nil
	}
	for i := range e.Keys {
		key, err := e.Keys[i].view()
		if err != nil {
			return nil, err
		}
		view.Keys = append(view.Keys, key)
	}
	return view, nil
}

// unixTime is the zero time for 0.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

func (k *signingKey) view() (SigningKey, error) {
	view := SigningKey{Name: k.Name, PublicKey: k.PublicKey, State: KeySigning, Created: time.Unix(k.Created, 0), Role: k.Role}
	if !k.signs() {
		view.State, view.Retires = KeyRetiring, time.Unix(k.RetireAt, 0)
	}
	if k.Scope == nil {
		return view, nil
	}
	scope := *k.Scope
	scope.Key = k.PublicKey
	var err error
	view.Scope, err = trust.ScopeConfig(&scope)
	return view, err
}

// readNamed returns the account or user of that name as it is stored, nil if
// there is none.
func readNamed(ctx context.Context, s logical.Storage, name string) (*namedEntry, error) {
	return store.Read[namedEntry](ctx, s, namedPrefix+name)
}
