package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A mount is moved by the guide's commands, and a server that fetches accounts from it
// follows.
func TestAMountThatIsMovedHasAllButItsTokensAndLeases(t *testing.T) {
	t.Parallel()
	e := start(t, withoutNATS)
	formerText := e.serverConfigFor("url")
	require.NoError(t, e.nats.Start(e.ctx(), formerText))
	x := e.tenant()
	leased := e.connect(x.lease.Creds)
	job := e.token(fields{"project": "shop"})

	dir := t.TempDir()
	moved := e.mountedAt("workloads-" + e.mount)
	blocks := e.guide("upgrade.md", map[string]string{
		"auth/workloads": "auth/" + moved.mount, "https://vault.example.com:8200": e.vault.Addr,
		"nats-server --signal reload": ":", // as that finds all servers of the machine
	}).section(t, "Move a mount").blocks("sh")
	require.Len(t, blocks, 2)
	e.shell(dir, blocks[0])
	former := e.mount
	e.mount = moved.mount // what is disabled in the end

	e.isCutOff(leased)
	x.workload.publishes("orders.shop.new")
	_, err := x.runner.client.Auth().Token().LookupSelfWithContext(e.ctx())
	e.isStatus(err, http.StatusForbidden)
	_, err = e.mountedAt(former).tryLogin("dev", job, nil)
	e.isStatus(err, http.StatusForbidden)
	require.Equal(t, x.account, moved.read("jwt/orders")["public_key"])
	require.Equal(t, x.user, moved.read("jwt/alice")["public_key"])
	e.connect(moved.login("dev", job).Creds).publishes("orders.shop.new")

	// The server does not know where to fetch an account that it has not used yet.
	moved.write("jwt/billing", fields{"type": "account"})
	moved.role("billing", fields{"account": "billing", "user_template": devTemplate})
	billing := moved.login("billing", job).Creds
	e.connectRefused(billing)
	require.Error(t, e.newNATS().Start(e.ctx(), formerText))
	e.shell(dir, blocks[1])
	config, err := os.ReadFile(filepath.Join(dir, "nats-server.conf"))
	require.NoError(t, err)
	require.NoError(t, e.nats.Reload(string(config)))
	e.waitFor("the server to fetch from the new path", func() error {
		_, err := e.tryConnect(billing)
		return err
	})
	x.workload.publishes("orders.shop.new")
	require.NoError(t, e.nats.Restart(e.ctx()))
	e.connect(billing).publishes("orders.shop.new")
}
