package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// What is read as a lease, but for the stand-in's, which has none.
const (
	noopAsLarge    = "no-op plugin, as much"
	noopAsks       = "no-op plugin, asks who reads"
	engineNoLease  = "secrets engine, no lease"
	noopSecretSize = 36 // bytes: a password
)

// benchCreds measures reads of creds/:role with a Vault token, each of them a lease.
// Leases slow Vault down as they add up, so each round has a Vault of its own.
func benchCreds(ctx context.Context, b *bench) error {
	var programs peers
	var err error
	b.progress("building the peers")
	if programs.noop, err = b.buildIn(ctx, peersModule, "./noop"); err != nil {
		return err
	}
	if programs.engine, err = b.buildIn(ctx, peersModule, "./nats-engine-standin"); err != nil {
		return err
	}
	c := newContest("creds", "a read", []string{ours, noop, noopAsLarge, noopAsks, engineNoLease}, []int{8, 64})
	for range scale(b, 5, 1) {
		if err := credsRound(ctx, b, c, programs); err != nil {
			return err
		}
	}
	b.show(c.table(b, "Reads of credentials on a real Vault",
		"Each read is a lease of its own, but those of the stand-in for a NATS secrets engine, which keeps none. The no-op plugin's is of "+
			strconv.Itoa(noopSecretSize)+" bytes that are always the same, or of as many as the credentials have: Vault stores the answer with the lease. "+
			"One that asks who reads makes a call to Vault for it, and answers as much: what a role that depends on the caller cannot do without."))
	b.report.Goals = append(b.report.Goals, goal{
		What: "leases of creds/:role to those of the no-op plugin", Want: 0.9, Got: c.ratio(ours, noop, goalClients),
		Where: fmt.Sprintf("%d clients, role of type vault; %s of one that answers as much, %s of one that asks who reads",
			goalClients, number(c.ratio(ours, noopAsLarge, goalClients)), number(c.ratio(ours, noopAsks, goalClients))),
	})
	return nil
}

func credsRound(ctx context.Context, b *bench, c *contest, programs peers) (err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.mountLeases(ctx, b.program, programs); err != nil {
		return err
	}
	tokens, err := w.readers(c.clients[len(c.clients)-1])
	if err != nil {
		return err
	}
	paths, err := w.credsPaths(tokens[0])
	if err != nil {
		return err
	}
	tasks := func(name string, clients int) ([]task, error) {
		var tasks []task
		for _, token := range tokens[:clients] {
			text, err := request("GET", paths[name], token, nil)
			if err != nil {
				return nil, err
			}
			tasks = append(tasks, func(c *conn) error { _, err := c.do(text); return err })
		}
		return tasks, nil
	}
	return c.round(ctx, w, scale(b, 2*time.Second, 500*time.Millisecond), tasks, nil)
}

// mountLeases enables what is read from.
func (w *world) mountLeases(ctx context.Context, program string, programs peers) error {
	const mount = "auth/nats"
	err := errors.Join(
		w.install(ctx, program, api.PluginTypeCredential),
		w.install(ctx, programs.noop, api.PluginTypeCredential),
		w.install(ctx, programs.engine, api.PluginTypeSecrets),
		w.client.Sys().PutPolicyWithContext(ctx, "bench", `
			path "auth/nats/creds/workload" { capabilities = ["read"] }
			path "auth/noop/creds/*" { capabilities = ["read"] }
			path "auth/noop/known/*" { capabilities = ["read"] }
			path "engine/creds/orders" { capabilities = ["read"] }`),
		w.client.Sys().MountWithContext(ctx, "engine", &api.MountInput{Type: "nats-engine-standin"}),
		w.write(ctx, write{"engine/account/orders", map[string]any{"template": userLimits}}),
		w.enable(ctx, "noop", "noop", "service"),
		w.enable(ctx, "nats", stack.PluginName, "service"),
		w.configure(ctx, mount),
	)
	if err != nil {
		return err
	}
	login := natsRole()
	login["user_claim"], login["credentials_on_login"] = "project_path", false
	err = w.write(ctx,
		write{mount + "/role/bench", login},
		write{mount + "/role/workload", map[string]any{
			"role_type": "vault", "account": "orders", "bound_aliases": "shop/*", "user_ttl": "1h", "user_name": "{{alias-name()|escape}}",
			"user_template": `{"pub":{"allow":["orders.{{alias-name()|escape}}.>"]},"sub":{"allow":["orders.{{alias-name()|escape}}.>","_INBOX.>"]}}`,
		}},
	)
	if err != nil {
		return err
	}
	return w.startNATS(ctx, mount)
}

// readers are the Vault tokens of so many clients that logged in.
func (w *world) readers(count int) ([]string, error) {
	minted, err := w.tokens(jose.EdDSA, count)
	if err != nil {
		return nil, err
	}
	tokens := make([]string, count)
	for i, jwt := range minted {
		text, err := request("PUT", "auth/nats/login", "", map[string]any{"role": "bench", "jwt": jwt})
		if err != nil {
			return nil, err
		}
		err = once(w.target(), func(c *conn) error {
			body, err := c.do(text)
			if err != nil {
				return err
			}
			tokens[i], err = clientToken(body)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// credsPaths are where each contender is read. Reading each once shows that it works,
// and how much the no-op plugin has to answer to answer as much.
func (w *world) credsPaths(token string) (map[string]string, error) {
	const none = "auth/noop/creds/0"
	paths := map[string]string{
		ours: "auth/nats/creds/workload", noop: "auth/noop/creds/" + strconv.Itoa(noopSecretSize), engineNoLease: "engine/creds/orders",
	}
	size := map[string]int{}
	for _, path := range []string{none, paths[ours], paths[noop], paths[engineNoLease]} {
		text, err := request("GET", path, token, nil)
		if err != nil {
			return nil, err
		}
		err = once(w.target(), func(c *conn) error {
			body, err := c.do(text)
			size[path] = len(body)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	asLarge := strconv.Itoa(size[paths[ours]] - size[none])
	paths[noopAsLarge], paths[noopAsks] = "auth/noop/creds/"+asLarge, "auth/noop/known/"+asLarge
	return paths, nil
}
