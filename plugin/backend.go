// Package plugin is the Vault auth method: it joins who is calling (claims),
// what they get (roles) and the NATS trust chain (trust) behind Vault's paths,
// and keeps their state in Vault's storage.
//
// The login is in path_login.go, top to bottom, in the order in which it
// happens.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
)

// Version and Commit are stamped in by the linker. Version is what the plugin
// reports to Vault as the running version, a semantic version with a leading v.
var (
	Version = "v0.0.0-dev"
	Commit  = "unknown"
)

// backend is one mount. The caches hold what storage holds, made ready for use;
// everything else is there for the mount's life.
type backend struct {
	*framework.Backend

	chain    *chain.Chain
	roles    *store.Cache[role]
	issuers  *store.Cache[issuer]
	settings *store.Cache[settings]
	callouts *store.Cache[authCallout]
	limits   leaseLimits
	people   *people.Desk
	format   store.Format // in which the mount is stored

	// configuring serializes the writers of issuers and config, who may wait for
	// an issuer to answer. It is taken before writing.
	configuring sync.Mutex

	// writing serializes the writers of roles, issuers and settings, each of
	// which reads what it changes and may be refused for what another holds. It
	// is not held while anything is waited for but storage.
	writing sync.Mutex

	// background is done when the mount is closed; work that outlives a request
	// runs under it and is counted in tasks.
	background context.Context
	stop       context.CancelFunc
	tasks      tasks

	delivery deliverer
	pacer    pacer // of revocations
	metrics  *mountMetrics
	dry      bool // it is there for a dry run: nothing is delivered
}

// Factory makes the backend of one mount; Vault calls it when the mount is
// loaded.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	if conf == nil {
		return nil, fmt.Errorf("no backend configuration")
	}
	b := newBackend(conf)
	setup := *conf
	setup.System = &systemView{SystemView: conf.System}
	if err := b.Setup(ctx, &setup); err != nil {
		return nil, err
	}
	return b, nil
}

func newBackend(conf *logical.BackendConfig) *backend {
	b := &backend{
		roles:    store.NewCache[role](),
		issuers:  store.NewCache[issuer](),
		settings: store.NewCache[settings](),
		callouts: store.NewCache[authCallout](),
		people:   people.NewDesk(),
	}
	b.chain = chain.New(conf.Logger, b.deliver)
	b.issuers.Dropped = (*issuer).close
	b.metrics = newMetrics(b)
	b.background, b.stop = context.WithCancel(context.Background())
	b.Backend = &framework.Backend{
		Help:           mountHelp,
		BackendType:    logical.TypeCredential,
		RunningVersion: Version,
		PathsSpecial: &logical.Paths{
			Unauthenticated: unauthenticated,
			SealWrapStorage: append(chain.SealWrapped(), issuerPrefix, calloutPrefix),
		},
		// The login comes first: the framework tries the patterns in turn.
		Paths: framework.PathAppend(
			b.pathsLogin(),
			b.pathsOIDC(),
			b.pathsConfig(),
			b.pathsConfigServer(),
			b.pathsConfigRotate(),
			b.pathsIssuer(),
			b.pathsRole(),
			b.pathsCreds(),
			b.pathsAccountServer(),
			b.pathsJWTRevoke(),
			b.pathsJWT(),
			b.pathsCallout(),
			b.pathsSync(),
			b.pathsMetrics(),
		),
		Secrets:        []*framework.Secret{b.secretUser()},
		AuthRenew:      b.renewLogin,
		Invalidate:     b.invalidate,
		InitializeFunc: b.initialize,
		PeriodicFunc:   b.periodic,
		Clean:          b.clean,
	}
	forwardWhatStores(b.Paths)
	return b
}

// HandleRequest refuses what a newer version has stored, and gives JSON fields and times one form
// before the framework looks at them; see normalizeFields.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if err := b.format.Check(ctx, req.Storage, Version); err != nil {
		return nil, err
	}
	if err := b.normalizeFields(req); err != nil {
		return answer(err)
	}
	resp, err := b.Backend.HandleRequest(ctx, req)
	return b.found(req, resp, err)
}

// HandleExistenceCheck is called before HandleRequest with the same request.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (bool, bool, error) {
	if err := b.normalizeFields(req); err != nil {
		return false, false, logical.CodedError(400, err.Error())
	}
	if err := b.format.Check(ctx, req.Storage, Version); err != nil {
		return false, false, nil //nolint:nilerr // HandleRequest says why: Vault hides an error of this check
	}
	return b.Backend.HandleExistenceCheck(ctx, req)
}

// initialize runs once the mount is loaded, and again after an unseal or a
// plugin reload.
func (b *backend) initialize(ctx context.Context, req *logical.InitializationRequest) error {
	if err := b.format.Check(ctx, req.Storage, Version); err != nil {
		return err
	}
	if err := b.finish(ctx, req.Storage); err != nil {
		b.Logger().Error("what a write has left half done is tried again in a minute", "error", err)
	}
	return b.startDelivery(ctx, req.Storage)
}

// periodic runs about once a minute on the active node.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	b.metrics.window.note(time.Now(), b.metrics.logins.sum())
	return errors.Join(
		b.finish(ctx, req.Storage),
		b.startDelivery(ctx, req.Storage),
		b.keepLead(ctx, req.Storage),
		b.retireKeys(ctx, req.Storage),
		b.pruneRevocations(ctx, req.Storage),
		b.retireXKeys(ctx, req.Storage),
	)
}

// invalidate is called when another node, or a restored snapshot, changed the
// storage entry at key.
func (b *backend) invalidate(_ context.Context, key string) {
	switch {
	case strings.HasPrefix(key, rolePrefix):
		b.roleChanged(strings.TrimPrefix(key, rolePrefix))
	case strings.HasPrefix(key, issuerPrefix):
		b.issuerChanged(strings.TrimPrefix(key, issuerPrefix))
	case strings.HasPrefix(key, calloutPrefix):
		b.callouts.Forget(strings.TrimPrefix(key, calloutPrefix))
	case key == settingsKey:
		b.settings.Forget(settingsKey)
	case key == store.FormatKey:
		b.format.Forget()
	case key == longestLifeKey:
		b.limits.invalidate()
	default:
		b.chain.Invalidate(key)
	}
}

// clean runs when the mount is disabled, reloaded or sealed.
func (b *backend) clean(context.Context) {
	b.deliverLast()
	b.stop()
	b.stopDelivery()
	b.tasks.end()
	b.issuers.ForgetAll()
}

// tasks counts what runs in the background, so that its end can be waited for.
type tasks struct {
	mu    sync.Mutex
	ended bool
	group sync.WaitGroup
}

// inBackground runs work that a request started but does not wait for. Once the
// mount is being closed nothing is started any more.
func (b *backend) inBackground(work func(context.Context)) {
	b.tasks.mu.Lock()
	defer b.tasks.mu.Unlock()
	if !b.tasks.ended {
		b.tasks.group.Go(func() { work(b.background) })
	}
}

// end lets nothing be started any more, and waits for what runs.
func (t *tasks) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.group.Wait()
}

const mountHelp = `
The NATS auth method logs workloads in with the JWT that their platform gave
them, and answers with a Vault token and with short-lived NATS credentials.

The mount holds a NATS operator, its accounts and their keys ("config", "jwt/"),
trusts one or more issuers of workload tokens ("config", "issuer/"), and has
roles ("role/") that say which workload gets which account and which subjects.
`
