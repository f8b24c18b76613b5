package chain

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// takePlaceOf lets an account that is imported once more bring a later JWT or
// further seeds. The notes are for whoever imports it.
func (e *namedEntry) takePlaceOf(name string, stored *namedEntry) (notes []string, err error) {
	if stored.PublicKey != e.PublicKey || stored.External != e.External {
		return nil, fault.In("name", "%q exists already: it is account %s", name, stored.PublicKey)
	}
	if e.Seed == "" {
		e.Seed = stored.Seed
	}
	e.Former, e.Callout = stored.Former, stored.Callout
	brought, before := e.Keys, stored.clone()
	switch {
	case e.External:
		e.NATSName, e.Keys = before.NATSName, before.Keys
		e.addFurther(brought)
	case !e.isAfter(stored):
		e.NATSName, e.Claims, e.Imported, e.Keys, e.Removed = before.NATSName, before.Claims, before.Imported, before.Keys, before.Removed
		e.addListed(brought)
	default:
		notes = e.takeLater(name, before, brought)
	}
	return notes, nil
}

// isAfter reports whether the account's JWT is later than the one that is stored.
// Of an account that the mount made, every JWT was made of what is stored.
func (e *namedEntry) isAfter(stored *namedEntry) bool {
	return stored.Imported != nil && stored.Imported.isBefore(e.Imported)
}

// addFurther adds those of the keys that the account does not have.
func (e *namedEntry) addFurther(keys []signingKey) {
	for _, key := range keys {
		if !e.hasKey(key.PublicKey) {
			key.Name = e.freeKeyName(&key)
			e.Keys = append(e.Keys, key)
		}
	}
}

// addListed adds those of the keys that the account's claims list, with the
// scopes that they have there.
func (e *namedEntry) addListed(keys []signingKey) {
	for _, key := range keys {
		scope, listed := e.Claims.SigningKeys[key.PublicKey]
		if !listed {
			continue
		}
		key.Scope = userScope(scope)
		key.Name = e.freeKeyName(&key)
		e.takeListed(&key)
		e.Keys = append(e.Keys, key)
	}
}

// takeLater brings what the mount knows of the account's keys and revocations to
// a later JWT. A key that an import brought and that is listed no more goes, as it
// may have leaked; one that the mount made stays, for nobody else knows of it. What
// was taken out here stays out.
func (e *namedEntry) takeLater(name string, before *namedEntry, brought []signingKey) (notes []string) {
	scopes := maps.Clone(e.Claims.SigningKeys)
	for _, key := range brought {
		scopes[key.PublicKey] = nil
		if key.Scope != nil {
			scopes[key.PublicKey] = key.Scope
		}
	}
	e.Keys = nil
	var gone []signingKey
	for _, key := range before.Keys {
		scope, listed := scopes[key.PublicKey]
		if !listed && key.Imported {
			gone = append(gone, key)
			continue
		}
		if listed {
			key.Imported = true
			notes = append(notes, key.follow(userScope(scope))...)
			delete(e.Claims.SigningKeys, key.PublicKey)
		}
		e.Keys = append(e.Keys, key)
	}
	for _, public := range before.Removed {
		if _, listed := scopes[public]; !listed {
			continue // they have taken it out too, and may bring it back
		}
		e.Removed = append(e.Removed, public)
		delete(e.Claims.SigningKeys, public)
		brought = slices.DeleteFunc(brought, func(key signingKey) bool { return key.PublicKey == public })
		notes = append(notes, fmt.Sprintf("signing key %s was taken out of the account here, and stays out though account_jwt lists it: "+
			"to have it back, give its seed at jwt/%s/keys/:key, or list it in config", public, name))
	}
	e.nameKeys()
	e.addFurther(brought)
	for _, key := range gone {
		notes = append(notes, e.partWith(key)...)
	}
	return append(notes, e.keepRevocations(before)...)
}

// follow gives the key the scope that a later JWT has for it. That of a role's key
// is the role's to say.
func (k *signingKey) follow(scope *jwt.UserScope) (notes []string) {
	if k.Role != "" {
		return nil
	}
	if k.signs() && (scope == nil) != (k.Scope == nil) {
		notes = append(notes, fmt.Sprintf("signing key %q (%s) is %s in account_jwt, and so it is here now: "+
			"users with signing_key=%s may have to be changed", k.Name, k.PublicKey, kindOfKey(scope), k.Name))
	}
	if k.Name == DefaultKey && scope != nil {
		k.Name = "" // it cannot sign logins any more
	}
	k.Scope = scope
	return notes
}

func kindOfKey(scope *jwt.UserScope) string {
	if scope == nil {
		return "plain"
	}
	return "scoped"
}

// nameKeys finds names for the keys that have lost theirs.
func (e *namedEntry) nameKeys() {
	for i := range e.Keys {
		if e.Keys[i].Name == "" {
			e.Keys[i].Name = e.freeKeyName(&e.Keys[i])
		}
	}
}

// partWith says what a key that is gone leaves behind. A role has a new one at
// once.
func (e *namedEntry) partWith(key signingKey) (notes []string) {
	if !key.signs() {
		return nil
	}
	note := fmt.Sprintf("account_jwt does not list signing key %q (%s) any more, so it is gone, and whom it signed is cut off", key.Name, key.PublicKey)
	switch {
	case key.Role != "":
		if err := e.addRoleKey(key.Role, key.Scope); err != nil {
			return append(notes, note+": write the role again for a new one")
		}
		note += ": the role has a new one"
	case e.key(key.Name) != nil:
		note += ": another key has its name now"
	case key.Name == DefaultKey:
		note += ": logins need another"
	default:
		note += ": users with signing_key=" + key.Name + " need another"
	}
	return append(notes, note)
}

// keepRevocations keeps those that were in the account's config: perhaps the mount
// alone knows of them.
func (e *namedEntry) keepRevocations(before *namedEntry) (notes []string) {
	kept := 0
	for user, at := range before.Claims.Revocations {
		if e.Claims.Revocations[user] >= at {
			continue
		}
		if e.Claims.Revocations == nil {
			e.Claims.Revocations = jwt.RevocationList{}
		}
		e.Claims.Revocations[user] = at
		kept++
	}
	if kept == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d revocations of the account are not in account_jwt, or are later than there, and stay: patch its config to take one back", kept)}
}

// checkUnscoped refuses to make a scoped key of an account a plain one where named
// users are signed with it: they have no permissions of their own, and signed with
// a plain key they would have all.
func (c *Chain) checkUnscoped(ctx context.Context, s logical.Storage, name string, before, after *namedEntry) error {
	unscoped := map[string]bool{}
	for _, key := range before.Keys {
		for _, now := range after.Keys {
			if key.PublicKey == now.PublicKey && key.Scope != nil && now.Scope == nil {
				unscoped[now.Name] = true
			}
		}
	}
	if len(unscoped) == 0 {
		return nil
	}
	names, err := store.AccountOfUsers.Users(ctx, s, name)
	if err != nil {
		return err
	}
	var affected []string
	for _, name := range names {
		user, err := readNamed(ctx, s, name)
		if err != nil {
			return err
		}
		if user != nil && unscoped[user.SigningKey] {
			affected = append(affected, name)
		}
	}
	if len(affected) == 0 {
		return nil
	}
	return fault.In("account_jwt", "makes a scoped signing key a plain one, with which users would have all permissions who have none of their own (%s): "+
		"delete them, or give them another signing_key first", fault.ShortList(affected))
}
