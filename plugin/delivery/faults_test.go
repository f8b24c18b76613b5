package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// answerToo has something else in the system account answer requests.
func (w *world) answerToo(s *natsserver.Server, subject string, answer func(*nats.Msg)) *nats.Subscription {
	client := w.bareClient(s)
	w.t.Cleanup(client.Close)
	sub, err := client.Subscribe(subject, answer)
	require.NoError(w.t, err)
	require.NoError(w.t, client.Flush())
	return sub
}

// isOurs has something that is no server answer whose it is.
func (w *world) isOurs(s *natsserver.Server, id string) {
	w.answerToo(s, varzSubject(id), func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"data":{"trusted_operators_claim":[{"sub":"` + public(w.t, w.operator) + `"}]}}`))
	})
}

func (w *world) nothingPending() error {
	if n := w.stillPending(); n > 0 {
		return fmt.Errorf("%d accounts are pending", n)
	}
	return nil
}

func TestEveryServerThatIsThereHasToAgree(t *testing.T) {
	const second = `"server":{"name":"n2","id":"N2","ver":"2.0.0"}`
	for name, test := range map[string]struct{ answer, fault string }{
		"one does not answer":      {"", "server n2 did not answer"},
		"one refuses":              {`{` + second + `,"error":{"code":500,"description":"jwt store is full"}}`, "server n2 refuses: jwt store is full"},
		"one answers with garbage": {"\x00<html>", "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s, dir := w.fullServer()
			w.isOurs(s, "N2")
			w.answerToo(s, pingSubject, func(m *nats.Msg) { _ = m.Respond([]byte(`{` + second + `,"statsz":{"active_servers":2}}`)) })
			var answer atomic.Value
			answer.Store(test.answer)
			w.answerToo(s, updateSubject("*"), func(m *nats.Msg) {
				if text := answer.Load().(string); text != "" {
					_ = m.Respond([]byte(text))
				}
			})
			r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)

			require.NoError(t, r.link.ready(testContext(t)))
			w.eventually(func() error {
				if n := len(r.fleet.present()); n != 2 {
					return errors.Join(fmt.Errorf("%d servers are known", n), r.rollCall())
				}
				return nil
			})

			a := w.addAccount("orders")
			require.ErrorContains(t, r.Deliver(testContext(t), a.id), test.fault)
			require.Error(t, w.nothingPending())
			require.Contains(t, r.Pending("", 1)[0].Error, test.fault)
			answer.Store(`{` + second + `,"data":{"code":200}}`)
			w.eventually(w.nothingPending)
			require.NoError(t, w.holds(dir))
		})
	}
}

func TestChangesOfOneAccountAreCollapsedAndTheLastOneWins(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	var pushes atomic.Int64
	w.answerToo(s, updateSubject("*"), func(*nats.Msg) { pushes.Add(1) })
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	ctx := testContext(t)
	require.NoError(t, r.Deliver(ctx, w.systemID))
	before := pushes.Load()

	const changes = 2000
	a := w.addAccount("orders")
	versions := make([]string, 20)
	for i := range versions {
		versions[i] = w.accountJWT(a.id, fmt.Sprint("version ", i), nil)
	}
	for i := range changes {
		w.set(a.id, versions[i%len(versions)])
		r.Changed(a.id)
	}
	w.eventually(w.nothingPending)
	require.NoError(t, w.holds(dir))
	require.Less(t, pushes.Load()-before, int64(changes/2))
}

func TestChangesAndComparisonsAtOnceEndInWhatIsWanted(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	r := w.reconciler(w.config(s.ClientURL()))
	ctx := testContext(t)
	accounts := make([]testAccount, 20)
	for i := range accounts {
		accounts[i] = w.addAccount(fmt.Sprint("account ", i))
	}
	var work sync.WaitGroup
	for i, a := range accounts {
		work.Go(func() {
			for n := range 20 {
				if i%4 == 0 && n%5 == 4 {
					w.remove(a.id)
				} else {
					w.set(a.id, w.accountJWT(a.id, fmt.Sprint("version ", n), nil))
				}
				r.Changed(a.id)
			}
		})
	}
	for range 3 {
		work.Go(func() {
			_, err := r.Sync(ctx, Options{})
			require.NoError(t, err)
		})
	}
	work.Wait()
	w.eventually(w.nothingPending)
	w.eventually(func() error { return w.holds(dir) })
}

func TestAFaultOfTheSourceIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	a := w.addAccount("orders")
	w.failWith(errors.New("storage is away"))
	r := w.reconciler(w.config(s.ClientURL()))
	require.ErrorContains(t, r.Deliver(testContext(t), a.id), "storage is away")
	_, err := r.Sync(testContext(t), Options{})
	require.ErrorContains(t, err, "storage is away")
	w.failWith(nil)
	w.eventually(w.nothingPending)
	w.eventually(func() error { return w.holds(dir) })
}

func TestTheConnectionOutlivesFaultsAndTheEndOfTheUsersJWT(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, dir := w.fullServer()
	cfg := w.config(s.ClientURL())
	var users atomic.Int64
	cfg.User = func() (string, func([]byte) ([]byte, error), error) {
		life := time.Hour
		switch users.Add(1) {
		case 1, 3:
			return "", nil, errors.New("not now")
		case 2:
			life = 2 * time.Second
		}
		user := newKey(t, nkeys.CreateUser)
		claims := jwt.NewUserClaims(public(t, user))
		claims.Expires = time.Now().Add(life).Unix()
		text, err := claims.Encode(w.system)
		return text, user.Sign, err
	}
	r := w.reconciler(cfg)
	a := w.addAccount("orders")
	r.Changed(a.id)
	w.eventually(w.nothingPending)
	require.EqualValues(t, 2, users.Load())
	w.eventually(func() error {
		if users.Load() < 4 || r.link.standing() != nil {
			return errors.New("the connection was not renewed")
		}
		return nil
	})
	w.set(a.id, w.accountJWT(a.id, "changed", nil))
	require.NoError(t, r.Deliver(testContext(t), a.id))
	require.NoError(t, w.holds(dir))
}

func TestAnAccountServerThatFailsIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	var answers atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch answers.Add(1) {
		case 1:
			http.Error(rw, "disk full", http.StatusInternalServerError)
		case 2:
			http.Redirect(rw, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	cfg := w.config(strings.Replace(server.URL, "http://", "http://user:secret@", 1))
	r := w.reconcilerThatWaits(cfg, time.Hour)
	a := w.addAccount("orders")
	err := r.Deliver(testContext(t), a.id)
	require.ErrorContains(t, err, `answers 500 Internal Server Error: "disk full`)
	require.NotContains(t, err.Error(), "secret")
	w.eventually(func() error {
		if states := r.Pending("", 1); len(states) > 0 && !strings.Contains(states[0].Error, "307") {
			return fmt.Errorf("the state is %+v", states)
		}
		return nil
	})
	w.eventually(w.nothingPending)
	require.EqualValues(t, 3, answers.Load())

	server.Close()
	w.set(a.id, w.accountJWT(a.id, "changed", nil))
	err = r.Deliver(testContext(t), a.id)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestAnAccountThatIsTooLargeDoesNotHoldUpTheOthers(t *testing.T) {
	w := newWorld(t)
	o := w.full(w.serverOptions("n1"), t.TempDir(), true)
	o.MaxPayload = 8192
	s := w.start(o)
	r := w.reconcilerThatWaits(w.config(s.ClientURL()), time.Hour)
	a := w.addAccount("small")
	b := w.addAccount("large")
	w.set(b.id, w.accountJWT(b.id, strings.Repeat("large", 2000), nil))
	require.NoError(t, r.Deliver(testContext(t), a.id))
	require.ErrorContains(t, r.Deliver(testContext(t), b.id), "max_payload is 8192")
	report, err := r.Sync(testContext(t), Options{})
	require.NoError(t, err)
	require.Equal(t, 2, report.Delivered)
	require.Equal(t, 1, report.Failed)
	require.Equal(t, b.id, report.Failures[0].Account)
}

func TestAnAccountServerIsGivenAccountsWhileNATSIsDown(t *testing.T) {
	w := newWorld(t)
	var posts atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posts.Add(1) }))
	defer server.Close()
	cfg := w.config(server.URL)
	cfg.ServiceURLs = []string{"nats://127.0.0.1:1"}
	r := w.reconcilerThatWaits(cfg, time.Hour)
	require.ErrorIs(t, r.Deliver(testContext(t), w.systemID), errNotConnected)
	require.Positive(t, posts.Load())
	require.Equal(t, 1, r.Pending("", 1)[0].Servers)
}

func TestCloseEndsEverythingThatNewStarted(t *testing.T) {
	w := newWorld(t)
	s, _ := w.fullServer()
	// What a server does for its first client stays with the server.
	client, err := w.connectAs(s, testAccount{w.systemID, w.system})
	require.NoError(t, err)
	client.Close()
	accountServer := httptest.NewServer(http.NotFoundHandler())
	defer accountServer.Close()

	for name, url := range map[string]string{
		"connected":            s.ClientURL(),
		"never connected":      "nats://127.0.0.1:1",
		"to an account server": accountServer.URL,
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			for range 5 {
				r, err := New(w.config(url), w.memorySource)
				require.NoError(t, err)
				_ = r.Deliver(testContext(t), w.systemID)
				r.Close()
				require.ErrorIs(t, r.Deliver(testContext(t), w.systemID), errClosed)
				_, err = r.Sync(testContext(t), Options{})
				require.Error(t, err)
			}
			eventually(t, func() error {
				if now := runtime.NumGoroutine(); now > before {
					return fmt.Errorf("%d goroutines, were %d", now, before)
				}
				return nil
			})
		})
	}
}

// lateSource says what is pending when a test lets it.
type lateSource struct {
	*memorySource
	asked, released chan struct{}
}

func (s *lateSource) Pending(ctx context.Context) ([]string, error) {
	close(s.asked)
	select {
	case <-s.released:
		return s.memorySource.Pending(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Otherwise who writes the same again to a process that has just started is told that the
// servers have what an earlier one has stored, and they do not.
func TestWhoWaitsIsNotToldBeforeWhatIsPendingIsKnown(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	id := w.addAccount("orders").id
	source := &lateSource{memorySource: w.memorySource, asked: make(chan struct{}), released: make(chan struct{})}
	r, err := start(w.config(s.ClientURL()), source, time.Hour)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	<-source.asked
	short, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.Wait(short, id), context.DeadlineExceeded)
	close(source.released)
	require.NoError(t, r.Wait(testContext(t), id))
	require.NoError(t, w.holds(dir))
}

// slowSource lets a test hold up Wanted, once it is told to.
type slowSource struct {
	*memorySource
	slow            atomic.Bool
	asked, released chan struct{}
}

func (s *slowSource) Wanted(ctx context.Context, id string) (string, bool, error) {
	if s.slow.CompareAndSwap(true, false) {
		close(s.asked)
		<-s.released
	}
	return s.memorySource.Wanted(ctx, id)
}

// Otherwise a comparison that asks for an account during an attempt which the
// end of the connection ends never gets its place back, and is the last one.
func TestWhoAsksDuringAnAttemptIsToldThoughTheConnectionIsLost(t *testing.T) {
	w := newWorld(t)
	s, _ := w.fullServer()
	source := &slowSource{memorySource: w.memorySource, asked: make(chan struct{}), released: make(chan struct{})}
	r, err := start(w.config(s.ClientURL()), source, time.Hour)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	ctx := testContext(t)
	require.NoError(t, r.link.ready(ctx))

	told := make(chan error, 2)
	ask := func(u *undone) {
		u.waiting = append(u.waiting, waiter{u.wishes, func(_ outcome, err error) { told <- err }})
	}
	source.slow.Store(true)
	r.want(w.systemID, ask)
	<-source.asked
	stop(s)
	w.eventually(func() error {
		if r.link.standing() == nil {
			return errors.New("the link stands")
		}
		return nil
	})
	r.want(w.systemID, ask)
	close(source.released)
	for range 2 {
		select {
		case err := <-told:
			require.ErrorIs(t, err, errNotConnected)
		case <-ctx.Done():
			t.Fatal("somebody who asked during the attempt is not told of any")
		}
	}
	w.eventually(func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := len(r.undone); n > 0 {
			return fmt.Errorf("%d accounts are kept in mind that the next comparison brings anyway", n)
		}
		return nil
	})
}
