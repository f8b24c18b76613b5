package chain

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// An OperatorImport is an operator made elsewhere, with what of it is given.
type OperatorImport struct {
	JWT          string   // the field operator_jwt
	Seed         string   // operator_seed
	SigningSeeds []string // operator_signing_seeds
}

func (g OperatorImport) any() bool { return g.JWT != "" || g.Seed != "" || len(g.SigningSeeds) > 0 }

// operator takes the operator over, or brings the one that was taken over to a
// later JWT and further keys of it. Identities never change.
func (g OperatorImport) operator(before *operatorEntry, now time.Time) (*operatorEntry, error) {
	if before != nil && before.None {
		before = nil
	}
	entry := &operatorEntry{SignedSince: now.Unix()}
	if before != nil {
		entry = before.clone()
	}
	var former []string
	if g.JWT != "" {
		var err error
		if former, err = entry.takeJWT(g.JWT); err != nil {
			return nil, err
		}
	}
	if entry.JWT == "" {
		return nil, fault.In("operator_jwt", "is missing: the seeds of an operator that was made elsewhere need its JWT")
	}
	if g.Seed != "" {
		identity, err := trust.ParseSeed(trust.Operator, g.Seed)
		if err != nil {
			return nil, fault.In("operator_seed", "%s", err)
		}
		if identity.Public() != entry.PublicKey {
			return nil, fault.In("operator_seed", "is that of %s, not of operator %s", identity.Public(), entry.PublicKey)
		}
		entry.Seed = identity.Seed()
	}
	if err := entry.takeSigningSeeds(g.SigningSeeds, former, now); err != nil {
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
	Digest   string `json:"digest"`    // of its text: jwt/v2 gives the JWTs of one second the same ID
}

func asImported(claims *jwt.ClaimsData, token string) *importedJWT {
	digest := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return &importedJWT{ID: claims.ID, IssuedAt: claims.IssuedAt, Digest: base64.RawStdEncoding.EncodeToString(digest[:])}
}

// isBefore reports whether a JWT is another and not an older one. What an import
// that is repeated brings has been taken over, and may have been changed since.
func (i *importedJWT) isBefore(other *importedJWT) bool {
	return i == nil || other.IssuedAt > i.IssuedAt || other.IssuedAt == i.IssuedAt && *other != *i
}

// takeJWT takes a later JWT over. Of one that is not it returns the signing keys:
// some of them may be listed no more.
func (e *operatorEntry) takeJWT(token string) (former []string, err error) {
	claims, err := trust.DecodeOperator(token, e.Claims.SigningKeys...)
	if err != nil {
		return nil, fault.In("operator_jwt", "%s", err)
	}
	switch {
	case e.PublicKey != "" && claims.Subject != e.PublicKey:
		return nil, fault.In("operator_jwt", "is that of operator %s: the mount has operator %s, and an operator never changes", claims.Subject, e.PublicKey)
	case claims.SystemAccount == "":
		return nil, fault.In("operator_jwt", "names no system account, which accounts are delivered with: nsc edit operator --system-account")
	case e.SystemAccount != "" && claims.SystemAccount != e.SystemAccount:
		return nil, fault.In("operator_jwt", "names another system account (%s) than the mount has (%s)", claims.SystemAccount, e.SystemAccount)
	case claims.Expires != 0 || claims.NotBefore != 0:
		return nil, fault.In("operator_jwt", "is valid for a limited time only, which the mount could not extend")
	}
	if e.Imported == nil && e.JWT != "" { // the mount made the operator
		own, err := trust.DecodeOperator(e.JWT)
		if err != nil {
			return nil, err
		}
		e.Imported = asImported(&own.ClaimsData, e.JWT)
	}
	given := asImported(&claims.ClaimsData, token)
	if !e.Imported.isBefore(given) {
		return claims.SigningKeys, nil
	}
	if e.JWT != "" {
		if err := trust.CheckSuccessor(claims, e.Claims.SigningKeys); err != nil {
			return nil, fault.In("operator_jwt", "%s", err)
		}
	}
	e.Imported = given
	e.PublicKey, e.Name, e.JWT, e.SystemAccount, e.Claims = claims.Subject, claims.Name, token, claims.SystemAccount, claims.Operator
	if len(e.AccountJWTServerURL) == 0 {
		e.AccountJWTServerURL = usableURLs("nats", "tls", "http", "https")(claims.AccountServerURL)
	}
	if len(e.ServiceURL) == 0 {
		e.ServiceURL = usableURLs("nats", "tls", "ws", "wss")(claims.OperatorServiceURLs...)
	}
	e.followJWT()
	return e.Removed, nil
}

// followJWT brings the keys to a later JWT. One that an import brought and that is
// listed no more goes. Where the mount can sign the operator's JWT, keys that were
// made here stay, and what was rotated away here stays out of it; else a key that it
// does not list is of no use.
func (e *operatorEntry) followJWT() {
	signs := e.Seed != ""
	e.Keys = slices.DeleteFunc(e.Keys, func(key operatorKey) bool {
		return !e.lists(key.PublicKey) && (key.Imported || !signs)
	})
	e.Removed = slices.DeleteFunc(e.Removed, func(public string) bool { return !e.lists(public) })
	e.Claims.SigningKeys = slices.DeleteFunc(slices.Clone(e.Claims.SigningKeys), func(public string) bool {
		return signs && slices.Contains(e.Removed, public)
	})
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

// knows reports whether the key is the operator's, or was until it was rotated away
// here: where the operator was made they sign with it until they hear of that.
func (e *operatorEntry) knows(public string) bool {
	return e.lists(public) || slices.Contains(e.Removed, public)
}

// takeSigningSeeds adds keys in the order in which they are to sign. The
// identity key signs only where it is all there is. Former keys are passed over
// where the operator lists them no more.
func (e *operatorEntry) takeSigningSeeds(seeds, former []string, now time.Time) error {
	for i, seed := range seeds {
		key, err := trust.ParseSeed(trust.Operator, seed)
		if err != nil {
			return fault.In("operator_signing_seeds", "number %d %s", i+1, err)
		}
		if !e.lists(key.Public()) && slices.Contains(former, key.Public()) {
			continue
		}
		if !e.lists(key.Public()) {
			return fault.In("operator_signing_seeds", "number %d is that of %s, which operator_jwt does not list as a signing key", i+1, key.Public())
		}
		e.addKey(key, now)
	}
	if len(e.live()) > 0 {
		return nil
	}
	if e.Seed == "" {
		return fault.In("operator_signing_seeds", "is missing: accounts are signed with a signing key of the operator")
	}
	if e.Claims.StrictSigningKeyUsage {
		return fault.In("operator_signing_seeds", "is missing: the operator has strict_signing_key_usage, so its identity key cannot sign accounts")
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
		e.Keys = append(e.Keys, operatorKey{PublicKey: key.Public(), Seed: key.Seed(), Created: now.Unix(), Imported: true})
	}
}
