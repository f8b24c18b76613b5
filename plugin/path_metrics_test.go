package plugin

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// shown reads the metrics path as Prometheus does.
func (m *chainMount) shown() map[string]*dto.MetricFamily {
	m.t.Helper()
	resp, err := m.do(logical.ReadOperation, "metrics", nil)
	require.NoError(m.t, err)
	require.Equal(m.t, http.StatusOK, resp.Data[logical.HTTPStatusCode])
	require.Contains(m.t, resp.Data[logical.HTTPContentType], "text/plain; version=0.0.4")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(resp.Data[logical.HTTPRawBody].([]byte)))
	require.NoError(m.t, err)
	return families
}

func TestMetricsShowTheDeliveryAndTheProcess(t *testing.T) {
	m, _, _ := deliveringMount(t)
	m.write("jwt/orders", map[string]any{"type": "account"})
	m.mustSync(logical.UpdateOperation, nil)

	families := m.shown()
	value := func(name string, i int) float64 {
		t.Helper()
		require.Contains(t, families, name)
		return families[name].Metric[i].GetGauge().GetValue()
	}
	require.Positive(t, value("go_goroutines", 0))
	require.EqualValues(t, 1, value("vault_auth_nats_delivery_connected", 0))
	require.EqualValues(t, 0, value("vault_auth_nats_delivery_pending_accounts", 0))
	for i, state := range []string{"foreign", "missing", "present"} {
		require.Equal(t, state, families["vault_auth_nats_delivery_servers"].Metric[i].Label[0].GetValue())
		require.EqualValues(t, i/2, value("vault_auth_nats_delivery_servers", i))
	}
	require.Positive(t, value("vault_auth_nats_delivery_last_comparison_timestamp_seconds", 0))
}
