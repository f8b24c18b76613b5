package chain

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// PutKey adds a signing key to an account, or changes the scope of one. Without a
// seed a key is made; without a config, which is the scope as NATS writes it, it
// is a plain one. It returns the account as it is then.
func (c *Chain) PutKey(ctx context.Context, s logical.Storage, account, key, seed, config string) (*Named, error) {
	return c.changeKeys(ctx, s, account, func(entry *namedEntry) error {
		return entry.putKey(key, seed, config, time.Now())
	})
}

// DeleteKey removes a signing key from an account, which cuts off whom it signed.
func (c *Chain) DeleteKey(ctx context.Context, s logical.Storage, account, key string) (*Named, error) {
	return c.changeKeys(ctx, s, account, func(entry *namedEntry) error {
		if present := entry.key(key); present != nil && present.Role != "" {
			return fault.In("key", "%q belongs to role %q: delete that", key, present.Role)
		}
		entry.Keys = slices.DeleteFunc(entry.Keys, func(k signingKey) bool { return k.Name == key })
		return nil
	})
}

// RotateKey replaces a signing key of an account by a new one, or by the one of
// the seed. The old one stays in the account's JWT for the overlap, so that users
// signed with it go on until theirs have expired.
func (c *Chain) RotateKey(ctx context.Context, s logical.Storage, account, key, seed string, overlap time.Duration) (*Named, error) {
	return c.changeKeys(ctx, s, account, func(entry *namedEntry) error {
		if entry.External && seed == "" {
			return fault.In("seed", "is missing: someone else operates the account's NATS, so its keys are made there")
		}
		added, err := entry.rotateKey(key, seed, time.Now(), overlap)
		if err != nil {
			return err
		}
		entry.takeListed(added)
		return nil
	})
}

func (c *Chain) changeKeys(ctx context.Context, s logical.Storage, name string, change func(*namedEntry) error) (*Named, error) {
	var after *namedEntry
	err := c.changeAccount(ctx, s, name, func(entry *namedEntry) error {
		after = entry
		return change(entry)
	})
	if errors.Is(err, errNoAccount) {
		err = fault.In("name", "%q is not an account", name)
	}
	if err != nil {
		return nil, err
	}
	return after.view(name)
}

// putKey adds the key, or changes the scope of the one of that name.
func (e *namedEntry) putKey(name, seed, config string, now time.Time) error {
	scope, err := e.scopeOf(config, name)
	if err != nil {
		return err
	}
	if present := e.key(name); present != nil {
		if seed != "" && seed != present.Seed {
			return fault.In("seed", "is that of another key than %q has: rotate it at jwt/:name/rotate", name)
		}
		if (present.Scope == nil) != (scope == nil) {
			return fault.In("config", "cannot make a plain key scoped or a scoped one plain: users signed with it would be cut off; use another name")
		}
		present.Scope = scope
		return nil
	}
	if seed == "" && e.External {
		return fault.In("seed", "is missing: someone else operates the account's NATS, so its keys are made there")
	}
	added, err := newSigningKey(name, now.Unix())
	if err != nil {
		return err
	}
	if seed != "" {
		key, err := trust.ParseSeed(trust.Account, seed)
		if err != nil {
			return fault.In("seed", "%s", err)
		}
		if e.hasKey(key.Public()) {
			return fault.In("seed", "is that of a key that the account has already")
		}
		added.PublicKey, added.Seed = key.Public(), key.Seed()
		e.ForeignUsers = true
	}
	added.Scope = scope
	e.takeListed(&added)
	e.Keys = append(e.Keys, added)
	return nil
}

// scopeOf reads the scope that was given, nil if there is none.
func (e *namedEntry) scopeOf(config, name string) (*jwt.UserScope, error) {
	if config == "" {
		return nil, nil
	}
	if name == DefaultKey && !e.External {
		return nil, fault.In("config", "cannot be given for %q, which signs logins with the permissions of their roles", name)
	}
	scope, err := trust.ParseScope([]byte(config))
	if err != nil {
		return nil, fault.In("config", "%s", err)
	}
	scope.Key = ""
	if scope.Role == "" {
		scope.Role = name
	}
	return scope, nil
}

func (e *namedEntry) rotateKey(name, seed string, now time.Time, overlap time.Duration) (*signingKey, error) {
	old := e.key(name)
	if old == nil {
		return nil, fault.In("key", "%q is not a signing key of the account", name)
	}
	added := signingKey{Name: old.Name, Role: old.Role, Scope: old.Scope, Created: now.Unix()}
	key, err := trust.Generate(trust.Account)
	if seed != "" {
		key, err = trust.ParseSeed(trust.Account, seed)
	}
	if err != nil {
		return nil, fault.In("seed", "%s", err)
	}
	if key.Public() == e.PublicKey || slices.ContainsFunc(e.Keys, func(k signingKey) bool { return k.PublicKey == key.Public() }) {
		return nil, fault.In("seed", "is that of a key that the account has already")
	}
	added.PublicKey, added.Seed = key.Public(), key.Seed()
	e.ForeignUsers = e.ForeignUsers || seed != ""
	old.RetireAt, old.Seed = now.Add(overlap).Unix(), ""
	e.Keys = append(e.Keys, added)
	e.dropRetired(now)
	return e.key(name), nil
}

// dropRetired drops the keys whose overlap is over.
func (e *namedEntry) dropRetired(now time.Time) {
	e.Keys = slices.DeleteFunc(e.Keys, func(key signingKey) bool { return !key.signs() && key.RetireAt <= now.Unix() })
}
