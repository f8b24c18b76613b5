package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// startLimit bounds the start of the servers.
const startLimit = time.Minute

// A world is a Vault, a nats-server and an issuer.
type world struct {
	vault    *stack.Vault
	standbys []*stack.Vault
	ca       *stack.CA // of a Vault that serves TLS
	client   *api.Client
	nats     *stack.NATS
	issuer   *stack.Issuer
}

// newWorld starts a Vault in dev mode and the other servers, but for nats-server, which
// needs a mount's config first.
func newWorld(ctx context.Context) (*world, error) {
	return newWorldWith(ctx, func(ctx context.Context, w *world) (err error) {
		w.vault, err = stack.StartVault(ctx, stack.VaultConfig{LogLevel: "warn"})
		return err
	})
}

func newWorldWith(ctx context.Context, startVault func(context.Context, *world) error) (w *world, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	w = &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.issuer, err = stack.StartIssuer(nil, jose.RS256, jose.ES256, jose.EdDSA); err != nil {
		return w, err
	}
	if w.nats, err = stack.NewNATS(); err != nil {
		return w, err
	}
	if err := startVault(ctx, w); err != nil {
		return w, err
	}
	w.client, err = w.vault.Client()
	return w, err
}

func (w *world) close() error {
	var failures []error
	for _, standby := range w.standbys {
		failures = append(failures, standby.Close())
	}
	if w.vault != nil {
		failures = append(failures, w.vault.Close())
	}
	if w.nats != nil {
		failures = append(failures, w.nats.Close())
	}
	if w.issuer != nil {
		failures = append(failures, w.issuer.Close())
	}
	return errors.Join(failures...)
}

// target is where requests to Vault go.
func (w *world) target() target {
	to := target{addr: w.vault.Addr}
	if w.ca != nil {
		to.tls = w.ca.ClientTLS()
	}
	return to
}

// usage is what all nodes of Vault and their plugins have used.
func (w *world) usage() (usage, error) {
	all, err := usageOf(w.vault.Dir)
	for _, standby := range w.standbys {
		used, failure := usageOf(standby.Dir)
		err = errors.Join(err, failure)
		all.vault, all.plugins = all.vault+used.vault, all.plugins+used.plugins
	}
	return all, err
}

// install registers a program as a plugin, under its file's name.
func (w *world) install(ctx context.Context, program string, kind api.PluginType, env ...string) error {
	name := filepath.Base(program)
	if err := os.Link(program, filepath.Join(w.vault.PluginDir, name)); err != nil {
		return err
	}
	sum, err := stack.SHA256(program)
	if err != nil {
		return err
	}
	err = w.client.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: name, Type: kind, Command: name, SHA256: sum, Env: env,
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	return nil
}

// enable enables an auth method whose tokens are of a type: "service" or "batch".
func (w *world) enable(ctx context.Context, path, plugin, tokenType string) error {
	err := w.client.Sys().EnableAuthWithOptionsWithContext(ctx, path, &api.EnableAuthOptions{
		Type: plugin, Config: api.AuthConfigInput{TokenType: tokenType},
	})
	if err != nil {
		return fmt.Errorf("enable auth/%s: %w", path, err)
	}
	return nil
}

// A write is one to Vault's API.
type write struct {
	path string
	data map[string]any
}

func (w *world) write(ctx context.Context, writes ...write) error {
	for _, write := range writes {
		if _, err := w.client.Logical().WriteWithContext(ctx, write.path, write.data); err != nil {
			return err
		}
	}
	return nil
}

// configure writes a mount of the plugin's its config, and an account.
func (w *world) configure(ctx context.Context, mount string) error {
	return w.write(ctx,
		write{mount + "/config", map[string]any{
			"oidc_discovery_url":     w.issuer.URL,
			"account_jwt_server_url": w.nats.URL,
			"service_url":            w.nats.URL,
		}},
		write{mount + "/jwt/orders", map[string]any{"type": "account"}},
	)
}

// startNATS starts nats-server with the configuration that a mount gives out, and waits
// until it has the mount's accounts.
func (w *world) startNATS(ctx context.Context, mount string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	secret, err := w.client.Logical().ReadWithContext(ctx, mount+"/config/server")
	if err != nil {
		return err
	}
	text, ok := secret.Data["config"].(string)
	if !ok {
		return fmt.Errorf("%s/config/server has no config", mount)
	}
	if err := w.nats.Start(ctx, text); err != nil {
		return err
	}
	return stack.WaitFor(ctx, "delivery of "+mount, func() error {
		state, err := w.client.Logical().ReadWithContext(ctx, mount+"/sync")
		if err != nil {
			return err
		}
		if pending := fmt.Sprint(state.Data["pending"]); pending != "0" {
			return errors.New(pending + " accounts are pending")
		}
		return nil
	})
}

// natsRole is a role of the plugin's as a CI system's workloads have it.
func natsRole() map[string]any {
	return map[string]any{
		"account": "orders", "bound_audiences": "vault", "user_claim": "sub",
		"bound_claims":  map[string]any{"namespace_path": "shop"},
		"user_template": userTemplate, "token_policies": "bench", "token_ttl": "1h",
	}
}

const userTemplate = `{"pub":{"allow":["orders.{{claim(namespace_path)}}.>"]},"sub":{"allow":["orders.{{claim(namespace_path)}}.>","_INBOX.>"]}}`

// workloadClaims are those of the nth GitLab job's ID token.
func workloadClaims(n int) map[string]any {
	project := fmt.Sprintf("shop/orders-%d", n)
	now := time.Now()
	return map[string]any{
		"aud": "vault", "sub": "project_path:" + project + ":ref_type:branch:ref:main",
		"jti": "6a2f0a1e-6a0c-4c1e-9c5a-4a1d8f6f7c11", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(4 * time.Hour).Unix(),
		"namespace_id": "72", "namespace_path": "shop", "project_id": "20", "project_path": project,
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com", "user_access_level": "developer",
		"pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch",
		"ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": []string{"shop", "shop/backend"},
		"environment": "production", "environment_protected": "true", "deployment_tier": "production",
		"runner_id": 1, "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
	}
}

// tokens mints one token for each of so many workloads.
func (w *world) tokens(alg jose.SignatureAlgorithm, count int) ([]string, error) {
	minted := make([]string, count)
	for i := range minted {
		token, err := w.issuer.Mint(alg, workloadClaims(i))
		if err != nil {
			return nil, err
		}
		minted[i] = token
	}
	return minted, nil
}
