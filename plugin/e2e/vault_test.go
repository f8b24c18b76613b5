package e2e

import (
	"errors"
	"maps"
	"net/http"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// path returns a path of the mount as Vault's API takes it.
func (e *env) path(below string) string { return "auth/" + e.mount + "/" + below }

// try writes to a path of the mount, as the holder of the root token.
func (e *env) try(path string, data fields) (*api.Secret, error) {
	return e.client.Logical().WriteWithContext(e.ctx(), e.path(path), data)
}

// write writes to a path of the mount. The answer is nil when it has no content.
func (e *env) write(path string, data fields) *api.Secret {
	e.t.Helper()
	secret, err := e.try(path, data)
	require.NoError(e.t, err)
	return secret
}

// refused writes to a path of the mount what must be answered with status 400 and
// these texts.
func (e *env) refused(path string, data fields, texts ...string) {
	e.t.Helper()
	_, err := e.try(path, data)
	e.isStatus(err, http.StatusBadRequest, texts...)
}

// isStatus checks that an error is Vault's answer with a status and these texts.
func (e *env) isStatus(err error, status int, texts ...string) {
	e.t.Helper()
	var response *api.ResponseError
	require.True(e.t, errors.As(err, &response), "not an answer of Vault's: %v", err)
	require.Equal(e.t, status, response.StatusCode, "%v", err)
	for _, text := range texts {
		require.ErrorContains(e.t, err, text)
	}
}

// read reads a path of the mount at which there must be something.
func (e *env) read(path string) fields {
	e.t.Helper()
	secret, err := e.client.Logical().ReadWithContext(e.ctx(), e.path(path))
	require.NoError(e.t, err)
	require.NotNil(e.t, secret, "nothing at %s", path)
	return secret.Data
}

// absent checks that there is nothing at a path of the mount.
func (e *env) absent(path string) {
	e.t.Helper()
	secret, err := e.client.Logical().ReadWithContext(e.ctx(), e.path(path))
	require.NoError(e.t, err)
	require.Nil(e.t, secret, "something at %s", path)
}

// list lists a path of the mount; what is not there has no keys.
func (e *env) list(path string) []string {
	e.t.Helper()
	secret, err := e.client.Logical().ListWithContext(e.ctx(), e.path(path))
	require.NoError(e.t, err)
	keys := []string{}
	if secret == nil {
		return keys
	}
	for _, key := range secret.Data["keys"].([]any) {
		keys = append(keys, key.(string))
	}
	return keys
}

// remove deletes a path of the mount.
func (e *env) remove(path string) {
	e.t.Helper()
	_, err := e.client.Logical().DeleteWithContext(e.ctx(), e.path(path))
	require.NoError(e.t, err)
}

// serverConfig returns the nats-server configuration that the mount gives out.
func (e *env) serverConfig() string {
	e.t.Helper()
	return e.read("config/server")["config"].(string)
}

// account creates an account; config is a JSON object, as an object or as its text,
// or nil. While the test's nats-server runs, the account is on it when account returns.
func (e *env) account(name string, config any) *api.Secret {
	e.t.Helper()
	data := fields{"type": "account"}
	if config != nil {
		data["config"] = config
	}
	secret := e.write("jwt/"+name, data)
	if e.nats.Running() {
		e.waitForDelivery(name)
	}
	return secret
}

// waitForDelivery returns when the NATS servers have an account as the mount has it.
func (e *env) waitForDelivery(name string) {
	e.t.Helper()
	e.waitFor("the delivery of account "+name, func() error {
		if e.read("jwt/" + name)["delivered"] != true {
			return errors.New("not delivered")
		}
		return nil
	})
}

// role creates a role of the account "orders" whose tokens are for the audience
// "vault" and whose alias is the subject, unless the fields say otherwise; a nil
// leaves one out.
func (e *env) role(name string, data fields) *api.Secret {
	e.t.Helper()
	return e.write("role/"+name, roleFields(data))
}

func roleFields(data fields) fields {
	all := fields{"account": "orders", "bound_audiences": "vault", "user_claim": "sub"}
	maps.Copy(all, data)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

// token mints a token that role accepts: for the audience "vault" and the subject
// "workload", unless the claims say otherwise.
func (e *env) token(claims fields) string {
	e.t.Helper()
	return e.tokenWith(jose.ES256, claims)
}

// tokenWith is token with a chosen algorithm: RS256, ES256 or EdDSA.
func (e *env) tokenWith(alg jose.SignatureAlgorithm, claims fields) string {
	e.t.Helper()
	all := fields{"aud": "vault", "sub": "workload"}
	maps.Copy(all, claims)
	token, err := e.issuer.Mint(alg, all)
	require.NoError(e.t, err)
	return token
}

// login is the answer to a login.
type login struct {
	*api.Secret
	JWT    string // the NATS user JWT
	Creds  string // the creds file; empty when the workload brought its key
	client *api.Client
}

// tryLogin logs in as a workload does: without a token of Vault's.
func (e *env) tryLogin(role, jwt string, more fields) (*login, error) {
	e.t.Helper()
	client, err := e.vault.Client()
	require.NoError(e.t, err)
	client.ClearToken()
	data := fields{"role": role, "jwt": jwt}
	maps.Copy(data, more)
	secret, err := client.Logical().WriteWithContext(e.ctx(), e.path("login"), data)
	if err != nil {
		return nil, err
	}
	answer := &login{Secret: secret, client: client}
	answer.JWT, _ = secret.Data["jwt"].(string)
	answer.Creds, _ = secret.Data["creds"].(string)
	if secret.Auth != nil {
		client.SetToken(secret.Auth.ClientToken)
	}
	return answer, nil
}

// login logs in; its client holds the token that it got.
func (e *env) login(role, jwt string) *login {
	e.t.Helper()
	answer, err := e.tryLogin(role, jwt, nil)
	require.NoError(e.t, err)
	require.NotNil(e.t, answer.Auth)
	return answer
}

// loginRefused logs in with what must be answered with status 400 and these texts.
func (e *env) loginRefused(role, jwt string, texts ...string) {
	e.t.Helper()
	_, err := e.tryLogin(role, jwt, nil)
	e.isStatus(err, http.StatusBadRequest, texts...)
}

// cli runs Vault's CLI with the root token, and returns what it printed.
func (e *env) cli(args ...string) string {
	e.t.Helper()
	out, err := e.vault.CLI(e.ctx(), args...)
	require.NoError(e.t, err)
	return out
}
