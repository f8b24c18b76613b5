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
	"regexp"
	"strings"
	"syscall"
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
	plugins := filepath.Join(dir, "plugins")
	require.NoError(t, os.Mkdir(plugins, 0o700))
	former, later := shared.versions(t)
	sums := map[string]string{} // by version
	for version, folder := range map[string]string{formerVersion: former, pluginVersion: later} {
		program, err := os.ReadFile(filepath.Join(folder, "bin", stack.PluginName))
		require.NoError(t, err)
		installed := filepath.Join(plugins, stack.PluginName+"-"+version)
		require.NoError(t, os.WriteFile(installed, program, 0o700))
		sums[version], err = stack.SHA256(installed)
		require.NoError(t, err)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	keyFile := filepath.Join(dir, "unseal.key")
	require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	port, err := stack.FreePort()
	require.NoError(t, err)

	e := &env{t: t, mount: "nats", issuer: issuer}
	declared := e.guide("openbao.md", map[string]string{
		"/openbao/plugins": plugins, "file:///openbao/unseal.key": "file://" + keyFile,
		"<sha256sum of the program>": sums[formerVersion], "https://gitlab.example.com": issuer.URL,
		"v0.2.0": pluginVersion, "<sha256sum of the new program>": sums[pluginVersion],
	}).blocks("hcl")
	require.Len(t, declared, 2)
	config := filepath.Join(dir, "bao.hcl")
	declare := func(plugins string) {
		require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `%s
storage "file" {
  path = %q
}
listener "tcp" {
  address     = "127.0.0.1:%d"
  tls_disable = true
}
`, plugins, filepath.Join(dir, "data"), port), 0o600))
	}
	declare(declared[0] + adminToo)
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

	// An upgrade: the later version is declared too, and then no other.
	admin, err := client.Logical().WriteWithContext(e.ctx(), "auth/nats/login", fields{"role": "admin", "jwt": token})
	require.NoError(t, err)
	client.SetToken(admin.Auth.ClientToken)
	registered := func(what string, want bool, version string) {
		require.NoError(t, server.Process.Signal(syscall.SIGHUP))
		e.waitFor(what, func() error {
			_, err := client.Sys().GetPluginWithContext(e.ctx(), &api.GetPluginInput{Name: stack.PluginName, Type: api.PluginTypeCredential, Version: version})
			var response *api.ResponseError
			if notFound := errors.As(err, &response) && response.StatusCode == http.StatusNotFound; err != nil && !notFound {
				return err
			}
			if (err == nil) != want {
				return errors.New("not yet")
			}
			return nil
		})
	}
	declare(declared[0] + declared[1] + adminToo)
	registered("the later version to be in the catalog", true, pluginVersion)
	e.client = client
	e.runs(formerVersion)
	_, err = client.Logical().WriteWithContext(e.ctx(), "sys/mounts/auth/nats/tune", fields{"plugin_version": pluginVersion})
	require.NoError(t, err)
	_, err = client.Sys().ReloadPluginWithContext(e.ctx(), &api.ReloadPluginInput{Plugin: stack.PluginName})
	require.NoError(t, err)
	e.runs(pluginVersion)
	block := regexp.MustCompile(`(?s)plugin "auth".*?\n}\n`)
	declare(block.ReplaceAllLiteralString(declared[0], declared[1]) + adminToo)
	registered("the former version to be out of the catalog", false, formerVersion)
	_, err = client.Logical().WriteWithContext(e.ctx(), "auth/nats/login", fields{"role": "dev", "jwt": token})
	require.NoError(t, err)
}

// adminToo gives the test a way in.
const adminToo = `
initialize "admin" {
  request "policy" {
    operation = "update"
    path      = "sys/policies/acl/admin"
    data = {
      policy = "path \"*\" { capabilities = [\"read\", \"update\", \"list\", \"sudo\"] }"
    }
  }
  request "role" {
    operation = "update"
    path      = "auth/nats/role/admin"
    data = {
      account         = "orders"
      bound_audiences = "vault"
      user_claim      = "sub"
      token_policies  = "admin"
    }
  }
}
`

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

// The commands of the guide upgrade the leader. A standby, which runs the plugin too, has
// the new version when it was restarted.
func TestAClusterIsUpgradedAtItsLeader(t *testing.T) {
	t.Parallel()
	e := start(t, installed(emptyVault(t, stack.VaultConfig{Storage: "raft"})))
	x := e.tenant()
	p := e.withStandby()
	crowds := []*crowd{e.crowd(3, false), p.standby.crowd(3, false)}
	e.upgrade()
	x.goesOn()
	for _, crowd := range crowds {
		crowd.succeeds(t)
	}
	p.standby.runs(formerVersion)
	p = p.restartStandby()
	for _, node := range []*env{p.leader, p.standby} {
		node.runs(pluginVersion)
		node.login("dev", e.token(fields{"project": "shop"}))
	}

	// It is the same with a move.
	moved := "workloads-" + e.mount
	p.leader.cli("auth", "move", e.path(""), "auth/"+moved+"/")
	p = p.restartStandby()
	for _, node := range []*env{p.leader, p.standby} {
		require.Equal(t, x.account, node.mountedAt(moved).read("jwt/orders")["public_key"])
	}
}

// restartStandby restarts the standby of two nodes, of which each needs the other to lead,
// and returns them as they are then.
func (p pair) restartStandby() pair {
	p.standby.t.Helper()
	p.standby.vault.Stop()
	require.NoError(p.standby.t, p.standby.vault.Start(p.standby.ctx()))
	p.standby.waitFor("one of the nodes to lead", func() error {
		for _, node := range []*env{p.leader, p.standby} {
			health, err := node.client.Sys().HealthWithContext(node.ctx())
			if err != nil {
				return err
			}
			if !health.Standby && !health.Sealed {
				_, err := node.client.Logical().WriteWithContext(node.ctx(), "cubbyhole/ready", fields{"ready": true})
				if node == p.standby {
					p = pair{leader: p.standby, standby: p.leader}
				}
				return err
			}
		}
		return errors.New("none leads")
	})
	p.standby.waitFor("the standby to answer", func() error {
		_, err := p.standby.client.Sys().ListAuthWithContext(p.standby.ctx())
		return err
	})
	return p
}
