package e2e

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// Arrivals are clients that connect through the callout, one after another in each of
// several goroutines.
type arrivals struct {
	stop chan struct{}
	done sync.WaitGroup

	mu            sync.Mutex
	tries, failed int
	lastFailed    time.Time
	inRow         int // successes since the last failure
}

const arriving = 8

func (c *callouts) arrivals() *arrivals {
	c.t.Helper()
	all := &arrivals{stop: make(chan struct{})}
	token := c.token(nil)
	for range arriving {
		all.done.Go(func() {
			for {
				select {
				case <-all.stop:
					return
				default:
				}
				began := time.Now()
				conn, err := nats.Connect(c.nats.URL, nats.UserInfo("dev", token), nats.NoReconnect(), nats.Timeout(10*time.Second))
				if err == nil {
					conn.Close()
				}
				all.note(began, err)
			}
		})
	}
	return all
}

func (a *arrivals) note(began time.Time, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tries++
	a.inRow++
	if err != nil {
		a.failed, a.lastFailed, a.inRow = a.failed+1, began, 0
	}
}

// wellAgain waits until many clients in a row were let in, and returns how many were not
// before that, and how long after since the last of these began.
func (c *callouts) wellAgain(a *arrivals, since time.Time) (failed int, after time.Duration) {
	c.t.Helper()
	c.waitFor("clients to be let in", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.inRow < 10*arriving {
			return nats.ErrAuthorization
		}
		return nil
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	failed, a.failed = a.failed, 0
	if failed > 0 {
		after = a.lastFailed.Sub(since)
	}
	return failed, after
}

// failing waits until that many clients were turned away.
func (c *callouts) failing(a *arrivals, count int) {
	c.t.Helper()
	c.waitFor("clients to be turned away", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.failed < count {
			return nats.ErrTimeout
		}
		return nil
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inRow = 0
}

// TestClientsAreLetInAgainAfterFaults shows how many of the clients that arrive each fault turns
// away, and for how long.
func TestClientsAreLetInAgainAfterFaults(t *testing.T) {
	t.Parallel()
	vault := ownVault(t, stack.VaultConfig{Storage: "raft"})
	c := startCallouts(t, map[string]fields{"dev": nil}, onVault(vault))
	program, err := stack.BuildCallout(buildContext(t), t.TempDir())
	require.NoError(t, err)
	run := func() *stack.Callout {
		running, err := stack.StartCallout(c.ctx(), stack.CalloutConfig{
			Program: program, Vault: vault, VaultToken: c.vaultToken(), Mount: "auth/" + c.mount, Callout: "edge", NATS: c.nats.URL,
		})
		require.NoError(t, err)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the log of nats-callout:\n%s", running.Log())
			}
			require.NoError(t, running.Close())
		})
		return running
	}
	first := run()
	all := c.arrivals()
	t.Cleanup(func() {
		close(all.stop)
		all.done.Wait()
	})
	failed, _ := c.wellAgain(all, time.Now())
	require.Zero(t, failed)
	show := func(fault string, since time.Time) int {
		failed, after := c.wellAgain(all, since)
		t.Logf("%s: %d clients of %d at a time were turned away, the last of them began %s after", fault, failed, arriving, after.Round(time.Millisecond))
		return failed
	}

	second := run()
	began := time.Now()
	first.Stop()
	require.Zero(t, show("one of two responders ends", began))

	first = run()
	began = time.Now()
	first.Kill()
	require.LessOrEqual(t, show("one of two responders is killed", began), arriving)

	first = run()
	began = time.Now()
	first.Hang()
	c.failing(all, 4)
	first.Kill()
	show("one of two responders hangs until it is killed", began)

	began = time.Now()
	second.Kill()
	c.failing(all, 4)
	second = run()
	show("the only responder is killed and started again", began)

	began = time.Now()
	require.NoError(t, vault.Seal(c.ctx()))
	c.failing(all, 4)
	sealed := time.Since(began)
	require.NoError(t, vault.Unseal(c.ctx()))
	show("Vault is sealed for "+sealed.Round(time.Millisecond).String(), began)

	began = time.Now()
	require.NoError(t, c.nats.Restart(c.ctx()))
	show("NATS is started again", began)

	for _, running := range []*stack.Callout{first, second} {
		require.NotContains(t, running.Log(), "eyJ", "a token in a log line")
	}
}
