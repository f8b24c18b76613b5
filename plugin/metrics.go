package plugin

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metricsNamespace begins the name of each of the mount's own metrics.
const metricsNamespace = "vault_auth_nats"

// mountMetrics are what is counted and timed on the way of requests, for the metrics path.
// What is known anyway is read when that is. No label has a value that a caller chooses,
// and what is counted for roles and issuers is bounded.
type mountMetrics struct {
	logins  loginMetrics
	window  loginWindow
	issuers issuerMetrics
	leases  [leaseEvents]prometheus.Counter
	pushes  pushMetrics
	render  prometheus.Histogram
	sign    prometheus.Histogram

	// registry is made at the first read: a dry run is not read.
	registry func() *prometheus.Registry
}

func newMetrics(b *backend) *mountMetrics {
	m := &mountMetrics{
		logins:  newLoginMetrics(),
		issuers: newIssuerMetrics(b),
		leases:  newLeaseMetrics(),
		pushes:  newPushMetrics(),
		render:  histogram("render_seconds", "Time to render the user template of a role for one login.", pureBuckets),
		sign:    histogram("sign_seconds", "Time to make and sign one user JWT.", pureBuckets),
	}
	m.registry = sync.OnceValue(func() *prometheus.Registry { return m.register(b) })
	return m
}

func (m *mountMetrics) register(b *backend) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Name: "build_info", Help: "1, with the version of the plugin that runs.",
		ConstLabels: prometheus.Labels{"version": Version, "commit": Commit},
	})
	build.Set(1)
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build,
		&m.logins, m.render, m.sign,
		&m.issuers,
		m.pushes.total, m.pushes.seconds,
		deliveryMetrics{running: b.delivery.running},
		stateMetrics{b},
	)
	for _, counter := range m.leases {
		registry.MustRegister(counter)
	}
	return registry
}

// The upper bounds of histograms in seconds: of what is only computed, and of what may
// wait for an issuer or for servers.
var (
	pureBuckets   = []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25}
	remoteBuckets = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
)

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: metricsNamespace, Name: name, Help: help, Buckets: buckets})
}

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(metricsNamespace, "", name), help, labels, nil)
}

// A sink takes metrics whose values are known elsewhere.
type sink chan<- prometheus.Metric

func (s sink) gauge(desc *prometheus.Desc, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func (s sink) counter(desc *prometheus.Desc, value uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
}

// suspects are the names of those that have metrics and may have been deleted. Which
// were is found out when the metrics are read: a node that is told of a change of its
// storage is not told what it was.
type suspects struct {
	mu    sync.Mutex
	names map[string]bool
}

func (s *suspects) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = make(map[string]bool)
	}
	s.names[name] = true
}

// deleted has those dropped that are not in storage.
func (s *suspects) deleted(ctx context.Context, storage logical.Storage, prefix string, drop func(name string)) error {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.names))
	s.names = nil
	s.mu.Unlock()
	var failures []error
	for _, name := range names {
		entry, err := storage.Get(ctx, prefix+name)
		switch {
		case err != nil:
			s.add(name)
			failures = append(failures, err)
		case entry == nil:
			drop(name)
		}
	}
	return errors.Join(failures...)
}

// A leaseEvent is what becomes of a lease of creds/:role. How many there are now Vault
// itself knows: vault_expire_num_leases.
type leaseEvent int

const (
	leaseIssued leaseEvent = iota
	leaseRenewed
	leaseRevoked // before its user JWT had ended: the user was cut off
	leaseExpired
	leaseFailed // it was to be revoked, and could not be: Vault tries again
	leaseEvents
)

var leaseEventNames = [leaseEvents]string{"issued", "renewed", "revoked", "expired", "revoke_failed"}

func newLeaseMetrics() (made [leaseEvents]prometheus.Counter) {
	for event, name := range leaseEventNames {
		made[event] = prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "lease_events_total", Help: "What became of leases of creds/:role.",
			ConstLabels: prometheus.Labels{"event": name},
		})
	}
	return made
}

func (m *mountMetrics) lease(event leaseEvent) { m.leases[event].Inc() }
