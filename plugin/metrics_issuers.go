package plugin

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// mostCountedIssuers is how many issuers have metrics of their own; the verifications of
// those beyond are timed together.
const mostCountedIssuers = 100

// forgetFailure is when a fetch of keys that failed is none of the present any more: keys
// are fetched when somebody logs in, and of an issuer that nobody uses nothing is known.
const forgetFailure = time.Hour

// issuerMetrics are of the issuers that exist and are used.
type issuerMetrics struct {
	backend *backend
	verify  *prometheus.HistogramVec

	mu       sync.Mutex
	names    map[string]bool // with a series of their own
	suspects suspects
}

func newIssuerMetrics(b *backend) issuerMetrics {
	return issuerMetrics{
		backend: b,
		names:   make(map[string]bool),
		verify: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: metricsNamespace, Name: "verify_seconds", Buckets: remoteBuckets,
			Help: "Time to verify one token, with what the issuer is asked for it.",
		}, []string{"issuer"}),
	}
}

// of returns what times the verifications of an issuer that was read from storage.
func (m *issuerMetrics) of(name string) prometheus.Observer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.names[name] {
		if len(m.names) >= mostCountedIssuers || fault.CheckName("issuer", name) != nil {
			return m.verify.WithLabelValues(otherName)
		}
		m.names[name] = true
	}
	return m.verify.WithLabelValues(name)
}

// changed notes that an issuer may have been deleted, here or by another node.
func (m *issuerMetrics) changed(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] {
		m.suspects.add(name)
	}
}

// dropDeleted drops the metrics of issuers that are not there any more.
func (m *issuerMetrics) dropDeleted(ctx context.Context, s logical.Storage) error {
	return m.suspects.deleted(ctx, s, issuerPrefix, func(name string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.names, name)
		m.verify.DeleteLabelValues(name)
	})
}

var (
	issuerFetches = metric("issuer_key_fetches_total", "Fetches of an issuer's keys, since it was read or changed here.", "issuer", "result")
	issuerHeld    = metric("issuer_keys_fetched_timestamp_seconds", "When the keys of the issuer that are held were fetched; of several endpoints the oldest. Absent for those of an earlier process.", "issuer")
	issuerFailing = metric("issuer_keys_failing_since_timestamp_seconds", "When the first fetch of keys failed that no good one came after. Absent while none fails, and an hour after the last.", "issuer")
)

// Describe implements prometheus.Collector.
func (m *issuerMetrics) Describe(descs chan<- *prometheus.Desc) {
	m.verify.Describe(descs)
	for _, desc := range []*prometheus.Desc{issuerFetches, issuerHeld, issuerFailing} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *issuerMetrics) Collect(metrics chan<- prometheus.Metric) {
	m.verify.Collect(metrics)
	now := time.Now()
	for name, fetches := range m.fetches() {
		sink(metrics).counter(issuerFetches, fetches.Good, name, "success")
		sink(metrics).counter(issuerFetches, fetches.Failed, name, "failure")
		if !fetches.Held.IsZero() {
			sink(metrics).gauge(issuerHeld, unixSeconds(fetches.Held), name)
		}
		if isFailing(fetches, now) {
			sink(metrics).gauge(issuerFailing, unixSeconds(fetches.FailingSince), name)
		}
	}
}

// fetches are those of the issuers that have metrics of their own and are ready for use.
func (m *issuerMetrics) fetches() map[string]claims.Fetches {
	ready := m.backend.issuers.All()
	all := make(map[string]claims.Fetches)
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, issuer := range ready {
		if fetching, ok := issuer.verifier.(*claims.JWT); ok && m.names[name] {
			if fetches, ok := fetching.Fetches(); ok {
				all[name] = fetches
			}
		}
	}
	return all
}

func isFailing(f claims.Fetches, now time.Time) bool {
	return !f.FailingSince.IsZero() && now.Sub(f.LastFailure) < forgetFailure
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
