package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// The commands of the README run as they stand, on a Vault that has nothing yet, and end with a message. Of
// nats-server's own only the port is added, which the file has to leave to whoever runs it.
func TestTheReadmeLeadsFromNothingToAMessage(t *testing.T) {
	t.Parallel()
	vault := emptyVault(t, stack.VaultConfig{})
	e := start(t, installed(vault), unconfigured)
	page := e.guide("../README.md", map[string]string{
		"https://gitlab.example.com": e.issuer.URL, "nats://nats.example.com:4222": e.nats.URL,
	})
	nats, err := stack.NATSCLITool.Path(e.ctx())
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(nats, filepath.Join(dir, "nats")))
	variables := "export CI_JOB_JWT=" + e.token(fields{"project_path": "acme/web.shop"}) +
		"\nexport PATH=" + dir + ":$PATH\n"
	told := ""
	for _, block := range page.commands() {
		if strings.Contains(block, "make ") || strings.Contains(block, "$version") {
			continue // the commands of installed
		}
		commands, started := strings.CutSuffix(block, "    nats-server --config nats-server.conf\n")
		told += e.shell(dir, variables+commands)
		if started {
			config, err := os.ReadFile(filepath.Join(dir, "nats-server.conf"))
			require.NoError(t, err)
			require.NoError(t, e.nats.Start(e.ctx(), string(config)))
			require.NoError(t, e.nats.WaitForClient(e.ctx()))
		}
	}
	require.Contains(t, told, "Published 10 bytes")
}
