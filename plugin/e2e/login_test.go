package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
)

const devTemplate = `{"pub":{"allow":["orders.{{claim(project)}}.>"]},"sub":{"allow":["orders.{{claim(project)}}.>","_INBOX.>"]}}`

// The whole of it, for each source of keys and each algorithm: a workload's
// token in, a Vault token and NATS credentials out, and nats-server holding the
// workload to what its claims earned.
func TestAWorkloadLogsInAndTalksToNATS(t *testing.T) {
	t.Parallel()
	for source, config := range map[string]func(e *env) fields{
		"OIDC discovery": func(e *env) fields { return fields{"oidc_discovery_url": e.issuer.URL} },
		"a JWKS":         func(e *env) fields { return fields{"jwks_url": e.issuer.JWKSURL(), "bound_issuer": e.issuer.URL} },
		"static keys": func(e *env) fields {
			return fields{"jwt_validation_pubkeys": e.publicKeys(), "bound_issuer": e.issuer.URL}
		},
	} {
		t.Run("with keys from "+source, func(t *testing.T) {
			t.Parallel()
			e := start(t)
			e.write("config", config(e))
			e.account("orders", nil)
			e.role("dev", fields{"user_template": devTemplate, "token_policies": "default"})
			for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA} {
				token := e.tokenWith(alg, fields{"sub": "job-" + string(alg), "project": "shop"})
				login := e.login("dev", token)
				require.NotEmpty(t, login.Auth.ClientToken)
				require.Equal(t, "dev", login.Auth.Metadata["role"])
				require.Equal(t, "orders", login.Auth.Metadata["account"])
				require.Equal(t, login.Data["user_public_key"], login.Auth.Metadata["user_public_key"])

				workload := e.connect(login.Creds)
				messages := workload.subscribes("orders.shop.new")
				workload.publishes("orders.shop.new")
				require.Equal(t, "hello", string(workload.receives(messages).Data))
				workload.mayNotPublish("orders.other.new")
				workload.mayNotPublish("orders.shop")
				workload.mayNotSubscribe("orders.>")
			}
		})
	}
}

// publicKeys are the issuer's, as jwt_validation_pubkeys takes them.
func (e *env) publicKeys() []string {
	e.t.Helper()
	var keys []string
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA} {
		key, err := e.issuer.Key(alg)
		require.NoError(e.t, err)
		keys = append(keys, key.PublicPEM)
	}
	return keys
}

func TestTheCLILogsInAndItsCredsFileConnects(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", fields{"user_template": devTemplate})

	table := e.cli("write", e.path("login"), "role=dev", "jwt="+e.token(fields{"project": "shop"}))
	for _, row := range []string{"token ", "token_meta_role ", "creds ", "expiration ", "account ", "user_public_key "} {
		require.Contains(t, table, row, "the CLI shows auth and data together")
	}

	creds := e.cli("write", "-field=creds", e.path("login"), "role=dev", "jwt="+e.token(fields{"project": "shop"}))
	file := filepath.Join(t.TempDir(), "dev.creds")
	require.NoError(t, os.WriteFile(file, []byte(creds), 0o600))
	workload, err := e.dial(nats.UserCredentials(file))
	require.NoError(t, err)
	workload.publishes("orders.shop.new")
}

func TestTheAnswerSaysWhatWasIssued(t *testing.T) {
	t.Parallel()
	e := start(t)
	account := e.account("orders", nil)
	e.role("dev", fields{"user_template": devTemplate, "user_ttl": "10m", "user_name": "ci-{{claim(project)}}"})
	before := time.Now().Truncate(time.Second)
	login := e.login("dev", e.token(fields{"project": "shop"}))

	user, err := natsjwt.DecodeUserClaims(login.JWT)
	require.NoError(t, err)
	require.Equal(t, "ci-shop", user.Name)
	require.Equal(t, login.Data["user_public_key"], user.Subject)
	require.Equal(t, account.Data["public_key"], user.IssuerAccount)
	require.Equal(t, account.Data["public_key"], login.Data["account_public_key"])
	require.Equal(t, "orders", login.Data["account"])
	require.Equal(t, e.nats.URL, login.Data["url"])
	expires, err := time.Parse(time.RFC3339, login.Data["expiration"].(string))
	require.NoError(t, err)
	require.Equal(t, user.Expires, expires.Unix())
	require.WithinRange(t, expires, before.Add(10*time.Minute), time.Now().Add(10*time.Minute))
	fromCreds, err := natsjwt.ParseDecoratedJWT([]byte(login.Creds))
	require.NoError(t, err)
	require.Equal(t, login.JWT, fromCreds)
}

func TestAUserNeverOutlivesItsTokenOrTheMount(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("short", fields{"token_ttl": "5m", "token_max_ttl": "7m"})
	e.role("long", fields{"user_ttl": "1h"})
	e.role("unbound", nil)
	life := func(role string) time.Duration {
		user, err := natsjwt.DecodeUserClaims(e.login(role, e.token(nil)).JWT)
		require.NoError(t, err)
		return time.Duration(user.Expires-user.IssuedAt) * time.Second
	}
	require.Equal(t, 5*time.Minute, life("short"), "without user_ttl a user lives as long as its token")
	require.Equal(t, time.Hour, life("long"))
	e.refused("role/short", fields{"user_ttl": "8m"}, "user_ttl", "token_max_ttl")

	e.cli("auth", "tune", "-max-lease-ttl=2m", "-default-lease-ttl=1m", e.mount)
	e.waitFor("the mount's new limits to hold", func() error {
		for role, most := range map[string]time.Duration{"short": 2 * time.Minute, "long": 2 * time.Minute, "unbound": time.Minute} {
			if got := life(role); got > most {
				return fmt.Errorf("a user of role %s lives %s, more than %s", role, got, most)
			}
		}
		return nil
	})
}

func TestAnExpiredUserIsCutOff(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", fields{"user_ttl": "3s"})
	login := e.login("dev", e.token(nil))
	workload := e.connect(login.Creds)
	workload.publishes("anything")
	e.isCutOff(workload)
	e.waitFor("the server to refuse the user", func() error {
		if _, err := e.tryConnect(login.Creds); !errors.Is(err, nats.ErrAuthorization) {
			return fmt.Errorf("the server answered a connect with %v", err)
		}
		return nil
	})
}

func TestTheDefaultRoleServesALoginThatNamesNone(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", nil)
	e.loginRefused("", e.token(nil), "role", "default_role")
	e.write("config", fields{"default_role": "dev"})
	require.Equal(t, "dev", e.login("", e.token(nil)).Auth.Metadata["role"])
}

func TestAWorkloadBringsItsOwnKey(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", nil)
	e.role("client", fields{"user_key": "client", "user_key_proof": true})
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	public, err := key.PublicKey()
	require.NoError(t, err)

	login, err := e.tryLogin("dev", e.token(nil), fields{"user_public_key": public})
	require.NoError(t, err)
	require.NotContains(t, login.Data, "creds", "no seed exists here")
	connect := func(jwt string) {
		workload, err := e.dial(nats.UserJWT(func() (string, error) { return jwt, nil }, key.Sign))
		require.NoError(t, err)
		workload.publishes("anything")
	}
	connect(login.JWT)

	token := e.token(nil)
	refused := func(more fields, texts ...string) {
		_, err := e.tryLogin("client", token, more)
		e.isStatus(err, http.StatusBadRequest, texts...)
	}
	account, err := nkeys.CreateAccount()
	require.NoError(t, err)
	accountPublic, err := account.PublicKey()
	require.NoError(t, err)
	refused(nil, "user_public_key", "user_key=client")
	refused(fields{"user_public_key": accountPublic}, "user_public_key", "account")
	refused(fields{"user_public_key": public}, "user_key_signature", "missing")
	refused(e.proven(key, proof.Claim{Purpose: proof.Login, Role: "dev", Token: token}), "user_key_signature", e.path(""), `role "client"`)
	login, err = e.tryLogin("client", token, e.proven(key, proof.Claim{Purpose: proof.Login, Role: "client", Token: token}))
	require.NoError(t, err)
	connect(login.JWT)
}

func TestRenewalReChecksTheRole(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.account("orders", nil)
	e.role("dev", fields{"token_ttl": "10m"})
	login := e.login("dev", e.token(nil))
	renew := func() error {
		_, err := login.client.Auth().Token().RenewSelfWithContext(e.ctx(), 0)
		return err
	}
	require.NoError(t, renew())
	e.remove("role/dev")
	require.ErrorContains(t, renew(), `role "dev"`)
}

// A token that is refused is answered with status 400 and the reason.
func TestBadTokensAreRefused(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.write("config", fields{"bound_issuer": e.issuer.URL})
	e.account("orders", nil)
	e.role("dev", fields{"user_template": devTemplate, "bound_claims": fields{"env": "prod"}, "groups_claim": ""})
	good := fields{"sub": "job", "project": "shop", "env": "prod"}
	with := func(changes fields) fields {
		claims := fields{}
		for name, value := range good {
			claims[name] = value
		}
		for name, value := range changes {
			claims[name] = value
		}
		return claims
	}
	e.login("dev", e.token(good))
	hour := func(d time.Duration) int64 { return time.Now().Add(d * time.Hour).Unix() }
	segment := func(v any) string {
		raw, err := json.Marshal(v)
		require.NoError(t, err)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	valid := e.token(good)
	for name, test := range map[string]struct{ token, reason string }{
		"that are missing":                     {"", "jwt is missing"},
		"that are malformed":                   {"not.a-token", "token"},
		"whose signature was changed":          {valid[:len(valid)-6] + "AAAAAA", "signature"},
		"that are unsigned":                    {segment(fields{"alg": "none", "typ": "JWT"}) + "." + segment(with(fields{"iss": e.issuer.URL, "aud": "vault", "exp": hour(1)})) + ".", "none"},
		"that are signed with HMAC":            {segment(fields{"alg": "HS256"}) + "." + segment(with(nil)) + "." + base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef")), "HS256"},
		"that have expired":                    {e.token(with(fields{"exp": hour(-1), "iat": hour(-2)})), "exp"},
		"that are not valid yet":               {e.token(with(fields{"nbf": hour(1)})), "nbf"},
		"of another issuer":                    {e.token(with(fields{"iss": "https://elsewhere.example.com"})), "iss"},
		"for another audience":                 {e.token(with(fields{"aud": "other"})), "aud"},
		"without the user claim":               {e.token(with(fields{"sub": nil})), "sub"},
		"with a user claim that is no string":  {e.token(with(fields{"sub": 17})), "sub"},
		"without a bound claim":                {e.token(with(fields{"env": nil})), "env"},
		"with another value of a bound claim":  {e.token(with(fields{"env": "test"})), "env"},
		"whose claim would widen a subject":    {e.token(with(fields{"project": ">"})), "project"},
		"whose claim has two subject tokens":   {e.token(with(fields{"project": "a.b"})), "project"},
		"without a claim of the template":      {e.token(with(fields{"project": nil})), "project"},
		"whose claim of the template is empty": {e.token(with(fields{"project": ""})), "project"},
	} {
		t.Run(name, func(t *testing.T) { e.in(t).loginRefused("dev", test.token, test.reason) })
	}
	e.loginRefused("nobody", valid, `role "nobody" could not be found`)
}

// What the tests above write must not reach a log: neither the tokens and seeds
// that went in, nor those that came out.
func TestNoSecretReachesALog(t *testing.T) {
	t.Parallel()
	vault := ownVault(t, stack.VaultConfig{Storage: "raft", LogLevel: "trace"})
	e := start(t, onVault(vault))
	audit, err := vault.Audit(e.ctx())
	require.NoError(t, err)
	e.account("orders", nil)
	e.role("dev", nil)
	user := e.write("jwt/worker", fields{"type": "user", "account": "orders", "config": fields{}, "nonce": "abc"})
	token := e.token(nil)
	login := e.login("dev", token)
	e.loginRefused("dev", token+"x", "signature")
	seed, err := natsjwt.ParseDecoratedUserNKey([]byte(login.Creds))
	require.NoError(t, err)
	seedText, err := seed.Seed()
	require.NoError(t, err)

	secrets := map[string]string{
		"the workload's token": token,
		"the Vault token":      login.Auth.ClientToken,
		"the user's seed":      string(seedText),
		"the user JWT":         login.JWT,
	}
	auditText := func() string {
		raw, err := os.ReadFile(audit)
		require.NoError(t, err)
		return string(raw)
	}
	e.waitFor("the login to be audited", func() error {
		if !strings.Contains(auditText(), login.Data["user_public_key"].(string)) {
			return errors.New("the user's public key is not in the audit log")
		}
		return nil
	})
	for what, secret := range secrets {
		require.NotContains(t, vault.Log(), secret, "%s is in the server's log", what)
		require.NotContains(t, auditText(), secret, "%s is in the audit log", what)
	}
	for _, log := range []string{vault.Log(), auditText()} {
		require.NotRegexp(t, `\bS[OAU][A-Z2-7]{56}\b`, log, "a seed is in a log")
	}
	require.NotEmpty(t, user.Data["signed_nonce"])
}
