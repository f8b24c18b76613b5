package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// A gate is a way to a nats-server that can be shut in either direction, by locking
// it: what is sent then waits.
type gate struct {
	toServer, toMount sync.RWMutex

	url   string
	mutex sync.Mutex
	open  []net.Conn
}

func newGate(t *testing.T, server *stack.NATS) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{url: "nats://" + listener.Addr().String()}
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		g.hangUp()
	})
	go func() {
		for {
			mount, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "nats://"))
			if err != nil {
				_ = mount.Close()
				continue
			}
			g.mutex.Lock()
			g.open = append(g.open, mount, server)
			g.mutex.Unlock()
			go pass(server, mount, &g.toServer)
			go pass(mount, server, &g.toMount)
		}
	}()
	return g
}

func pass(to, from net.Conn, direction *sync.RWMutex) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		direction.RLock()
		_, failed := to.Write(buffer[:n])
		direction.RUnlock()
		if err != nil || failed != nil {
			return
		}
	}
}

// hangUp ends all connections; what waits in them is lost.
func (g *gate) hangUp() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, conn := range g.open {
		_ = conn.Close()
	}
	g.open = nil
}

// A fleet is a mount with a cluster of three servers that it reaches through a gate,
// and what the mount was told to hold.
type fleet struct {
	*env
	gate    *gate
	servers []*stack.NATS

	mutex sync.Mutex
	held  map[string]string // the accounts' descriptions, by name
	next  int               // number of the next description
}

func startFleet(t *testing.T) *fleet {
	t.Helper()
	e := start(t, onVault(ownVault(t, stack.VaultConfig{Storage: "raft"})), withoutNATS)
	f := &fleet{servers: e.newNATSCluster(3), held: map[string]string{}}
	f.gate, f.env = newGate(t, f.servers[0]), e.at(f.servers[0])
	t.Cleanup(func() {
		if t.Failed() {
			state, err := f.client.Logical().ReadWithDataWithContext(context.Background(), f.path("sync"), map[string][]string{"pending": {"true"}})
			t.Logf("what the mount knows of the delivery: %+v %v", state, err)
		}
	})
	f.write("config", fields{"account_jwt_server_url": f.gate.url, "service_url": f.servers[0].URL})
	for _, server := range f.servers {
		// The mount is to know no way but the gate.
		require.NoError(t, server.Start(f.ctx(), f.serverConfig()+"\ncluster: { no_advertise: true }\n"))
	}
	for _, server := range f.servers {
		require.NoError(t, server.WaitForCluster(f.ctx()))
	}
	require.NoError(t, f.nats.WaitForClient(f.ctx()))
	return f
}

// set creates or changes an account. Whether its answer comes back is not asked.
func (f *fleet) set(name string) {
	f.mutex.Lock()
	f.next++
	description := fmt.Sprintf("change %d", f.next)
	f.held[name] = description
	f.mutex.Unlock()
	_, _ = f.try("jwt/"+name, fields{"type": "account", "config": fields{"description": description}})
}

// drop deletes an account. Whether its answer comes back is not asked.
func (f *fleet) drop(name string) {
	f.mutex.Lock()
	delete(f.held, name)
	f.mutex.Unlock()
	_, _ = f.client.Logical().DeleteWithContext(f.ctx(), f.path("jwt/"+name))
}

// A change creates, changes and deletes accounts, by name.
type change struct{ create, change, drop []string }

func names(format string, from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf(format, i))
	}
	return list
}

// apply makes a change, with all of its requests at once.
func (f *fleet) apply(c change) *sync.WaitGroup {
	var requests sync.WaitGroup
	for _, name := range slices.Concat(c.create, c.change) {
		requests.Go(func() { f.set(name) })
	}
	for _, name := range c.drop {
		requests.Go(func() { f.drop(name) })
	}
	return &requests
}

// stored waits until the mount's storage has all that it was told.
func (f *fleet) stored() {
	f.t.Helper()
	f.waitFor("the changes to be stored", func() error {
		return f.holds(func(string, *api.Secret) error { return nil })
	})
}

// holds checks that the mount has the accounts that it was told to hold, each as it was
// told, and no other.
func (f *fleet) holds(check func(name string, account *api.Secret) error) error {
	f.mutex.Lock()
	held := maps.Clone(f.held)
	f.mutex.Unlock()
	list, err := f.client.Logical().ListWithContext(f.ctx(), f.path("jwt"))
	if err != nil {
		return err
	}
	if extra := len(list.Data["keys"].([]any)) - len(held) - 1; extra > 0 { // SYS is the mount's own
		return fmt.Errorf("the mount has %d accounts too many", extra)
	}
	for name, description := range held {
		account, err := f.client.Logical().ReadWithContext(f.ctx(), f.path("jwt/"+name))
		switch {
		case err != nil:
			return err
		case account == nil:
			return fmt.Errorf("account %s is lost", name)
		}
		if is := account.Data["config"].(map[string]any)["description"]; is != description {
			return fmt.Errorf("account %s is %q, and was set to %q", name, is, description)
		}
		if err := check(name, account); err != nil {
			return err
		}
	}
	return nil
}

// serversHold checks that each of these servers has on disk what the mount has, and no
// other account.
func (f *fleet) serversHold(servers ...*stack.NATS) error {
	wanted := map[string]string{id(f.env, "SYS"): f.read("jwt/SYS")["jwt"].(string)}
	err := f.holds(func(name string, account *api.Secret) error {
		wanted[account.Data["public_key"].(string)] = account.Data["jwt"].(string)
		return nil
	})
	if err != nil {
		return err
	}
	for i, server := range servers {
		files := f.files(server)
		for id, jwt := range wanted {
			if files[id] != jwt {
				return fmt.Errorf("server %d has not account %s as the mount has it", i, id)
			}
		}
		if len(files) != len(wanted) {
			return fmt.Errorf("server %d has %d accounts, and the mount has %d", i, len(files), len(wanted))
		}
	}
	return nil
}

// converges waits until every server holds what the mount holds, and the mount knows
// it. Nobody does anything meanwhile.
func (f *fleet) converges() {
	f.t.Helper()
	f.waitFor("the servers to hold what the mount holds", func() error { return f.serversHold(f.servers...) })
	f.waitFor("the mount to know it", func() error {
		return f.holds(func(name string, account *api.Secret) error {
			if account.Data["delivered"] != true {
				return fmt.Errorf("account %s is not known to be delivered", name)
			}
			return nil
		})
	})
	f.t.Logf("%d accounts, none lost", len(f.held))
}

// killVault ends Vault while requests are on their way, and starts it again.
func (f *fleet) killVault(requests *sync.WaitGroup, shut *sync.RWMutex) {
	f.t.Helper()
	f.vault.Kill()
	requests.Wait()
	f.gate.hangUp()
	shut.Unlock()
	require.NoError(f.t, f.vault.Start(f.ctx()))
}

// Whatever fails, the servers come to hold what the mount holds without a hand, and no
// account is lost.
func TestNoAccountIsLostWhateverFails(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.apply(change{create: names("a%02d", 0, 40)}).Wait()
	f.converges()

	// NATS is down when accounts change, and back later.
	for _, server := range f.servers {
		server.Stop()
	}
	f.apply(change{create: names("b%02d", 0, 10), change: names("a%02d", 0, 10), drop: names("a%02d", 35, 40)}).Wait()
	for _, server := range f.servers {
		require.NoError(t, server.Restart(f.ctx()))
	}
	f.converges()

	// One of three servers is gone without a word, and comes back with what it had.
	f.servers[2].Kill()
	f.apply(change{create: names("c%02d", 0, 10), change: names("a%02d", 10, 20), drop: names("b%02d", 0, 5)}).Wait()
	f.waitFor("the other two servers to hold what the mount holds", func() error { return f.serversHold(f.servers[:2]...) })
	require.NoError(t, f.servers[2].Restart(f.ctx()))
	f.converges()

	// Vault is killed when the changes are stored, and none has reached a server.
	f.gate.toServer.Lock()
	requests := f.apply(change{create: names("d%02d", 0, 10), change: names("a%02d", 20, 30), drop: names("c%02d", 0, 5)})
	f.stored()
	for _, server := range f.servers {
		require.NotContains(t, f.files(server), id(f.env, "d00"))
	}
	f.killVault(requests, &f.gate.toServer)
	f.converges()

	// Vault is killed when the servers have the changes, and it has not heard so.
	f.gate.toMount.Lock()
	requests = f.apply(change{create: names("e%02d", 0, 10), change: names("a%02d", 0, 10), drop: names("d%02d", 0, 5)})
	f.stored()
	f.waitFor("the servers to have the changes", func() error { return f.serversHold(f.servers...) })
	require.Equal(t, false, f.read("jwt/e00")["delivered"])
	f.killVault(requests, &f.gate.toMount)
	f.converges()

	// The servers lose their directories.
	for _, server := range f.servers {
		server.Stop()
		require.NoError(t, server.Wipe())
	}
	for _, server := range f.servers {
		require.NoError(t, server.Restart(f.ctx()))
	}
	f.converges()

	f.role("dev", fields{"account": "e00"})
	for _, server := range f.servers {
		f.at(server).connect(f.login("dev", f.token(nil)).Creds).publishes("anything")
	}
}
