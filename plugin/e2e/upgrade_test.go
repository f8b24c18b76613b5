package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// formerVersion is the version that is upgraded to pluginVersion, as docs/upgrade.md has it.
const formerVersion = "v0.1.0"

// versions returns the folders in which the former and the later version are in bin/, as
// make build leaves them there.
func (s *sharedParts) versions(t *testing.T) (former, later string) {
	t.Helper()
	program := s.plugin(t)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	former, later = filepath.Join(s.dir, "former"), filepath.Join(s.dir, "later")
	if _, err := os.Stat(later); err == nil {
		return former, later
	}
	root, err := stack.Root()
	require.NoError(t, err)
	cmd := exec.CommandContext(buildContext(t), "make", "build", "VERSION="+formerVersion, "BIN="+filepath.Join(former, "bin"))
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))

	require.NoError(t, os.MkdirAll(filepath.Join(later, "bin"), 0o700))
	for _, name := range []string{stack.PluginName, stack.PluginName + "-" + pluginVersion} {
		require.NoError(t, os.Symlink(program, filepath.Join(later, "bin", name)))
	}
	return former, later
}

// commands are the blocks of commands of the README, which are indented.
func (g guide) commands() []string {
	return regexp.MustCompile(`(?m)(?:^    .*\n)+`).FindAllString(string(g), -1)
}

// installed says that the mount is on a Vault with the former version, put there by the
// README's commands.
func installed(vault *stack.Vault) option {
	return func(o *options) {
		o.vault = vault
		o.enable = func(e *env) {
			former, _ := shared.versions(e.t)
			page := e.guide("../README.md", map[string]string{
				"make build": ":", "/etc/vault/plugins": vault.PluginDir, "-path=nats ": "-path=" + e.mount + " ",
			})
			var install strings.Builder
			for _, block := range page.commands() {
				if strings.Contains(block, "-auth-nats-$version") {
					install.WriteString(block)
				}
			}
			require.Contains(e.t, install.String(), "plugin register")
			e.shell(former, install.String())
		}
	}
}

// upgradeGuide is the page on upgrades, for the test's mount.
func (e *env) upgradeGuide() guide {
	return e.guide("upgrade.md", map[string]string{
		"/etc/vault/plugins": e.vault.PluginDir, "$version nats\n": "$version " + e.mount + "\n", formerVersion + " nats\n": formerVersion + " " + e.mount + "\n",
	})
}

// upgrade runs the guide's commands to upgrade the mount to the later version.
func (e *env) upgrade() {
	e.t.Helper()
	_, later := shared.versions(e.t)
	e.runSection(e.upgradeGuide(), later, "Upgrade")
	e.runs(pluginVersion)
}

// goBack runs the guide's commands to go back to the former version.
func (e *env) goBack() {
	e.t.Helper()
	e.shell("", e.upgradeGuide().section(e.t, "Go back").blocks("sh")[0])
	e.runs(formerVersion)
}

// reloadAs has this mount and no other run another version.
func (e *env) reloadAs(version string) {
	e.t.Helper()
	e.cli("auth", "tune", "-plugin-version="+version, e.mount)
	e.shell("", e.upgradeGuide().section(e.t, "Upgrade").blocks("sh")[2])
	e.runs(version)
}

// runs checks the version that the mount runs.
func (e *env) runs(version string) {
	e.t.Helper()
	mounts, err := e.client.Sys().ListAuthWithContext(e.ctx())
	require.NoError(e.t, err)
	require.Equal(e.t, version, mounts[e.mount+"/"].RunningVersion)
}

// A crowd logs in all the time.
type crowd struct {
	stop    chan struct{}
	workers sync.WaitGroup

	mutex    sync.Mutex
	logins   int
	failures []error
	longest  time.Duration
}

// crowd starts clients that log in all the time. One that is told to ask again does so
// as Vault's clients do when nothing else is set; others take each failure as it is.
func (e *env) crowd(size int, askAgain bool) *crowd {
	e.t.Helper()
	c := &crowd{stop: make(chan struct{})}
	token := e.token(fields{"project": "shop"})
	for range size {
		client, err := e.vault.Client()
		require.NoError(e.t, err)
		client.ClearToken()
		if askAgain {
			client.SetMaxRetries(api.DefaultConfig().MaxRetries)
		}
		c.workers.Go(func() {
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-c.stop:
					return
				case <-pace.C:
				}
				c.login(e.t.Context(), client, e.path("login"), token)
			}
		})
	}
	e.t.Cleanup(func() { c.ends() })
	return c
}

func (c *crowd) login(ctx context.Context, client *api.Client, path, token string) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	secret, err := client.Logical().WriteWithContext(ctx, path, fields{"role": "dev", "jwt": token})
	if err == nil && (secret.Auth == nil || secret.Data["creds"] == nil) {
		err = errors.New("an answer without token or creds")
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.logins++
	c.longest = max(c.longest, time.Since(began))
	if err != nil {
		c.failures = append(c.failures, err)
	}
}

// ends has the crowd log in no more.
func (c *crowd) ends() *crowd {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.workers.Wait()
	return c
}

// succeeds ends the crowd, none of whose logins must have failed.
func (c *crowd) succeeds(t *testing.T) {
	t.Helper()
	c.ends()
	t.Logf("%d logins, the longest took %s", c.logins, c.longest.Round(time.Millisecond))
	require.Empty(t, c.failures)
	require.Positive(t, c.logins)
}

// A tenant is what a mount has before an upgrade, and has to have after it.
type tenant struct {
	*env
	account, user any // public keys
	workload      *workload
	runner        *login
	lease         *lease
}

func (e *env) tenant() *tenant {
	e.t.Helper()
	e.account("orders", nil)
	e.role("dev", fields{"user_template": devTemplate})
	x := &tenant{env: e, runner: e.runner(nil)}
	x.workload = e.connect(e.login("dev", e.token(fields{"project": "shop"})).Creds)
	x.lease = e.creds(x.runner.client, "runner", fields{"jwt": e.token(fields{"project": "shop"})})
	e.write("jwt/alice", fields{"type": "user", "account": "orders"})
	x.account, x.user = e.read("jwt/orders")["public_key"], e.read("jwt/alice")["public_key"]
	return x
}

// goesOn checks that all there was is there, and that the mount delivers to NATS.
func (x *tenant) goesOn() {
	x.t.Helper()
	require.Equal(x.t, x.account, x.read("jwt/orders")["public_key"])
	require.Equal(x.t, x.user, x.read("jwt/alice")["public_key"])
	x.workload.publishes("orders.shop.new")
	x.connect(x.lease.Creds).publishes("orders.shop.new")
	x.connect(x.login("dev", x.token(fields{"project": "shop"})).Creds).publishes("orders.shop.new")
	_, err := x.runner.client.Sys().RenewWithContext(x.ctx(), x.lease.LeaseID, 0)
	require.NoError(x.t, err)
	x.delivers()
}

// delivers makes one more account, which has to reach NATS.
func (x *tenant) delivers() {
	x.t.Helper()
	x.env.account(fmt.Sprintf("later-%d", len(x.list("jwt"))), nil)
}

// Up, back and up again, by the guide's commands and under load.
func TestAnUpgradeAndTheWayBackFailNoLogin(t *testing.T) {
	t.Parallel()
	e := start(t, installed(emptyVault(t, stack.VaultConfig{Storage: "raft"})))
	e.runs(formerVersion)
	x := e.tenant()
	crowd := e.crowd(6, false)
	e.upgrade()
	x.goesOn()
	e.goBack()
	x.goesOn()
	e.upgrade()
	crowd.succeeds(t)
	x.goesOn()

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

// Mounts of one version share a process, which the reload of the first ends for all of
// them. Who asks again, as Vault's clients do, notices nothing.
func TestMountsThatShareAProcessAreUpgradedOneByOne(t *testing.T) {
	t.Parallel()
	vault := emptyVault(t, stack.VaultConfig{Storage: "raft"})
	e := start(t, installed(vault), withoutNATS)
	other := start(t, onVault(vault), withoutNATS)
	for _, mount := range []*env{e, other} {
		mount.account("orders", nil)
		mount.role("dev", fields{"user_template": devTemplate})
	}
	crowds := []*crowd{e.crowd(3, true), other.crowd(3, true)}
	e.upgrade()
	other.runs(formerVersion)
	other.reloadAs(pluginVersion)
	other.reloadAs(formerVersion)
	e.runs(pluginVersion)
	e.goBack()
	for _, crowd := range crowds {
		crowd.succeeds(t)
	}
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
