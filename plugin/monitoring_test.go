package plugin

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
)

// alertRule is a rule of docs/monitoring/alerts.yaml.
type alertRule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(text, into))
}

func alertRules(t *testing.T) map[string]alertRule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string      `json:"name"`
			Rules []alertRule `json:"rules"`
		} `json:"groups"`
	}
	readYAML(t, "../docs/monitoring/alerts.yaml", &file)
	rules := make(map[string]alertRule)
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			rules[rule.Alert] = rule
		}
	}
	require.NotEmpty(t, rules)
	return rules
}

// dashboardExpressions are those of the dashboard, by the title of their panel.
func dashboardExpressions(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/monitoring/dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			ID      int                      `json:"id"`
			Type    string                   `json:"type"`
			Title   string                   `json:"title"`
			GridPos struct{ H, W, X, Y int } `json:"gridPos"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	expressions := make(map[string][]string)
	ids, filled := make(map[int]bool), make(map[[2]int]string)
	for _, panel := range dashboard.Panels {
		require.False(t, ids[panel.ID], "%d", panel.ID)
		ids[panel.ID] = true
		for x := range panel.GridPos.W {
			for y := range panel.GridPos.H {
				at := [2]int{panel.GridPos.X + x, panel.GridPos.Y + y}
				require.Empty(t, filled[at], "%s lies over another panel", panel.Title)
				filled[at] = panel.Title
			}
		}
		for _, target := range panel.Targets {
			expressions[panel.Title] = append(expressions[panel.Title], target.Expr)
		}
	}
	require.NotEmpty(t, expressions)
	return expressions
}

func TestTheRulesHaveTheThresholdsOfTheWarningsOfSync(t *testing.T) {
	rules := alertRules(t)
	for alert, threshold := range map[string]string{
		"VaultAuthNatsDeliveryPending":   seconds(pendingTooLong),
		"VaultAuthNatsServerMissing":     seconds(missingTooLong),
		"VaultAuthNatsComparisonOverdue": seconds(comparedTooLong),
		"VaultAuthNatsIssuerKeysFailing": seconds(keysTooLong),
		"VaultAuthNatsAccountNearlyFull": fmt.Sprint(chain.NearlyFull),
		"VaultAuthNatsLoginsFailing":     fmt.Sprint(failingShare),
		"VaultAuthNatsDisconnected":      "0",
		"VaultAuthNatsClockOff":          metricsNamespace + "_delivery_clock_skew_seconds",
	} {
		words := strings.Fields(rules[alert].Expr)
		require.NotEmpty(t, words, alert)
		require.Equal(t, threshold, words[len(words)-1], alert)
	}
	require.Equal(t, 2, strings.Count(rules["VaultAuthNatsLoginsFailing"].Expr, fmt.Sprintf("[%.0fm]", failingWindow.Minutes())))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()) }

func TestRulesAndDashboardNameOnlyMetricsThatExist(t *testing.T) {
	known := append(metricNames(t), "up", "nats_callout_healthy", "nats_callout_requests_total", "nats_callout_request_seconds", "nats_callout_requests_in_flight")
	m := newAccountMount(t)
	families, err := m.metrics.registry().Gather()
	require.NoError(t, err)
	for _, family := range families {
		known = append(known, family.GetName())
	}
	named := regexp.MustCompile(`\b(?:vault_auth_nats|nats_callout|go|process)_\w+`)
	used := make(map[string]bool)
	check := func(where, expression string) {
		names := named.FindAllString(expression, -1)
		for _, name := range names {
			base := strings.TrimSuffix(name, "_bucket")
			require.Contains(t, known, base, "%s: %s", where, expression)
			used[base] = true
		}
		require.True(t, len(names) > 0 || strings.Contains(expression, "up{"), "%s: %s", where, expression)
	}
	for alert, rule := range alertRules(t) {
		check(alert, rule.Expr)
	}
	for title, expressions := range dashboardExpressions(t) {
		for _, expression := range expressions {
			check(title, expression)
		}
	}
	for _, name := range metricNames(t) {
		require.True(t, used[name], "%s is neither in a rule nor on the dashboard", name)
	}
}

func TestEachAlertHasARunbookAndATestOfWhenItFires(t *testing.T) {
	guide, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	var tests struct {
		RuleFiles []string `json:"rule_files"`
		Interval  string   `json:"evaluation_interval"`
		Tests     []struct {
			Name     string `json:"name"`
			Interval string `json:"interval"`
			Input    any    `json:"input_series"`
			Alerts   []struct {
				At       string `json:"eval_time"`
				Alert    string `json:"alertname"`
				Expected []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	readYAML(t, "../docs/monitoring/alerts_test.yaml", &tests)
	fires, quiet := make(map[string]bool), make(map[string]bool)
	for _, test := range tests.Tests {
		for _, alert := range test.Alerts {
			if len(alert.Expected) > 0 {
				fires[alert.Alert] = true
			} else {
				quiet[alert.Alert] = true
			}
		}
	}
	for name, rule := range alertRules(t) {
		require.True(t, fires[name] && quiet[name], name)
		require.Contains(t, []string{"warning", "critical"}, rule.Labels["severity"], name)
		require.NotEmpty(t, rule.Annotations["summary"], name)
		require.True(t, strings.HasSuffix(rule.Annotations["runbook_url"], "/docs/operations.md#"+strings.ToLower(name)), name)
		require.True(t, slices.Contains(strings.Split(string(guide), "\n"), "#### "+name), "the guide has no section %s", name)
	}
}
