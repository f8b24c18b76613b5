package stack

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testContext bounds a test, but for the time that it takes to build its servers.
func testContext(t *testing.T, tools ...Tool) context.Context {
	t.Helper()
	for _, tool := range tools {
		_, err := tool.Path(t.Context())
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestVaultRunsInDevMode(t *testing.T) {
	ctx := testContext(t, VaultTool)
	vault, err := StartVault(ctx, VaultConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vault.Close()) })

	out, err := vault.CLI(ctx, "read", "-field=policies", "auth/token/lookup-self")
	require.NoError(t, err)
	require.Contains(t, out, "root")
	require.NoFileExists(t, vault.Dir+"/.vault-token")
}

func TestVaultWithStorageKeepsWhatItHoldsOverSealKillAndRestart(t *testing.T) {
	ctx := testContext(t, VaultTool)
	vault, err := StartVault(ctx, VaultConfig{Storage: "raft"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vault.Close()) })
	client, err := vault.Client()
	require.NoError(t, err)

	audit, err := vault.Audit(ctx)
	require.NoError(t, err)
	require.NoError(t, client.Sys().PutPolicyWithContext(ctx, "kept", `path "x" { capabilities = ["read"] }`))
	require.FileExists(t, audit)

	for _, interruption := range []func(){
		func() { require.NoError(t, vault.Seal(ctx)); require.NoError(t, vault.Unseal(ctx)) },
		func() { vault.Stop(); require.NoError(t, vault.Start(ctx)) },
		func() { vault.Kill(); require.NoError(t, vault.Start(ctx)) },
	} {
		interruption()
		policy, err := client.Sys().GetPolicyWithContext(ctx, "kept")
		require.NoError(t, err)
		require.Contains(t, policy, "capabilities")
	}
}

func TestAStandbyJoinsAndTakesOver(t *testing.T) {
	ctx := testContext(t, VaultTool)
	leader, err := StartVault(ctx, VaultConfig{Storage: "raft"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, leader.Close()) })
	standby, err := leader.AddStandby(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Close()) })
	require.NoError(t, leader.StepDown(ctx))
	client, err := standby.Client()
	require.NoError(t, err)
	require.NoError(t, WaitFor(ctx, "the standby to take over", func() error {
		health, err := client.Sys().HealthWithContext(ctx)
		if err == nil && health.Standby {
			err = errors.New("still a standby")
		}
		return err
	}))
}

func TestNATSServersFormAClusterAndRestartOnTheirPorts(t *testing.T) {
	ctx := testContext(t, NATSTool)
	cluster, err := NewNATSCluster(3)
	require.NoError(t, err)
	for _, server := range cluster {
		t.Cleanup(func() { require.NoError(t, server.Close()) })
		require.NoError(t, server.Start(ctx, "debug: true"))
	}
	for _, server := range cluster {
		require.NoError(t, server.WaitForCluster(ctx))
	}
	cluster[1].Kill()
	require.NoError(t, cluster[1].Wipe())
	require.NoError(t, cluster[1].Restart(ctx))
	require.NoError(t, cluster[1].WaitForCluster(ctx))
}

func TestAServerThatRefusesItsConfigurationSaysWhy(t *testing.T) {
	server, err := NewNATS()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	err = server.Start(testContext(t, NATSTool), "no_such_option: 1")
	require.ErrorContains(t, err, "it ended: exit status 1")
	require.ErrorContains(t, err, "no_such_option")
}
