package trust

import (
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/nats-io/jwt/v2"
)

// MaxJWT is the size in bytes up to which nats-server takes an account JWT: its
// default max_payload, and the bound of jwt/v2's decoder.
const MaxJWT = jwt.MaxTokenSize

// ErrTooLarge is the fault of claims whose JWT exceeds MaxJWT.
var ErrTooLarge = errors.New("is too large")

// jwtVersion is the version of NATS's claims that is written here.
const jwtVersion = 2

// encode signs claims, of which data is the registered part, as jwt/v2 does but
// with the time of issue given. Unlike jwt/v2's, the ID covers everything in
// the claims: nats-servers take two JWTs of one ID for one and the same.
func encode(issuer *Key, issuedAt int64, data *jwt.ClaimsData, claims any) (string, error) {
	data.Issuer, data.IssuedAt, data.ID = issuer.public, issuedAt, ""
	unnamed, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding the claims of %s: %w", data.Subject, err)
	}
	digest := sha512.Sum512_256(unnamed)
	// The ID goes ahead of the other claims: encoding them again would cost as
	// much as the signature.
	raw := append(make([]byte, 0, len(unnamed)+64), `{"jti":"`...)
	raw = jtiEncoding.AppendEncode(raw, digest[:])
	raw = append(raw, `",`...)
	raw = append(raw, unnamed[1:]...)
	token := issuer.seal(raw)
	if len(token) > MaxJWT {
		return "", fmt.Errorf("%w: its JWT has %d bytes, and nats-server takes %d", ErrTooLarge, len(token), MaxJWT)
	}
	return token, nil
}

// EncodeOperator signs an operator JWT with the operator's identity key.
func EncodeOperator(identity *Key, name string, o jwt.Operator, issuedAt int64) (string, error) {
	claims := jwt.NewOperatorClaims(identity.public)
	claims.Name = name
	claims.Operator = o
	claims.Type, claims.Version = jwt.OperatorClaim, jwtVersion
	if err := validate(claims); err != nil {
		return "", err
	}
	return encode(identity, issuedAt, &claims.ClaimsData, claims)
}

// EncodeAccount signs an account JWT with an operator's key. The caller has
// validated the account.
func EncodeAccount(operator *Key, subject, name string, a jwt.Account, issuedAt int64) (string, error) {
	claims := &jwt.AccountClaims{Account: a}
	claims.Subject, claims.Name = subject, name
	claims.Type, claims.Version = jwt.AccountClaim, jwtVersion
	// As jwt/v2 does, in copies: the caller's lists keep the order they were
	// written in.
	claims.Exports = append(jwt.Exports(nil), a.Exports...)
	sort.Stable(claims.Exports)
	claims.Imports = append(jwt.Imports(nil), a.Imports...)
	sort.Stable(claims.Imports)
	return encode(operator, issuedAt, &claims.ClaimsData, claims)
}

// An Activation lets another account import what an account exports with
// token_req.
type Activation struct {
	Exporter string         // public key of the exporting account
	Importer string         // public key of the importing account
	Subject  jwt.Subject    // the subject that may be imported
	Type     jwt.ExportType // stream or service
	Expires  time.Time      // the zero time for none
}

// Encode signs the activation token with the exporter's identity key or one of
// its signing keys.
func (a Activation) Encode(signer *Key, issuedAt int64) (string, error) {
	claims := jwt.NewActivationClaims(a.Importer)
	claims.ImportSubject, claims.ImportType = a.Subject, a.Type
	if signer.public != a.Exporter {
		claims.IssuerAccount = a.Exporter
	}
	if !a.Expires.IsZero() {
		claims.Expires = a.Expires.Unix()
	}
	claims.Type, claims.Version = jwt.ActivationClaim, jwtVersion
	if err := validate(claims); err != nil {
		return "", err
	}
	return encode(signer, issuedAt, &claims.ClaimsData, claims)
}

// EncodeDeletion is the request that makes nats-servers drop accounts
// ($SYS.REQ.CLAIMS.DELETE): a JWT of the operator's about itself that lists
// them.
func EncodeDeletion(operator *Key, ids []string, issuedAt int64) (string, error) {
	claims := jwt.NewGenericClaims(operator.public)
	claims.Data["accounts"] = ids
	claims.Data["version"] = jwtVersion
	return encode(operator, issuedAt, &claims.ClaimsData, claims)
}

// EncodeFarewell makes an account JWT that lets nobody in: no connection is
// allowed, every user issued up to revoked is, and it ends at expires (both Unix
// times). It stands in for an account that servers refuse to delete.
func EncodeFarewell(operator *Key, subject string, issuedAt, revoked, expires int64) (string, error) {
	claims := jwt.NewAccountClaims(subject)
	claims.Limits = jwt.OperatorLimits{}
	claims.Revocations = jwt.RevocationList{jwt.All: revoked}
	claims.Expires = expires
	claims.Type, claims.Version = jwt.AccountClaim, jwtVersion
	return encode(operator, issuedAt, &claims.ClaimsData, claims)
}

// validate turns what jwt/v2 finds wrong with claims into one error. Whether
// they are expired is not asked: they are about to be signed or stored.
func validate(claims jwt.Claims) error {
	results := jwt.CreateValidationResults()
	claims.Validate(results)
	if faults := results.Errors(); len(faults) > 0 {
		return fmt.Errorf("is not valid: %w", errors.Join(faults...))
	}
	return nil
}
