package e2e

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

// callouts is a test's mount with the callout "edge", whose account is "auth", and
// with the account "orders".
type callouts struct {
	*env
	policy  string // of those who answer
	log     *calloutLog
	metrics *prometheus.Registry // of the last one that answers
}

// calloutLog is what responders log, as JSON.
type calloutLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *calloutLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *calloutLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// value is the last one that was logged under a name.
func (l *calloutLog) value(name string) string {
	found := regexp.MustCompile(`"`+name+`":"([^"]*)"`).FindAllStringSubmatch(l.String(), -1)
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1][1]
}

// policies numbers the policies of all tests.
var policies atomic.Int64

// startCallouts gives a test its callout. The nats-server has its sentinel, and nobody
// answers yet.
func startCallouts(t *testing.T, roles map[string]fields, opts ...option) *callouts {
	t.Helper()
	e := start(t, append(opts, withoutNATS)...)
	for _, account := range []string{"auth", "orders"} {
		e.account(account, nil)
	}
	for name, data := range roles {
		e.role(name, data)
	}
	e.write("callout/edge", fields{"account": "auth", "roles": "*", "default_role": "dev"})
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	require.NoError(t, e.nats.Start(e.ctx(), e.serverConfig()+"\n"+o.natsText))
	require.NoError(t, e.nats.WaitForClient(e.ctx()))
	for _, account := range []string{"auth", "orders"} {
		e.waitForDelivery(account)
	}
	return newCallouts(e)
}

// newCallouts makes the policy of those who answer for a callout that is there.
func newCallouts(e *env) *callouts {
	e.t.Helper()
	c := &callouts{env: e, policy: fmt.Sprintf("callout-%d", policies.Add(1)), log: &calloutLog{}}
	require.NoError(e.t, e.client.Sys().PutPolicyWithContext(e.ctx(), c.policy, fmt.Sprintf(`
		path %q { capabilities = ["update"] }
		path %q { capabilities = ["read"] }
		path %q { capabilities = ["update"] }`,
		e.path("callout/edge/authorize"), e.path("jwt/callout-edge"), e.path("jwt/callout-edge/sign"))))
	return c
}

// vaultToken is a Vault token whose policy allows what a responder does, and no more.
func (c *callouts) vaultToken() string {
	c.t.Helper()
	secret, err := c.client.Auth().Token().CreateWithContext(c.ctx(), &api.TokenCreateRequest{Policies: []string{c.policy}, NoDefaultPolicy: true})
	require.NoError(c.t, err)
	return secret.Auth.ClientToken
}

// vaultClient holds a token of a responder's.
func (c *callouts) vaultClient() *api.Client {
	c.t.Helper()
	client, err := c.vault.Client()
	require.NoError(c.t, err)
	client.SetToken(c.vaultToken())
	client.CloneConfig().HttpClient.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	return client
}

// answers runs a responder in this process until the test ends or it is stopped.
func (c *callouts) answers(login responder.Login, changes ...func(*responder.Config)) (stop func()) {
	c.t.Helper()
	client, err := c.vault.Client()
	require.NoError(c.t, err)
	client.ClearToken()
	if login == (responder.Login{}) {
		client = c.vaultClient()
	}
	config := responder.Config{
		Vault: responder.NewVault(client, responder.Place{Mount: "auth/" + c.mount, Callout: "edge", User: "callout-edge"}, login),
		NATS:  c.nats.URL, Concurrency: 16, Timeout: 1800 * time.Millisecond, Logger: slog.New(slog.NewJSONHandler(c.log, nil)),
	}
	for _, change := range changes {
		change(&config)
	}
	c.metrics = prometheus.NewRegistry()
	r, err := responder.New(config, c.metrics)
	require.NoError(c.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	c.t.Cleanup(stop)
	c.waitFor("the responder", r.Healthy)
	return stop
}

// present connects to the nats-server with a role and a token, and nothing else.
func (c *callouts) present(role, token string, opts ...nats.Option) (*workload, error) {
	c.t.Helper()
	return c.dial(append([]nats.Option{nats.UserInfo(role, token)}, opts...)...)
}

// letsIn is present where the client must be let in.
func (c *callouts) letsIn(role string, claims fields, opts ...nats.Option) *workload {
	c.t.Helper()
	w, err := c.present(role, c.token(claims), opts...)
	require.NoError(c.t, err)
	return w
}

// turnsAway connects as a client that must not be let in.
func (c *callouts) turnsAway(opts ...nats.Option) {
	c.t.Helper()
	_, err := c.dial(opts...)
	require.ErrorIs(c.t, err, nats.ErrAuthorization)
}

// gitLab are claims of a GitLab job's ID token.
func gitLab(more fields) fields {
	all := fields{
		"sub": "project_path:shop/orders:ref_type:branch:ref:main", "namespace_path": "shop", "project_path": "shop/orders",
		"project_id": "20", "pipeline_id": "574", "job_id": "302", "ref": "main", "ref_protected": "true", "user_login": "sample-user",
	}
	maps.Copy(all, more)
	return all
}
