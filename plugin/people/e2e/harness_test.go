// Package e2e tests how people log in: with a real browser at a real OpenID provider,
// through the CLI of a real Vault that the plugin runs in, to real nats-servers. It is a
// module of its own, so that the provider and what drives the browser are no dependencies
// of the plugin.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// patience is how long something may take that takes a second or two.
const patience = time.Minute

// shared is what all tests use; TestMain makes it.
var shared struct {
	vault   *stack.Vault
	audit   string // the path of its audit log
	browser context.Context
	home    *provider // of the default issuer
	partner *provider // of the issuer "partner"
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute) // Vault may have to be built
	defer cancel()
	dir, err := os.MkdirTemp("", "people-e2e-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	var program string
	var stop func()
	var starts errgroup.Group
	starts.Go(func() (err error) {
		shared.browser, stop, err = startBrowser(ctx)
		return err
	})
	starts.Go(func() (err error) {
		shared.vault, err = stack.StartVault(ctx, stack.VaultConfig{LogLevel: "trace"})
		return err
	})
	starts.Go(func() (err error) {
		program, err = stack.BuildPlugin(ctx, dir, "v0.1.0-test")
		return err
	})
	err = starts.Wait()
	if stop != nil {
		defer stop()
	}
	if shared.vault != nil {
		defer shared.vault.Close()
	}
	if err != nil {
		return fail(err)
	}
	if err := shared.vault.Install(ctx, program); err != nil {
		return fail(err)
	}
	if shared.audit, err = shared.vault.Audit(ctx); err != nil {
		return fail(err)
	}
	if shared.home, err = startProvider(person{"ada", []string{"engineers"}}, person{"bob", []string{}}); err != nil {
		return fail(err)
	}
	defer shared.home.Close()
	if shared.partner, err = startProvider(person{"ada", []string{"engineers"}}); err != nil {
		return fail(err)
	}
	defer shared.partner.Close()
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

type fields = map[string]any

// env is a mount with a nats-server of its own. Its default issuer is the provider home;
// partner and posting are issuers too, of which the last has answers posted.
type env struct {
	t     testing.TB
	vault *stack.Vault
	root  *api.Client
	mount string
	nats  *stack.NATS
}

// start gives a test an env with the account "orders".
func start(t testing.TB, mount string) *env {
	t.Helper()
	e := &env{t: t, vault: shared.vault, mount: mount}
	var err error
	e.root, err = e.vault.Client()
	require.NoError(t, err)
	e.nats, err = stack.NewNATS()
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("nats-server's log:\n%s", e.nats.Log())
		}
		require.NoError(t, e.nats.Close())
	})
	require.NoError(t, e.vault.Enable(e.ctx(), mount))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, e.root.Sys().DisableAuthWithContext(ctx, mount))
	})
	e.write("config", e.registered(shared.home, fields{"account_jwt_server_url": e.nats.URL, "service_url": e.nats.URL}))
	e.write("issuer/partner", e.registered(shared.partner, nil))
	e.write("issuer/posting", e.registered(shared.home, fields{"oidc_response_mode": "form_post"}))
	server, err := e.root.Logical().ReadWithContext(e.ctx(), e.path("config/server"))
	require.NoError(t, err)
	require.NoError(t, e.nats.Start(e.ctx(), server.Data["config"].(string)))
	require.NoError(t, e.nats.WaitForClient(e.ctx()))
	e.write("jwt/orders", fields{"type": "account"})
	return e
}

// isInNoLog checks that what is secret of a login reached neither Vault's log nor the audit
// log, which has the login once it has the public key of its user.
func (e *env) isInNoLog(user string, secrets map[string]string) {
	e.t.Helper()
	audited := func() string {
		text, err := os.ReadFile(shared.audit)
		require.NoError(e.t, err)
		return string(text)
	}
	e.waitFor("the login to be audited", func() error {
		if !strings.Contains(audited(), user) {
			return errors.New("it is not in the audit log")
		}
		return nil
	})
	for what, secret := range secrets {
		require.NotEmpty(e.t, secret, what)
		for name, log := range map[string]string{"the server's log": e.vault.Log(), "the audit log": audited()} {
			if at := strings.Index(log, secret); at >= 0 {
				e.t.Errorf("%s is in %s, after %q", what, name, log[max(0, at-200):at])
			}
		}
	}
}

// in returns the same env for a subtest, which then fails in place of its parent.
func (e *env) in(t testing.TB) *env {
	sub := *e
	sub.t = t
	return &sub
}

// registered are the fields of an issuer at which the mount is registered.
func (e *env) registered(p *provider, more fields) fields {
	all := fields{"oidc_discovery_url": p.URL, "oidc_client_id": clientID, "oidc_client_secret": clientSecret}
	maps.Copy(all, more)
	return all
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

// role writes a role for people, who may publish below their name; nil leaves a field out.
func (e *env) role(name string, more fields) {
	e.t.Helper()
	all := fields{
		"role_type": "oidc", "account": "orders", "user_claim": "sub", "token_policies": "default",
		"allowed_redirect_uris": []string{"http://localhost:8250/oidc/callback"},
		"oidc_scopes":           "groups",
		"user_template":         `{"pub": {"allow": ["orders.{{claim(sub)}}.>"]}}`,
	}
	maps.Copy(all, more)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	e.write("role/"+name, all)
}

// allow registers a redirect URI at the providers.
func (e *env) allow(redirectURI string) {
	shared.home.register(redirectURI)
	shared.partner.register(redirectURI)
}

// anyone returns a client that has no token.
func (e *env) anyone() *api.Client {
	e.t.Helper()
	client, err := e.vault.Client()
	require.NoError(e.t, err)
	client.ClearToken()
	return client
}

func (e *env) waitFor(what string, condition func() error) {
	e.t.Helper()
	require.NoError(e.t, stack.WaitFor(e.ctx(), what, condition))
}

// isStatus400 checks that an error is Vault's answer with this status and text.
func (e *env) isStatus400(err error, text string) {
	e.t.Helper()
	var response *api.ResponseError
	require.True(e.t, errors.As(err, &response), "not an answer of Vault's: %v", err)
	require.Equal(e.t, http.StatusBadRequest, response.StatusCode, "%v", err)
	require.ErrorContains(e.t, err, text)
}

// connect connects with creds, once the server knows the account.
func (e *env) connect(creds string) *nats.Conn {
	e.t.Helper()
	var conn *nats.Conn
	e.waitFor("a connection", func() (err error) {
		conn, err = nats.Connect(e.nats.URL, nats.UserCredentialBytes([]byte(creds)), nats.NoReconnect(),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // looked at by publish
		return err
	})
	e.t.Cleanup(conn.Close)
	return conn
}

// publish publishes a message and returns what the server says of it: it answers in
// order, so its error is here before the answer to the flush.
func (e *env) publish(conn *nats.Conn, subject string) error {
	e.t.Helper()
	require.NoError(e.t, conn.Publish(subject, []byte("hello")))
	require.NoError(e.t, conn.FlushTimeout(patience))
	return conn.LastError()
}

// maySpeakFor checks what creds are good for: subjects of this name, and no others.
func (e *env) maySpeakFor(name, creds string) {
	e.t.Helper()
	conn := e.connect(creds)
	require.NoError(e.t, e.publish(conn, "orders."+name+".new"))
	require.ErrorIs(e.t, e.publish(conn, "orders.someone-else.new"), nats.ErrPermissionViolation)
}
