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
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

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
// says, by default for initial, for most at most, and to the user's end. There is
// none of a user who has ended by then, or who has not started when it would end:
// it is empty, and the time is that of the end or start.
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
	switch {
	case !user.Expires.IsZero() && !now.Before(user.Expires):
		return "", user.Expires, nil
	case !user.NotBefore.IsZero() && !expires.After(user.NotBefore):
		return "", user.NotBefore, nil
	case !user.Expires.IsZero() && user.Expires.Before(expires):
		expires = user.Expires
	}
	opened, err := c.Account(ctx, s, user.Account)
	if err != nil {
		return "", time.Time{}, err
	}
	notBefore, err := c.NotBefore(ctx, s, opened, user.PublicKey)
	if err != nil {
		return "", time.Time{}, err
	}
	issued := time.Unix(max(now.Unix(), notBefore), 0)
	token, err = trust.UserToken{Issuer: signer, Subject: user.PublicKey, Name: user.NATSName,
		IssuedAt: issued, Expires: expires, Begins: user.NotBefore, NATS: claims}.Encode()
	return token, expires, err
}

// Creds is the creds file with a JWT of a user whose key the write that created it
// has made. That write is the only one that may give the key out.
func (n *Named) Creds(token string) (string, error) {
	if n.Type != TypeUser || !n.entry.fresh {
		return "", fault.In("creds", "can be given only as the user is created")
	}
	return trust.Creds(token, n.entry.Seed), nil
}

// CheckNonce refuses what is no nats-server's challenge: a signature over some texts
// would prove to a mount that the caller has the user's key.
func CheckNonce(nonce string) error {
	switch {
	case nonce == "":
		return fault.In("nonce", "is empty")
	case proof.Reserved(nonce):
		return fault.In("nonce", "is the text of a proof that the caller has the user's key, and no challenge of a nats-server")
	}
	return nil
}

// SignNonce signs a nats-server's challenge with a user's key, in standard
// base64.
func (n *Named) SignNonce(nonce string) (string, error) {
	if n.Type != TypeUser {
		return "", fault.In("name", "%q is an account: only users sign", n.Name)
	}
	if err := CheckNonce(nonce); err != nil {
		return "", err
	}
	if n.entry.Seed == "" {
		return "", fault.In("name", "%q was made of a public key alone: whoever has the key signs", n.Name)
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
