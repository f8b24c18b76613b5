package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A forgetful server takes account JWTs, and goes by another one until it is given one
// with a line end.
type forgetfulServer struct {
	mu       sync.Mutex
	former   string // that it goes by
	heals    bool
	loaded   map[string]string    // by account
	revoked  map[string]time.Time // that it goes by, whatever it says that it has loaded
	rewrites int
}

const forgetful = `"server":{"name":"n2","id":"N2","ver":"2.0.0"}`

// forgetfulServer has something in the system account that answers as a second server.
func (w *world) forgetfulServer(s *natsserver.Server, account, former string, heals bool) *forgetfulServer {
	f := &forgetfulServer{former: former, heals: heals, loaded: map[string]string{account: former}}
	w.isOurs(s, "N2")
	w.answerToo(s, pingSubject, func(m *nats.Msg) { _ = m.Respond([]byte(`{` + forgetful + `,"statsz":{"active_servers":2}}`)) })
	w.answerToo(s, updateSubject("*"), func(m *nats.Msg) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if text := string(m.Data); m.Subject == updateSubject(account) && strings.HasSuffix(text, "\n") {
			f.rewrites++
			if f.heals {
				f.loaded[account] = strings.TrimSpace(text)
				claims, err := jwt.DecodeAccountClaims(f.loaded[account])
				require.NoError(w.t, err)
				f.revoked = map[string]time.Time{}
				for key, before := range claims.Revocations {
					f.revoked[key] = time.Unix(before, 0).UTC()
				}
			}
		}
		_ = m.Respond([]byte(`{` + forgetful + `,"data":{"code":200,"message":"done"}}`))
	})
	w.answerToo(s, accountzSubject, func(m *nats.Msg) {
		var asked struct{ Account string }
		require.NoError(w.t, json.Unmarshal(m.Data, &asked))
		f.mu.Lock()
		defer f.mu.Unlock()
		data := map[string]any{"accounts": []string{account}}
		if asked.Account != "" {
			data = map[string]any{"account_detail": map[string]any{"jwt": f.loaded[asked.Account], "revoked_user": f.revoked}}
		}
		text, err := json.Marshal(data)
		require.NoError(w.t, err)
		_ = m.Respond([]byte(`{` + forgetful + `,"data":` + string(text) + `}`))
	})
	return f
}

func (f *forgetfulServer) goesBy(account string) (loaded string, rewrites int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loaded[account], f.rewrites
}

func TestAServerThatGoesByAFormerAccountIsMadeToLoadItAnew(t *testing.T) {
	for name, bring := range map[string]func(w *world, r *Reconciler, id string){
		"after a change": func(w *world, r *Reconciler, id string) {
			require.NoError(w.t, r.Deliver(testContext(w.t), w.systemID))
			w.knows(r, 2)
			require.NoError(w.t, r.Deliver(testContext(w.t), id))
		},
		"after a comparison when a server has come": func(w *world, r *Reconciler, _ string) {
			require.NoError(w.t, r.Deliver(testContext(w.t), w.systemID))
			w.knows(r, 2)
			_, err := r.Sync(testContext(w.t), Options{})
			require.NoError(w.t, err)
		},
		"though many have changed": func(w *world, r *Reconciler, id string) {
			require.NoError(w.t, r.Deliver(testContext(w.t), w.systemID))
			w.knows(r, 2)
			ids := []string{id}
			for i := range 2 * manyLooks {
				ids = append(ids, w.addAccount(fmt.Sprint(i)).id)
			}
			require.NoError(w.t, r.Deliver(testContext(w.t), ids...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s, dir := w.fullServer()
			account := w.addAccount("orders")
			former := w.wanted[account.id]
			f := w.forgetfulServer(s, account.id, former, true)
			w.set(account.id, w.accountJWT(account.id, "orders", func(c *jwt.AccountClaims) { c.Revoke("*") }))
			r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
			bring(w, r, account.id)
			w.eventually(func() error {
				if loaded, _ := f.goesBy(account.id); loaded != w.wanted[account.id] {
					return errors.New("a server goes by a former account")
				}
				return nil
			})
			require.NoError(t, r.Deliver(testContext(t), w.systemID))
			w.eventually(func() error { return w.holds(dir) })
			_, rewrites := f.goesBy(account.id)
			require.Equal(t, 1, rewrites)
		})
	}
}

func TestAServerThatNamesAnAccountAndGoesByAFormerOneIsMadeToLoadItAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, _ := w.fullServer()
	account := w.addAccount("orders")
	w.set(account.id, w.accountJWT(account.id, "orders", func(c *jwt.AccountClaims) { c.Revoke("*") }))
	f := w.forgetfulServer(s, account.id, w.wanted[account.id], true)
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	require.NoError(t, r.Deliver(testContext(t), w.systemID))
	w.knows(r, 2)
	require.NoError(t, r.Deliver(testContext(t), account.id))
	w.eventually(func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.revoked) == 0 {
			return errors.New("a server goes by an account without its revocations")
		}
		return nil
	})
	require.Never(t, func() bool {
		_, rewrites := f.goesBy(account.id)
		return rewrites > 1
	}, 2*lookAfter, 50*time.Millisecond)
}

func TestAServerThatNeverGoesByAnAccountIsNotMadeToForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, _ := w.fullServer()
	account := w.addAccount("orders")
	f := w.forgetfulServer(s, account.id, w.accountJWT(account.id, "former", nil), false)
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	require.NoError(t, r.Deliver(testContext(t), w.systemID))
	w.knows(r, 2)
	require.NoError(t, r.Deliver(testContext(t), account.id))
	w.eventually(func() error {
		if _, rewrites := f.goesBy(account.id); rewrites < mostLooks {
			return fmt.Errorf("it was made to load it %d times", rewrites)
		}
		return nil
	})
	require.Never(t, func() bool {
		_, rewrites := f.goesBy(account.id)
		return rewrites > mostLooks
	}, 2*lookAfter, 50*time.Millisecond)
}

// A client that comes first finds an account half made, with the revocations that it has
// to come.
func TestServersLoadAnAccountThatRevokesSomebodyBeforeClientsComeToIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.cluster(2)
	account := w.addAccount("orders")
	w.set(account.id, w.accountJWT(account.id, "orders", func(c *jwt.AccountClaims) { c.Revoke("*") }))
	idle := w.addAccount("idle")
	r := w.reconcilerThatWaits(w.config(c.servers[0].ClientURL()), time.Hour)
	require.NoError(t, r.Deliver(testContext(t), w.systemID))
	w.knows(r, 2)
	client := w.bareClient(c.servers[1])
	defer client.Close()
	pushes := w.pushesOf(client, account.id)
	require.NoError(t, r.Deliver(testContext(t), account.id, idle.id))
	for _, s := range c.servers {
		w.eventually(func() error {
			accounts, err := s.Accountz(nil)
			if err == nil && !slices.Contains(accounts.Accounts, account.id) {
				err = errors.New("it is not loaded")
			}
			require.NotContains(t, accounts.Accounts, idle.id)
			return err
		})
	}
	wanted := w.wanted[account.id]
	w.eventually(func() error { // who has slipped in is thrown out by what is another text
		if got := pushes.Load(); got == nil || !slices.Equal(*got, []string{wanted, wanted + "\n", wanted}) {
			return fmt.Errorf("pushed was %q", got)
		}
		return nil
	})
	require.Never(t, func() bool { return len(*pushes.Load()) > 3 }, 2*lookAfter, 50*time.Millisecond)
}

func TestServersThatGoByWhatTheyHaveAreLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.cluster(3)
	account := w.addAccount("orders")
	r := w.reconcilerThatWaits(w.config(c.servers[0].ClientURL()), time.Hour)
	require.NoError(t, r.Deliver(testContext(t), w.systemID, account.id))
	for _, s := range c.servers[:2] {
		client, err := w.connectAs(s, account)
		require.NoError(t, err)
		defer client.Close()
	}
	system := w.bareClient(c.servers[2])
	defer system.Close()
	pushes, asked := w.pushesOf(system, account.id), make(chan struct{}, 10)
	_, err := system.Subscribe(accountzSubject, func(m *nats.Msg) {
		if strings.Contains(string(m.Data), account.id) {
			asked <- struct{}{}
		}
	})
	require.NoError(t, err)
	require.NoError(t, system.Flush())
	w.set(account.id, w.accountJWT(account.id, "orders", func(c *jwt.AccountClaims) { c.Limits.Conn = 10 }))
	require.NoError(t, r.Deliver(testContext(t), account.id))
	select {
	case <-asked:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody looks what the servers go by")
	}
	require.Never(t, func() bool { return len(*pushes.Load()) > 1 }, time.Second, 20*time.Millisecond, "it is pushed again for nothing")
	require.NotEmpty(t, *pushes.Load())
}
