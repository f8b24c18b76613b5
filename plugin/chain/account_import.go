package chain

import (
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// An accountImport is an account made elsewhere, as it was given to jwt/:name.
type accountImport struct {
	jwt, publicKey, seed string
	signingSeeds         []string
	force                bool
}

func (g Change) accountImport() accountImport {
	var given accountImport
	set(&given.jwt, g.Account.JWT)
	set(&given.publicKey, g.PublicKey)
	set(&given.seed, g.Seed)
	set(&given.signingSeeds, g.Account.SigningSeeds)
	given.jwt, given.force = strings.TrimSpace(given.jwt), g.Force
	return given
}

func (g accountImport) any() bool {
	return g.jwt != "" || g.publicKey != "" || g.seed != "" || len(g.signingSeeds) > 0
}

// account takes the account over: with its JWT one of the mount's own operator,
// with its public key one of someone else's. stored is what has the name, nil if
// nothing has.
func (g accountImport) account(name string, stored *namedEntry, o *operator, now time.Time) (*namedEntry, error) {
	entry := &namedEntry{Type: TypeAccount, ForeignUsers: true}
	switch {
	case g.jwt != "" && g.publicKey != "":
		return nil, fault.In("public_key", "is given with account_jwt, which holds it")
	case g.jwt != "":
		if err := entry.takeJWT(name, g.jwt, stored, o); err != nil {
			return nil, err
		}
	case g.publicKey != "":
		public, err := trust.ParsePublicKey(trust.Account, g.publicKey)
		if err != nil {
			return nil, fault.In("public_key", "%s", err)
		}
		entry.PublicKey, entry.External = public, true
		entry.Claims = &jwt.Account{}
	default:
		return nil, fault.In("account_jwt", "is missing: seeds need the JWT of the account, or for an account of someone else's NATS its public_key")
	}
	if g.seed != "" {
		identity, err := trust.ParseSeed(trust.Account, g.seed)
		if err != nil {
			return nil, fault.In("seed", "%s", err)
		}
		if identity.Public() != entry.PublicKey {
			return nil, fault.In("seed", "is that of %s, not of account %s", identity.Public(), entry.PublicKey)
		}
		entry.Seed = identity.Seed()
	}
	return entry, entry.takeSigningSeeds(g.signingSeeds, now)
}

func (e *namedEntry) takeJWT(name, token string, stored *namedEntry, o *operator) error {
	if !o.signs() {
		return fault.In("account_jwt", "needs an operator in the mount: write config first; for an account of someone else's NATS give its public_key")
	}
	claims, err := trust.DecodeAccount(token)
	if err != nil {
		return fault.In("account_jwt", "%s", err)
	}
	given := asImported(&claims.ClaimsData, token)
	// What is repeated is not taken over, so its signer may have been rotated away.
	repeated := stored != nil && stored.Imported != nil && !stored.Imported.isBefore(given)
	if !repeated && !o.entry.knows(claims.Issuer) {
		return fault.In("account_jwt", "is signed by %s, which is not a key of the mount's operator %s", claims.Issuer, o.entry.PublicKey)
	}
	if claims.Expires != 0 || claims.NotBefore != 0 || claims.Audience != "" {
		return fault.In("account_jwt", "has an expiry, a start or an audience, which accounts in the mount do not have: write it again without")
	}
	e.PublicKey, e.Imported = claims.Subject, given
	if claims.Name != name {
		e.NATSName = claims.Name
	}
	e.Claims = &claims.Account
	e.Claims.GenericFields = jwt.GenericFields{Tags: claims.Tags}
	return nil
}

// takeSigningSeeds takes keys over from the account's claims. The first plain
// one signs logins; a scoped one is called as its scope is.
func (e *namedEntry) takeSigningSeeds(seeds []string, now time.Time) error {
	for i, seed := range seeds {
		key, err := trust.ParseSeed(trust.Account, seed)
		if err != nil {
			return fault.In("signing_seeds", "number %d %s", i+1, err)
		}
		scope, listed := e.Claims.SigningKeys[key.Public()]
		if !listed && !e.External {
			return fault.In("signing_seeds", "number %d is that of %s, which account_jwt does not list as a signing key", i+1, key.Public())
		}
		taken := signingKey{PublicKey: key.Public(), Seed: key.Seed(), Created: now.Unix(), Scope: userScope(scope), Imported: !e.External}
		taken.Name = e.freeKeyName(&taken)
		e.Keys = append(e.Keys, taken)
		delete(e.Claims.SigningKeys, key.Public())
	}
	return nil
}

// userScope is the scope of a key that claims list, nil of a plain one.
func userScope(scope jwt.Scope) *jwt.UserScope {
	if scoped, ok := scope.(*jwt.UserScope); ok && scoped != nil {
		return scoped
	}
	return nil
}

// freeKeyName finds a name for a key that came without one.
func (e *namedEntry) freeKeyName(key *signingKey) string {
	name := DefaultKey
	if key.Scope != nil {
		name = key.Scope.Role
	}
	if fault.CheckName("key", name) != nil || e.key(name) != nil || key.Scope != nil && name == DefaultKey {
		return strings.ToLower(key.PublicKey)
	}
	return name
}
