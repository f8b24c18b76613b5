// Package e2e tests the client on real servers: a Vault with the plugin in it,
// nats-servers with JetStream, and an OIDC issuer. It is a module of its own, so that
// these are no dependencies of the client.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/client"
)

// patience is how long something may take that takes a few seconds.
const patience = 30 * time.Second

// shared is what all tests use; TestMain makes it.
var shared struct {
	program string // the plugin's
	vault   *stack.Vault
	mounts  atomic.Int64
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute) // Vault may have to be built
	defer cancel()
	dir, err := os.MkdirTemp("", "client-e2e-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if shared.program, err = stack.BuildPlugin(ctx, dir, "v0.1.0-test"); err != nil {
		return fail(err)
	}
	if shared.vault, err = stack.StartVault(ctx, stack.VaultConfig{}); err != nil {
		return fail(err)
	}
	defer shared.vault.Close()
	if err := shared.vault.Install(ctx, shared.program); err != nil {
		return fail(err)
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

type fields = map[string]any

// env is a mount with an issuer and a nats-server of its own.
type env struct {
	t      testing.TB
	vault  *stack.Vault
	root   *api.Client
	mount  string
	issuer *stack.Issuer
	nats   *stack.NATS
}

// start gives a test an env with the account "orders", which has JetStream.
func start(t testing.TB, vault *stack.Vault, mount string) *env {
	t.Helper()
	e := &env{t: t, vault: vault, mount: mount}
	var err error
	e.root, err = vault.Client()
	require.NoError(t, err)
	e.issuer, err = stack.StartIssuer(nil, jose.ES256)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.issuer.Close()) })
	e.nats, err = stack.NewNATS()
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("nats-server's log:\n%s", e.nats.Log())
		}
		require.NoError(t, e.nats.Close())
	})

	require.NoError(t, vault.Enable(e.ctx(), mount))
	if vault == shared.vault {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			require.NoError(t, e.root.Sys().DisableAuthWithContext(ctx, mount))
		})
	}
	e.write("config", fields{"oidc_discovery_url": e.issuer.URL, "account_jwt_server_url": e.nats.URL, "service_url": e.nats.URL})
	server, err := e.root.Logical().ReadWithContext(e.ctx(), e.path("config/server"))
	require.NoError(t, err)
	config := server.Data["config"].(string) + fmt.Sprintf("\njetstream { store_dir: %q }\n", filepath.Join(e.nats.Dir, "jetstream"))
	require.NoError(t, e.nats.Start(e.ctx(), config))
	e.write("jwt/orders", fields{"type": "account", "config": fields{"limits": fields{"mem_storage": -1, "disk_storage": -1}}})
	return e
}

// startShared is start with a mount of its own on the Vault that tests share.
func startShared(t testing.TB) *env {
	t.Helper()
	return start(t, shared.vault, fmt.Sprintf("nats-%d", shared.mounts.Add(1)))
}

func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	e.t.Cleanup(cancel)
	return ctx
}

func (e *env) path(below string) string { return "auth/" + e.mount + "/" + below }

func (e *env) write(below string, data fields) *api.Secret {
	e.t.Helper()
	secret, err := e.root.Logical().WriteWithContext(e.ctx(), e.path(below), data)
	require.NoError(e.t, err)
	return secret
}

// role writes a role whose users bring their keys and prove that they have them, and live
// for three seconds unless the fields say otherwise; nil leaves one out.
func (e *env) role(name string, data fields) {
	e.t.Helper()
	all := fields{
		"account": "orders", "bound_audiences": "vault", "user_claim": "sub",
		"user_ttl": "3s", "user_key": "client", "user_key_proof": true,
	}
	maps.Copy(all, data)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	e.write("role/"+name, all)
}

// policy writes a policy that lets its holder do something at a path of the mount.
func (e *env) policy(below, capability string) (name string) {
	e.t.Helper()
	name = e.mount + "-policy"
	rules := fmt.Sprintf("path %q {\n  capabilities = [%q]\n}\n", e.path(below), capability)
	require.NoError(e.t, e.root.Sys().PutPolicyWithContext(e.ctx(), name, rules))
	return name
}

// token mints a workload's token.
func (e *env) token() string {
	e.t.Helper()
	token, err := e.issuer.Mint(jose.ES256, fields{"aud": "vault", "sub": "workload"})
	require.NoError(e.t, err)
	return token
}

// workload has a new token each time.
func (e *env) workload(role string) client.Workload {
	return client.Workload{Mount: e.mount, Role: role, Token: func(context.Context) (string, error) {
		return e.issuer.Mint(jose.ES256, fields{"aud": "vault", "sub": "workload"})
	}}
}

// caller returns a client that holds a Vault token, or none.
func (e *env) caller(token string) *api.Client {
	e.t.Helper()
	caller, err := e.vault.Client()
	require.NoError(e.t, err)
	caller.SetToken(token)
	return caller
}

// service is a connection and what it was told.
type service struct {
	*nats.Conn
	t testing.TB

	mu         sync.Mutex
	reconnects int
	errs       []error
}

// connect connects when the server knows the account, which may take a moment.
func (e *env) connect(credentials *client.Client) *service {
	e.t.Helper()
	s := &service{t: e.t}
	e.waitFor("a connection", func() (err error) {
		s.Conn, err = nats.Connect(credentials.URL(),
			nats.ReconnectWait(200*time.Millisecond),
			nats.ReconnectHandler(func(*nats.Conn) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.reconnects++
			}),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.errs = append(s.errs, err)
			}),
			credentials.Option())
		return err
	})
	e.t.Cleanup(s.Close)
	return s
}

// client gets credentials by logging in.
func (e *env) client(role string) *client.Client {
	e.t.Helper()
	credentials, err := client.New(e.ctx(), e.caller(""), e.workload(role))
	require.NoError(e.t, err)
	e.t.Cleanup(credentials.Close)
	return credentials
}

func (s *service) seen() (reconnects int, errs []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reconnects, append(errs, s.errs...)
}

// waitForReconnects returns when the connection has reconnected so often.
func (e *env) waitForReconnects(s *service, n int) {
	e.t.Helper()
	e.waitFor(fmt.Sprintf("reconnect %d", n), func() error {
		if got, _ := s.seen(); got < n {
			return fmt.Errorf("reconnected %d times", got)
		}
		return nil
	})
}

func (e *env) waitFor(what string, condition func() error) {
	e.t.Helper()
	require.NoError(e.t, stack.WaitFor(e.ctx(), what, condition))
}

// delivered publishes a message and reports whether the connection gets it back.
func (s *service) delivered(subject string) error {
	messages, err := s.SubscribeSync(subject)
	if err != nil {
		return err
	}
	defer func() { _ = messages.Unsubscribe() }() // a closed connection has none
	if err := s.Publish(subject, []byte("hello")); err != nil {
		return err
	}
	if err := s.FlushTimeout(5 * time.Second); err != nil {
		return err
	}
	if pending, _, err := messages.Pending(); err != nil || pending == 0 {
		return errors.Join(fmt.Errorf("no message of %s", subject), err)
	}
	return nil
}
