package roles

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

const (
	userKey    = "UCKVPKGMQLJKBWXTPR5Q2PVKPVKKUVDNFG2LBKVVHMXFTULGVTRZCC5U"
	accountKey = "ADKGQ3LTJ7QGDU2DOTLBOUGVVP6ZB5UJ4IQHHKHMHUFVKYKNRULCQQQI"
)

// account is the account that the tests' roles belong to.
var account = Account{Name: "orders", PublicKey: accountKey, Tags: []string{"region:eu"}, IssuerAccount: accountKey}

// now is when the tests' logins happen.
var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// jwtRole is a role that takes every token with the audience vault.
func jwtRole(change func(*Role)) *Role {
	r := New()
	r.Account = "orders"
	r.BoundAudiences = []string{"vault"}
	r.UserClaim = "sub"
	if change != nil {
		change(r)
	}
	return r
}

// kubernetesRole is a role that takes the service account ci/builder.
func kubernetesRole(change func(*Role)) *Role {
	r := New()
	r.RoleType = TypeKubernetes
	r.Account = "orders"
	r.BoundServiceAccountNames = []string{"builder"}
	r.BoundServiceAccountNamespaces = []string{"ci"}
	r.Audience = "vault"
	if change != nil {
		change(r)
	}
	return r
}

// vaultRole is a role for Vault entities.
func vaultRole(change func(*Role)) *Role {
	r := New()
	r.RoleType, r.Issuer = TypeVault, ""
	r.Account = "orders"
	if change != nil {
		change(r)
	}
	return r
}

func compile(t testing.TB, r *Role) *Compiled {
	t.Helper()
	c, err := r.Compile()
	require.NoError(t, err)
	return c
}

// token is the profile of a token of the default issuer with the claims, given
// as JSON; sub is "runner" unless they say otherwise.
func token(t testing.TB, claimsJSON string) *claims.Profile {
	t.Helper()
	all := map[string]any{"sub": "runner"}
	require.NoError(t, unmarshalNumbers(claimsJSON, &all))
	return &claims.Profile{Issuer: DefaultIssuer, Kind: claims.KindJWT, Claims: all}
}

func serviceAccount(change func(*claims.ServiceAccount)) *claims.Profile {
	account := &claims.ServiceAccount{
		Namespace: "ci", Name: "builder", UID: "474b11b5-0f20-4f9d-8ca5-65715ab325e0",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ci"},
	}
	if change != nil {
		change(account)
	}
	return &claims.Profile{
		Issuer: DefaultIssuer, Kind: claims.KindKubernetes, ServiceAccount: account,
		Claims: map[string]any{
			"sub":           "system:serviceaccount:ci:builder",
			"kubernetes.io": map[string]any{"namespace": account.Namespace},
		},
	}
}

// render logs a token in and returns the user's name and what jwt/v2 reads from its claims.
func render(t testing.TB, c *Compiled, p *claims.Profile) (string, *jwt.User, error) {
	t.Helper()
	b, err := c.Bind(p, now)
	require.NoError(t, err)
	u, err := c.Render(b, account, userKey)
	if err != nil {
		return "", nil, err
	}
	var user jwt.User
	require.NoError(t, json.Unmarshal(u.NATS, &user))
	return u.Name, &user, nil
}

// unmarshalNumbers decodes JSON as the issuers do: no number is rounded.
func unmarshalNumbers(source string, to any) error {
	d := json.NewDecoder(strings.NewReader(source))
	d.UseNumber()
	return d.Decode(to)
}
