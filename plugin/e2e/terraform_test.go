package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// terraform applies configurations one after the other with Vault's provider, and returns what it said. Each
// has to leave an empty plan behind.
func (e *env) terraform(configurations ...string) (string, error) {
	e.t.Helper()
	program, err := stack.TerraformTool.Path(buildContext(e.t))
	require.NoError(e.t, err)
	dir := e.t.TempDir()
	cmd := exec.CommandContext(e.ctx(), program)
	cmd.Dir = dir
	cmd.Env = e.environment()
	for i, text := range configurations {
		file := filepath.Join(dir, string(rune('a'+i))+".tf")
		require.NoError(e.t, os.WriteFile(file, []byte(text), 0o600))
		cmd.Args = append(cmd.Args, file)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The configuration of docs/terraform.md, and a change of it, applied by the real provider: what is read back
// is what was written.
func TestThePlanAfterAnApplyIsEmpty(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	key, err := json.Marshal(strings.TrimSpace(e.publicKeys()[0]))
	require.NoError(t, err)
	page := e.guide("terraform.md", map[string]string{
		// Quotes were needed by the Terraform that the provider brings along.
		"[vault_generic_endpoint.config]": `["vault_generic_endpoint.config"]`, "[vault_generic_endpoint.orders]": `["vault_generic_endpoint.orders"]`,
		"https://gitlab.example.com": e.issuer.URL, "nats://nats.example.com:4222": e.nats.URL,
		`"-----BEGIN PUBLIC KEY-----\n...\n-----END PUBLIC KEY-----"`: string(key),
	})
	blocks := page.blocks("hcl")
	require.Len(t, blocks, 1)
	changed := strings.NewReplacer(`"conn": 100`, `"conn": 200`, `"token_ttl": 900`, `"token_ttl": 600`, "acme/*", "acme/web").Replace(blocks[0])
	out, err := e.terraform(blocks[0], changed)
	require.NoError(t, err, out)
	e.absent("role/dev") // it is destroyed at the end
	require.Equal(t, e.issuer.URL, e.read("config")["oidc_discovery_url"])
}
