package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVaultShowsTheVersionThatWasBuilt(t *testing.T) {
	t.Parallel()
	e := start(t, unconfigured)
	mounts, err := e.client.Sys().ListAuthWithContext(e.ctx())
	require.NoError(t, err)
	require.Equal(t, pluginVersion, mounts[e.mount+"/"].RunningVersion)
}

// Mounts of one Vault share a process and nothing else.
func TestMountsHaveOperatorsOfTheirOwn(t *testing.T) {
	t.Parallel()
	one, other := start(t, withoutNATS), start(t, withoutNATS)
	require.NotEqual(t, one.serverConfig(), other.serverConfig())
	one.account("orders", nil)
	require.Contains(t, one.list("jwt"), "orders")
	require.NotContains(t, other.list("jwt"), "orders")
}
