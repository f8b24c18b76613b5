package trust

import (
	"fmt"

	"github.com/nats-io/jwt/v2"
)

// DecodeUser reads a user JWT made elsewhere. Who signed it, and whether it is
// good now, is the caller's to check.
func DecodeUser(token string) (*jwt.UserClaims, error) {
	claims := &jwt.UserClaims{}
	if err := decode(token, jwt.UserClaim, claims); err != nil {
		return nil, err
	}
	if err := CheckPublicKey(User, claims.Subject); err != nil {
		return nil, fmt.Errorf("is not valid: its subject %w", err)
	}
	if claims.IssuerAccount != "" {
		if err := CheckPublicKey(Account, claims.IssuerAccount); err != nil {
			return nil, fmt.Errorf("is not valid: issuer_account %w", err)
		}
	}
	claims.Tags = Tags(claims.Tags)
	return claims, checkUser(&claims.UserPermissionLimits, &claims.User)
}
