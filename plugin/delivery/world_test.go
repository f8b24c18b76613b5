package delivery

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A world is an operator with a system account, what a Source keeps of it, and
// the servers that trust it.
type world struct {
	t             testing.TB
	operator      nkeys.KeyPair
	operatorJWT   string
	system        nkeys.KeyPair
	systemID      string
	systemJWT     string
	*memorySource // the accounts
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, operator: newKey(t, nkeys.CreateOperator), system: newKey(t, nkeys.CreateAccount)}
	w.systemID = public(t, w.system)

	claims := jwt.NewOperatorClaims(public(t, w.operator))
	claims.Name = "test"
	claims.SystemAccount = w.systemID
	operatorJWT, err := claims.Encode(w.operator)
	require.NoError(t, err)
	w.operatorJWT = operatorJWT

	w.systemJWT = w.accountJWT(w.systemID, "SYS", nil)
	w.memorySource = &memorySource{
		wanted:  map[string]string{w.systemID: w.systemJWT},
		pending: map[string]bool{},
		removed: map[string]bool{},
	}
	return w
}

func newKey(t testing.TB, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	key, err := create()
	require.NoError(t, err)
	return key
}

func public(t testing.TB, key nkeys.KeyPair) string {
	id, err := key.PublicKey()
	require.NoError(t, err)
	return id
}

func (w *world) accountJWT(id, name string, change func(*jwt.AccountClaims)) string {
	claims := jwt.NewAccountClaims(id)
	claims.Name = name
	if change != nil {
		change(claims)
	}
	text, err := claims.Encode(w.operator)
	require.NoError(w.t, err)
	return text
}

func (w *world) userJWT(account nkeys.KeyPair) (string, nkeys.KeyPair) {
	user := newKey(w.t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(public(w.t, user))
	claims.Expires = time.Now().Add(time.Hour).Unix()
	text, err := claims.Encode(account)
	require.NoError(w.t, err)
	return text, user
}

// an account that a client can connect to.
type testAccount struct {
	id  string
	key nkeys.KeyPair
}

// addAccount makes an account and stores it, as a backend would do before it
// calls Changed.
func (w *world) addAccount(name string) testAccount {
	key := newKey(w.t, nkeys.CreateAccount)
	a := testAccount{public(w.t, key), key}
	w.set(a.id, w.accountJWT(a.id, name, nil))
	return a
}

func (w *world) connectAs(s *natsserver.Server, a testAccount, options ...nats.Option) (*nats.Conn, error) {
	text, user := w.userJWT(a.key)
	options = append(options, nats.MaxReconnects(0), nats.UserJWT(
		func() (string, error) { return text, nil },
		user.Sign,
	))
	return nats.Connect(s.ClientURL(), options...)
}

// config is what a mount would give New.
func (w *world) config(urls ...string) Config {
	return Config{
		ServerURLs: urls,
		Operator:   public(w.t, w.operator),
		Ours: func(accountJWT string) bool {
			claims, err := jwt.DecodeAccountClaims(accountJWT)
			return err == nil && claims.Issuer == public(w.t, w.operator)
		},
		User: func() (string, func([]byte) ([]byte, error), error) {
			// With what the mount's may do, so that nothing is asked for that it may not.
			user := newKey(w.t, nkeys.CreateUser)
			claims := jwt.NewUserClaims(public(w.t, user))
			claims.User = *trust.DeliveryUser("")
			claims.Expires = time.Now().Add(time.Hour).Unix()
			text, err := claims.Encode(w.system)
			return text, user.Sign, err
		},
		DeleteToken: func(id string) (string, error) {
			claims := jwt.NewGenericClaims(public(w.t, w.operator))
			claims.Data["accounts"] = []string{id}
			return claims.Encode(w.operator)
		},
		Farewell: func(id string, expires time.Time) (string, error) {
			return w.accountJWT(id, "removed", func(c *jwt.AccountClaims) {
				c.Expires = expires.Unix()
				c.Limits.Conn = 0
				c.Revoke(jwt.All)
			}), nil
		},
		Lead:   func(context.Context) (time.Time, error) { return time.Now(), nil },
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: testLog{w.t}}),
	}
}

// testLog shows the log with the test that failed.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func (w *world) reconciler(cfg Config) *Reconciler {
	w.t.Helper()
	return w.reconcilerThatWaits(cfg, 0)
}

// reconcilerThatWaits makes no comparison of its own accord before first.
func (w *world) reconcilerThatWaits(cfg Config, first time.Duration) *Reconciler {
	w.t.Helper()
	r, err := start(cfg, w.memorySource, first)
	require.NoError(w.t, err)
	w.t.Cleanup(r.Close)
	return r
}

// memorySource is a Source in memory.
type memorySource struct {
	mu      sync.Mutex
	wanted  map[string]string
	pending map[string]bool
	removed map[string]bool
	fail    error // what every method answers, if set
}

func (m *memorySource) set(id, accountJWT string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted[id] = accountJWT
	m.pending[id] = true
}

func (m *memorySource) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.wanted, id)
	m.pending[id] = true
}

func (m *memorySource) failWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memorySource) Wanted(_ context.Context, id string) (string, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.wanted[id]
	return text, ok, m.fail
}

func (m *memorySource) All(context.Context) iter.Seq2[string, error] {
	m.mu.Lock()
	ids, fail := slices.Sorted(maps.Keys(m.wanted)), m.fail
	m.mu.Unlock()
	return func(yield func(string, error) bool) {
		if fail != nil {
			yield("", fail)
			return
		}
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func (m *memorySource) Pending(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.pending)), m.fail
}

func (m *memorySource) Removed(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.removed)), m.fail
}

func (m *memorySource) Delivered(_ context.Context, id, accountJWT string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil && m.wanted[id] == accountJWT {
		delete(m.pending, id)
		if accountJWT == "" {
			m.removed[id] = true
		}
	}
	return m.fail
}

func (m *memorySource) stillPending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pending)
}

// serverOptions are those of a server of the world on a free port.
func (w *world) serverOptions(name string) *natsserver.Options {
	claims, err := jwt.DecodeOperatorClaims(w.operatorJWT)
	require.NoError(w.t, err)
	return &natsserver.Options{
		ServerName:       name,
		Host:             "127.0.0.1",
		Port:             natsserver.RANDOM_PORT,
		NoLog:            true,
		NoSigs:           true,
		TrustedOperators: []*jwt.OperatorClaims{claims},
		SystemAccount:    w.systemID,
	}
}

// full gives a server the full resolver on a directory. It answers deletions
// only if allowed to.
func (w *world) full(o *natsserver.Options, dir string, allowDelete bool) *natsserver.Options {
	deletion := natsserver.NoDelete
	if allowDelete {
		deletion = natsserver.HardDelete
	}
	// The servers do not exchange accounts in a test's time: it is the
	// reconciler that has to bring them.
	resolver, err := natsserver.NewDirAccResolver(dir, 0, time.Hour, deletion)
	require.NoError(w.t, err)
	return w.preloaded(o, resolver)
}

func (w *world) preloaded(o *natsserver.Options, resolver natsserver.AccountResolver) *natsserver.Options {
	require.NoError(w.t, resolver.Store(w.systemID, w.systemJWT))
	o.AccountResolver = resolver
	return o
}

func (w *world) start(o *natsserver.Options) *natsserver.Server {
	w.t.Helper()
	s, err := natsserver.NewServer(o.Clone()) // the server goes on to use what it is given
	require.NoError(w.t, err)
	s.Start()
	require.True(w.t, s.ReadyForConnections(10*time.Second), "nats-server does not come up")
	w.t.Cleanup(func() { stop(s) })
	return s
}

func stop(s *natsserver.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// fullServer is a server with a full resolver that deletes.
func (w *world) fullServer() (*natsserver.Server, string) {
	dir := w.t.TempDir()
	return w.start(w.full(w.serverOptions("n1"), dir, true)), dir
}

// cluster starts n servers, each with a full resolver that deletes, and waits
// until they know each other.
func (w *world) cluster(n int) *testCluster {
	w.t.Helper()
	c := &testCluster{w: w}
	var routes []*url.URL
	for i := range n {
		dir := w.t.TempDir()
		o := w.clusterOptions(fmt.Sprintf("n%d", i+1), dir, routes)
		s := w.start(o)
		o.Port, o.Cluster.Port = portOf(s), s.ClusterAddr().Port
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", o.Cluster.Port)})
		c.servers, c.options, c.dirs = append(c.servers, s), append(c.options, o), append(c.dirs, dir)
	}
	w.eventually(func() error {
		for _, s := range c.servers {
			if s.NumRoutes() == 0 && n > 1 {
				return errors.New("the cluster is not whole")
			}
			if stats, err := s.Routez(nil); err != nil || stats.NumRoutes < n-1 {
				return errors.New("the cluster is not whole")
			}
		}
		return nil
	})
	return c
}

func (w *world) clusterOptions(name, dir string, routes []*url.URL) *natsserver.Options {
	o := w.full(w.serverOptions(name), dir, true)
	o.Cluster = natsserver.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: natsserver.RANDOM_PORT}
	o.Routes = routes
	return o
}

// knows waits until the reconciler has heard of so many servers. One that it has not
// heard of may be shut down unnoticed.
func (w *world) knows(r *Reconciler, servers int) {
	w.t.Helper()
	w.eventually(func() error {
		if n := len(r.fleet.present()); n != servers {
			return errors.Join(fmt.Errorf("%d servers are known", n), r.rollCall())
		}
		return nil
	})
}

func portOf(s *natsserver.Server) int { return s.Addr().(*net.TCPAddr).Port }

// holds is nil when the directory has exactly what the source wants.
func (w *world) holds(dir string) error {
	w.mu.Lock()
	wanted := maps.Clone(w.wanted)
	w.mu.Unlock()
	files, err := filepath.Glob(filepath.Join(dir, "*.jwt"))
	if err != nil {
		return err
	}
	if len(files) != len(wanted) {
		return fmt.Errorf("%s has %d accounts, want %d", dir, len(files), len(wanted))
	}
	for id, text := range wanted {
		data, err := os.ReadFile(filepath.Join(dir, id+".jwt"))
		if err != nil {
			return err
		}
		if string(data) != text {
			return fmt.Errorf("%s has another JWT for %s", dir, id)
		}
	}
	return nil
}

func (w *world) eventually(check func() error) {
	w.t.Helper()
	eventually(w.t, check)
}

// eventually waits until check returns nil.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("still not so: %v", err)
		case <-tick.C:
		}
	}
}
