package plugin

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
)

// pushMetrics are of the attempts to deliver an account.
type pushMetrics struct {
	total        *prometheus.CounterVec
	good, failed prometheus.Counter
	seconds      prometheus.Histogram
}

func newPushMetrics() pushMetrics {
	m := pushMetrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricsNamespace, Name: "delivery_pushes_total", Help: "Attempts to bring one account to the servers.",
		}, []string{"result"}),
		seconds: histogram("delivery_push_seconds", "Time until all servers had an account, of attempts that succeeded.", remoteBuckets),
	}
	m.good, m.failed = m.total.WithLabelValues("success"), m.total.WithLabelValues("failure")
	return m
}

func (m *pushMetrics) pushed(took time.Duration, err error) {
	if err != nil {
		m.failed.Inc()
		return
	}
	m.good.Inc()
	m.seconds.Observe(took.Seconds())
}

// deliveryMetrics are of the delivery, as a read of sync shows it. A node that delivers
// nothing has none of them.
type deliveryMetrics struct {
	running func() *delivery.Reconciler
}

var (
	deliveryConnected    = metric("delivery_connected", "1 if there is a connection to NATS, or none is needed.")
	deliveryPending      = metric("delivery_pending_accounts", "Accounts that are not delivered.")
	deliveryPendingSince = metric("delivery_pending_since_timestamp_seconds", "Since when an account is not delivered, of the one that is not for the longest, as far as this process knows. Absent while none is.")
	deliveryServers      = metric("delivery_servers", "The nats-servers that answer (present), those that did and do not now (missing), and those of other operators (foreign).", "state")
	deliveryMissingSince = metric("delivery_missing_since_timestamp_seconds", "Since when a nats-server does not answer, of the one that does not for the longest. Absent while all do.")
	deliveryCompared     = metric("delivery_last_comparison_timestamp_seconds", "When the last full comparison of servers and mount began; absent before the first.")
	deliveryTook         = metric("delivery_last_comparison_seconds", "How long the last full comparison took.")
	deliveryClocks       = metric("delivery_clock_offset_seconds", "How far the clock of a nats-server is from the one here, of the one that is the furthest.")
	deliverySkew         = metric("delivery_clock_skew_seconds", "How far it may be: clock_skew of config.")
)

// Describe implements prometheus.Collector.
func (d deliveryMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		deliveryConnected, deliveryPending, deliveryPendingSince, deliveryServers, deliveryMissingSince,
		deliveryCompared, deliveryTook, deliveryClocks, deliverySkew,
	} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (d deliveryMetrics) Collect(metrics chan<- prometheus.Metric) {
	reconciler := d.running()
	if reconciler == nil {
		return
	}
	show, state := sink(metrics), reconciler.State()
	connected := 0.0
	if state.Connected {
		connected = 1
	}
	show.gauge(deliveryConnected, connected)
	show.gauge(deliveryPending, float64(state.Pending))
	if state.PendingSince != nil {
		show.gauge(deliveryPendingSince, unixSeconds(*state.PendingSince))
	}
	collectServers(show, state)
	if state.LastSync != nil {
		show.gauge(deliveryCompared, unixSeconds(state.LastSync.Started))
		show.gauge(deliveryTook, state.LastSync.Seconds)
	}
}

func collectServers(show sink, state delivery.State) {
	present, missing, foreign, offset := 0, 0, 0, 0.0
	for _, server := range state.Servers {
		switch {
		case server.ForeignOperator != "":
			foreign++
		case server.MissingSince != nil:
			missing++
		default:
			present++
		}
		offset = max(offset, math.Abs(server.ClockAhead))
	}
	show.gauge(deliveryServers, float64(present), "present")
	show.gauge(deliveryServers, float64(missing), "missing")
	show.gauge(deliveryServers, float64(foreign), "foreign")
	if since := missingSince(state); !since.IsZero() {
		show.gauge(deliveryMissingSince, unixSeconds(since))
	}
	show.gauge(deliveryClocks, offset)
	show.gauge(deliverySkew, state.ClockSkew.Seconds())
}

// missingSince is since when a server does not answer, of the one that does not for the
// longest; zero while all do.
func missingSince(state delivery.State) (since time.Time) {
	for _, server := range state.Servers {
		if gone := server.MissingSince; gone != nil && server.ForeignOperator == "" && (since.IsZero() || gone.Before(since)) {
			since = *gone
		}
	}
	return since
}

// stateMetrics are of what the mount holds.
type stateMetrics struct{ *backend }

var (
	revocations = metric("revocations", "Revocations of users, of all accounts that this node knows of: on the one that delivers of all.")
	fullest     = metric("account_jwt_fullest_ratio", "How full the fullest account JWT is, of what nats-server takes, as of when it was made last. Above 1, not all of its revocations fit, and others are cut off too.")
	cacheUses   = metric("cache_requests_total", "Look-ups in a cache.", "cache", "result")
	cacheSize   = metric("cache_entries", "Entries of a cache.", "cache")
)

// Describe implements prometheus.Collector.
func (m stateMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{revocations, fullest, cacheUses, cacheSize} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (m stateMetrics) Collect(metrics chan<- prometheus.Metric) {
	show := sink(metrics)
	show.gauge(revocations, float64(m.chain.LiveRevocations()))
	_, share := m.chain.Fullest()
	show.gauge(fullest, share)
	uses := m.chain.CacheUses()
	uses["roles"], uses["issuers"], uses["settings"], uses["callouts"] = m.roles.Uses(), m.issuers.Uses(), m.settings.Uses(), m.callouts.Uses()
	for name, used := range uses {
		show.counter(cacheUses, used.Hits, name, "hit")
		show.counter(cacheUses, used.Misses, name, "miss")
		show.gauge(cacheSize, float64(used.Entries), name)
	}
}
