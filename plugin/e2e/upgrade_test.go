package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// The phases of an upgrade's writes.
var (
	made      = func(k kept) fields { return k.made }
	changed   = func(k kept) fields { return k.changed }
	rewritten = func(k kept) fields { return k.rewritten }
)

// Up, back and up again, by the guide's commands and under load, with all that a mount
// can have. When the later version has another format, the way back ends as
// TestAFormerVersionLeavesAloneWhatANewerOneHasStored has it.
func TestAnUpgradeAndTheWayBackFailNoLoginAndLoseNothing(t *testing.T) {
	t.Parallel()
	e := start(t, installed(emptyVault(t, stack.VaultConfig{Storage: "raft"})))
	e.runs(formerVersion)
	x := e.tenant()
	writes := e.ownWrites(x.account)
	e.do(writes, made)
	newCallouts(e).answers(responder.Login{})
	x.usesEverything()
	byFormer := e.remembers(writes)
	crowd := e.crowd(6, false)

	e.upgrade()
	e.remembers(writes).holds(t, byFormer)
	x.usesEverything()
	e.do(writes, changed)
	x.usesEverything()
	byLater := e.remembers(writes)

	e.goBack()
	back := e.remembers(writes)
	require.Subset(t, slices.Collect(maps.Keys(back)), slices.Collect(maps.Keys(byFormer)))
	back.holds(t, byLater.common(back))
	x.usesEverything()
	e.do(writes, rewritten)
	x.usesEverything()
	byFormer = e.remembers(writes)

	e.upgrade()
	again := e.remembers(writes)
	again.holds(t, byFormer)
	again.holds(t, byLater.beyond(back)) // the former version kept what it knows nothing of
	x.usesEverything()
	crowd.succeeds(t)

	// What was issued before is revoked by the version that runs now.
	leased := e.connect(x.lease.Creds)
	e.cli("lease", "revoke", x.lease.LeaseID)
	e.isCutOff(leased)
	x.workload.publishes("orders.shop.new")

	// Nothing needs the former version any more.
	e.shell("", e.upgradeGuide().section(t, "Go back").blocks("sh")[1])
	require.NotContains(t, e.cli("plugin", "list", "-detailed", "auth"), formerVersion)
	e.vault.Stop()
	require.NoError(t, e.vault.Start(e.ctx()))
	e.runs(pluginVersion)
	e.login("dev", e.token(fields{"project": "shop"}))
	x.delivers()
}

// usesEverything does what the tenant's mount is for, by each way that there is.
func (x *tenant) usesEverything() {
	x.t.Helper()
	x.goesOn()
	job := fields{"project": "shop", "groups": []string{"engineers"}, "who": fields{"name": "shop"}}
	for _, role := range []string{"full", "discovered", "sets", "combined", "scoped", "system"} {
		require.NotEmpty(x.t, x.login(role, x.token(job)).Creds, role)
	}
	require.Equal(x.t, "hosted", x.login("hosted", x.token(job)).Data["account"])
	key, _ := ownKey(x.t)
	token := x.token(job)
	_, err := x.tryLogin("set", token, x.proven(key, proof.Claim{Purpose: proof.Login, Role: "set", Token: token}))
	require.NoError(x.t, err)
	x.connect(x.creds(x.runner.client, "ops", nil).Creds)

	sentinel := x.read("callout/edge")["sentinel"].(string)
	bearer := nats.UserJWT(func() (string, error) { return sentinel, nil }, func([]byte) ([]byte, error) { return nil, nil })
	x.waitFor("the callout", func() error { // the servers may not have its account yet
		conn, err := x.dial(bearer, nats.UserInfo("dev", x.token(job)))
		if err != nil {
			return err
		}
		return conn.tryPublish("orders.shop.new")
	})
}

// Mounts of one version share a process, which the reload of the first ends for all of
// them. Who asks again, as Vault's clients do, notices nothing. One has what nsc made,
// the other is at someone else's NATS.
func TestMountsThatShareAProcessAreUpgradedOneByOne(t *testing.T) {
	t.Parallel()
	vault := emptyVault(t, stack.VaultConfig{Storage: "raft"})
	e := start(t, installed(vault), unconfigured)
	other := start(t, onVault(vault), unconfigured)
	n := newNscHome(t, e.nats.URL)
	mounts := map[*env][]kept{e: n.importedWrites(e.issuer.URL), other: n.hostedWrites(other.issuer.URL)}
	said := map[*env]remembered{}
	var crowds []*crowd
	for mount, writes := range mounts {
		mount.do(writes, made)
		said[mount] = mount.remembers(writes)
		crowds = append(crowds, mount.crowd(3, true))
	}
	e.upgrade()
	other.runs(formerVersion)
	other.reloadAs(pluginVersion)
	for mount, writes := range mounts {
		mount.remembers(writes).holds(t, said[mount])
		mount.do(writes, changed)
		said[mount] = mount.remembers(writes)
	}
	other.reloadAs(formerVersion)
	e.runs(pluginVersion)
	e.goBack()
	for mount, writes := range mounts {
		now := mount.remembers(writes)
		now.holds(t, said[mount].common(now))
		mount.do(writes, rewritten)
	}
	for _, crowd := range crowds {
		crowd.succeeds(t)
	}
}

// A newer version can store what the former one does not read. That leaves the mount
// alone then, and says which version to go to: by a reload and over a restart.
func TestAFormerVersionLeavesAloneWhatANewerOneHasStored(t *testing.T) {
	t.Parallel()
	e := start(t, installed(emptyVault(t, stack.VaultConfig{Storage: "raft"})), withoutNATS)
	e.account("orders", nil)
	e.role("dev", fields{"user_template": devTemplate})
	next, version := shared.next(t)
	e.runSection(e.upgradeGuide(), next, "Upgrade")
	e.runs(version)
	token := e.token(fields{"project": "shop"})
	e.login("dev", token)
	before := e.read("role/dev")

	isRefused := func() {
		t.Helper()
		reason := fmt.Sprintf("the mount is stored in format %d, which version %s of the plugin reads: this is %s", store.CurrentFormat+1, version, formerVersion)
		_, err := e.tryLogin("dev", token, nil)
		e.isStatus(err, http.StatusInternalServerError, reason)
		_, err = e.try("role/dev", fields{"user_ttl": "1m"})
		e.isStatus(err, http.StatusInternalServerError, reason)
		_, err = e.client.Logical().ReadWithContext(e.ctx(), e.path("config"))
		e.isStatus(err, http.StatusInternalServerError, reason)
	}
	back := e.upgradeGuide().section(t, "Go back").blocks("sh")[0]
	_, err := e.tryShell("", back)
	require.ErrorContains(t, err, "which version "+version+" of the plugin reads")
	isRefused()
	e.vault.Stop()
	require.NoError(t, e.vault.Start(e.ctx()))
	isRefused()

	e.shell("", strings.ReplaceAll(back, formerVersion, version))
	e.runs(version)
	e.login("dev", token)
	require.Equal(t, before, e.read("role/dev"))
	e.account("billing", nil)
}

// replace puts a program in place of another that Vault may be running.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", text, 0o755))
	require.NoError(t, os.Rename(path+".new", path))
}

// A program that is replaced in place is not started any more for the version that the
// mount has. The commands of an upgrade are the way out, before and after a restart.
func TestAProgramThatWasReplacedInPlaceLeavesAWayOut(t *testing.T) {
	t.Parallel()
	former, later := shared.versions(t)
	vault := emptyVault(t, stack.VaultConfig{Storage: "raft"})
	require.NoError(t, vault.Install(t.Context(), filepath.Join(former, "bin", stack.PluginName)))
	e := start(t, onVault(vault), withoutNATS)
	e.account("orders", nil)
	e.role("dev", fields{"user_template": devTemplate})
	e.runs(formerVersion)
	token := e.token(fields{"project": "shop"})

	// The new program under the same name, registered and reloaded.
	text, err := os.ReadFile(filepath.Join(later, "bin", stack.PluginName))
	require.NoError(t, err)
	replace(t, filepath.Join(vault.PluginDir, stack.PluginName), text)
	require.NoError(t, vault.Install(e.ctx(), filepath.Join(vault.PluginDir, stack.PluginName)))
	e.login("dev", token)
	require.ErrorContains(t, vault.ReloadPlugin(e.ctx()), "checksums did not match")
	_, err = e.tryLogin("dev", token, nil)
	e.isStatus(err, http.StatusInternalServerError)
	e.upgrade()
	e.login("dev", token)

	// Another one in place of it, and a restart.
	replace(t, filepath.Join(vault.PluginDir, stack.PluginName+"-"+pluginVersion), append(text, 0))
	e.login("dev", token)
	vault.Stop()
	require.NoError(t, vault.Start(e.ctx()))
	_, err = e.tryLogin("dev", token, nil)
	e.isStatus(err, http.StatusForbidden)
	e.upgrade()
	e.login("dev", token)
	vault.Stop()
	require.NoError(t, vault.Start(e.ctx())) // for Vault to let the mount write
	e.account("billing", nil)
	require.Equal(t, "orders", e.read("role/dev")["account"])
}
