package trust

import (
	"time"

	"github.com/nats-io/jwt/v2"
)

// An AuthorizationResponse is what an auth callout answers a nats-server with
// (ADR-26): the user that a client is to be, or why it is to be none.
type AuthorizationResponse struct {
	Account string // public key of the callout's account, whose key signs
	Server  string // public key of the nats-server that asked
	User    string // public key that the nats-server made for the client
	JWT     string // of that user; empty for a refusal
	Refusal string
}

// Encode signs the response with a key of the callout's account.
func (r AuthorizationResponse) Encode(signer *Key, issuedAt time.Time) (string, error) {
	claims := jwt.NewAuthorizationResponseClaims(r.User)
	claims.Audience = r.Server
	claims.Jwt, claims.Error = r.JWT, r.Refusal
	if signer.public != r.Account {
		claims.IssuerAccount = r.Account
	}
	claims.Type, claims.Version = jwt.AuthorizationResponseClaim, jwtVersion
	if err := validate(claims); err != nil {
		return "", err
	}
	return encode(signer, issuedAt.Unix(), &claims.ClaimsData, claims)
}

// ResponderUser is the "nats" claim of the user that answers an auth callout's
// requests, in the queue group: it hears them and answers each once, and may do
// nothing else.
func ResponderUser(subject, queue string) *jwt.User {
	user := jwt.NewUserClaims("-").User
	user.Sub.Allow = jwt.StringList{subject + " " + queue}
	user.Resp = &jwt.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
	return &user
}

// SentinelScope is what users of an auth callout's own signing key are: they come
// with their JWT alone, which says nothing but whom the nats-server is to ask, and
// may do nothing if it should ask nobody.
func SentinelScope(callout string) *jwt.UserScope {
	scope := jwt.NewUserScope()
	scope.Role = "callout " + callout
	scope.Template.BearerToken = true
	scope.Template.Pub.Deny = jwt.StringList{restTokens}
	scope.Template.Sub.Deny = jwt.StringList{restTokens}
	return scope
}
