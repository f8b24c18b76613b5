package trust

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// DecodeOperator reads an operator JWT made elsewhere, as nsc keeps it: signed by
// the operator's identity key, or after "nsc edit operator --require-signing-keys"
// by one of the signing keys that it lists, or that the JWT before it listed, which
// are known. nats-server asks for no more, since it is given the JWT by whoever
// runs it; whether it may take the place of another one is for CheckSuccessor to
// say. Errors continue a sentence that begins with the name of what was decoded.
func DecodeOperator(token string, known ...string) (*jwt.OperatorClaims, error) {
	claims := &jwt.OperatorClaims{}
	if err := decode(token, jwt.OperatorClaim, claims); err != nil {
		return nil, err
	}
	if err := CheckPublicKey(Operator, claims.Subject); err != nil {
		return nil, fmt.Errorf("is not valid: its subject %w", err)
	}
	for i, key := range claims.SigningKeys {
		if err := CheckPublicKey(Operator, key); err != nil {
			return nil, fmt.Errorf("is not valid: signing_keys[%d] %w", i, err)
		}
	}
	if claims.SystemAccount != "" {
		if err := CheckPublicKey(Account, claims.SystemAccount); err != nil {
			return nil, fmt.Errorf("is not valid: system_account %w", err)
		}
	}
	if claims.Issuer != claims.Subject && !slices.Contains(claims.SigningKeys, claims.Issuer) && !slices.Contains(known, claims.Issuer) {
		return nil, fmt.Errorf("is not signed by the operator's own identity key, nor by a signing key that it lists: the signer is %s", claims.Issuer)
	}
	return claims, validate(claims)
}

// CheckSuccessor says why a JWT cannot take the place of another one of the same
// operator, which listed those signing keys: it has to be signed by one of them, or
// by the identity key. Else whoever makes up a key could list and use it in one go.
func CheckSuccessor(later *jwt.OperatorClaims, listed []string) error {
	if later.Issuer == later.Subject || slices.Contains(listed, later.Issuer) {
		return nil
	}
	return fmt.Errorf("is signed by %s, which the operator's JWT in the mount does not list as a signing key: have it signed by one that it lists, or by the identity key", later.Issuer)
}

// DecodeAccount reads an account JWT made elsewhere. Who signed it is the
// caller's to check.
func DecodeAccount(token string) (*jwt.AccountClaims, error) {
	claims := &jwt.AccountClaims{Account: jwt.Account{SigningKeys: jwt.SigningKeys{}}}
	if err := decode(token, jwt.AccountClaim, claims); err != nil {
		return nil, err
	}
	if err := CheckPublicKey(Account, claims.Subject); err != nil {
		return nil, fmt.Errorf("is not valid: its subject %w", err)
	}
	if err := canonical(&claims.Account); err != nil {
		return nil, fmt.Errorf("is not valid: %w", err)
	}
	if len(claims.Limits.JetStreamTieredLimits) > 0 {
		// As jwt/v2 has it, and so every server that is given the JWT.
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{}
	}
	return claims, ValidateAccount(claims.Subject, &claims.Account)
}

func withArticle(kind jwt.ClaimType) string {
	if kind == jwt.UserClaim || kind == jwt.GenericClaim {
		return "a " + string(kind)
	}
	return "an " + string(kind)
}

// AccountIssuer is the public key that signed an account JWT. Whether the account is
// one that a server would take is not asked.
func AccountIssuer(token string) (string, error) {
	claims, err := jwt.DecodeAccountClaims(strings.TrimSpace(token))
	if err != nil {
		return "", fmt.Errorf("is not a valid NATS JWT: %w", err)
	}
	return claims.Issuer, nil
}

// decode verifies a JWT's signature and reads all of its claims: a claim that
// jwt/v2 has no field for would be lost when the JWT is signed again.
func decode(token string, kind jwt.ClaimType, claims any) error {
	token = strings.TrimSpace(token)
	if strings.Count(token, ".") == 2 { // jwt.Decode says what else is no JWT at all
		if err := checkTokenText(token); err != nil {
			return err
		}
	}
	verified, err := jwt.Decode(token)
	if err != nil {
		return fmt.Errorf("is not a valid NATS JWT: %w", err)
	}
	if got := verified.ClaimType(); got != kind {
		return fmt.Errorf("is the JWT of %s where that of %s is wanted", withArticle(got), withArticle(kind))
	}
	issuer := verified.Claims().Issuer
	if err := CheckPublicKey(Kind(nkeys.Prefix(issuer)), issuer); err != nil {
		return fmt.Errorf("is not valid: its issuer %w", err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return fmt.Errorf("is not a valid NATS JWT: %w", err)
	}
	var version struct {
		NATS struct {
			Version int `json:"version"`
		} `json:"nats"`
	}
	if err := json.Unmarshal(payload, &version); err != nil || version.NATS.Version != jwtVersion {
		return fmt.Errorf("is a NATS JWT of version %d where version %d is wanted: have nsc write it again", max(version.NATS.Version, 1), jwtVersion)
	}
	return decodeStrict(payload, claims)
}
