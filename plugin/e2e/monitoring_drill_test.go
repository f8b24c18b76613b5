package e2e

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/api"
	prometheusapi "github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
	"github.com/nats-vault/vault-plugin-auth-nats/cmd/nats-callout/responder"
)

// drills is a mount with a callout, two nats-servers and a real Prometheus that watches
// all of it as docs/monitoring says, but for how long something has to be so.
type drills struct {
	*callouts
	servers    []*stack.NATS
	prometheus *stack.Prometheus
	api        prometheusv1.API
	tokenFile  string
	answering  string // the policy that lets the responder answer
}

func startDrills(t *testing.T) *drills {
	t.Helper()
	e := start(t, withoutNATS)
	d := &drills{servers: e.newNATSCluster(2)}
	e = e.at(d.servers[0])
	urls := d.servers[0].URL + "," + d.servers[1].URL
	e.write("config", fields{"oidc_discovery_url": e.issuer.URL, "account_jwt_server_url": urls, "service_url": urls})
	for _, account := range []string{"auth", "orders"} {
		e.account(account, nil)
	}
	e.role("dev", nil)
	e.write("callout/edge", fields{"account": "auth", "roles": "*", "default_role": "dev"})
	for _, server := range d.servers {
		require.NoError(t, server.Start(e.ctx(), e.serverConfig()))
	}
	for _, server := range d.servers {
		require.NoError(t, server.WaitForCluster(e.ctx()))
	}
	for _, account := range []string{"auth", "orders"} {
		e.waitForDelivery(account)
	}
	d.callouts = newCallouts(e)
	var err error
	d.answering, err = e.client.Sys().GetPolicyWithContext(e.ctx(), d.policy)
	require.NoError(t, err)
	d.answers(responder.Login{})
	d.watch()
	return d
}

// watch starts Prometheus with the files of docs/monitoring. They name other servers,
// and alerts wait for minutes: both are changed, and nothing else.
func (d *drills) watch() {
	d.t.Helper()
	figures := httptest.NewServer(promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{}))
	d.t.Cleanup(figures.Close)
	d.tokenFile = filepath.Join(d.t.TempDir(), "token")
	d.mayScrape(true)
	files := map[string][]byte{}
	for name, change := range map[string]*strings.Replacer{
		"prometheus.yaml": strings.NewReplacer(
			"scrape_configs:", "global: { scrape_interval: 200ms, evaluation_interval: 200ms }\nscrape_configs:",
			"/v1/auth/nats/metrics", "/v1/"+d.path("metrics"), "scheme: https", "scheme: http", "/run/vault/token", d.tokenFile,
			`"vault-0:8200", "vault-1:8200", "vault-2:8200"`, strings.TrimPrefix(d.vault.Addr, "http://"),
			`"nats-callout:8080"`, strings.TrimPrefix(figures.URL, "http://")),
		"alerts.yaml": strings.NewReplacer("> 600\n", "> 1\n", "> 900\n", "> 1\n", "> 7200\n", "> 5\n"),
	} {
		text, err := os.ReadFile(monitoring(d.t, name))
		require.NoError(d.t, err)
		changed := change.Replace(string(text))
		require.NotEqual(d.t, string(text), changed)
		files[name] = []byte(regexp.MustCompile(`(?m)^( +for:) \d+m$`).ReplaceAllString(changed, "$1 0s"))
	}
	var err error
	d.prometheus, err = stack.StartPrometheus(buildContext(d.t), files)
	require.NoError(d.t, err)
	d.t.Cleanup(func() {
		if d.t.Failed() {
			d.t.Logf("the log of Prometheus:\n%s", d.prometheus.Log())
		}
		require.NoError(d.t, d.prometheus.Close())
	})
	client, err := prometheusapi.NewClient(prometheusapi.Config{Address: d.prometheus.URL})
	require.NoError(d.t, err)
	d.api = prometheusv1.NewAPI(client)
}

// mayScrape gives Prometheus a Vault token that lets it read metrics, or one that is over.
func (d *drills) mayScrape(may bool) {
	d.t.Helper()
	token := "over"
	if may {
		token = d.metricsToken()
	}
	require.NoError(d.t, os.WriteFile(d.tokenFile, []byte(token), 0o600))
}

// mayAnswer gives the responder's Vault token what it needs to answer, or takes it away.
func (d *drills) mayAnswer(may bool) {
	d.t.Helper()
	policy := d.answering
	if !may {
		policy = `path "*" { capabilities = ["deny"] }`
	}
	require.NoError(d.t, d.client.Sys().PutPolicyWithContext(d.ctx(), d.policy, policy))
}

// largeAccount is an account whose JWT takes more than three quarters of what nats-server takes.
func largeAccount() fields {
	var exports []fields
	for i := range 80 {
		exports = append(exports, fields{
			"name": fmt.Sprint(i), "subject": fmt.Sprintf("full.%d", i), "type": "stream", "description": strings.Repeat("x", 8000),
		})
	}
	return fields{"exports": exports}
}

// firing are the names of the alerts that fire.
func (d *drills) firing() ([]string, error) {
	all, err := d.api.Alerts(d.ctx())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, alert := range all.Alerts {
		if alert.State == prometheusv1.AlertStateFiring {
			names = append(names, string(alert.Labels[model.AlertNameLabel]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// fires waits until these alerts fire. Meanwhile something may go on happening.
func (d *drills) fires(meanwhile func(), alerts ...string) {
	d.t.Helper()
	d.waitFor(fmt.Sprintf("the alerts %v", alerts), func() error {
		if meanwhile != nil {
			meanwhile()
		}
		names, err := d.firing()
		if err != nil {
			return err
		}
		for _, alert := range alerts {
			if !slices.Contains(names, alert) {
				return fmt.Errorf("%s does not fire, but %v", alert, names)
			}
		}
		return nil
	})
}

// ends waits until none of these alerts fires. Meanwhile something may be done about them.
func (d *drills) ends(meanwhile func(), alerts ...string) {
	d.t.Helper()
	d.waitFor(fmt.Sprintf("the end of the alerts %v", alerts), func() error {
		if meanwhile != nil {
			meanwhile()
		}
		names, err := d.firing()
		for _, alert := range alerts {
			if slices.Contains(names, alert) {
				return fmt.Errorf("%s fires", alert)
			}
		}
		return err
	})
}

// dashboardExpressions are those of the dashboard, with its variables filled in.
func dashboardExpressions(t *testing.T) (expressions []string) {
	t.Helper()
	text, err := os.ReadFile(monitoring(t, "dashboard.json"))
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	filled := strings.NewReplacer("$__rate_interval", "1m", "$job", "vault-auth-nats", "$callout_job", "nats-callout")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expressions = append(expressions, filled.Replace(target.Expr))
		}
	}
	require.NotEmpty(t, expressions)
	return expressions
}

// showsOnTheDashboard waits until every panel has something to show, but those of what is
// only there while something is wrong.
func (d *drills) showsOnTheDashboard() {
	d.t.Helper()
	d.waitFor("figures on the dashboard", func() error {
		var without []string
		for _, expression := range dashboardExpressions(d.t) {
			found, _, _, err := d.api.Query(d.ctx(), expression, time.Now())
			if err != nil {
				return fmt.Errorf("%s: %w", expression, err)
			}
			vector, ok := found.(model.Vector)
			if (!ok || len(vector) == 0) && !strings.Contains(expression, "_since_timestamp_seconds") {
				without = append(without, expression)
			}
		}
		if len(without) > 0 {
			return fmt.Errorf("nothing is found by\n%s", strings.Join(without, "\n"))
		}
		return nil
	})
}

// A real Prometheus, with the configuration and the rules of docs/monitoring, sees what
// befalls a mount and its responder, and that it is over.
func TestAlertsFireInPrometheusForWhatBefalls(t *testing.T) {
	t.Parallel()
	d := startDrills(t)
	const (
		notScraped   = "VaultAuthNatsNotScraped"
		disconnected = "VaultAuthNatsDisconnected"
		pending      = "VaultAuthNatsDeliveryPending"
		missing      = "VaultAuthNatsServerMissing"
		keysFailing  = "VaultAuthNatsIssuerKeysFailing"
		failing      = "VaultAuthNatsLoginsFailing"
		refused      = "VaultAuthNatsLoginsRefused"
		overdue      = "VaultAuthNatsComparisonOverdue"
		full         = "VaultAuthNatsAccountNearlyFull"
		unhealthy    = "NatsCalloutUnhealthy"
		unanswered   = "NatsCalloutFailing"
	)
	d.login("dev", d.token(nil))
	d.letsIn("dev", nil).publishes("orders.1")
	d.ends(nil, notScraped, disconnected, pending, missing, keysFailing, failing, refused, full, unhealthy, unanswered)

	d.fires(nil, overdue)
	d.ends(func() { d.write("sync", nil) }, overdue)

	d.write("jwt/full", fields{"type": "account", "config": largeAccount()})
	d.fires(nil, full)
	d.remove("jwt/full")
	d.ends(nil, full)

	d.mayAnswer(false)
	d.fires(func() {
		_, err := d.present("dev", d.token(nil))
		require.Error(t, err)
	}, unanswered)
	d.mayAnswer(true)
	d.letsIn("dev", nil).publishes("orders.1")

	over := d.token(fields{"exp": time.Now().Add(-time.Hour).Unix()})
	d.fires(func() {
		for range 5 {
			d.loginRefused("dev", over)
		}
	}, refused)
	d.showsOnTheDashboard()

	_, err := d.issuer.Rotate(jose.ES256)
	require.NoError(t, err)
	d.issuer.SetFault(stack.Failing)
	unknown := d.token(nil)
	d.fires(func() {
		_, err := d.tryLogin("dev", unknown, nil)
		require.Error(t, err)
	}, keysFailing, failing)
	d.issuer.SetFault(stack.Healthy)
	d.waitFor("the issuer's new key", func() error {
		_, err := d.tryLogin("dev", unknown, nil)
		return err
	})
	d.ends(nil, keysFailing)

	d.mayScrape(false)
	d.fires(nil, notScraped)
	d.mayScrape(true)
	d.ends(nil, notScraped)

	d.servers[1].Stop()
	d.fires(func() { d.write("jwt/orders", fields{"type": "account"}) }, missing)
	d.servers[0].Stop()
	_, err = d.try("jwt/later", fields{"type": "account"})
	require.NoError(t, err)
	d.fires(nil, disconnected, pending, unhealthy)

	for _, server := range d.servers {
		require.NoError(t, server.Restart(d.ctx()))
	}
	d.ends(nil, disconnected, pending, missing, unhealthy)
}

// metricsToken is a Vault token that may read the mount's metrics, and nothing else.
func (e *env) metricsToken() string {
	e.t.Helper()
	policy, err := os.ReadFile(monitoring(e.t, "metrics-policy.hcl"))
	require.NoError(e.t, err)
	name := "metrics-" + e.mount
	require.NoError(e.t, e.client.Sys().PutPolicyWithContext(e.ctx(), name, strings.ReplaceAll(string(policy), "auth/nats/", "auth/"+e.mount+"/")))
	secret, err := e.client.Auth().Token().CreateWithContext(e.ctx(), &api.TokenCreateRequest{Policies: []string{name}, NoDefaultPolicy: true})
	require.NoError(e.t, err)
	return secret.Auth.ClientToken
}
