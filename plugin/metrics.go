package plugin

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
)

// metricsNamespace begins the name of each of the mount's own metrics.
const metricsNamespace = "vault_auth_nats"

// newMetrics gathers what the metrics path shows. What is known already is read when the
// path is, so that nothing but a count is ever kept up on the way of a request.
func (b *backend) newMetrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		deliveryMetrics{running: b.delivery.running},
	)
	return registry
}

// deliveryMetrics are of the delivery, as a read of sync shows it. A node that delivers
// nothing has none of them.
type deliveryMetrics struct {
	running func() *delivery.Reconciler
}

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, "", name), help, labels, nil)
}

var (
	deliveryConnected = metric("delivery_connected", "1 if there is a connection to NATS, or none is needed.")
	deliveryPending   = metric("delivery_pending_accounts", "Accounts that are not delivered.")
	deliveryServers   = metric("delivery_servers", "The nats-servers that answer (present), and those that did and do not now (missing).", "state")
	deliveryCompared  = metric("delivery_last_comparison_timestamp_seconds", "When the last full comparison of servers and mount began; absent before the first.")
)

// Describe implements prometheus.Collector.
func (d deliveryMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{deliveryConnected, deliveryPending, deliveryServers, deliveryCompared} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (d deliveryMetrics) Collect(metrics chan<- prometheus.Metric) {
	reconciler := d.running()
	if reconciler == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	state := reconciler.State()
	connected, missing := 0.0, 0
	if state.Connected {
		connected = 1
	}
	for _, server := range state.Servers {
		if server.MissingSince != nil {
			missing++
		}
	}
	gauge(deliveryConnected, connected)
	gauge(deliveryPending, float64(state.Pending))
	gauge(deliveryServers, float64(len(state.Servers)-missing), "present")
	gauge(deliveryServers, float64(missing), "missing")
	if state.LastSync != nil {
		gauge(deliveryCompared, float64(state.LastSync.Started.UnixMilli())/1000)
	}
}
