//go:build openbao

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// What only OpenBao has, for make test-openbao.

// The configuration of docs/openbao.md has a new server come up with the plugin, a mount,
// an account and a role, before anybody has a token.
func TestOpenBaoComesUpAsItsGuideDeclares(t *testing.T) {
	t.Parallel()
	issuer, err := stack.StartIssuer(nil, "ES256")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, issuer.Close()) })
	dir := t.TempDir()
	program, err := os.ReadFile(shared.plugin(t))
	require.NoError(t, err)
	plugins := filepath.Join(dir, "plugins")
	require.NoError(t, os.Mkdir(plugins, 0o700))
	installed := filepath.Join(plugins, stack.PluginName)
	require.NoError(t, os.WriteFile(installed, program, 0o700))
	sum, err := stack.SHA256(installed)
	require.NoError(t, err)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	keyFile := filepath.Join(dir, "unseal.key")
	require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	port, err := stack.FreePort()
	require.NoError(t, err)

	e := &env{t: t, mount: "nats", issuer: issuer}
	declared := e.guide("openbao.md", map[string]string{
		"/openbao/plugins": plugins, "file:///openbao/unseal.key": "file://" + keyFile,
		"v0.1.0": pluginVersion, "<sha256sum of the program>": sum, "https://gitlab.example.com": issuer.URL,
	}).blocks("hcl")
	require.Len(t, declared, 1)
	config := filepath.Join(dir, "bao.hcl")
	require.NoError(t, os.WriteFile(config, fmt.Appendf([]byte(declared[0]), `
storage "file" {
  path = %q
}
listener "tcp" {
  address     = "127.0.0.1:%d"
  tls_disable = true
}
`, filepath.Join(dir, "data"), port), 0o600))
	bao, err := stack.VaultTool.Path(e.ctx())
	require.NoError(t, err)
	var log strings.Builder
	server := exec.CommandContext(t.Context(), bao, "server", "-config="+config)
	server.Env = []string{"HOME=" + dir, "TMPDIR=" + dir}
	server.Stdout, server.Stderr = &log, &log
	server.Cancel = func() error { return server.Process.Signal(os.Interrupt) }
	server.WaitDelay = patience
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Wait() // it was told to end
		if t.Failed() {
			t.Log(log.String())
		}
	})
	client, err := api.NewClient(api.DefaultConfig())
	require.NoError(t, err)
	require.NoError(t, client.SetAddress(fmt.Sprintf("http://127.0.0.1:%d", port)))
	client.ClearToken()
	client.SetMaxRetries(0)

	token, err := issuer.Mint("ES256", fields{"aud": "vault", "sub": "job", "project_path": "acme/web"})
	require.NoError(t, err)
	var login *api.Secret
	e.waitFor("a login at the new server", func() error {
		login, err = client.Logical().WriteWithContext(e.ctx(), "auth/nats/login", fields{"role": "dev", "jwt": token})
		return err
	})
	require.Equal(t, "orders", login.Data["account"])
	require.Equal(t, []string{"orders.acme/web.>"}, []string(e.user(login.Data["jwt"].(string)).Pub.Allow))
}

// OpenBao's listener takes a thousand strings in a request's JSON.
func TestALargeAccountPassesAsText(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	var subjects []string
	for i := range 1500 {
		subjects = append(subjects, fmt.Sprintf("orders.%d", i))
	}
	config := fields{"default_permissions": fields{"pub": fields{"allow": subjects}}}
	e.refused("jwt/large", fields{"type": "account", "config": config}, "maximum number of strings")
	text, err := json.Marshal(config)
	require.NoError(t, err)
	e.write("jwt/large", fields{"type": "account", "config": string(text)})
	require.Len(t, e.accountJWT("large").DefaultPermissions.Pub.Allow, len(subjects))
}

// A request can bring its login along; at a standby both are the leader's.
func TestALoginThatComesWithARequestPassesAtAStandby(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	for _, tokenType := range []string{"service", "batch"} {
		p.leader.role(tokenType, fields{
			"token_type": tokenType, "user_template": devTemplate,
			"token_policies": p.leader.policy("reader", map[string]string{"role/*": `"read"`}),
		})
		p.standby.waitFor("the role to be read", func() error {
			request, err := http.NewRequestWithContext(p.standby.ctx(), http.MethodGet, p.standby.vault.Addr+"/v1/"+p.standby.path("role/"+tokenType), nil)
			require.NoError(t, err)
			request.Header.Set("X-Vault-Inline-Auth-Path", p.standby.path("login"))
			for name, value := range map[string]string{"role": tokenType, "jwt": p.leader.token(fields{"project": "shop"})} {
				parameter, err := json.Marshal(map[string]string{"key": name, "value": value})
				require.NoError(t, err)
				request.Header.Set("X-Vault-Inline-Auth-Parameter-"+name, base64.RawURLEncoding.EncodeToString(parameter))
			}
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return errors.New(response.Status)
			}
			return nil
		})
	}
}
