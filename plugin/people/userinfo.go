package people

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/hashicorp/cap/oidc"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// ofToken are the claims that say how and for whom a token was made. Those of the ID
// token stay, whatever userinfo says.
var ofToken = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "nonce", "auth_time", "acr", "amr", "at_hash", "c_hash", "sid"}

// A UserinfoError is why a person is known by their ID token alone. They are logged
// in all the same, as in the JWT method: what a role wants to see of userinfo is
// missing then.
type UserinfoError struct{ Err error }

func (e *UserinfoError) Error() string { return "userinfo could not be used: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UserinfoError) Unwrap() error { return e.Err }

// errNoUserinfo is that of an issuer without it, which is no fault.
const errNoUserinfo = "oidc: user info endpoint is not supported by this provider"

// addUserinfo adds to what the ID token says of the person what userinfo does. What
// it says of another (sub, OpenID Connect Core section 5.3.2) is not looked at.
func (p *Provider) addUserinfo(ctx context.Context, provider *oidc.Provider, token *oidc.Tk, person *Person) error {
	if token.AccessToken() == "" {
		return nil
	}
	subject, _ := person.Identity.Profile().Claims["sub"].(string)
	var raw json.RawMessage
	err := provider.UserInfo(ctx, token.StaticTokenSource(), subject, &raw)
	switch {
	case err != nil && strings.Contains(err.Error(), errNoUserinfo):
		return nil
	case errors.Is(err, oidc.ErrInvalidSubject):
		return &UserinfoError{errors.New("it is of another subject than the ID token")}
	case err != nil:
		return &UserinfoError{errors.New(p.redact(err.Error(), []string{string(token.AccessToken())}))}
	}
	more, err := claims.DecodeObject(string(raw))
	if err != nil {
		return &UserinfoError{errors.New("it " + err.Error())}
	}
	for _, name := range ofToken {
		delete(more, name)
	}
	person.Identity = person.Identity.With(more)
	person.length += len(raw)
	return nil
}
