package chain

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
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

	NATSName string       `json:"nats_name,omitempty"` // in its JWT, if not the name it has here
	Imported *importedJWT `json:"imported,omitempty"`  // the latest account_jwt or user_jwt that was taken over

	// Written is the config as it was written, where it says more than the claims
	// do, as with a default that is spelled out; it is shown again.
	Written json.RawMessage `json:"written,omitempty"`

	// Of an account.
	Claims   *jwt.Account    `json:"claims,omitempty"` // without the signing keys below
	Keys     []signingKey    `json:"keys,omitempty"`
	External bool            `json:"external,omitempty"` // someone else's operator holds it: nothing is delivered
	Former   string          `json:"former,omitempty"`   // of the system account: seed of its plain signing key before the present one
	Callout  *accountCallout `json:"callout,omitempty"`  // the auth callout that nats-servers ask about its users

	// Removed are keys of account_jwt, by public key, that were taken out here. A
	// later account_jwt lists them still, as long as only the mount knows why.
	Removed []string `json:"removed,omitempty"`

	// Of a user.
	Account    string    `json:"account,omitempty"`
	User       *jwt.User `json:"user,omitempty"`
	SigningKey string    `json:"signing_key,omitempty"` // name of the account's key that signs it
	TTL        int64     `json:"ttl,omitempty"`         // life of its JWTs in seconds; 0 for the mount's default
	Expires    int64     `json:"expires,omitempty"`     // Unix time that no JWT of it outlives; 0: there is none
	NotBefore  int64     `json:"not_before,omitempty"`  // Unix time from which on its JWTs are good; 0: from the first on

	// Of the write that made it, and not stored.
	notes []string // for whoever wrote
	fresh bool     // the key was made by it
}

// signingKey is a key of an account that is listed in its JWT.
type signingKey struct {
	Name      string         `json:"name"`           // unique among those that sign
	Role      string         `json:"role,omitempty"` // the role that owns it
	PublicKey string         `json:"public_key"`
	Seed      string         `json:"seed,omitempty"` // empty once it has been rotated away
	Scope     *jwt.UserScope `json:"scope,omitempty"`
	Imported  bool           `json:"imported,omitempty"`  // account_jwt lists it; else only the mount knows it
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
	copied.Keys, copied.Removed = slices.Clone(e.Keys), slices.Clone(e.Removed)
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
	e.Callout.addTo(&claims)
	return &claims
}

// takeName sets the name in the JWT, if one is given. The one that stands for the
// name here is not kept.
func (e *namedEntry) takeName(name string, given *string, held bool) error {
	switch {
	case given == nil:
		return nil
	case held:
		return fault.In("nats_name", "is given with the JWT, which holds it")
	case strings.ContainsFunc(*given, unicode.IsControl):
		return fault.In("nats_name", "has a control character in it")
	case *given == name:
		e.NATSName = ""
	default:
		e.NATSName = *given
	}
	return nil
}

// natsName is the name of the account or user in its JWT.
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

// takeListed takes a key that the mount has from now on out of those that the
// account's config lists, and notes whether account_jwt has it.
func (e *namedEntry) takeListed(key *signingKey) {
	public := key.PublicKey
	_, listed := e.Claims.SigningKeys[public]
	key.Imported = e.Imported != nil && (listed || slices.Contains(e.Removed, public))
	if !listed {
		return
	}
	claims := *e.Claims
	claims.SigningKeys = jwt.SigningKeys{}
	for other, scope := range e.Claims.SigningKeys {
		if other != public {
			claims.SigningKeys[other] = scope
		}
	}
	e.Claims = &claims
}

// lists reports whether the account's JWT lists the signing key.
func (e *namedEntry) lists(public string) bool {
	if _, listed := e.Claims.SigningKeys[public]; listed {
		return true
	}
	return slices.ContainsFunc(e.Keys, func(key signingKey) bool { return key.PublicKey == public })
}

// noteRemoved keeps in mind which keys of account_jwt a change takes out.
func (e *namedEntry) noteRemoved(before *namedEntry) {
	if e.Imported == nil {
		return
	}
	e.Removed = slices.DeleteFunc(e.Removed, e.lists)
	for _, key := range before.Keys {
		e.noteIfRemoved(key.PublicKey, key.Imported)
	}
	for public := range before.Claims.SigningKeys {
		e.noteIfRemoved(public, true)
	}
	slices.Sort(e.Removed)
}

func (e *namedEntry) noteIfRemoved(public string, imported bool) {
	if imported && !e.lists(public) && !slices.Contains(e.Removed, public) {
		e.Removed = append(e.Removed, public)
	}
}

// hasGatedExports reports whether there are exports that take an activation token
// to import.
func (e *namedEntry) hasGatedExports() bool {
	return slices.ContainsFunc(e.Claims.Exports, func(export *jwt.Export) bool { return export.TokenReq })
}
