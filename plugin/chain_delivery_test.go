package plugin

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
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
	logs := &logText{}
	m := &chainMount{t: t, storage: newCountingStorage()}
	b, err := Factory(t.Context(), &logical.BackendConfig{
		System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour},
		StorageView: m.storage,
		Logger:      hclog.New(&hclog.LoggerOptions{Output: logs, Level: hclog.Trace}),
	})
	require.NoError(t, err)
	m.backend = b.(*backend)
	t.Cleanup(func() { m.backend.Cleanup(context.Background()) })

	m.write("config", map[string]any{"account_jwt_server_url": "nats://127.0.0.1:1"})
	running, err := server.NewServer(serverOptions(t, m.must(logical.ReadOperation, "config/server", map[string]any{"dir": t.TempDir()})["config"].(string)))
	require.NoError(t, err)
	running.Start()
	t.Cleanup(running.Shutdown)
	require.True(t, running.ReadyForConnections(10*time.Second))
	url := running.ClientURL()
	resp, err := m.do(logical.UpdateOperation, "config", map[string]any{"account_jwt_server_url": url, "service_url": url})
	require.NoError(t, err)
	require.Empty(t, resp.Warnings, "the server is up, and something is not delivered")
	return m, running, logs
}

// connect lets a named user in whose key stays in the mount.
func (m *chainMount) connect(user string, options ...nats.Option) (*nats.Conn, error) {
	options = append(options, nats.UserJWT(
		func() (string, error) { return m.read("jwt/" + user)["jwt"].(string), nil },
		func(nonce []byte) ([]byte, error) {
			entry, err := readNamed(context.Background(), m.storage, user)
			if err != nil {
				return nil, err
			}
			key, err := parseUserSeed(entry)
			if err != nil {
				return nil, err
			}
			return key.Sign(nonce), nil
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
	changed, err := m.chain.retire(t.Context(), m.storage, time.Now().Add(61*time.Second))
	require.NoError(t, err)
	require.Equal(t, []string{id}, changed)
	require.Empty(t, m.deliver(t.Context(), m.storage, changed...))
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
		before := m.storage.all()
		m.write("jwt/a1", map[string]any{"config": `{"limits":{"conn":1}}`})
		m.deliverPending()
		m.write("config/rotate", nil)
		costs[many] = m.storage.all() - before
	}
	require.Equal(t, costs[10], costs[1000])
}

// A change that begins while an account is read for delivery is not delivered
// half: under its time of issue and without what it changes.
func TestAChangeThatBeginsWhileAnAccountIsReadIsDeliveredWhole(t *testing.T) {
	m := newAccountMount(t)
	id := m.read("jwt/orders")["public_key"].(string)
	changed := false
	storage := &readStorage{Storage: m.storage, after: func(key string) {
		if key != namedPrefix+"orders" || changed {
			return
		}
		changed = true
		entry, err := readNamed(t.Context(), m.storage, "orders")
		require.NoError(t, err)
		entry.Claims.Limits.Conn = 7
		require.NoError(t, m.chain.storeNamed(t.Context(), m.storage, "orders", entry))
		m.chain.changed(id)
	}}
	marked := false
	storage.before = func(key string) {
		// The index is read ahead of the account.
		if key == accountIDPrefix+id && !marked {
			marked = true
			require.NoError(t, m.chain.markChange(t.Context(), m.storage, id, "orders"))
		}
	}
	wanted, _, err := m.chain.source(storage).Wanted(t.Context(), id)
	require.NoError(t, err)
	require.True(t, changed)
	require.True(t, marked)
	require.EqualValues(t, 7, accountClaims(t, wanted).Limits.Conn)
}

// To say what the servers are to hold takes two reads, and none of them while
// others wait: the rate of a reconcile hangs on it.
func TestAnAccountIsReadForDeliveryWithoutTheLock(t *testing.T) {
	m := newAccountMount(t)
	id := m.read("jwt/orders")["public_key"].(string)
	storage := &readStorage{Storage: m.storage, after: func(string) {}, before: func(key string) {
		require.True(t, m.chain.versions.TryLock(), "the lock is held while %s is read", key)
		m.chain.versions.Unlock()
	}}
	before := m.storage.all()
	_, _, err := m.chain.source(storage).Wanted(t.Context(), id)
	require.NoError(t, err)
	require.EqualValues(t, 2, m.storage.all()-before)
}

// A login is not to wait behind the JWTs of all accounts that are delivered at a
// time: they wait for each other, and no login waits with them.
func TestAccountJWTsAreMadeByFewAtATime(t *testing.T) {
	m := newAccountMount(t)
	id := m.read("jwt/orders")["public_key"].(string)
	require.Equal(t, max(1, runtime.GOMAXPROCS(0)/2), cap(m.chain.making))
	synctest.Test(t, func(t *testing.T) {
		m.chain.making = make(chan struct{}, 1)
		m.chain.making <- struct{}{}
		made := make(chan error, 1)
		go func() {
			_, _, err := m.chain.source(m.storage).Wanted(t.Context(), id)
			made <- err
		}()
		synctest.Wait()
		require.Empty(t, made, "one more is made than there is room for")
		m.chain.accounts.forget("orders")
		opened, err := m.chain.account(t.Context(), m.storage, "orders") // what a login needs
		require.NoError(t, err)
		require.NotNil(t, opened)
		<-m.chain.making
		require.NoError(t, <-made)
	})
}

// A readStorage lets something happen around reads.
type readStorage struct {
	logical.Storage
	before, after func(key string)
}

func (s *readStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.before(key)
	entry, err := s.Storage.Get(ctx, key)
	s.after(key)
	return entry, err
}
