package chain

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// planUser is the user as the write makes it, checked.
func (c *Chain) planUser(ctx context.Context, s logical.Storage, stored *namedEntry, change Change) (*namedEntry, error) {
	entry, err := change.userBefore(stored)
	if err != nil {
		return nil, err
	}
	if change.Config != nil {
		if err := entry.takeConfig(*change.Config, change.Patch); err != nil {
			return nil, err
		}
	}
	set(&entry.SigningKey, change.User.SigningKey)
	if entry.SigningKey == "" {
		entry.SigningKey = DefaultKey
	}
	set(&entry.TTL, change.User.TTL)
	account, err := readNamed(ctx, s, entry.Account)
	if err != nil {
		return nil, err
	}
	if account == nil || account.Type != TypeAccount {
		return nil, fault.In("account", "%q does not exist: write it at jwt/%s first", entry.Account, entry.Account)
	}
	if issuer := entry.User.IssuerAccount; issuer != "" && issuer != account.PublicKey {
		return nil, fault.In("config", "has the issuer_account %s, but account %q is %s", issuer, entry.Account, account.PublicKey)
	}
	entry.User.IssuerAccount = ""
	operator, err := c.operator(ctx, s)
	if err != nil {
		return nil, err
	}
	if _, err := account.userSigner(entry, operator); err != nil {
		return nil, err
	}
	if !account.External && account.Claims.Limits.DisallowBearer && account.makesBearer(entry) {
		return nil, fault.In("config", "has bearer_token, which disallow_bearer of account %q forbids: nats-server would refuse the user", entry.Account)
	}
	_, err = entry.userClaims(account)
	return entry, err
}

// userBefore is the user that the write changes, or a new one.
func (g Change) userBefore(stored *namedEntry) (*namedEntry, error) {
	account := ""
	set(&account, g.User.Account)
	if stored != nil {
		if account != "" && account != stored.Account {
			return nil, fault.In("account", "cannot be changed: the user belongs to account %q; delete it and create another", stored.Account)
		}
		if g.Seed != nil && *g.Seed != stored.Seed {
			return nil, fault.In("seed", "cannot be changed: the user has its key; delete it and create another")
		}
		entry := stored.clone()
		user := *stored.User
		entry.User = &user
		return entry, nil
	}
	if account == "" {
		return nil, fault.In("account", "is missing: a user belongs to an account")
	}
	key, err := trust.Generate(trust.User)
	if g.Seed != nil {
		key, err = trust.ParseSeed(trust.User, *g.Seed)
	}
	if err != nil {
		return nil, fault.In("seed", "%s", err)
	}
	user, err := trust.ParseUserConfig([]byte("{}"))
	if err != nil {
		return nil, err
	}
	return &namedEntry{Type: TypeUser, PublicKey: key.Public(), Seed: key.Seed(), Account: account, User: user, ForeignUsers: g.Seed != nil}, nil
}

// userClaims is the "nats" claim of the user's JWT. nats-server refuses a user
// of a scoped key that has permissions or limits of its own.
func (e *namedEntry) userClaims(account *namedEntry) ([]byte, error) {
	key := account.key(e.SigningKey)
	claims := *e.User
	if key != nil && key.Scope != nil {
		unlimited, err := trust.ParseUserConfig([]byte("{}"))
		if err != nil {
			return nil, err
		}
		if !same(&claims.UserPermissionLimits, &unlimited.UserPermissionLimits) {
			return nil, fault.In("config", "has permissions or limits, which a user of the scoped signing key %q takes from its scope", key.Name)
		}
		claims.UserPermissionLimits = jwt.UserPermissionLimits{}
	}
	claims.IssuerAccount = account.PublicKey
	claims.Type, claims.Version = jwt.UserClaim, 2
	return json.Marshal(&claims)
}

// storeUser lists the user under its account, then stores it: a crash in
// between leaves an entry too many in the list, never one too few.
func (c *Chain) storeUser(ctx context.Context, s logical.Storage, name string, stored, entry *namedEntry) error {
	if stored == nil {
		if err := store.AccountOfUsers.Add(ctx, s, entry.Account, name); err != nil {
			return err
		}
	}
	return c.putNamed(ctx, s, name, entry)
}

// UserJWT signs a new JWT of a named user. It lives as long as the user's ttl
// says, by default for initial, and for most at most.
func (c *Chain) UserJWT(ctx context.Context, s logical.Storage, user *Named, now time.Time, initial, most time.Duration) (token string, expires time.Time, err error) {
	account, err := readNamed(ctx, s, user.Account)
	if err != nil {
		return "", time.Time{}, err
	}
	if account == nil || account.Type != TypeAccount {
		return "", time.Time{}, fault.In("account", "%q of the user does not exist any more", user.Account)
	}
	operator, err := c.operator(ctx, s)
	if err != nil {
		return "", time.Time{}, err
	}
	signer, err := account.userSigner(user.entry, operator)
	if err != nil {
		return "", time.Time{}, err
	}
	claims, err := user.entry.userClaims(account)
	if err != nil {
		return "", time.Time{}, err
	}
	ttl := initial
	if user.TTL > 0 {
		ttl = user.TTL
	}
	expires = now.Add(min(ttl, most)).Truncate(time.Second)
	opened, err := c.Account(ctx, s, user.Account)
	if err != nil {
		return "", time.Time{}, err
	}
	notBefore, err := c.NotBefore(ctx, s, opened, user.PublicKey)
	if err != nil {
		return "", time.Time{}, err
	}
	issued := time.Unix(max(now.Unix(), notBefore), 0)
	token, err = trust.UserToken{Issuer: signer, Subject: user.PublicKey, Name: user.Name, IssuedAt: issued, Expires: expires, NATS: claims}.Encode()
	return token, expires, err
}

// SignNonce signs a nats-server's challenge with a user's key, in standard
// base64.
func (n *Named) SignNonce(nonce string) (string, error) {
	if n.Type != TypeUser {
		return "", fault.In("name", "%q is an account: only users sign", n.Name)
	}
	if nonce == "" {
		return "", fault.In("nonce", "is empty")
	}
	key, err := trust.ParseSeed(trust.User, n.entry.Seed)
	if err != nil {
		return "", fmt.Errorf("the stored key of the user %w", err)
	}
	return base64.StdEncoding.EncodeToString(key.Sign([]byte(nonce))), nil
}

// userSigner is the key of the account that signs the user: the identity key in
// place of a default one that is not there, where nats-server takes that.
func (e *namedEntry) userSigner(user *namedEntry, o *operator) (*trust.Key, error) {
	seed := ""
	key := e.key(user.SigningKey)
	switch {
	case key != nil:
		seed = key.Seed
	case user.SigningKey == DefaultKey && !o.strict():
		seed = e.Seed
	case user.SigningKey != DefaultKey:
		return nil, fault.In("signing_key", "%q is not a signing key of account %q", user.SigningKey, user.Account)
	}
	if seed == "" {
		return nil, fault.In("account", "%q has no signing key in the mount: give its seed at jwt/%s/keys/%s", user.Account, user.Account, DefaultKey)
	}
	signer, err := trust.ParseSeed(trust.Account, seed)
	if err != nil {
		return nil, fmt.Errorf("the stored signing key %w", err)
	}
	return signer, nil
}
