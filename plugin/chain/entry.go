package chain

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// The types of what is stored under a name.
const (
	TypeAccount = "account"
	TypeUser    = "user"
)

// DefaultKey names the plain signing key that logins are signed with.
const DefaultKey = "default"

// namedEntry is an account or a user in storage.
type namedEntry struct {
	Type      string `json:"type"`
	PublicKey string `json:"public_key"`
	Seed      string `json:"seed,omitempty"` // of the identity key; empty if it is kept elsewhere

	// ForeignUsers: a seed came from outside, or the account's JWT did. So there
	// may be user JWTs that were not issued here, and perhaps never expire.
	ForeignUsers bool `json:"foreign_users,omitempty"`

	// Of an account.
	NATSName string       `json:"nats_name,omitempty"` // in its JWT, if not the name it has here
	Claims   *jwt.Account `json:"claims,omitempty"`    // without the signing keys below
	Keys     []signingKey `json:"keys,omitempty"`
	External bool         `json:"external,omitempty"` // someone else's operator holds it: nothing is delivered
	Imported *importedJWT `json:"imported,omitempty"` // the latest account_jwt that was taken over
	Former   string       `json:"former,omitempty"`   // of the system account: seed of its plain signing key before the present one

	// Of a user.
	Account    string    `json:"account,omitempty"`
	User       *jwt.User `json:"user,omitempty"`
	SigningKey string    `json:"signing_key,omitempty"` // name of the account's key that signs it
	TTL        int64     `json:"ttl,omitempty"`         // life of its JWTs in seconds; 0 for the mount's default
}

// signingKey is a key of an account that is listed in its JWT.
type signingKey struct {
	Name      string         `json:"name"`           // unique among those that sign
	Role      string         `json:"role,omitempty"` // the role that owns it
	PublicKey string         `json:"public_key"`
	Seed      string         `json:"seed,omitempty"` // empty once it has been rotated away
	Scope     *jwt.UserScope `json:"scope,omitempty"`
	Created   int64          `json:"created"`             // Unix time
	RetireAt  int64          `json:"retire_at,omitempty"` // Unix time until which users signed with it are let in; 0: it signs
}

// signs reports whether the key is in use, and not only waited out.
func (k *signingKey) signs() bool { return k.RetireAt == 0 }

// roleKey is the name of a role's own signing key. A role's name has no
// slash, so it cannot be that of another key.
func roleKey(role string) string { return "role/" + role }

func newSigningKey(name string, now int64) (signingKey, error) {
	key, err := trust.Generate(trust.Account)
	if err != nil {
		return signingKey{}, err
	}
	return signingKey{Name: name, PublicKey: key.Public(), Seed: key.Seed(), Created: now}, nil
}

// key returns the signing key of that name that is in use, nil if there is none.
func (e *namedEntry) key(name string) *signingKey {
	for i := range e.Keys {
		if e.Keys[i].Name == name && e.Keys[i].signs() {
			return &e.Keys[i]
		}
	}
	return nil
}

// mayHaveForeignUsers reports whether user JWTs of the account, or of the user,
// may have been issued elsewhere: also with a key that only its config lists.
func (e *namedEntry) mayHaveForeignUsers() bool {
	return e.ForeignUsers || e.Type == TypeAccount && len(e.Claims.SigningKeys) > 0
}

// clone is a copy that can be changed without the original.
func (e *namedEntry) clone() *namedEntry {
	copied := *e
	copied.Keys = slices.Clone(e.Keys)
	return &copied
}

// claims is the account with all of its signing keys, in a copy.
func (e *namedEntry) claims() *jwt.Account {
	claims := *e.Claims
	claims.SigningKeys = maps.Clone(e.Claims.SigningKeys)
	if claims.SigningKeys == nil {
		claims.SigningKeys = jwt.SigningKeys{}
	}
	for _, key := range e.Keys {
		if key.Scope == nil {
			claims.SigningKeys.Add(key.PublicKey)
			continue
		}
		scope := *key.Scope
		scope.Key = key.PublicKey
		claims.SigningKeys.AddScopedSigner(&scope)
	}
	return &claims
}

// natsName is the account's name in its JWT.
func (e *namedEntry) natsName(name string) string {
	if e.NATSName != "" {
		return e.NATSName
	}
	return name
}

// same reports whether two values are stored as the same text.
func same(a, b any) bool {
	textA, errA := json.Marshal(a)
	textB, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(textA, textB)
}

// hasKey reports whether the key is the account's identity or one of its
// signing keys in the mount.
func (e *namedEntry) hasKey(public string) bool {
	for _, key := range e.Keys {
		if key.PublicKey == public {
			return true
		}
	}
	return public == e.PublicKey
}

// forgetListed takes a key that the mount has from now on out of those that the
// account's config lists.
func (e *namedEntry) forgetListed(public string) {
	if _, listed := e.Claims.SigningKeys[public]; !listed {
		return
	}
	claims := *e.Claims
	claims.SigningKeys = jwt.SigningKeys{}
	for key, scope := range e.Claims.SigningKeys {
		if key != public {
			claims.SigningKeys[key] = scope
		}
	}
	e.Claims = &claims
}

// hasGatedExports reports whether there are exports that take an activation token
// to import.
func (e *namedEntry) hasGatedExports() bool {
	return slices.ContainsFunc(e.Claims.Exports, func(export *jwt.Export) bool { return export.TokenReq })
}
