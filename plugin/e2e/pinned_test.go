//go:build !openbao

package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// OpenBao has no pinned versions.
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
