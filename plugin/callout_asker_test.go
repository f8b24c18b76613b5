package plugin

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// An asker asks as nats-server does (auth_callout.go), and checks answers as that
// does.
type asker struct {
	t       testing.TB
	key     nkeys.KeyPair
	public  string
	curve   nkeys.KeyPair
	xkey    string
	account *natsjwt.AccountClaims // the callout's
}

// A question is a message of a server's.
type question struct {
	raw    []byte
	header string
	user   string // public key that the server made for the client
}

func newAsker(t testing.TB) *asker {
	t.Helper()
	key, err := nkeys.CreateServer()
	require.NoError(t, err)
	curve, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	a := &asker{t: t, key: key, curve: curve}
	a.public, err = key.PublicKey()
	require.NoError(t, err)
	a.xkey, err = curve.PublicKey()
	require.NoError(t, err)
	return a
}

// claims are those of a question about a client.
func (a *asker) claims(options natsjwt.ConnectOptions) *natsjwt.AuthorizationRequestClaims {
	a.t.Helper()
	claims := natsjwt.NewAuthorizationRequestClaims(a.account.Subject)
	claims.Audience = "nats-authorization-request"
	claims.UserNkey = newKey(a.t, trust.User).Public()
	claims.Server = natsjwt.ServerID{Name: "test", Host: "127.0.0.1", ID: a.public}
	claims.Expires = time.Now().Add(2 * time.Second).Unix()
	claims.ClientInformation = natsjwt.ClientInformation{Host: "127.0.0.1", Kind: "Client", Type: "nats"}
	claims.ConnectOptions = options
	if a.account.Authorization.XKey != "" {
		claims.Server.XKey = a.xkey
	}
	return claims
}

func (a *asker) question(options natsjwt.ConnectOptions, changes ...func(*natsjwt.AuthorizationRequestClaims)) question {
	a.t.Helper()
	claims := a.claims(options)
	for _, change := range changes {
		change(claims)
	}
	token, err := claims.Encode(a.key)
	require.NoError(a.t, err)
	q := a.sealText(token)
	q.user = claims.UserNkey
	return q
}

// sealText seals a text as the account's JWT asks.
func (a *asker) sealText(text string) question {
	a.t.Helper()
	if a.account.Authorization.XKey == "" {
		return question{raw: []byte(text)}
	}
	sealed, err := a.curve.Seal([]byte(text), a.account.Authorization.XKey)
	require.NoError(a.t, err)
	return question{raw: sealed, header: a.xkey}
}

// plain is a question that is not sealed.
func (a *asker) plain(options natsjwt.ConnectOptions) []byte {
	a.t.Helper()
	token, err := a.claims(options).Encode(a.key)
	require.NoError(a.t, err)
	return []byte(token)
}

// altered is a question whose claims were changed after it was signed.
func (a *asker) altered() question {
	a.t.Helper()
	parts := strings.Split(string(a.plain(natsjwt.ConnectOptions{Username: "dev"})), ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(a.t, err)
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), `"dev"`, `"ops"`, 1)))
	return a.sealText(strings.Join(parts, "."))
}

func (a *asker) alteredSeal() question {
	a.t.Helper()
	q := a.question(natsjwt.ConnectOptions{})
	q.raw[len(q.raw)-1] ^= 1
	return q
}

// signedBy is a question that a key of another kind has signed.
func (a *asker) signedBy(key *trust.Key) question {
	a.t.Helper()
	pair, err := nkeys.FromSeed([]byte(key.Seed()))
	require.NoError(a.t, err)
	claims := a.claims(natsjwt.ConnectOptions{})
	claims.Server.ID = key.Public()
	token, err := claims.Encode(pair)
	if err != nil { // jwt/v2 does not sign it either
		return a.sealText(string(a.plain(natsjwt.ConnectOptions{}))[1:])
	}
	return a.sealText(token)
}

// open reads the answer as nats-server does: the user, or the refusal.
func (a *asker) open(q question, response string) (*natsjwt.UserClaims, error) {
	a.t.Helper()
	message, err := base64.StdEncoding.DecodeString(response)
	require.NoError(a.t, err)
	if a.account.Authorization.XKey != "" {
		message, err = a.curve.Open(message, a.account.Authorization.XKey)
		require.NoError(a.t, err)
	}
	claims, err := natsjwt.DecodeAuthorizationResponseClaims(string(message))
	require.NoError(a.t, err)
	results := natsjwt.CreateValidationResults()
	claims.Validate(results)
	require.Empty(a.t, results.Issues)
	require.Equal(a.t, q.user, claims.Subject)
	require.Equal(a.t, a.public, claims.Audience)
	require.Equal(a.t, a.account.Subject, claims.IssuerAccount)
	require.Contains(a.t, a.account.SigningKeys, claims.Issuer)
	if claims.Error != "" {
		return nil, errors.New(claims.Error)
	}
	user, err := natsjwt.DecodeUserClaims(claims.Jwt)
	require.NoError(a.t, err)
	require.Equal(a.t, q.user, user.Subject)
	return user, nil
}
