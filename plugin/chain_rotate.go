package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// rotateOperator puts the operator's next signing key into use, and has another
// one follow it. Every account's JWT is another one from then on, without any
// account being written: they are marked as pending all at once. The key that
// was in use stays in the operator's JWT for the overlap.
//
// Without a next key, which servers know already, one is made and rotated is
// false: the rotation then takes another call, once the servers have been
// started with the new operator JWT. now forces it at once.
func (c *chain) rotateOperator(ctx context.Context, s logical.Storage, overlap time.Duration, atOnce bool) (after *operatorEntry, rotated bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, err := c.operator(ctx, s)
	if err != nil {
		return nil, false, err
	}
	if !stored.signs() {
		return nil, false, badField("config", "has no operator yet: write config first")
	}
	now := time.Now()
	after = stored.entry.clone()
	live := after.live()
	if len(live) == 1 {
		if after.Seed == "" {
			return nil, false, badField("config", "has no other signing key of the operator, and cannot make one without its identity key: make one where that is, and write the new operator_jwt and operator_signing_seeds to config")
		}
		if err := after.addNextKey(now); err != nil {
			return nil, false, err
		}
	}
	if rotated = len(live) > 1 || atOnce; rotated {
		after.retireCurrent(now, overlap)
		after.signsSince(now)
		if after.Seed != "" && len(after.live()) == 1 {
			if err := after.addNextKey(now); err != nil {
				return nil, false, err
			}
		}
	}
	if err := after.sign(now); err != nil {
		return nil, false, err
	}
	if rotated {
		return after, true, c.storeNewSigner(ctx, s, after, now)
	}
	err = writeEntry(ctx, s, operatorEntryKey, after)
	c.operatorChanged()
	return after, false, err
}

// signsSince notes that another key signs from now on, which makes another JWT
// of every account.
func (e *operatorEntry) signsSince(now time.Time) {
	e.Generation++
	e.SignedSince = max(now.Unix(), e.SignedSince+1)
}

// storeNewSigner stores an operator whose accounts another key signs. They are
// marked as pending first, so that a crash in between forgets none. What is
// delivered meanwhile is of the former key, and does not count for the marker.
func (c *chain) storeNewSigner(ctx context.Context, s logical.Storage, after *operatorEntry, now time.Time) error {
	c.versions.Lock()
	defer c.versions.Unlock()
	ids, err := s.List(ctx, accountIDPrefix)
	if err != nil {
		return fmt.Errorf("listing the accounts: %w", err)
	}
	if err := writeEntry(ctx, s, pendingAllKey, pendingMarker{Since: now.Unix()}); err != nil {
		return err
	}
	c.everyonePending(ids)
	err = writeEntry(ctx, s, operatorEntryKey, after)
	c.operatorChanged()
	return err
}

func (e *operatorEntry) addNextKey(now time.Time) error {
	key, err := newOperatorKey(now)
	if err != nil {
		return err
	}
	e.Keys = append(e.Keys, key)
	return nil
}

// retireCurrent takes the key in use out of use, and out of the operator's JWT
// when the overlap ends.
func (e *operatorEntry) retireCurrent(now time.Time, overlap time.Duration) {
	i := slices.IndexFunc(e.Keys, func(key operatorKey) bool { return key.RetireAt == 0 })
	e.Keys[i].RetireAt = now.Add(overlap).Unix()
	e.Keys[i].Seed = "" // it signs no more
	e.dropRetired(now)
}

// dropRetired drops the keys whose overlap is over and says whether there were
// any. Without the identity key they stay in the imported JWT, and here as long as
// they do: so an import that is repeated does not bring them back.
func (e *operatorEntry) dropRetired(now time.Time) bool {
	before := len(e.Keys)
	e.Keys = slices.DeleteFunc(e.Keys, func(key operatorKey) bool {
		over := key.RetireAt != 0 && key.RetireAt <= now.Unix() && (e.Seed != "" || !e.lists(key.PublicKey))
		if over {
			e.Claims.SigningKeys = slices.DeleteFunc(slices.Clone(e.Claims.SigningKeys), func(public string) bool { return public == key.PublicKey })
		}
		return over
	})
	return len(e.Keys) < before
}

// rotateKey replaces a signing key of the account by a new one, or by the one
// of the seed. The old one stays in the account's JWT for the overlap, so that
// users signed with it go on until theirs have expired.
func (e *namedEntry) rotateKey(name, seed string, now time.Time, overlap time.Duration) (*signingKey, error) {
	old := e.key(name)
	if old == nil {
		return nil, badField("key", "%q is not a signing key of the account", name)
	}
	added := signingKey{Name: old.Name, Role: old.Role, Scope: old.Scope, Created: now.Unix()}
	key, err := trust.Generate(trust.Account)
	if seed != "" {
		key, err = trust.ParseSeed(trust.Account, seed)
	}
	if err != nil {
		return nil, badField("seed", "%s", err)
	}
	if key.Public() == e.PublicKey || slices.ContainsFunc(e.Keys, func(k signingKey) bool { return k.PublicKey == key.Public() }) {
		return nil, badField("seed", "is that of a key that the account has already")
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

// setScope gives the account the signing key of a role: scoped, or plain where
// scope is nil. A new scope holds for users signed with former keys of the role
// too. A key that was plain cannot become scoped, nor the other way round: users
// signed with it would be refused, so it is replaced by a new one. The account
// is delivered by the caller's next look at what is pending.
func (c *chain) setScope(ctx context.Context, s logical.Storage, accountName, role string, scope *jwt.UserPermissionLimits) error {
	return c.changeAccount(ctx, s, accountName, func(entry *namedEntry) error {
		if entry.External {
			return entry.checkForeignScope(accountName, role, scope)
		}
		var template *jwt.UserScope
		if scope != nil {
			template = &jwt.UserScope{Kind: jwt.UserScopeType, Role: role, Template: *scope}
		}
		entry.Keys = slices.DeleteFunc(entry.Keys, func(key signingKey) bool {
			return key.Role == role && (key.Scope == nil) != (template == nil)
		})
		for i := range entry.Keys {
			if entry.Keys[i].Role == role {
				entry.Keys[i].Scope = template
			}
		}
		if entry.key(roleKey(role)) != nil {
			return nil
		}
		return entry.addRoleKey(role, template)
	})
}

// checkForeignScope checks a role that is to have a signing key of its own in
// someone else's account. The scopes of the account's keys stand in its JWT,
// which the mount does not make.
func (e *namedEntry) checkForeignScope(account, role string, scope *jwt.UserPermissionLimits) error {
	key := e.key(role)
	if key == nil {
		key = e.key(defaultKey)
	}
	switch {
	case scope == nil:
		return badField("signing_key", "cannot be role: %q is an account of someone else's NATS, so the mount cannot give it a key", account)
	case !same(scope, &jwt.NewUserScope().Template):
		return badField("user_template", "of a scoped role has no permissions or limits where the account, %q, is of someone else's NATS: they set the scope of its signing key", account)
	case key == nil || key.Scope == nil:
		return noForeignScope(account, role)
	}
	return nil
}

func noForeignScope(account, role string) error {
	return badField("account", "%q has no scoped signing key for role %q: give its seed at jwt/%s/keys/%s, with config={} for a scope that others set", account, role, account, role)
}

// replaceRoleKey gives a role another signing key, and takes all former ones
// out of the account, which cuts off everyone of the role.
func (c *chain) replaceRoleKey(ctx context.Context, s logical.Storage, accountName, role string) error {
	return c.changeAccount(ctx, s, accountName, func(entry *namedEntry) error {
		present := entry.key(roleKey(role))
		if present == nil {
			return badField("role", "%q has no signing key in account %q: write the role again", role, accountName)
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

// removeScope takes the role's signing keys out of the account, which cuts its
// users off.
func (c *chain) removeScope(ctx context.Context, s logical.Storage, accountName, role string) error {
	err := c.changeAccount(ctx, s, accountName, func(entry *namedEntry) error {
		entry.Keys = slices.DeleteFunc(entry.Keys, func(key signingKey) bool { return key.Role == role })
		return nil
	})
	if errors.Is(err, errNoAccount) {
		return nil // its keys went with it
	}
	return err
}

// errNoAccount is returned by changeAccount; its message is for callers who did
// not check that the account exists.
var errNoAccount = badField("account", "does not exist")

// changeAccount stores what change makes of an account, if it makes a
// difference.
func (c *chain) changeAccount(ctx context.Context, s logical.Storage, name string, change func(*namedEntry) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored, err := readNamed(ctx, s, name)
	if err != nil {
		return err
	}
	if stored == nil || stored.Type != typeAccount {
		return errNoAccount
	}
	entry := stored.clone()
	if err := change(entry); err != nil {
		return err
	}
	if same(stored, entry) {
		return nil
	}
	if err := c.checkWayIn(ctx, s, stored, entry); err != nil {
		return err
	}
	if err := c.checkAccount(ctx, s, name, entry); err != nil {
		return err
	}
	if err := noteRetiring(ctx, s, name, entry); err != nil {
		return err
	}
	return c.storeAccount(ctx, s, name, entry)
}

// noteRetiring notes when the overlaps of the account's former keys end, so that
// finding them then does not take a look at every account.
func noteRetiring(ctx context.Context, s logical.Storage, name string, entry *namedEntry) error {
	for _, former := range entry.Keys {
		if former.signs() {
			continue
		}
		key := retirePrefix + strconv.FormatInt(former.RetireAt, 10) + "/" + name
		if err := s.Put(ctx, &logical.StorageEntry{Key: key, Value: []byte("{}")}); err != nil {
			return fmt.Errorf("writing %s: %w", key, err)
		}
	}
	return nil
}

// retire drops all keys whose overlap is over, and returns the public keys of
// the accounts that had any.
func (c *chain) retire(ctx context.Context, s logical.Storage, now time.Time) ([]string, error) {
	times, err := s.List(ctx, retirePrefix)
	if err != nil {
		return nil, fmt.Errorf("listing the keys to retire: %w", err)
	}
	var changed []string
	for _, at := range times {
		unix, err := strconv.ParseInt(strings.TrimSuffix(at, "/"), 10, 64)
		if err != nil || unix > now.Unix() {
			continue
		}
		names, err := s.List(ctx, retirePrefix+at)
		if err != nil {
			return changed, fmt.Errorf("listing the keys to retire: %w", err)
		}
		for _, name := range names {
			id, err := c.retireKeysOf(ctx, s, name, now)
			if err != nil {
				return changed, err
			}
			if id != "" {
				changed = append(changed, id)
			}
			if err := s.Delete(ctx, retirePrefix+at+name); err != nil {
				return changed, fmt.Errorf("deleting %s: %w", retirePrefix+at+name, err)
			}
		}
	}
	return changed, c.retireOperatorKeys(ctx, s, now)
}

func (c *chain) retireKeysOf(ctx context.Context, s logical.Storage, name string, now time.Time) (string, error) {
	id := ""
	err := c.changeAccount(ctx, s, name, func(entry *namedEntry) error {
		entry.dropRetired(now)
		id = entry.PublicKey
		return nil
	})
	if errors.Is(err, errNoAccount) {
		return "", nil // deleted meanwhile
	}
	return id, err
}

func (c *chain) retireOperatorKeys(ctx context.Context, s logical.Storage, now time.Time) error {
	stored, err := c.operator(ctx, s)
	if err != nil || !stored.signs() {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	after := stored.entry.clone()
	if !after.dropRetired(now) {
		return nil
	}
	if err := after.sign(now); err != nil {
		return err
	}
	err = writeEntry(ctx, s, operatorEntryKey, after)
	c.operatorChanged()
	return err
}

// retireKeys runs about once a minute on the node that may write.
func (b *backend) retireKeys(ctx context.Context, s logical.Storage) error {
	if !b.writesAllowed() {
		return nil
	}
	b.writing.Lock()
	changed, err := b.chain.retire(ctx, s, time.Now())
	b.writing.Unlock()
	for _, warning := range b.deliver(ctx, s, changed...) {
		b.Logger().Warn("an account without its former signing key is " + warning)
	}
	return err
}
