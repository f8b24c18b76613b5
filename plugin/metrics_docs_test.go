package plugin

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// metricNames are those of the mount's own metrics, also of those that are absent now.
func metricNames(t *testing.T) []string {
	t.Helper()
	m := newAccountMount(t)
	descs := make(chan *prometheus.Desc)
	go func() {
		m.metrics.registry().Describe(descs)
		close(descs)
	}()
	name := regexp.MustCompile(`fqName: "(` + metricsNamespace + `_\w+)"`)
	var names []string
	for desc := range descs {
		if found := name.FindStringSubmatch(desc.String()); found != nil {
			names = append(names, found[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestTheOperationsGuideExplainsEveryMetric(t *testing.T) {
	guide, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	var explained []string
	for _, row := range regexp.MustCompile("(?m)^\\| `("+metricsNamespace+"_\\w+)` ").FindAllStringSubmatch(string(guide), -1) {
		explained = append(explained, row[1])
	}
	slices.Sort(explained)
	require.Equal(t, metricNames(t), explained)
	for _, outcome := range outcomeNames {
		require.Contains(t, string(guide), "| `"+outcome+"` |")
	}
	for _, way := range wayNames {
		require.True(t, strings.Contains(string(guide), "`"+way+"`"), way)
	}
	for _, event := range leaseEventNames {
		require.Contains(t, string(guide), "`"+event+"`")
	}
}
