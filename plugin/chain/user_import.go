package chain

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// planUserImport is the user that is taken over with its JWT, with its seed if
// that is given, or what the mount has made of it since.
func (c *Chain) planUserImport(ctx context.Context, s logical.Storage, name string, stored *namedEntry, change Change) (*namedEntry, error) {
	if err := change.refuseWithJWT(); err != nil {
		return nil, err
	}
	claims, err := trust.DecodeUser(strings.TrimSpace(*change.User.JWT))
	if err != nil {
		return nil, fault.In("user_jwt", "%s", err)
	}
	if stored != nil && stored.PublicKey != claims.Subject {
		return nil, fault.In("name", "%q exists already: it is user %s, and user_jwt is that of %s: delete the one that is here, or give the other another name",
			name, stored.PublicKey, claims.Subject)
	}
	entry, err := change.userToImport(stored, claims.Subject)
	if err != nil {
		return nil, err
	}
	given := asImported(&claims.ClaimsData, *change.User.JWT)
	if stored != nil && (stored.Imported == nil || !stored.Imported.isBefore(given)) {
		if stored.Imported == nil {
			entry.notes = append(entry.notes, fmt.Sprintf("user %q was made here, so what it is here stays, and nothing is taken of user_jwt", name))
		}
		return entry, nil
	}
	set(&entry.TTL, change.User.TTL)
	account, err := c.accountOf(ctx, s, entry)
	if err != nil {
		return nil, err
	}
	if err := c.checkRevoked(ctx, s, entry, claims); err != nil {
		return nil, err
	}
	entry.Imported = given
	return entry, entry.takeUserJWT(name, claims, account, time.Now())
}

// refuseWithJWT refuses fields of what the user's JWT says.
func (g Change) refuseWithJWT() error {
	for _, field := range []givenField{
		{"config", g.Config != nil}, {"nats_name", g.NATSName != nil}, {"public_key", g.PublicKey != nil}, {"signing_key", g.User.SigningKey != nil},
		{"expiration", g.User.Expires != nil}, {"not_before", g.User.NotBefore != nil},
	} {
		if field.given {
			return fault.In(field.name, "is given with user_jwt, which holds it")
		}
	}
	if g.User.Creds {
		return fault.In("creds", "cannot be given for a key that was not made here: whoever has the key has the seed")
	}
	return nil
}

// userToImport is the user of that key as it is before its JWT is taken over.
func (g Change) userToImport(stored *namedEntry, publicKey string) (*namedEntry, error) {
	g.PublicKey = &publicKey
	return g.userBefore(stored)
}

// checkRevoked refuses to take over a user whose JWT is revoked: those that are
// issued here would be good again. So a user that was deleted here does not come
// back, as its deletion has revoked it.
func (c *Chain) checkRevoked(ctx context.Context, s logical.Storage, user *namedEntry, claims *jwt.UserClaims) error {
	account, err := c.Account(ctx, s, user.Account)
	if err != nil {
		return err
	}
	notBefore, err := c.NotBefore(ctx, s, account, claims.Subject)
	if err != nil || claims.IssuedAt >= notBefore {
		return err
	}
	return fault.Conflict("user_jwt", "is of user %s, who was revoked or deleted: it was issued at %s, and what was issued before %s is refused. Have it issued anew, "+
		"or first take that back at jwt/%s/revoke or in the revocations of the account's config",
		claims.Subject, time.Unix(claims.IssuedAt, 0).UTC().Format(time.RFC3339), time.Unix(notBefore, 0).UTC().Format(time.RFC3339), user.Account)
}

// takeUserJWT makes the user what its JWT says.
func (e *namedEntry) takeUserJWT(name string, claims *jwt.UserClaims, account *namedEntry, now time.Time) error {
	key, scoped, err := account.keyThatSigned(e.Account, claims)
	switch {
	case err != nil:
		return err
	case claims.Audience != "":
		return fault.In("user_jwt", "has an audience, which users in the mount do not have: have it issued anew without")
	case claims.Expires != 0 && claims.Expires <= now.Unix():
		return fault.In("user_jwt", "has expired at %s", time.Unix(claims.Expires, 0).UTC().Format(time.RFC3339))
	case strings.ContainsFunc(claims.Name, unicode.IsControl):
		return fault.In("user_jwt", "has a control character in its name")
	case scoped && !claims.HasEmptyPermissions():
		return fault.In("user_jwt", "has permissions or limits, and is signed by a scoped key: nats-server does not let it in")
	}
	e.SigningKey = key
	e.Expires, e.NotBefore = claims.Expires, claims.NotBefore
	e.NATSName = ""
	if claims.Name != name {
		e.NATSName = claims.Name
	}
	user := claims.User
	user.IssuerAccount, user.GenericFields = "", jwt.GenericFields{Tags: claims.Tags}
	if scoped {
		user.UserPermissionLimits = jwt.NewUserScope().Template // none of its own
	}
	e.User = &user
	return nil
}

// keyThatSigned returns the name of the account's key that signed a user JWT, and
// whether it is scoped. One that was rotated has its successor's name.
func (e *namedEntry) keyThatSigned(account string, user *jwt.UserClaims) (name string, scoped bool, err error) {
	if of := user.IssuerAccount; of != "" && of != e.PublicKey {
		return "", false, fault.In("user_jwt", "has the issuer_account %s, but account %q is %s", of, account, e.PublicKey)
	}
	if user.Issuer == e.PublicKey {
		return DefaultKey, false, nil
	}
	for _, key := range e.Keys {
		if key.PublicKey == user.Issuer {
			return key.Name, key.Scope != nil, nil
		}
	}
	if e.lists(user.Issuer) {
		return "", false, fault.In("user_jwt", "is signed by %s, a key of account %q whose seed is not in the mount: give the seed at jwt/%s/keys/:key, or leave the user out, as its JWT stays good", user.Issuer, account, account)
	}
	return "", false, fault.In("user_jwt", "is signed by %s, which is not a key of account %q", user.Issuer, account)
}
