package responder

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what Prometheus is shown. No label has a value that a client chooses.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	inFlight prometheus.Gauge
}

func newMetrics(r *Responder, registerer prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nats_callout_requests_total",
			Help: "Requests of nats-servers: allowed and refused by the mount; failed: Vault did not answer in time; overloaded: turned away at once; late: too late when their turn came.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "nats_callout_request_seconds",
			Help:    "Time from a request to its answer.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nats_callout_requests_in_flight",
			Help: "Requests that are with Vault now.",
		}),
	}
	for _, outcome := range outcomes {
		m.requests.WithLabelValues(outcome)
	}
	healthy := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nats_callout_healthy",
		Help: "1 if the responder is connected to NATS and has a Vault token.",
	}, func() float64 {
		if r.Healthy() != nil {
			return 0
		}
		return 1
	})
	registerer.MustRegister(m.requests, m.seconds, m.inFlight, healthy)
	return m
}
