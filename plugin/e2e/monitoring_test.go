package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/cmd/devstack/stack"
)

// promtool runs Prometheus's own checks, of which nothing may complain.
func promtool(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	path, err := stack.PromtoolTool.Path(buildContext(t))
	require.NoError(t, err)
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = t.TempDir()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	require.NoError(t, cmd.Run(), "promtool %s: %s", strings.Join(args, " "), out.String())
	return out.String()
}

func monitoring(t *testing.T, name string) string {
	t.Helper()
	root, err := stack.Root()
	require.NoError(t, err)
	return filepath.Join(root, "docs", "monitoring", name)
}

func TestPrometheusTakesTheAlertRulesAndTheyFire(t *testing.T) {
	t.Parallel()
	promtool(t, "", "check", "rules", "--lint=all", "--lint-fatal", monitoring(t, "alerts.yaml"))
	promtool(t, "", "test", "rules", monitoring(t, "alerts_test.yaml"))
	promtool(t, "", "check", "config", "--syntax-only", monitoring(t, "prometheus.yaml"))
}

// Each expression of the dashboard is read by Prometheus's parser, as that of a rule.
func TestPrometheusReadsTheExpressionsOfTheDashboard(t *testing.T) {
	t.Parallel()
	var rules strings.Builder
	rules.WriteString("groups: [{name: dashboard, rules: [\n")
	expressions := dashboardExpressions(t)
	for i, expression := range expressions {
		text, err := json.Marshal(expression)
		require.NoError(t, err)
		fmt.Fprintf(&rules, "{record: 'dashboard:%d', expr: %s},\n", i, text)
	}
	rules.WriteString("]}]\n")
	require.Contains(t, promtool(t, rules.String(), "check", "rules"), fmt.Sprintf("%d rules found", len(expressions)))
}

// Prometheus reads the metrics of a real mount, with a token that may do no more.
func TestPrometheusReadsTheMetricsOfAMount(t *testing.T) {
	t.Parallel()
	e := start(t)
	granted := e.metricsToken()
	scrape := func(path, token string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(e.ctx(), http.MethodGet, e.vault.Addr+"/v1/auth/"+e.mount+"/"+path, http.NoBody)
		require.NoError(t, err)
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token) // as Prometheus sends it
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(body)
	}
	text := ""
	e.waitFor("the metrics of a mount that is connected", func() error {
		var status int
		if status, text = scrape("metrics", granted); status != http.StatusOK || !strings.Contains(text, "vault_auth_nats_delivery_connected 1\n") {
			return fmt.Errorf("status %d: %s", status, text)
		}
		return nil
	})
	promtool(t, text, "check", "metrics")

	for path, token := range map[string]string{"metrics": "", "config": granted, "sync": granted} {
		status, _ := scrape(path, token)
		require.Equal(t, http.StatusForbidden, status, path)
	}
}
