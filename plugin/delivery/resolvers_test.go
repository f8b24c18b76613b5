package delivery

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// fetched serves what the source wants, as a mount or an account server does.
func (w *world) fetched() *httptest.Server {
	h := http.NewServeMux()
	h.HandleFunc("GET /jwt/v1/accounts/{id...}", func(rw http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("id"); id != "" {
			text, ok, _ := w.Wanted(r.Context(), id)
			if !ok {
				http.NotFound(rw, r)
				return
			}
			_, _ = rw.Write([]byte(text))
		}
	})
	s := httptest.NewServer(h)
	w.t.Cleanup(s.Close)
	return s
}

// Each resolver is started when the account exists already; then the account is
// changed and removed under a connected client.
func TestEveryKindOfResolverFollowsChangeAndRemoval(t *testing.T) {
	resolvers := map[string]func(*world, *natsserver.Options) natsserver.AccountResolver{
		"full": func(w *world, o *natsserver.Options) natsserver.AccountResolver {
			return w.full(o, t.TempDir(), true).AccountResolver
		},
		"full that does not delete": func(w *world, o *natsserver.Options) natsserver.AccountResolver {
			return w.full(o, t.TempDir(), false).AccountResolver
		},
		"cache": func(*world, *natsserver.Options) natsserver.AccountResolver {
			resolver, err := natsserver.NewCacheDirAccResolver(t.TempDir(), 100, 0)
			require.NoError(t, err)
			return resolver
		},
		"memory": func(*world, *natsserver.Options) natsserver.AccountResolver {
			return &natsserver.MemAccResolver{}
		},
		"URL": func(w *world, _ *natsserver.Options) natsserver.AccountResolver {
			resolver, err := natsserver.NewURLAccResolver(w.fetched().URL + "/jwt/v1/accounts/")
			require.NoError(t, err)
			return resolver
		},
	}
	for name, resolver := range resolvers {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx := testContext(t)
			a := w.addAccount("orders")
			o := w.serverOptions("n1")
			o.AccountResolver = resolver(w, o)
			if name != "URL" {
				require.NoError(t, o.AccountResolver.Store(w.systemID, w.systemJWT))
				require.NoError(t, o.AccountResolver.Store(a.id, w.wanted[a.id]))
			}
			s := w.start(o)
			client, err := w.connectAs(s, a)
			require.NoError(t, err)
			defer client.Close()

			r := w.reconciler(w.config(s.ClientURL()))
			w.set(a.id, w.accountJWT(a.id, "one connection", func(c *jwt.AccountClaims) { c.Limits.Conn = 1 }))
			require.NoError(t, r.Deliver(ctx, a.id))
			w.eventually(func() error {
				second, err := w.connectAs(s, a)
				if err == nil {
					second.Close()
					return fmt.Errorf("the limit of one connection is not in force")
				}
				return nil
			})

			disconnected := make(chan struct{})
			client.SetDisconnectErrHandler(func(*nats.Conn, error) { close(disconnected) })
			w.remove(a.id)
			require.NoError(t, r.Deliver(ctx, a.id))
			require.Zero(t, w.stillPending())
			select {
			case <-disconnected:
			case <-ctx.Done():
				t.Fatal("a client of a removed account stays connected")
			}
			_, err = w.connectAs(s, a)
			require.Error(t, err)

			refused := r.State().Servers[0].DeleteRefused
			if name == "full that does not delete" {
				require.Contains(t, refused, "delete must be enabled")
			} else {
				require.Empty(t, refused)
			}
		})
	}
}

func TestARejectedAccountIsToldAndTriedAgain(t *testing.T) {
	w := newWorld(t)
	s, dir := w.fullServer()
	r := w.reconciler(w.config(s.ClientURL()))
	ctx := testContext(t)

	a := w.addAccount("orders")
	good := w.wanted[a.id]
	w.set(a.id, w.accountJWT(a.id, "bad", func(c *jwt.AccountClaims) {
		c.Mappings = jwt.Mapping{"a.*": {{Subject: "b.{{wildcard(7)}}", Weight: 100}}}
	}))
	err := r.Deliver(ctx, a.id)
	require.ErrorContains(t, err, "server n1 refuses")
	state, err := r.Status(ctx, a.id)
	require.NoError(t, err)
	require.True(t, state.Pending)
	require.Contains(t, state.Error, "mapping")
	require.Equal(t, version(w.wanted[a.id]), state.Wanted)
	require.Positive(t, state.Attempts)

	w.set(a.id, good)
	w.eventually(func() error { return w.holds(dir) }) // without being told
	w.eventually(func() error {
		state, err := r.Status(ctx, a.id)
		if err == nil && (state.Pending || state.Delivered != version(good) || state.Servers != 1) {
			err = fmt.Errorf("the state is %+v", state)
		}
		return err
	})
}

func TestAccountServersAreGivenTheAccountAndServersAreNotified(t *testing.T) {
	w := newWorld(t)
	ctx := testContext(t)
	a := w.addAccount("orders")

	var held sync.Map
	store := http.NewServeMux()
	store.HandleFunc("POST /jwt/v1/accounts/{id}", func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		held.Store(r.PathValue("id"), string(body))
	})
	accountServer := httptest.NewServer(store)
	defer accountServer.Close()

	o := w.serverOptions("n1")
	resolver, err := natsserver.NewURLAccResolver(w.fetched().URL + "/jwt/v1/accounts/")
	require.NoError(t, err)
	o.AccountResolver = resolver
	s := w.start(o)
	client, err := w.connectAs(s, a)
	require.NoError(t, err)
	defer client.Close()

	cfg := w.config(accountServer.URL)
	cfg.ServiceURLs = []string{s.ClientURL()}
	r := w.reconciler(cfg)
	require.NoError(t, r.Deliver(ctx, a.id))
	text, _ := held.Load(a.id)
	require.Equal(t, w.wanted[a.id], text)

	disconnected := make(chan struct{})
	client.SetDisconnectErrHandler(func(*nats.Conn, error) { close(disconnected) })
	w.remove(a.id)
	require.NoError(t, r.Deliver(ctx, a.id))
	select {
	case <-disconnected:
	case <-ctx.Done():
		t.Fatal("a client of a removed account stays connected")
	}

	report, err := r.Sync(ctx, Options{})
	require.NoError(t, err)
	require.Equal(t, 1, report.Delivered) // the system account
}
