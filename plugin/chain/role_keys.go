package chain

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// SetRoleKey gives the account the signing key of a role: scoped, or plain where
// scope is nil. A new scope holds for users signed with former keys of the role
// too. A key that was plain cannot become scoped, nor the other way round: users
// signed with it would be refused, so it is replaced by a new one.
func (c *Chain) SetRoleKey(ctx context.Context, s logical.Storage, accountName, role string, scope *jwt.UserPermissionLimits) error {
	return c.changeAccount(ctx, s, accountName, func(entry *namedEntry) error {
		return entry.setRoleKey(accountName, role, scope)
	})
}

// CheckRoleKey says why SetRoleKey would be refused, and changes nothing.
func (c *Chain) CheckRoleKey(ctx context.Context, s logical.Storage, accountName, role string, scope *jwt.UserPermissionLimits) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.planChange(ctx, s, accountName, func(entry *namedEntry) error {
		return entry.setRoleKey(accountName, role, scope)
	})
	return err
}

// AddRoleKey is SetRoleKey where the role has no key in the account yet. Elsewhere it
// does nothing.
func (c *Chain) AddRoleKey(ctx context.Context, s logical.Storage, accountName, role string, scope *jwt.UserPermissionLimits) error {
	return c.changeAccount(ctx, s, accountName, func(entry *namedEntry) error {
		if entry.External || entry.key(roleKey(role)) != nil {
			return nil
		}
		return entry.setRoleKey(accountName, role, scope)
	})
}

func (e *namedEntry) setRoleKey(account, role string, scope *jwt.UserPermissionLimits) error {
	if e.External {
		return e.checkForeignScope(account, role, scope)
	}
	var template *jwt.UserScope
	if scope != nil {
		template = &jwt.UserScope{Kind: jwt.UserScopeType, Role: role, Template: *scope}
	}
	e.Keys = slices.DeleteFunc(e.Keys, func(key signingKey) bool {
		return key.Role == role && (key.Scope == nil) != (template == nil)
	})
	for i := range e.Keys {
		if e.Keys[i].Role == role {
			e.Keys[i].Scope = template
		}
	}
	if e.key(roleKey(role)) != nil {
		return nil
	}
	return e.addRoleKey(role, template)
}

// checkForeignScope checks a role that is to have a signing key of its own in
// someone else's account. The scopes of the account's keys stand in its JWT,
// which the mount does not make.
func (e *namedEntry) checkForeignScope(account, role string, scope *jwt.UserPermissionLimits) error {
	key := e.key(role)
	if key == nil {
		key = e.key(DefaultKey)
	}
	switch {
	case scope == nil:
		return fault.In("signing_key", "cannot be role: %q is an account of someone else's NATS, so the mount cannot give it a key", account)
	case !same(scope, &jwt.NewUserScope().Template):
		return fault.In("user_template", "of a scoped role has no permissions or limits where the account, %q, is of someone else's NATS: they set the scope of its signing key", account)
	case key == nil || key.Scope == nil:
		return noForeignScope(account, role)
	}
	return nil
}

func noForeignScope(account, role string) error {
	return fault.In("account", "%q has no scoped signing key for role %q: give its seed at jwt/%s/keys/%s, with config={} for a scope that others set", account, role, account, role)
}

// ReplaceRoleKey gives a role another signing key, and takes all former ones
// out of the account, which cuts off everyone of the role.
func (c *Chain) ReplaceRoleKey(ctx context.Context, s logical.Storage, accountName, role string) error {
	return c.changeAccount(ctx, s, accountName, func(entry *namedEntry) error {
		present := entry.key(roleKey(role))
		if present == nil {
			return fault.In("role", "%q has no signing key in account %q: write the role again", role, accountName)
		}
		scope := present.Scope
		entry.Keys = slices.DeleteFunc(entry.Keys, func(key signingKey) bool { return key.Role == role })
		return entry.addRoleKey(role, scope)
	})
}

func (e *namedEntry) addRoleKey(role string, scope *jwt.UserScope) error {
	key, err := newSigningKey(roleKey(role), time.Now().Unix())
	if err != nil {
		return err
	}
	key.Role, key.Scope = role, scope
	e.Keys = append(e.Keys, key)
	return nil
}

// RemoveRoleKeys takes a role's signing keys out of the account, which cuts its
// users off.
func (c *Chain) RemoveRoleKeys(ctx context.Context, s logical.Storage, accountName, role string) error {
	err := c.changeAccount(ctx, s, accountName, func(entry *namedEntry) error {
		entry.Keys = slices.DeleteFunc(entry.Keys, func(key signingKey) bool { return key.Role == role })
		return nil
	})
	if errors.Is(err, errNoAccount) {
		return nil // its keys went with it
	}
	return err
}
