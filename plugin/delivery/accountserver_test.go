package delivery

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// An accountStore is an account server: it keeps what it is given, and servers fetch
// from it.
type accountStore struct {
	held  sync.Map
	posts sync.Map // how often, by id
}

func (s *accountStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Path[len("/jwt/v1/accounts/"):]
	switch {
	case r.Method == http.MethodPost:
		text, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.held.Store(id, string(text))
		n, _ := s.posts.LoadOrStore(id, 0)
		s.posts.Store(id, n.(int)+1)
	case id != "":
		text, ok := s.held.Load(id)
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(text.(string)))
	}
}

// startAt has an account server come up at an address that was known before.
func (s *accountStore) startAt(t *testing.T, address string) *httptest.Server {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: s, ReadHeaderTimeout: time.Second}}
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// userSignedBy is a user of an account whose JWT a signing key of the account signs.
func (w *world) userSignedBy(signing nkeys.KeyPair, account string) (string, nkeys.KeyPair) {
	user := newKey(w.t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(public(w.t, user))
	claims.IssuerAccount = account
	text, err := claims.Encode(signing)
	require.NoError(w.t, err)
	return text, user
}

func portIn(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	return number
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// A server whose system account cannot be fetched makes one up and goes on asking. It
// lets nobody in whom a signing key signed, so not the mount either: if the mount gave
// accounts to the account server only while it is connected, both would wait for each
// other.
func TestAServerThatStartsOnAnEmptyAccountServerComesUpAllTheSame(t *testing.T) {
	for name, pending := range map[string]bool{"with everything pending": true, "with everything delivered elsewhere before": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			// As a mount does, the one who delivers is signed with a signing key.
			signing := newKey(t, nkeys.CreateAccount)
			w.systemJWT = w.accountJWT(w.systemID, "SYS", func(c *jwt.AccountClaims) { c.SigningKeys.Add(public(t, signing)) })
			w.wanted[w.systemID] = w.systemJWT
			a := w.addAccount("orders")
			clear(w.pending)
			address, natsAddress := freeAddress(t), freeAddress(t)
			cfg := w.config("http://" + address)
			cfg.ServiceURLs = []string{"nats://" + natsAddress}
			cfg.User = func() (string, func([]byte) ([]byte, error), error) {
				text, user := w.userSignedBy(signing, w.systemID)
				return text, user.Sign, nil
			}
			r := w.reconciler(cfg)
			if pending {
				w.set(w.systemID, w.systemJWT)
				w.set(a.id, w.wanted[a.id])
				require.Error(t, r.Deliver(testContext(t), w.systemID, a.id))
			}

			store := &accountStore{}
			store.startAt(t, address)
			o := w.serverOptions("n1")
			o.Port = portIn(t, natsAddress)
			resolver, err := natsserver.NewURLAccResolver("http://" + address + "/jwt/v1/accounts/")
			require.NoError(t, err)
			o.AccountResolver = resolver
			s := w.start(o)

			w.eventually(func() error {
				client, err := w.connectAs(s, a)
				if err == nil {
					client.Close()
				}
				return err
			})
			w.eventually(func() error {
				if !r.State().Connected {
					return errors.New("the mount is not connected")
				}
				return w.nothingPending()
			})
			w.eventually(func() error {
				if report := r.lastReport(); report == nil || report.Delivered != 2 {
					return errors.New("nothing was compared")
				}
				return nil
			})
		})
	}
}

func TestAnAccountServerIsNotGivenEverythingOverAndOverWhileNATSIsDown(t *testing.T) {
	w := newWorld(t)
	ids := []string{w.systemID}
	for range 20 {
		ids = append(ids, w.addAccount("some").id)
	}
	clear(w.pending)
	store := &accountStore{}
	server := httptest.NewServer(store)
	defer server.Close()
	cfg := w.config(server.URL)
	cfg.ServiceURLs = []string{"nats://" + freeAddress(t)}
	r := w.reconcilerThatWaits(cfg, time.Hour)
	for range 3 {
		_, err := r.Sync(testContext(t), Options{})
		require.ErrorIs(t, err, errNotConnected)
		for _, id := range ids {
			posts, _ := store.posts.Load(id)
			require.Equal(t, 1, posts)
		}
	}
	require.Empty(t, r.Pending("", 10))
}

func TestAnAccountServerThatIsAwayIsNotAskedForEachAccount(t *testing.T) {
	w := newWorld(t)
	for range 500 {
		w.addAccount("some")
	}
	clear(w.pending)
	cfg := w.config("http://" + freeAddress(t))
	cfg.ServiceURLs = []string{"nats://" + freeAddress(t)}
	r := w.reconcilerThatWaits(cfg, time.Hour)
	_, err := r.Sync(testContext(t), Options{})
	require.ErrorIs(t, err, errNoAccountServer)
	require.LessOrEqual(t, len(r.Pending("", 500)), inFlight+workers, "what nobody has changed waits for the next comparison")
}
