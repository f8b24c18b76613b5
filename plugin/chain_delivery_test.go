package plugin

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

// logText collects what the mount logs.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// deliveringMount is a mount that delivers to a nats-server which runs on the
// mount's own configuration.
func deliveringMount(t *testing.T) (*chainMount, *server.Server, *logText) {
	t.Helper()
	m := &chainMount{t: t, storage: storetest.New()}
	logs := m.startDelivering()
	m.write("config", map[string]any{"account_jwt_server_url": "nats://127.0.0.1:1"})
	running := runServer(t, serverOptions(t, m.must(logical.ReadOperation, "config/server", map[string]any{"dir": t.TempDir()})["config"].(string)))
	m.deliverTo(running)
	return m, running, logs
}

// startDelivering makes the mount on its storage, and returns its log.
func (m *chainMount) startDelivering() *logText {
	m.t.Helper()
	logs := &logText{}
	b, err := Factory(m.t.Context(), &logical.BackendConfig{
		System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour},
		StorageView: m.storage,
		Logger:      hclog.New(&hclog.LoggerOptions{Output: logs, Level: hclog.Trace}),
	})
	require.NoError(m.t, err)
	m.backend = b.(*backend)
	m.t.Cleanup(func() { b.Cleanup(context.Background()) })
	return logs
}

func runServer(t *testing.T, options *server.Options) *server.Server {
	t.Helper()
	running, err := server.NewServer(options)
	require.NoError(t, err)
	running.Start()
	t.Cleanup(running.Shutdown)
	require.True(t, running.ReadyForConnections(10*time.Second))
	return running
}

// deliverTo tells the mount where the server is.
func (m *chainMount) deliverTo(running *server.Server) {
	m.t.Helper()
	url := running.ClientURL()
	resp, err := m.do(logical.UpdateOperation, "config", map[string]any{"account_jwt_server_url": url, "service_url": url})
	require.NoError(m.t, err)
	require.Empty(m.t, resp.Warnings, "the server is up, and something is not delivered")
}

// connect lets a named user in whose key stays in the mount.
func (m *chainMount) connect(user string, options ...nats.Option) (*nats.Conn, error) {
	options = append(options, nats.UserJWT(
		func() (string, error) { return m.read("jwt/" + user)["jwt"].(string), nil },
		func(nonce []byte) ([]byte, error) {
			signed, err := m.chain.Named(context.Background(), m.storage, user)
			if err != nil {
				return nil, err
			}
			text, err := signed.SignNonce(string(nonce))
			if err != nil {
				return nil, err
			}
			return base64.StdEncoding.DecodeString(text)
		}))
	return nats.Connect(m.read("config")["service_url"].(string), options...)
}

func TestAServerThatRunsOnTheMountsConfigurationFollowsTheMount(t *testing.T) {
	m, running, logs := deliveringMount(t)
	written, err := m.do(logical.CreateOperation, "jwt/orders", map[string]any{"type": "account"})
	require.NoError(t, err)
	require.Empty(t, written.Warnings)
	id := written.Data["public_key"].(string)
	require.Equal(t, true, m.read("jwt/orders")["delivered"])

	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders", "config": `{"pub":{"allow":["orders.>"]},"sub":{"allow":["orders.>"]}}`})
	refused := make(chan error, 1)
	closed := make(chan struct{})
	alice, err := m.connect("alice", nats.NoReconnect(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	require.NoError(t, err)
	defer alice.Close()
	messages, err := alice.SubscribeSync("orders.new")
	require.NoError(t, err)
	require.NoError(t, alice.Publish("orders.new", []byte("1")))
	message, err := messages.NextMsg(5 * time.Second)
	require.NoError(t, err)
	require.Equal(t, "1", string(message.Data))
	require.NoError(t, alice.Publish("billing.new", nil))
	require.ErrorIs(t, <-refused, nats.ErrPermissionViolation)

	// Keys are rotated under the connected user, who stays.
	m.write("config/rotate", map[string]any{"overlap": 60})
	m.write("jwt/orders/rotate", map[string]any{"overlap": 60})
	require.Equal(t, true, m.read("jwt/orders")["delivered"])
	m.write("jwt/orders", map[string]any{"config": `{"limits":{"conn":1}}`})
	require.NoError(t, alice.FlushTimeout(5*time.Second))
	_, err = m.connect("alice", nats.NoReconnect())
	require.ErrorContains(t, err, "maximum account active connections exceeded")
	m.write("jwt/orders", map[string]any{"config": `{"limits":{"conn":2}}`})
	second, err := m.connect("alice", nats.NoReconnect())
	require.NoError(t, err, "a user of the new key is not let in")
	second.Close()

	// Without overlap whoever was signed with a former key is cut off.
	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	changed, err := m.chain.Retire(t.Context(), m.storage, time.Now().Add(61*time.Second))
	require.NoError(t, err)
	require.Equal(t, []string{id}, changed)
	require.Empty(t, m.delivered(t.Context(), m.storage, changed...))
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("a user of a key that is gone is still connected")
	}

	report, err := m.delivery.running().Sync(t.Context(), delivery.Options{})
	require.NoError(t, err)
	require.Equal(t, 2, report.Delivered, "%+v", report)
	require.Zero(t, report.Failed)
	require.Empty(t, report.Unknown)

	m.must(logical.DeleteOperation, "jwt/orders", map[string]any{"force": true})
	_, err = running.AccountResolver().Fetch(id)
	require.Error(t, err, "the server still has a deleted account")
	require.NotContains(t, logs.String(), "ermissions violation", "the user that delivers may not do what delivery does")
	require.NotRegexp(t, seedForm, logs.String())
}

// pushAsAnother gives the server an account JWT as another node would.
func (m *chainMount) pushAsAnother(running *server.Server, id, accountJWT string) {
	m.t.Helper()
	settings, err := m.chain.DeliverySettings(m.t.Context(), m.storage)
	require.NoError(m.t, err)
	userJWT, sign, err := m.chain.DeliveryConfig(m.storage, settings).User()
	require.NoError(m.t, err)
	system, err := nats.Connect(running.ClientURL(), nats.UserJWT(func() (string, error) { return userJWT, nil }, sign))
	require.NoError(m.t, err)
	defer system.Close()
	_, err = system.Request("$SYS.REQ.ACCOUNT."+id+".CLAIMS.UPDATE", []byte(accountJWT), 5*time.Second)
	require.NoError(m.t, err)
	held, err := running.AccountResolver().Fetch(id)
	require.NoError(m.t, err)
	require.Equal(m.t, accountJWT, held)
}

// A node that has lost the lead closes its mounts too. What it has as pending may have
// become something else since.
func TestAMountThatIsClosedWithoutItsStoragePushesNothing(t *testing.T) {
	m, running, logs := deliveringMount(t)
	id := m.write("jwt/orders", map[string]any{"type": "account"})["public_key"].(string)
	servers := running.AccountResolver()
	others, err := servers.Fetch(id)
	require.NoError(t, err)
	m.write("jwt/orders", map[string]any{"config": `{"limits":{"conn":1}}`})

	m.storage.FailOn(func(operation, _ string) bool { return operation == "put" })
	require.Eventually(t, func() bool {
		_, err := m.chain.Lead(t.Context(), m.storage)
		return err != nil
	}, 10*time.Second, 10*time.Millisecond, "a lead is proven though storage takes no write")
	m.pushAsAnother(running, id, others)
	require.NoError(t, m.storage.Storage.Put(t.Context(), &logical.StorageEntry{Key: "pending/" + id, Value: []byte(`{"since":1}`)}))
	m.backend.Cleanup(t.Context())
	held, err := servers.Fetch(id)
	require.NoError(t, err)
	require.Equal(t, others, held)
	require.Contains(t, logs.String(), "the mount is closed with accounts that are not delivered")
}

// TestManyAccountsCostAChangeNothing counts what a mount with many
// accounts reads to start, and to change one of them.
func TestManyAccountsCostAChangeNothing(t *testing.T) {
	costs := map[int]int64{}
	for _, many := range []int{10, 1000} {
		m := newChainMount(t)
		m.write("config", nil)
		for i := range many {
			m.write(fmt.Sprintf("jwt/a%d", i), map[string]any{"type": "account"})
		}
		m.deliverPending()
		m.restart()
		before := m.storage.All()
		m.write("jwt/a1", map[string]any{"config": `{"limits":{"conn":1}}`})
		m.deliverPending()
		m.write("config/rotate", nil)
		costs[many] = m.storage.All() - before
	}
	require.Equal(t, costs[10], costs[1000])
}
