package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

const (
	externalKubernetes = "external Kubernetes"
	kubernetesMethod   = "vault-plugin-auth-kubernetes"
)

// benchKubernetes measures logins with tokens of service accounts, which the methods
// have a real API server review.
func benchKubernetes(ctx context.Context, b *bench) (err error) {
	for _, tool := range []stack.Tool{stack.EtcdTool, stack.KubeAPIServerTool} {
		if _, err := tool.Path(ctx); err != nil {
			return err
		}
	}
	b.progress("building the peers")
	noopProgram, err := b.buildIn(ctx, peersModule, "./noop")
	if err != nil {
		return err
	}
	method, err := b.buildIn(ctx, peersModule, "github.com/hashicorp/"+kubernetesMethod+"/cmd/"+kubernetesMethod)
	if err != nil {
		return err
	}
	c := newContest("kubernetes", "a login", []string{ours, externalKubernetes, noop}, clients)
	namespace, err := newNamespace(ctx, c.clients[len(c.clients)-1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, namespace.cluster.Close()) }()
	asked := reviews{}
	for range scale(b, 5, 1) {
		if err := namespace.round(ctx, b, c, asked, noopProgram, method); err != nil {
			return err
		}
	}
	reportKubernetes(b, c, asked)
	return nil
}

// round has each contender log in, on a Vault of the round's own.
func (n *namespace) round(ctx context.Context, b *bench, c *contest, asked reviews, programs ...string) (err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, program := range append(programs, b.program) {
		if err := w.install(ctx, program, api.PluginTypeCredential); err != nil {
			return err
		}
	}
	if err := w.mountKubernetes(ctx, n); err != nil {
		return err
	}
	before, err := n.reviewed(ctx)
	if err != nil {
		return err
	}
	count := func(name string, done int) error {
		after, err := n.reviewed(ctx)
		if err != nil {
			return err
		}
		asked[name] = append(asked[name], (after-before)/float64(done))
		before = after
		return nil
	}
	tasks := func(name string, clients int) ([]task, error) { return kubernetesLogins(name, n.tokens[:clients]) }
	return c.round(ctx, w, scale(b, 2*time.Second, 500*time.Millisecond), tasks, count)
}

// kubernetesMounts are the paths of the contenders, below auth/.
var kubernetesMounts = map[string]string{ours: "nats", externalKubernetes: "kubernetes", noop: "noop"}

// mountKubernetes enables the contenders, which get the same reviewer and roles for
// the same service accounts.
func (w *world) mountKubernetes(ctx context.Context, n *namespace) error {
	cluster := map[string]any{
		"kubernetes_host": n.cluster.Host, "kubernetes_ca_cert": n.cluster.CACert, "token_reviewer_jwt": n.reviewer, "disable_local_ca_jwt": true,
	}
	role := func(more map[string]any) map[string]any {
		data := map[string]any{
			"bound_service_account_names": "api-*", "bound_service_account_namespaces": n.name, "audience": "vault",
			"token_policies": "bench", "token_ttl": "1h",
		}
		for name, value := range more {
			data[name] = value
		}
		return data
	}
	err := errors.Join(
		w.client.Sys().PutPolicyWithContext(ctx, "bench", `path "secret/*" { capabilities = ["read"] }`),
		w.enable(ctx, "nats", stack.PluginName, "service"),
		w.enable(ctx, "kubernetes", kubernetesMethod, "service"),
		w.enable(ctx, "noop", "noop", "service"),
		w.configure(ctx, "auth/nats"),
	)
	if err != nil {
		return err
	}
	err = w.write(ctx,
		write{"auth/kubernetes/config", cluster},
		write{"auth/kubernetes/role/bench", role(nil)},
		write{"auth/nats/issuer/cluster", cluster},
		write{"auth/nats/role/bench", role(map[string]any{
			"issuer": "cluster", "account": "orders",
			"user_template": `{"pub":{"allow":["orders.{{claim(/kubernetes.io/namespace)}}.>"]},"sub":{"allow":["orders.{{claim(/kubernetes.io/namespace)}}.>","_INBOX.>"]}}`,
		})},
	)
	if err != nil {
		return err
	}
	return w.startNATS(ctx, "auth/nats")
}

// kubernetesLogins are the logins of one client for each token.
func kubernetesLogins(name string, tokens []string) ([]task, error) {
	var tasks []task
	for _, token := range tokens {
		text, err := request("PUT", "auth/"+kubernetesMounts[name]+"/login", "", map[string]any{"role": "bench", "jwt": token})
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, func(c *conn) error {
			body, err := c.do(text)
			if err != nil {
				return err
			}
			_, err = clientToken(body)
			return err
		})
	}
	return tasks, nil
}

func reportKubernetes(b *bench, c *contest, asked reviews) {
	perLogin := func(name string) string {
		return number(b.report.measured(c.section, "token reviews for a login: "+name, "1", asked[name]))
	}
	b.show(c.table(b, "Logins of service accounts on a real Vault", fmt.Sprintf(
		"The API server counted %s token reviews for a login of this plugin's, %s for one of the external Kubernetes method's and %s for one of the no-op plugin's, which asks nobody. "+
			"Neither keeps their answers; the API server itself does, for ten seconds. Its processor time is not in the table, and it is on the same machine.",
		perLogin(ours), perLogin(externalKubernetes), perLogin(noop))))
	b.report.Goals = append(b.report.Goals, goal{
		What: "logins of service accounts to the external Kubernetes method's", Want: 0.95, Got: c.ratio(ours, externalKubernetes, goalClients),
		Where: fmt.Sprintf("%d clients, service tokens", goalClients),
	})
}
