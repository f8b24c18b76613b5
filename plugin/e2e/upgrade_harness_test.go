package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

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
		"/etc/vault/plugins": e.vault.PluginDir, "$version nats\n": "$version " + e.mount + "\n", "v0.1.0 nats\n": "v0.1.0 " + e.mount + "\n",
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
			pace := time.NewTicker(25 * time.Millisecond)
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
