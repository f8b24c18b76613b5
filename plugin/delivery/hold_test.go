package delivery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

func TestAProofOfLeadingHoldsForAShortTime(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		asked time.Time
		holds bool
	}{
		"just now":                           {now, true},
		"half a second ago":                  {now.Add(-time.Second / 2), true},
		"longer ago":                         {now.Add(-LeadTime), false},
		"longer ago by the wall clock alone": {now.Round(0).Add(-LeadTime), false},
		"in the future: the wall clock was set back": {now.Round(0).Add(time.Minute), false},
		"never": {time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.holds, LeadHolds(test.asked))
		})
	}
	require.EqualValues(t, math.MaxInt64, SinceAsked(now.Round(0).Add(time.Minute)))
}

// pushesOf counts what servers are asked to take of an account.
func (w *world) pushesOf(client *nats.Conn, id string) *atomic.Pointer[[]string] {
	var all atomic.Pointer[[]string]
	all.Store(&[]string{})
	_, err := client.Subscribe(updateSubject(id), func(m *nats.Msg) {
		texts := append(append([]string{}, *all.Load()...), string(m.Data))
		all.Store(&texts)
	})
	require.NoError(w.t, err)
	require.NoError(w.t, client.Flush())
	return &all
}

func TestNothingIsPushedBeforeItIsProvenThatThisNodeLeads(t *testing.T) {
	for name, change := range map[string]func(*world, string){
		"a change":  func(*world, string) {},
		"a removal": func(w *world, id string) { w.remove(id) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s, dir := w.fullServer()
			cfg := w.config(s.ClientURL())
			var refused atomic.Bool
			cfg.Lead = func(context.Context) (time.Time, error) {
				if refused.Load() {
					return time.Time{}, errors.New("the storage cannot be written")
				}
				return time.Now(), nil
			}
			r := w.reconcilerThatWaits(cfg, time.Hour)
			account := w.addAccount("orders")
			require.NoError(t, r.Deliver(testContext(t), w.systemID, account.id))

			client := w.bareClient(s)
			defer client.Close()
			pushes := w.pushesOf(client, account.id)
			deletions, err := client.SubscribeSync(deleteSubject)
			require.NoError(t, err)
			require.NoError(t, client.Flush())
			refused.Store(true)
			w.set(account.id, w.accountJWT(account.id, "orders, changed", nil))
			change(w, account.id)
			require.ErrorContains(t, r.Deliver(testContext(t), account.id), "it cannot be shown that this node leads")
			_, err = r.Sync(testContext(t), Options{})
			require.ErrorContains(t, err, "the storage cannot be written")
			require.NoError(t, client.Flush())
			require.Empty(t, *pushes.Load())
			n, _, err := deletions.Pending()
			require.NoError(t, err)
			require.Zero(t, n)

			refused.Store(false)
			require.NoError(t, r.Deliver(testContext(t), account.id))
			require.NoError(t, w.holds(dir))
		})
	}
}

func TestWhatIsInHandWhenTheProofIsOverIsReadAgain(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	client := w.bareClient(s)
	defer client.Close()
	account := w.addAccount("orders")
	older := w.wanted[account.id]
	pushes := w.pushesOf(client, account.id)

	// The process is frozen once the account was read: the proof is over when it goes on,
	// and another node has changed the account.
	cfg := w.config(s.ClientURL())
	var proofs atomic.Int32
	cfg.Lead = func(context.Context) (time.Time, error) {
		switch proofs.Add(1) {
		case 1:
			return time.Now().Add(-LeadTime), nil
		case 2:
			w.set(account.id, w.accountJWT(account.id, "changed by the other", nil))
		}
		return time.Now(), nil
	}
	r := w.reconcilerThatWaits(cfg, time.Hour)
	w.eventually(func() error { return w.nothingPending() })
	require.NoError(t, r.Deliver(testContext(t), w.systemID))
	require.NoError(t, w.holds(dir))
	require.NoError(t, client.Flush())
	require.NotContains(t, *pushes.Load(), older)
	require.NotEmpty(t, *pushes.Load())
}

func TestAProofThatTakesLongerThanItHoldsIsNone(t *testing.T) {
	w := newWorld(t)
	s, _ := w.fullServer()
	cfg := w.config(s.ClientURL())
	cfg.Lead = func(context.Context) (time.Time, error) { return time.Now().Add(-LeadTime), nil }
	r := w.reconcilerThatWaits(cfg, time.Hour)
	require.ErrorContains(t, r.Deliver(testContext(t), w.addAccount("orders").id), "a proof takes longer than it holds (1s)")
}

func TestWhatSomebodyElsePushesDoesNotStay(t *testing.T) {
	for name, push := range map[string]func(w *world, c *nats.Conn, id, accountJWT string) error{
		"by the account's subject": func(_ *world, c *nats.Conn, id, text string) error { return c.Publish(updateSubject(id), []byte(text)) },
		"by its subject of older servers": func(_ *world, c *nats.Conn, id, text string) error {
			return c.Publish("$SYS.ACCOUNT."+id+".CLAIMS.UPDATE", []byte(text))
		},
		"by the subject of all": func(_ *world, c *nats.Conn, _, text string) error { return c.Publish(updatesSubject, []byte(text)) },
		"as a deletion": func(w *world, c *nats.Conn, id, _ string) error {
			token, err := w.config().DeleteToken(id)
			require.NoError(w.t, err)
			return c.Publish(deleteSubject, []byte(token))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.cluster(3)
			account, gone := w.addAccount("orders"), w.addAccount("gone")
			older, goneJWT := w.wanted[account.id], w.wanted[gone.id]
			r := w.reconcilerThatWaits(w.config(c.servers[0].ClientURL()), time.Hour)
			w.set(account.id, w.accountJWT(account.id, "orders", func(claims *jwt.AccountClaims) { claims.Revoke("*") }))
			require.NoError(t, r.Deliver(testContext(t), w.systemID, account.id, gone.id))
			w.remove(gone.id)
			require.NoError(t, r.Deliver(testContext(t), gone.id))

			client := w.bareClient(c.servers[2])
			defer client.Close()
			require.NoError(t, push(w, client, account.id, older))
			require.NoError(t, push(w, client, gone.id, goneJWT))
			require.NoError(t, client.Flush())
			// Before it is heard here, the servers may have it or not.
			w.eventually(func() error {
				r.others.mu.Lock()
				defer r.others.mu.Unlock()
				if r.others.pushed[account.id] == nil || r.others.pushed[gone.id] == nil {
					return errors.New("it was not heard")
				}
				return nil
			})
			w.eventually(func() error {
				for _, dir := range c.dirs {
					if err := w.holds(dir); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

func TestAccountsThatTheMountNeverHadAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	require.NoError(t, r.Deliver(testContext(t), w.systemID))

	key := newKey(t, nkeys.CreateAccount)
	id := public(t, key)
	text := w.accountJWT(id, "of another mount", nil)
	client := w.bareClient(s)
	defer client.Close()
	_, err := client.Request(updateSubject(id), []byte(text), answerTimeout)
	require.NoError(t, err)
	// One that is ours comes after it, and is answered when that was.
	_, err = client.Request(updateSubject(w.systemID), []byte(w.accountJWT(w.systemID, "another", nil)), answerTimeout)
	require.NoError(t, err)
	w.mu.Lock()
	w.wanted[id] = text // for holds
	w.mu.Unlock()
	w.eventually(func() error { return w.holds(dir) })
}

func TestTwoMountsWithOneAccountDoNotPushForEver(t *testing.T) {
	w, other := newWorld(t), &world{}
	account := w.addAccount("orders")
	*other = *w
	other.memorySource = &memorySource{
		wanted:  map[string]string{account.id: w.accountJWT(account.id, "orders of the other", nil), w.systemID: w.systemJWT},
		pending: map[string]bool{}, removed: map[string]bool{},
	}
	s, _ := w.fullServer()
	client := w.bareClient(s)
	defer client.Close()
	pushes := w.pushesOf(client, account.id)
	one := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	two := other.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	require.NoError(t, two.Deliver(testContext(t), w.systemID))
	require.NoError(t, one.Deliver(testContext(t), account.id))

	// Eight pauses that double are more than a second.
	w.eventually(func() error {
		one.others.mu.Lock()
		defer one.others.mu.Unlock()
		if n := one.others.pause.NumRequeues(account.id); n < 8 {
			return fmt.Errorf("the other was heard %d times", n)
		}
		return nil
	})
	require.Less(t, len(*pushes.Load()), 32)
}
