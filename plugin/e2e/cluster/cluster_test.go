// Package cluster breaks clusters on purpose: three real Vaults on Raft with the built
// plugin in them, three real nats-servers with the full resolver, an OIDC issuer, and
// load. What was acknowledged has to hold afterwards on every server.
//
// startCluster gives a test a mount, an issuer and nats-servers of its own, on Vaults
// that the tests of this package share: they run one after the other, and each leaves
// all three nodes running.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const (
	// size is how many Vaults there are, and how many nats-servers.
	size = 3

	// patience is how long a server may take to do what it should.
	patience = time.Minute

	// answerTime is how long an answer may take that waits for NATS servers. A write
	// waits five seconds for them.
	answerTime = 8 * time.Second
)

type fields = map[string]any

// shared are the Vaults that the tests have in common, once the first test wants them.
var shared struct {
	vaults []*stack.Vault
	mounts int
}

func TestMain(m *testing.M) {
	code := m.Run()
	var closing errgroup.Group
	for _, vault := range shared.vaults {
		closing.Go(vault.Close)
	}
	if err := closing.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func sharedVaults(t *testing.T) []*stack.Vault {
	t.Helper()
	if shared.vaults != nil {
		return shared.vaults
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute) // Vault may have to be built
	defer cancel()
	dir := t.TempDir()
	var program string
	var building errgroup.Group
	building.Go(func() (err error) {
		program, err = stack.BuildPlugin(ctx, dir, "v0.1.0-test")
		return err
	})
	vaults, err := stack.StartVaultCluster(ctx, size, stack.VaultConfig{})
	shared.vaults = vaults
	require.NoError(t, errors.Join(err, building.Wait()))
	require.NoError(t, vaults[0].Install(ctx, program))
	return shared.vaults
}

// A cluster is a mount on three Vaults, and its three nats-servers.
type cluster struct {
	t       *testing.T
	vaults  []*stack.Vault
	clients []*api.Client // of the vaults; they hold the root token
	servers []*stack.NATS
	issuer  *stack.Issuer
	mount   string // below auth/

	mutex  sync.Mutex
	frozen map[*stack.Vault]bool
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	shared.mounts++
	c := &cluster{t: t, vaults: sharedVaults(t), mount: fmt.Sprintf("nats-%d", shared.mounts), frozen: map[*stack.Vault]bool{}}
	for _, vault := range c.vaults {
		client, err := vault.Client()
		require.NoError(t, err)
		client.SetClientTimeout(answerTime)
		c.clients = append(c.clients, client)
	}
	var err error
	c.issuer, err = stack.StartIssuer(nil, jose.ES256)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.issuer.Close()) })
	c.servers, err = stack.NewNATSCluster(size)
	require.NoError(t, err)
	for _, server := range c.servers {
		t.Cleanup(func() { require.NoError(t, server.Close()) })
	}
	t.Cleanup(c.thawAll)

	require.NoError(t, c.vaults[c.waitForLeader()].Enable(c.ctx(), c.mount)) // it goes with the Vaults
	urls := make([]string, size)
	for i, server := range c.servers {
		urls[i] = server.URL
	}
	c.write("config", fields{"oidc_discovery_url": c.issuer.URL, "account_jwt_server_url": urls, "service_url": urls})
	c.startServers()
	return c
}

// startServers starts the nats-servers with the configuration that the mount gives out
// now, one after the other where they run already.
func (c *cluster) startServers() {
	c.t.Helper()
	text, _ := c.read("config/server")["config"].(string)
	for _, server := range c.servers {
		require.NoError(c.t, server.Start(c.ctx(), text))
	}
	c.waitForServers()
}

// waitForServers returns when the nats-servers are a cluster, and the mount has found it.
func (c *cluster) waitForServers() {
	c.t.Helper()
	for _, server := range c.servers {
		require.NoError(c.t, server.WaitForCluster(c.ctx()))
	}
	c.waitFor("the mount to be connected", func() error {
		state, err := c.asks().Logical().ReadWithContext(c.t.Context(), c.path("sync"))
		switch {
		case err != nil:
			return err
		case state == nil || state.Data["connected"] != true:
			return errors.New("not connected")
		case len(state.Data["servers"].([]any)) < size:
			return fmt.Errorf("it knows of %d servers", len(state.Data["servers"].([]any)))
		}
		return nil
	})
}

// leader returns the number of the Vault that is active, -1 if none is known to be.
func (c *cluster) leader() int {
	leads := make([]bool, size)
	var asked sync.WaitGroup
	for i, vault := range c.vaults {
		if !vault.Running() || c.isFrozen(vault) {
			continue
		}
		asked.Go(func() { leads[i], _ = vault.Leads(context.Background()) })
	}
	asked.Wait()
	for i := range leads {
		if leads[i] {
			return i
		}
	}
	return -1
}

// waitForLeader returns the number of the Vault that leads, once one does that is none of
// these.
func (c *cluster) waitForLeader(former ...int) int {
	c.t.Helper()
	leader := -1
	c.waitFor("a leader", func() error {
		leader = c.leader()
		for _, not := range append(former, -1) {
			if leader == not {
				return fmt.Errorf("%d leads", leader)
			}
		}
		// It leads when it answers requests of its mounts.
		_, err := c.clients[leader].Logical().ReadWithContext(c.t.Context(), "auth/token/lookup-self")
		return err
	})
	return leader
}

// freeze suspends a Vault and its plugin until thaw.
func (c *cluster) freeze(i int) {
	c.t.Helper()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	require.NoError(c.t, c.vaults[i].Freeze())
	c.frozen[c.vaults[i]] = true
}

func (c *cluster) thaw(i int) {
	c.t.Helper()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	require.NoError(c.t, c.vaults[i].Thaw())
	delete(c.frozen, c.vaults[i])
}

func (c *cluster) isFrozen(vault *stack.Vault) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.frozen[vault]
}

// thawAll leaves no Vault suspended, however the test ends.
func (c *cluster) thawAll() {
	for i, vault := range c.vaults {
		if c.isFrozen(vault) {
			c.thaw(i)
		}
	}
}

// path returns a path of the mount as Vault's API takes it.
func (c *cluster) path(below string) string { return "auth/" + c.mount + "/" + below }

// asks returns the client of the leader, or of any node that answers while there is none.
func (c *cluster) asks() *api.Client {
	if leader := c.leader(); leader >= 0 {
		return c.clients[leader]
	}
	for i, vault := range c.vaults {
		if vault.Running() && !c.isFrozen(vault) {
			return c.clients[i]
		}
	}
	return c.clients[0]
}

// write writes to a path of the mount, again if no node leads just then.
func (c *cluster) write(path string, data fields) {
	c.t.Helper()
	c.waitFor("a write of "+path, func() error {
		_, err := c.asks().Logical().WriteWithContext(c.t.Context(), c.path(path), data)
		return err
	})
}

// read reads a path of the mount, at which there must be something.
func (c *cluster) read(path string) (data fields) {
	c.t.Helper()
	c.waitFor("a read of "+path, func() error {
		secret, err := c.asks().Logical().ReadWithContext(c.t.Context(), c.path(path))
		switch {
		case err != nil:
			return err
		case secret == nil:
			return errors.New("there is nothing")
		}
		data = secret.Data
		return nil
	})
	return data
}

// send makes a request that changes something. It was acknowledged if the error is nil: the
// API's own methods take an answer without content, of any status, for one.
func (c *cluster) send(client *api.Client, method, path string, data fields) (*api.Secret, error) {
	request := client.NewRequest(method, "/v1/"+path)
	if method == http.MethodDelete {
		request.Params.Set("force", "true")
	} else if err := request.SetJSONBody(data); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), client.ClientTimeout())
	defer cancel()
	response, err := client.RawRequestWithContext(ctx, request) //nolint:staticcheck // nothing else tells the status
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusNoContent:
		return &api.Secret{}, nil
	case http.StatusOK:
		return api.ParseSecret(response.Body)
	}
	return nil, fmt.Errorf("status %s", response.Status)
}

// ctx bounds one step of a test.
func (c *cluster) ctx() context.Context {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// waitFor returns when the condition returns nil, and fails the test when it never does.
func (c *cluster) waitFor(what string, condition func() error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	require.NoError(c.t, stack.WaitFor(ctx, what, condition))
}
