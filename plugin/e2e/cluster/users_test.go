package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A user is one that logged in.
type user struct {
	account string // its name
	key     string // public
	jwt     string
	seed    string
}

// roleOf is a role of an account. Its users live for a day, and its tokens for a
// minute, so that no load fills Vault's storage.
func roleOf(account string) fields {
	return fields{
		"account": account, "bound_audiences": "vault", "user_claim": "sub",
		"token_ttl": "1m", "token_max_ttl": "24h", "user_ttl": "24h",
		"user_template": `{"pub":{"allow":["` + account + `.>","_INBOX.>"]},"sub":{"allow":["` + account + `.>","_INBOX.>"]}}`,
	}
}

// tryLogin logs in at a Vault.
func (c *cluster) tryLogin(client *api.Client, role string) (*user, error) {
	token, err := c.issuer.Mint(jose.ES256, fields{"aud": "vault", "sub": "workload"})
	if err != nil {
		return nil, err
	}
	secret, err := c.send(client, http.MethodPut, c.path("login"), fields{"role": role, "jwt": token})
	if err != nil {
		return nil, err
	}
	if secret.Auth == nil {
		return nil, errors.New("a login was answered with nothing")
	}
	u := &user{}
	u.account, _ = secret.Data["account"].(string)
	u.key, _ = secret.Data["user_public_key"].(string)
	u.jwt, _ = secret.Data["jwt"].(string)
	creds, _ := secret.Data["creds"].(string)
	pair, err := natsjwt.ParseDecoratedUserNKey([]byte(creds))
	if err != nil {
		return nil, fmt.Errorf("the creds of a login: %w", err)
	}
	seed, err := pair.Seed()
	u.seed = string(seed)
	return u, err
}

func (c *cluster) login(role string) *user {
	c.t.Helper()
	u, err := c.tryLogin(c.asks(), role)
	require.NoError(c.t, err)
	return u
}

// refusal is in what nats-server and nats.go say of a user who may not come in.
var refusal = regexp.MustCompile("(?i)authorization violation|authentication (expired|revoked)")

// An errAway says that a server could not be asked.
type errAway struct{ error }

// letsIn says whether a server lets a user in, now.
func letsIn(server *stack.NATS, u *user) (bool, error) {
	conn, err := nats.Connect(server.URL, nats.UserJWTAndSeed(u.jwt, u.seed), nats.NoReconnect(), nats.Timeout(2*time.Second),
		// nats.go prints errors otherwise.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	switch {
	case err == nil:
		conn.Close()
		return true, nil
	case refusal.MatchString(err.Error()):
		return false, nil
	}
	return false, errAway{err}
}

// slippedIn is how long a user can stay who came in while a server had the account half
// made: the mount has such users thrown out two seconds after each change.
const slippedIn = 5 * time.Second

// staysIn says whether a server that has let a user in does so again, and keeps it.
func staysIn(server *stack.NATS, u *user) bool {
	conn, err := nats.Connect(server.URL, nats.UserJWTAndSeed(u.jwt, u.seed), nats.NoReconnect(), nats.Timeout(slippedIn),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return false
	}
	defer conn.Close()
	select {
	case <-conn.StatusChanged(nats.CLOSED):
		return false
	case <-time.After(slippedIn):
		return true
	}
}

// held returns what a nats-server has on disk of an account, nil if it has nothing.
// nats-server writes a file in place: one that is read in the middle of that is read again.
func held(server *stack.NATS, id string) (claims *natsjwt.AccountClaims, text string, err error) {
	for range 5 {
		content, err := os.ReadFile(accountFile(server, id))
		if errors.Is(err, os.ErrNotExist) {
			return nil, "", nil
		}
		if err != nil {
			return nil, "", err
		}
		if claims, err = natsjwt.DecodeAccountClaims(strings.TrimSpace(string(content))); err == nil {
			return claims, string(content), nil
		}
	}
	return nil, "", err
}

func accountFile(server *stack.NATS, id string) string {
	return filepath.Join(server.Dir, "jwt", id+".jwt")
}

// goesBy says by which account JWT and by which revocations a server judges who comes in;
// it has loaded nothing that it has not had to.
func goesBy(ctx context.Context, server *stack.NATS, id string) (accountJWT string, revoked map[string]time.Time, err error) {
	var accounts struct {
		Accounts []string `json:"accounts"`
	}
	if err := server.Status(ctx, "accountz", &accounts); err != nil {
		return "", nil, err
	}
	if !slices.Contains(accounts.Accounts, id) {
		return "", nil, nil
	}
	var account struct {
		Detail struct {
			JWT     string               `json:"jwt"`
			Revoked map[string]time.Time `json:"revoked_user"`
		} `json:"account_detail"`
	}
	err = server.Status(ctx, "accountz?acc="+id, &account)
	return strings.TrimSpace(account.Detail.JWT), account.Detail.Revoked, err
}
