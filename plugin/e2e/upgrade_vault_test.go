//go:build !openbao

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// OpenBao has no pinned versions, and its standbys run the plugin: see openbao_test.go.

func TestAPinnedVersionHoldsForAllMounts(t *testing.T) {
	t.Parallel()
	e := start(t, installed(emptyVault(t, stack.VaultConfig{})), withoutNATS)
	e.upgrade()
	pin := e.upgradeGuide().section(t, "A pinned version").blocks("sh")
	require.Len(t, pin, 1)
	e.shell("", "version="+formerVersion+"\n"+pin[0])
	e.runs(formerVersion)
	_, err := e.vault.CLI(e.ctx(), "auth", "tune", "-plugin-version="+pluginVersion, e.mount)
	require.ErrorContains(t, err, "pinned version "+formerVersion+" is in effect")
}

// A cluster is upgraded by the guide's commands at any of its nodes, as all have the
// file. The node that takes over starts what the mount has.
func TestAClusterIsUpgradedAtAnyOfItsNodes(t *testing.T) {
	t.Parallel()
	e := start(t, installed(emptyVault(t, stack.VaultConfig{Storage: "raft"})))
	x := e.tenant()
	p := e.withStandby()
	crowds := []*crowd{e.crowd(3, false), p.standby.crowd(3, false)}
	p.standby.upgrade()
	e.runs(pluginVersion)
	x.goesOn()
	for _, crowd := range crowds {
		crowd.succeeds(t)
	}

	// Without the file, the node that takes over serves all but the mount.
	program := filepath.Join(e.vault.PluginDir, stack.PluginName+"-"+pluginVersion)
	require.NoError(t, os.Rename(program, program+".away"))
	p.takeOver()
	token := e.token(fields{"project": "shop"})
	_, err := p.standby.tryLogin("dev", token, nil)
	e.isStatus(err, http.StatusForbidden)
	require.NoError(t, os.Rename(program+".away", program))
	p = pair{leader: p.standby, standby: p.leader}
	p.takeOver()
	x.goesOn()
	e.goBack()
	x.goesOn()
}
