package plugin

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// operatorImport is an operator made elsewhere, as it was given to config.
type operatorImport struct {
	jwt, seed    string
	signingSeeds []string
}

func givenImport(d *framework.FieldData) operatorImport {
	var given operatorImport
	setString(d, "operator_jwt", &given.jwt)
	setString(d, "operator_seed", &given.seed)
	setStrings(d, "operator_signing_seeds", &given.signingSeeds)
	given.jwt = strings.TrimSpace(given.jwt)
	return given
}

func (g operatorImport) any() bool { return g.jwt != "" || g.seed != "" || len(g.signingSeeds) > 0 }

// operator takes the operator over, or brings the one that was taken over to a
// later JWT and further keys of it. Identities never change.
func (g operatorImport) operator(before *operatorEntry, now time.Time) (*operatorEntry, error) {
	if before != nil && before.None {
		before = nil
	}
	entry := &operatorEntry{SignedSince: now.Unix()}
	if before != nil {
		entry = before.clone()
	}
	var former []string
	if g.jwt != "" {
		var err error
		if former, err = entry.takeJWT(g.jwt); err != nil {
			return nil, err
		}
	}
	if entry.JWT == "" {
		return nil, badField("operator_jwt", "is missing: the seeds of an operator that was made elsewhere need its JWT")
	}
	if g.seed != "" {
		identity, err := trust.ParseSeed(trust.Operator, g.seed)
		if err != nil {
			return nil, badField("operator_seed", "%s", err)
		}
		if identity.Public() != entry.PublicKey {
			return nil, badField("operator_seed", "is that of %s, not of operator %s", identity.Public(), entry.PublicKey)
		}
		entry.Seed = identity.Seed()
	}
	if err := entry.takeSigningSeeds(g.signingSeeds, former, now); err != nil {
		return nil, err
	}
	if entry.SystemUser != "" {
		return entry, nil
	}
	return entry, entry.addSystemUser()
}

// An importedJWT is one that was made elsewhere and taken over.
type importedJWT struct {
	ID       string `json:"id"`
	IssuedAt int64  `json:"issued_at"` // Unix time
}

func asImported(claims *jwt.ClaimsData) *importedJWT {
	return &importedJWT{ID: claims.ID, IssuedAt: claims.IssuedAt}
}

// isBefore reports whether a JWT is another and not an older one. What an import
// that is repeated brings has been taken over, and may have been changed since.
func (i *importedJWT) isBefore(claims *jwt.ClaimsData) bool {
	return i == nil || claims.IssuedAt > i.IssuedAt || claims.IssuedAt == i.IssuedAt && claims.ID != i.ID
}

// takeJWT takes a later JWT over. Of one that is not it returns the signing keys:
// some of them may be listed no more.
func (e *operatorEntry) takeJWT(token string) (former []string, err error) {
	claims, err := trust.DecodeOperator(token)
	if err != nil {
		return nil, badField("operator_jwt", "%s", err)
	}
	switch {
	case e.PublicKey != "" && claims.Subject != e.PublicKey:
		return nil, badField("operator_jwt", "is that of operator %s: the mount has operator %s, and an operator never changes", claims.Subject, e.PublicKey)
	case claims.SystemAccount == "":
		return nil, badField("operator_jwt", "names no system account, which accounts are delivered with: nsc edit operator --system-account")
	case e.SystemAccount != "" && claims.SystemAccount != e.SystemAccount:
		return nil, badField("operator_jwt", "names another system account (%s) than the mount has (%s)", claims.SystemAccount, e.SystemAccount)
	case claims.Expires != 0 || claims.NotBefore != 0:
		return nil, badField("operator_jwt", "is valid for a limited time only, which the mount could not extend")
	}
	if e.Imported == nil && e.JWT != "" { // the mount made the operator
		own, err := trust.DecodeOperator(e.JWT)
		if err != nil {
			return nil, err
		}
		e.Imported = asImported(&own.ClaimsData)
	}
	if !e.Imported.isBefore(&claims.ClaimsData) {
		return claims.SigningKeys, nil
	}
	e.Imported = asImported(&claims.ClaimsData)
	e.PublicKey, e.Name, e.JWT, e.SystemAccount, e.Claims = claims.Subject, claims.Name, token, claims.SystemAccount, claims.Operator
	if len(e.AccountJWTServerURL) == 0 {
		e.AccountJWTServerURL = usableURLs("nats", "tls", "http", "https")(claims.AccountServerURL)
	}
	if len(e.ServiceURL) == 0 {
		e.ServiceURL = usableURLs("nats", "tls", "ws", "wss")(claims.OperatorServiceURLs...)
	}
	// A key that the operator's JWT no longer lists is of no use.
	e.Keys = slices.DeleteFunc(e.Keys, func(key operatorKey) bool { return !e.lists(key.PublicKey) })
	return nil, nil
}

// usableURLs keeps those that config would take: an imported JWT may have none.
func usableURLs(schemes ...string) func(...string) []string {
	return func(urls ...string) []string {
		return slices.DeleteFunc(slices.Clone(urls), func(u string) bool {
			return checkURLs("", []string{u}, schemes...) != nil
		})
	}
}

// lists reports whether nats-servers that have the operator's JWT trust the key.
func (e *operatorEntry) lists(public string) bool {
	return slices.Contains(e.Claims.SigningKeys, public) || public == e.PublicKey && !e.Claims.StrictSigningKeyUsage
}

// takeSigningSeeds adds keys in the order in which they are to sign. The
// identity key signs only where it is all there is. Former keys are passed over
// where the operator lists them no more.
func (e *operatorEntry) takeSigningSeeds(seeds, former []string, now time.Time) error {
	for i, seed := range seeds {
		key, err := trust.ParseSeed(trust.Operator, seed)
		if err != nil {
			return badField("operator_signing_seeds", "number %d %s", i+1, err)
		}
		if !e.lists(key.Public()) && slices.Contains(former, key.Public()) {
			continue
		}
		if !e.lists(key.Public()) {
			return badField("operator_signing_seeds", "number %d is that of %s, which operator_jwt does not list as a signing key", i+1, key.Public())
		}
		e.addKey(key, now)
	}
	if len(e.live()) > 0 {
		return nil
	}
	if e.Seed == "" {
		return badField("operator_signing_seeds", "is missing: accounts are signed with a signing key of the operator")
	}
	if e.Claims.StrictSigningKeyUsage {
		return badField("operator_signing_seeds", "is missing: the operator has strict_signing_key_usage, so its identity key cannot sign accounts")
	}
	identity, err := trust.ParseSeed(trust.Operator, e.Seed)
	if err != nil {
		return err
	}
	e.addKey(identity, now)
	return nil
}

func (e *operatorEntry) addKey(key *trust.Key, now time.Time) {
	if !slices.ContainsFunc(e.Keys, func(k operatorKey) bool { return k.PublicKey == key.Public() }) {
		e.Keys = append(e.Keys, operatorKey{PublicKey: key.Public(), Seed: key.Seed(), Created: now.Unix()})
	}
}

// An accountImport is an account made elsewhere, as it was given to jwt/:name.
type accountImport struct {
	jwt, publicKey, seed string
	signingSeeds         []string
}

func givenAccount(d *framework.FieldData) accountImport {
	var given accountImport
	setString(d, "account_jwt", &given.jwt)
	setString(d, "public_key", &given.publicKey)
	setString(d, "seed", &given.seed)
	setStrings(d, "signing_seeds", &given.signingSeeds)
	given.jwt = strings.TrimSpace(given.jwt)
	return given
}

func (g accountImport) any() bool {
	return g.jwt != "" || g.publicKey != "" || g.seed != "" || len(g.signingSeeds) > 0
}

// account takes the account over: with its JWT one of the mount's own operator,
// with its public key one of someone else's. stored is what has the name, nil if
// nothing has.
func (g accountImport) account(name string, stored *namedEntry, o *operator, now time.Time) (*namedEntry, error) {
	entry := &namedEntry{Type: typeAccount, ForeignUsers: true}
	switch {
	case g.jwt != "" && g.publicKey != "":
		return nil, badField("public_key", "is given with account_jwt, which holds it")
	case g.jwt != "":
		if err := entry.takeJWT(name, g.jwt, stored, o); err != nil {
			return nil, err
		}
	case g.publicKey != "":
		if err := trust.CheckPublicKey(trust.Account, g.publicKey); err != nil {
			return nil, badField("public_key", "%s", err)
		}
		entry.PublicKey, entry.External = g.publicKey, true
		entry.Claims = &jwt.Account{}
	default:
		return nil, badField("account_jwt", "is missing: seeds need the JWT of the account, or for an account of someone else's NATS its public_key")
	}
	if g.seed != "" {
		identity, err := trust.ParseSeed(trust.Account, g.seed)
		if err != nil {
			return nil, badField("seed", "%s", err)
		}
		if identity.Public() != entry.PublicKey {
			return nil, badField("seed", "is that of %s, not of account %s", identity.Public(), entry.PublicKey)
		}
		entry.Seed = identity.Seed()
	}
	return entry, entry.takeSigningSeeds(g.signingSeeds, now)
}

func (e *namedEntry) takeJWT(name, token string, stored *namedEntry, o *operator) error {
	if !o.signs() {
		return badField("account_jwt", "needs an operator in the mount: write config first; for an account of someone else's NATS give its public_key")
	}
	claims, err := trust.DecodeAccount(token)
	if err != nil {
		return badField("account_jwt", "%s", err)
	}
	// What is repeated is not taken over, so its signer may have been rotated away.
	repeated := stored != nil && stored.Imported != nil && !stored.Imported.isBefore(&claims.ClaimsData)
	if !repeated && !o.entry.lists(claims.Issuer) {
		return badField("account_jwt", "is signed by %s, which is not a key of the mount's operator %s", claims.Issuer, o.entry.PublicKey)
	}
	if claims.Expires != 0 || claims.NotBefore != 0 || claims.Audience != "" {
		return badField("account_jwt", "has an expiry, a start or an audience, which accounts in the mount do not have: write it again without")
	}
	e.PublicKey, e.Imported = claims.Subject, asImported(&claims.ClaimsData)
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
			return badField("signing_seeds", "number %d %s", i+1, err)
		}
		scope, listed := e.Claims.SigningKeys[key.Public()]
		if !listed && !e.External {
			return badField("signing_seeds", "number %d is that of %s, which account_jwt does not list as a signing key", i+1, key.Public())
		}
		taken := signingKey{PublicKey: key.Public(), Seed: key.Seed(), Created: now.Unix()}
		if scoped, ok := scope.(*jwt.UserScope); ok && scoped != nil {
			taken.Scope = scoped
		}
		taken.Name = e.freeKeyName(&taken)
		e.Keys = append(e.Keys, taken)
		delete(e.Claims.SigningKeys, key.Public())
	}
	return nil
}

// freeKeyName finds a name for a key that came without one.
func (e *namedEntry) freeKeyName(key *signingKey) string {
	name := defaultKey
	if key.Scope != nil {
		name = key.Scope.Role
	}
	if checkName("key", name) != nil || e.key(name) != nil || key.Scope != nil && name == defaultKey {
		return strings.ToLower(key.PublicKey)
	}
	return name
}
