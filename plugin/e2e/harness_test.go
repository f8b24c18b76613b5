// Package e2e tests the plugin on real servers: a real Vault with the built plugin in
// it, real nats-servers, an OIDC issuer, and kube-apiserver with etcd.
//
// A test begins with start. It gives the test a mount of its own on the Vault that all
// tests share, an issuer of its own, and a nats-server of its own that was booted from
// the mount's config/server text:
//
//	func TestAWorkloadPublishesWhereItsRoleLetsIt(t *testing.T) {
//		t.Parallel()
//		e := start(t)
//		e.account("orders", nil)
//		e.role("dev", fields{"user_template": `{"pub":{"allow":["orders.{{claim(project)}}.>"]}}`})
//
//		login := e.login("dev", e.token(fields{"project": "shop"}))
//		workload := e.connect(login.Creds)
//		workload.publishes("orders.shop.new")
//		workload.mayNotPublish("orders.other.new")
//	}
//
// Options change what start does: unconfigured (only the mount), withoutNATS (the
// server does not run; e.nats.Start starts it), withNATS (more text for the server's
// configuration), onVault (another Vault, see ownVault, for tests that seal, kill or read its log).
//
// Methods of env that take no error as an answer fail the test: write, read, list,
// remove, account, role, login, connect. Those for bad input are refused and
// loginRefused; try and tryLogin leave the error to the test. In a subtest use e.in(t).
//
// Conditions are waited for with waitFor; no test sleeps. Everything that was started
// is stopped when the test ends, and nats-server's log is shown when it failed.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// patience is how long a server may take to do what it should.
const patience = time.Minute

// pluginVersion is stamped into the plugin under test.
const pluginVersion = "v0.2.0-test"

func TestMain(m *testing.M) {
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// shared holds what the tests of this process have in common; each part is made when
// the first test wants it.
var shared sharedParts

type sharedParts struct {
	mutex      sync.Mutex
	dir        string // of the plugin's program
	program    string
	vault      *stack.Vault
	kubernetes *stack.Kubernetes
	mounts     atomic.Int64
}

// plugin returns the plugin's program.
func (s *sharedParts) plugin(t *testing.T) string {
	t.Helper()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.program == "" {
		dir, err := os.MkdirTemp("", "e2e-")
		require.NoError(t, err)
		s.dir = dir
		s.program, err = stack.BuildPlugin(buildContext(t), dir, pluginVersion)
		require.NoError(t, err)
	}
	return s.program
}

// sharedVault returns the Vault that tests share: in dev mode, with the plugin
// registered.
func sharedVault(t *testing.T) *stack.Vault {
	t.Helper()
	program := shared.plugin(t)
	shared.mutex.Lock()
	defer shared.mutex.Unlock()
	if shared.vault == nil {
		vault, err := stack.StartVault(buildContext(t), stack.VaultConfig{})
		require.NoError(t, err)
		require.NoError(t, vault.Install(t.Context(), program))
		shared.vault = vault
	}
	return shared.vault
}

// ownVault starts a Vault for one test, with the plugin registered. With Storage
// "raft" it can be sealed, stopped, killed and started again.
func ownVault(t *testing.T, config stack.VaultConfig) *stack.Vault {
	t.Helper()
	program := shared.plugin(t)
	vault := emptyVault(t, config)
	require.NoError(t, vault.Install(t.Context(), program))
	return vault
}

// emptyVault is ownVault without the plugin.
func emptyVault(t *testing.T, config stack.VaultConfig) *stack.Vault {
	t.Helper()
	vault, err := stack.StartVault(buildContext(t), config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vault.Close()) })
	return vault
}

// sharedKubernetes returns the kube-apiserver that tests share. Give each test
// namespaces of its own.
func sharedKubernetes(t *testing.T) *stack.Kubernetes {
	t.Helper()
	shared.mutex.Lock()
	defer shared.mutex.Unlock()
	if shared.kubernetes == nil {
		kubernetes, err := stack.StartKubernetes(buildContext(t))
		require.NoError(t, err)
		shared.kubernetes = kubernetes
	}
	return shared.kubernetes
}

func (s *sharedParts) close() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.vault != nil {
		if err := s.vault.Close(); err != nil {
			return err
		}
	}
	if s.kubernetes != nil {
		if err := s.kubernetes.Close(); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.dir)
}

// buildContext bounds what may have to build a server first.
func buildContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// fields are the fields of a request, or the claims of a token.
type fields = map[string]any

// env is one test's mount and what belongs to it.
type env struct {
	t      *testing.T
	vault  *stack.Vault
	client *api.Client // holds the root token
	mount  string      // the mount's path below auth/
	issuer *stack.Issuer
	nats   *stack.NATS
}

type options struct {
	vault        *stack.Vault
	enable       func(*env) // makes the mount
	unconfigured bool
	withoutNATS  bool
	natsText     string
}

// An option changes what start does.
type option func(*options)

// unconfigured leaves the mount without a config, and so the nats-server stopped.
func unconfigured(o *options) { o.unconfigured = true }

// withoutNATS leaves the nats-server stopped; the mount is configured for its address.
func withoutNATS(o *options) { o.withoutNATS = true }

// withNATS adds text to the nats-server's configuration.
func withNATS(text string) option { return func(o *options) { o.natsText = text } }

// onVault puts the mount on a Vault of the test's own.
func onVault(vault *stack.Vault) option { return func(o *options) { o.vault = vault } }

// start gives a test its mount; see the package's comment.
func start(t *testing.T, opts ...option) *env {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if o.vault == nil {
		o.vault = sharedVault(t)
	}
	e := &env{t: t, vault: o.vault, mount: fmt.Sprintf("nats-%d", shared.mounts.Add(1))}
	var err error
	e.client, err = o.vault.Client()
	require.NoError(t, err)
	e.issuer, err = stack.StartIssuer(nil, jose.ES256, jose.RS256, jose.EdDSA)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.issuer.Close()) })
	e.nats = e.newNATS()

	if o.enable != nil {
		o.enable(e)
	} else {
		require.NoError(t, o.vault.Enable(e.ctx(), e.mount))
	}
	if o.vault == shared.vault {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			require.NoError(t, e.client.Sys().DisableAuthWithContext(ctx, e.mount))
		})
	}
	if o.unconfigured {
		return e
	}
	e.configure()
	if !o.withoutNATS {
		require.NoError(t, e.nats.Start(e.ctx(), e.serverConfig()+"\n"+o.natsText))
		require.NoError(t, e.nats.WaitForClient(e.ctx()))
	}
	return e
}

// in returns the same env for a subtest, which then fails in place of its parent.
func (e *env) in(t *testing.T) *env {
	sub := *e
	sub.t = t
	return &sub
}

// configure writes config: the test's issuer is the default one.
func (e *env) configure() {
	e.t.Helper()
	e.write("config", fields{
		"oidc_discovery_url":     e.issuer.URL,
		"account_jwt_server_url": e.nats.URL,
		"service_url":            e.nats.URL,
	})
}

// newNATS prepares one more nats-server, which is closed with the test.
func (e *env) newNATS() *stack.NATS {
	e.t.Helper()
	server, err := stack.NewNATS()
	require.NoError(e.t, err)
	e.closeWithTest(server)
	return server
}

// newNATSCluster prepares servers that form a cluster once all of them run.
func (e *env) newNATSCluster(size int) []*stack.NATS {
	e.t.Helper()
	cluster, err := stack.NewNATSCluster(size)
	require.NoError(e.t, err)
	for _, server := range cluster {
		e.closeWithTest(server)
	}
	return cluster
}

func (e *env) closeWithTest(server *stack.NATS) {
	e.t.Cleanup(func() {
		if e.t.Failed() {
			e.t.Logf("the log of nats-server %s:\n%s", filepath.Base(server.Dir), server.Log())
		}
		require.NoError(e.t, server.Close())
	})
}

// ctx bounds one step of a test.
func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	e.t.Cleanup(cancel)
	return ctx
}

// waitFor returns when the condition returns nil, and fails the test when it never does.
func (e *env) waitFor(what string, condition func() error) {
	e.t.Helper()
	require.NoError(e.t, stack.WaitFor(e.ctx(), what, condition))
}
