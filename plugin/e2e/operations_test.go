package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// section is the part of a page below a heading.
func (g guide) section(t *testing.T, heading string) guide {
	t.Helper()
	return g.below(t, "## ", heading)
}

// subsection is the part of a section below a heading in it.
func (g guide) subsection(t *testing.T, heading string) guide {
	t.Helper()
	return g.below(t, "### ", heading)
}

func (g guide) below(t *testing.T, level, heading string) guide {
	t.Helper()
	_, text, found := strings.Cut(string(g), "\n"+level+heading+"\n")
	require.True(t, found, heading)
	text, _, _ = strings.Cut(text, "\n"+level)
	return guide(text)
}

// runSection runs the commands of a section, and returns what they printed.
func (e *env) runSection(g guide, dir, heading string, variables ...string) string {
	e.t.Helper()
	var commands strings.Builder
	for _, variable := range variables {
		commands.WriteString("export " + variable + "\n")
	}
	blocks := g.section(e.t, heading).blocks("sh")
	require.NotEmpty(e.t, blocks, heading)
	for _, block := range blocks {
		commands.WriteString(block)
	}
	return e.shell(dir, commands.String())
}

// mountedAt is the same env with another mount of its Vault.
func (e *env) mountedAt(mount string) *env {
	other := *e
	other.mount = mount
	return &other
}

// The commands of docs/operations.md run as they stand, and do what it says.
func TestTheOperationsGuideRunsAsItStands(t *testing.T) {
	t.Parallel()
	e := start(t, onVault(ownVault(t, stack.VaultConfig{Storage: "raft"})), unconfigured)
	dir := t.TempDir()
	page := e.guide("operations.md", map[string]string{
		"nats://nats.example.com:4222":       e.nats.URL,
		"https://vault.example.com:8200":     e.vault.Addr,
		"allowed-response-headers=ETag nats": "allowed-response-headers=ETag " + e.mount,
	})

	require.Contains(t, e.runSection(page, dir, "Servers"), "resolver: URL("+e.vault.Addr)
	config, err := os.ReadFile(filepath.Join(dir, "nats-server.conf"))
	require.NoError(t, err)
	require.NoError(t, e.nats.Start(e.ctx(), string(config)))
	require.NoError(t, e.nats.WaitForClient(e.ctx()))

	e.runSection(page, dir, "Accounts")
	limits := e.read("jwt/orders")["config"].(map[string]any)["limits"].(map[string]any)
	require.EqualValues(t, "2000", limits["conn"])
	require.EqualValues(t, "10", limits["streams"], "a patch leaves alone what it does not give")
	e.absent("jwt/scratch")
	e.runSection(page, dir, "Sharing between accounts")
	require.Len(t, e.read("jwt/billing")["config"].(map[string]any)["imports"], 1)
	former := e.read("jwt/orders/keys/default")["public_key"]
	e.runSection(page, dir, "Signing keys")
	require.NotEqual(t, former, e.read("jwt/orders/keys/default")["public_key"])
	next := e.signing("next")
	e.runSection(page, dir, "The operator's key")
	require.Equal(t, next, e.signing("signing"))
	for _, account := range []string{"SYS", "orders", "billing"} {
		e.waitForDelivery(account)
	}
	require.Contains(t, e.runSection(page, dir, "Delivery"), "pruned")
	require.Contains(t, e.runSection(page, dir, "Metrics"), "vault_auth_nats_delivery_connected 1\n")
	e.runSection(page, dir, "Fetching accounts")

	// A snapshot, what came after it, and the servers under what it holds.
	blocks := page.section(t, "Backup and restore").blocks("sh")
	require.Len(t, blocks, 2)
	e.shell(dir, blocks[0])
	before := e.read("jwt/orders")["jwt"]
	e.account("late", nil)
	late := id(e, "late")
	e.writeNow("jwt/orders", fields{"config": fields{"description": "later"}})
	e.shell(dir, blocks[1])
	e.waitFor("the restored mount", func() error {
		account, err := e.client.Logical().ReadWithContext(e.ctx(), e.path("jwt/orders"))
		if err != nil {
			return err
		}
		if account.Data["jwt"] != before {
			return errors.New("the account is the later one")
		}
		return nil
	})
	e.waitFor("the server to have the restored account", func() error {
		if e.files(e.nats)[id(e, "orders")] != before {
			return errors.New("it has another")
		}
		return nil
	})
	require.Equal(t, []any{map[string]any{"account": late, "pruned": false}}, e.write("sync", nil).Data["unknown"])
	require.Contains(t, e.files(e.nats), late)
	e.write("sync", fields{"prune": true})
	require.NotContains(t, e.files(e.nats), late)
	e.movesFromNsc(dir)
}

// movesFromNsc follows the guide's sections on nsc, and on accounts at someone else's
// NATS, for which the nsc operator stands in.
func (e *env) movesFromNsc(dir string) {
	t := e.t
	t.Helper()
	moved := e.mountedAt("moved").at(e.newNATS())
	n := newNscHome(t, moved.nats.URL)
	n.startServer(moved)
	page := moved.guide("operations.md", map[string]string{
		"-path=nats": "-path=" + moved.mount,
		"nsc-import": n.program() + " -stores " + filepath.Join(n.dir, "stores") + " -keystore " + filepath.Join(n.dir, "keys") + " -mount auth/" + moved.mount,
	})
	out := moved.runSection(page, dir, "Coming from nsc")
	require.Contains(t, out, "3 would be imported")
	require.Contains(t, out, "3 imported, 0 left out, 0 failed")
	moved.waitForDelivery("orders")

	hosted := moved.mountedAt("hosted")
	require.NoError(t, e.vault.Enable(e.ctx(), hosted.mount))
	page = hosted.guide("operations.md", map[string]string{"tls://connect.example.com": moved.nats.URL, "https://gitlab.example.com": e.issuer.URL})
	hosted.runSection(page, dir, "Accounts at someone else's NATS",
		"ACCOUNT="+n.orders, "SEED="+n.seeds[n.public(n.plain)], "OTHER_ACCOUNT="+n.orders, "OTHER_SEED="+n.seeds[n.public(n.scoped)])
	hosted.connect(hosted.login("dev", e.token(nil)).Creds).publishes("anything")
	reader := hosted.connect(hosted.login("reader", e.token(fields{"team": "shop"})).Creds)
	reader.subscribes("orders.shop.new")
	reader.mayNotSubscribe("orders.other.new")
	require.True(t, slices.Contains(hosted.list("jwt"), "hosted"))
}
