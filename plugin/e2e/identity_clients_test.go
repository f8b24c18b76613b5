package e2e

import (
	"crypto/hmac"
	"crypto/sha1" // the algorithm of RFC 6238's first choice
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// agent runs Vault Agent until it has logged in with the given method, and returns
// the Vault token in its sink.
func (e *env) agent(method, config string) string {
	e.t.Helper()
	dir := e.t.TempDir()
	sink := filepath.Join(dir, "sink")
	file := filepath.Join(dir, "agent.hcl")
	text := fmt.Sprintf(`
exit_after_auth = true
vault { address = %q }
auto_auth {
  method {
    type       = %q
    mount_path = "auth/%s"
    config     = {
      %s
    }
  }
  sink {
    type   = "file"
    config = { path = %q }
  }
}
`, e.vault.Addr, method, e.mount, config, sink)
	require.NoError(e.t, os.WriteFile(file, []byte(text), 0o600))
	cmd := e.vault.Command(e.ctx(), "agent", "-config="+file)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(variable string) bool {
		return strings.HasPrefix(variable, "VAULT_TOKEN=") // it has nothing but the workload's token
	})
	out, err := cmd.CombinedOutput()
	require.NoError(e.t, err, "%s", out)
	token, err := os.ReadFile(sink)
	require.NoError(e.t, err)
	return string(token)
}

// metadata looks a Vault token up and returns its metadata.
func (e *env) metadata(token string) map[string]string {
	e.t.Helper()
	secret, err := e.client.Auth().Token().LookupWithContext(e.ctx(), token)
	require.NoError(e.t, err)
	metadata, err := secret.TokenMetadata()
	require.NoError(e.t, err)
	return metadata
}

func (e *env) file(text string) string {
	e.t.Helper()
	path := filepath.Join(e.t.TempDir(), "token")
	require.NoError(e.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestVaultAgentLogsInWithItsJWTMethod(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	// With a newline, as files have it.
	token := e.agent("jwt", fmt.Sprintf("role = \"dev\"\n path = %q\n remove_jwt_after_reading = false", e.file(e.token(nil)+"\n")))
	require.Equal(t, "dev", e.metadata(token)["role"])
}

func TestVaultAgentLogsInWithItsKubernetesMethod(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	n := e.namespace(sharedKubernetes(t), nil)
	n.account("api", nil)
	n.issuer(fields{"token_reviewer_jwt": n.reviewer()})
	n.podRole(nil)
	token := e.agent("kubernetes", fmt.Sprintf("role = \"pod\"\n token_path = %q", e.file(n.token("api", "vault", nil))))
	require.Equal(t, "api", e.metadata(token)["service_account_name"])
}

func TestAQuotaCanBeSetByRole(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("limited", nil)
	e.role("free", nil)
	quota := "sys/quotas/rate-limit/" + e.mount
	_, err := e.client.Logical().WriteWithContext(e.ctx(), quota, fields{
		"path": "auth/" + e.mount + "/", "role": "limited", "rate": 2, "interval": "1h",
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := e.client.Logical().Delete(quota)
		require.NoError(t, err)
	})
	e.login("limited", e.token(nil))
	e.login("limited", e.token(nil))
	_, err = e.tryLogin("limited", e.token(nil), nil)
	e.isStatus(err, http.StatusTooManyRequests)
	for range 3 {
		e.login("free", e.token(nil))
	}
}

// secondFactor demands a TOTP code at each login on the mount, and has keys for the
// entities of the given logins. It returns the method's ID and a function that makes
// an entity's code.
func (e *env) secondFactor(logins ...*login) (method string, code func(*login) string) {
	e.t.Helper()
	write := func(path string, data fields) fields {
		e.t.Helper()
		secret, err := e.client.Logical().WriteWithContext(e.ctx(), path, data)
		require.NoError(e.t, err)
		if secret == nil {
			return nil
		}
		return secret.Data
	}
	method = write("identity/mfa/method/totp", fields{"issuer": "Vault", "period": 30, "algorithm": "SHA1", "digits": 6})["method_id"].(string)
	keys := map[*login][]byte{}
	for _, login := range logins {
		key := write("identity/mfa/method/totp/admin-generate", fields{"method_id": method, "entity_id": login.Auth.EntityID})
		parsed, err := url.Parse(key["url"].(string))
		require.NoError(e.t, err)
		keys[login], err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.TrimRight(parsed.Query().Get("secret"), "="))
		require.NoError(e.t, err)
	}
	mounts, err := e.client.Sys().ListAuthWithContext(e.ctx())
	require.NoError(e.t, err)
	enforcement := "identity/mfa/login-enforcement/" + e.mount
	write(enforcement, fields{
		"mfa_method_ids": []string{method}, "auth_method_accessors": []string{mounts[e.mount+"/"].Accessor},
	})
	e.t.Cleanup(func() {
		_, err := e.client.Logical().Delete(enforcement)
		require.NoError(e.t, err)
	})
	return method, func(login *login) string { return totp(keys[login], time.Now()) }
}

// totp is RFC 6238's code of six digits for half a minute.
func totp(key []byte, at time.Time) string {
	mac := hmac.New(sha1.New, key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(at.Unix()/30)))
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[offset:])&0x7fffffff%1_000_000)
}

func TestALoginWithItsSecondFactorInOneRequest(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	e.role("dev", nil)
	known := e.login("dev", e.token(nil))
	method, code := e.secondFactor(known)

	logIn := func(code string) (fields, error) {
		client, err := e.vault.Client()
		require.NoError(t, err)
		client.ClearToken()
		client.SetMFACreds([]string{method + ":" + code})
		secret, err := client.Logical().WriteWithContext(e.ctx(), e.path("login"), fields{"role": "dev", "jwt": e.token(nil)})
		if err != nil {
			return nil, err
		}
		require.NotEmpty(t, secret.Auth.ClientToken)
		require.Equal(t, known.Auth.EntityID, secret.Auth.EntityID)
		return secret.Data, nil
	}
	_, err := logIn("000000")
	e.isStatus(err, http.StatusForbidden)
	data, err := logIn(code(known))
	require.NoError(t, err)
	require.NotEmpty(t, data["creds"])
}

// With the second factor in a request of its own, Vault hands out what a login answers
// before it is given. A role with credentials_on_login=false has nothing to hand out,
// and gives the credentials at creds/:role, to the token that came with both factors.
func TestASecondFactorOfItsOwnRequestGuardsTheCredentials(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	e.account("orders", nil)
	policy := e.mount + "-creds"
	require.NoError(t, e.client.Sys().PutPolicyWithContext(e.ctx(), policy, fmt.Sprintf(`path %q { capabilities = ["read", "update"] }`, e.path("creds/*"))))
	e.role("open", nil)
	e.role("guarded", fields{"credentials_on_login": false, "token_policies": policy})
	known := e.login("guarded", e.token(nil))
	method, code := e.secondFactor(known)

	hazard, err := e.tryLogin("open", e.token(nil), nil)
	require.NoError(t, err)
	require.NotNil(t, hazard.Auth.MFARequirement)
	require.Empty(t, hazard.Auth.ClientToken)
	require.NotEmpty(t, hazard.Creds, "this is the hazard")

	first, err := e.tryLogin("guarded", e.token(nil), nil)
	require.NoError(t, err)
	require.NotNil(t, first.Auth.MFARequirement)
	require.Empty(t, first.Auth.ClientToken)
	require.Empty(t, first.Data)

	validate := func(code string) (*login, error) {
		secret, err := e.client.Sys().MFAValidateWithContext(e.ctx(), first.Auth.MFARequirement.MFARequestID,
			map[string]any{method: []string{code}})
		if err != nil {
			return nil, err
		}
		require.Empty(t, secret.Data)
		return &login{Secret: secret}, nil
	}
	_, err = validate("000000")
	require.Error(t, err)
	second, err := validate(code(known))
	require.NoError(t, err)

	client, err := e.vault.Client()
	require.NoError(t, err)
	client.SetToken(second.Auth.ClientToken)
	creds, err := client.Logical().WriteWithContext(e.ctx(), e.path("creds/guarded"), fields{"jwt": e.token(nil)})
	require.NoError(t, err)
	require.NotEmpty(t, creds.Data["creds"])
}
