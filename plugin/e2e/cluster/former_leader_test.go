package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// wakefulness is how long a former leader is watched once it was woken up, and knows that
// it leads no more. What it had in hand it would bring to the servers at once.
const wakefulness = 3 * time.Second

// A machine that stood still comes back with what it had in hand: a leader and its plugin
// that were suspended until another node had taken over bring nothing to the servers, and
// whoever was revoked meanwhile is never let in again.
func TestAFormerLeaderThatWakesUpBringsBackNobody(t *testing.T) {
	c := startCluster(t)
	former := c.waitForLeader()
	c.write("jwt/orders", fields{"type": "account"})
	c.write("role/dev", roleOf("orders"))
	account, _ := c.read("jwt/orders")["public_key"].(string)
	u := c.login("dev")
	c.waitFor("all servers to let the user in", func() error { return c.all(u, true) })

	// The leader has an account in hand that one server cannot store.
	mend := block(t, c.servers[1], account)
	c.write("jwt/orders", fields{"type": "account", "config": fields{"description": "another"}})
	require.Equal(t, false, c.read("jwt/orders")["delivered"])

	c.freeze(former)
	c.waitForLeader(former)
	c.write("jwt/orders/revoke", fields{"user_public_key": u.key})
	mend()
	c.waitFor("the servers to have the revocation", func() error {
		c.write("sync", nil)
		if c.read("jwt/orders")["delivered"] != true {
			return errors.New("not delivered")
		}
		return c.all(u, false)
	})

	watch := watchFor(u, account, c.servers)
	c.thaw(former)
	c.waitFor("the former leader to know it", func() error { return c.follows(former) })
	knew := time.Now()
	c.waitFor("it to have had its time", func() error {
		if time.Since(knew) < wakefulness {
			return errors.New("not yet")
		}
		return nil
	})
	watch.end()
	require.Empty(t, watch.seen, "the former leader brought back what was revoked")
	require.Equal(t, true, c.read("jwt/orders")["delivered"])
	require.NoError(t, c.all(u, false))
}

// all returns nil if every server lets the user in, or none does.
func (c *cluster) all(u *user, in bool) error {
	for i, server := range c.servers {
		is, err := letsIn(server, u)
		switch {
		case err != nil:
			return err
		case is != in:
			return fmt.Errorf("server %d lets the user in: %t", i, is)
		}
	}
	return nil
}

// block keeps a server from storing an account until mend is called: a directory is in
// the place of its file, which stops even a server that runs as root.
func block(t *testing.T, server *stack.NATS, id string) (mend func()) {
	t.Helper()
	path := accountFile(server, id)
	require.NoError(t, os.RemoveAll(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(path, "full"), nil, 0o600))
	return func() { require.NoError(t, os.RemoveAll(path)) }
}

// follows returns nil once a Vault answers and does not lead.
func (c *cluster) follows(i int) error {
	leads, err := c.vaults[i].Leads(c.t.Context())
	if leads {
		return errors.New("it leads")
	}
	return err
}

// A watch looks, without a pause, whether a server lets a user in who was revoked, or
// holds an older JWT of the account than before.
type watch struct {
	servers []*stack.NATS
	began   time.Time
	ended   chan struct{}
	group   sync.WaitGroup

	mutex sync.Mutex
	seen  []string // what may not be
}

func watchFor(u *user, account string, servers []*stack.NATS) *watch {
	w := &watch{servers: servers, began: time.Now(), ended: make(chan struct{})}
	for i := range servers {
		w.group.Go(func() { w.look(i, u, account) })
	}
	return w
}

func (w *watch) end() {
	close(w.ended)
	w.group.Wait()
}

func (w *watch) look(i int, u *user, account string) {
	var latest int64
	var in, older bool // were seen
	for {
		select {
		case <-w.ended:
			return
		default:
		}
		if is, err := letsIn(w.servers[i], u); is && !in && err == nil {
			in = true
			w.note("server %d lets the user in", i)
		}
		claims, _, err := held(w.servers[i], account)
		if claims == nil || err != nil {
			continue // it is being written
		}
		if claims.IssuedAt < latest && !older {
			older = true
			w.note("server %d holds the account of %d, and held that of %d", i, claims.IssuedAt, latest)
		}
		latest = max(latest, claims.IssuedAt)
	}
}

func (w *watch) note(format string, args ...any) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.seen = append(w.seen, fmt.Sprintf("after %s ", time.Since(w.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}
