package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
)

// figures are what the metrics path of a mount shows of its own, by name and labels as
// Prometheus writes them. Of a histogram it is the count.
func figures(t testing.TB, b *backend, s logical.Storage) map[string]float64 {
	t.Helper()
	_, err := b.readMetrics(context.Background(), &logical.Request{Storage: s}, nil)
	require.NoError(t, err)
	families, err := b.metrics.registry().Gather()
	require.NoError(t, err)
	all := make(map[string]float64)
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), metricsNamespace) {
			continue
		}
		for _, metric := range family.Metric {
			var labels []string
			for _, label := range metric.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			name := strings.TrimPrefix(family.GetName(), metricsNamespace+"_")
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			all[name] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// grown are the counters of logins that differ, and by how much.
func grown(before, after map[string]float64) map[string]float64 {
	changed := make(map[string]float64)
	for name, value := range after {
		if strings.HasPrefix(name, "logins_total") && value != before[name] {
			changed[name] = value - before[name]
		}
	}
	return changed
}

func loginSeries(path, role, issuer, outcome string) string {
	return fmt.Sprintf("logins_total{issuer=%q,outcome=%q,path=%q,role=%q}", issuer, outcome, path, role)
}

func TestLoginsAreCountedByRoleIssuerAndOutcome(t *testing.T) {
	w := newWorkloads(t)[2]
	m := newLoginMount(t, w)
	m.write("role/elsewhere", map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub", "token_bound_cidrs": "10.0.0.0/8"})
	m.write("role/unbound", map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub", "bound_subject": "nobody"})
	m.write("role/unsafe", map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub", "user_template": `{"pub":{"allow":["{{claim(sub)}}"]}}`})
	for _, login := range []struct {
		changes map[string]any
		counted string
	}{
		{nil, loginSeries("login", "dev", "default", "success")},
		{map[string]any{"jwt": w.token + "x"}, loginSeries("login", "dev", "default", "bad_token")},
		{map[string]any{"jwt": ""}, loginSeries("login", "dev", "default", "denied")},
		{map[string]any{"user_public_key": "U"}, loginSeries("login", "dev", "default", "denied")},
		{map[string]any{"role": "elsewhere"}, loginSeries("login", "elsewhere", "default", "denied")},
		{map[string]any{"role": "unbound"}, loginSeries("login", "unbound", "default", "denied")},
		{map[string]any{"role": "unsafe"}, loginSeries("login", "unsafe", "default", "success")},
		{map[string]any{"role": "nobody-has-this"}, loginSeries("login", noName, noName, "denied")},
		{map[string]any{"role": strings.Repeat("long", 1000)}, loginSeries("login", noName, noName, "denied")},
	} {
		before := figures(t, m.backend, m.storage)
		_, _ = m.tryLogin(logical.UpdateOperation, login.changes)
		require.Equal(t, map[string]float64{login.counted: 1}, grown(before, figures(t, m.backend, m.storage)), "%v", login.changes)
	}
	t.Run("what is asked ahead of a login is none", func(t *testing.T) {
		before := figures(t, m.backend, m.storage)
		_, err := m.tryLogin(logical.AliasLookaheadOperation, nil)
		require.NoError(t, err)
		_, err = m.tryLogin(logical.ResolveRoleOperation, nil)
		require.NoError(t, err)
		require.Empty(t, grown(before, figures(t, m.backend, m.storage)))
	})
	t.Run("a fault of the mount", func(t *testing.T) {
		m.write("jwt/gone", map[string]any{"type": "account"})
		m.write("role/lost", map[string]any{"account": "gone", "bound_audiences": "vault", "user_claim": "sub"})
		_, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.DeleteOperation, Path: "jwt/gone", Storage: m.storage, Data: map[string]any{"force": true}})
		require.NoError(t, err)
		before := figures(t, m.backend, m.storage)
		_, err = m.tryLogin(logical.UpdateOperation, map[string]any{"role": "lost"})
		require.Error(t, err)
		require.Equal(t, map[string]float64{loginSeries("login", "lost", "default", "error"): 1}, grown(before, figures(t, m.backend, m.storage)))

		m.System().(*systemView).last.Store(&replication{state: consts.ReplicationPerformanceStandby, asked: time.Now()})
		before = figures(t, m.backend, m.storage)
		m.counted(byLogin, nil, errors.New("it is not there yet"))
		require.Empty(t, grown(before, figures(t, m.backend, m.storage)), "a standby passes it to the leader, which counts it")
	})
	now := figures(t, m.backend, m.storage)
	require.Positive(t, now[`verify_seconds{issuer="default"}`])
	require.Positive(t, now["render_seconds"])
	require.Positive(t, now["sign_seconds"])
	require.Positive(t, now[`cache_requests_total{cache="roles",result="hit"}`])
	require.Positive(t, now[`cache_requests_total{cache="accounts",result="miss"}`])
	require.EqualValues(t, 1, now[`cache_entries{cache="issuers"}`])
}

func TestALoginIsCountedWhereItsIssuerIsAway(t *testing.T) {
	w := newWorkloads(t)[2]
	m := newLoginMount(t, w)
	m.write("config", map[string]any{"jwks_url": "http://127.0.0.1:1", "skip_jwks_validation": true})
	_, err := m.tryLogin(logical.UpdateOperation, nil)
	require.Error(t, err)
	now := figures(t, m.backend, m.storage)
	require.EqualValues(t, 1, now[loginSeries("login", "dev", "default", "unavailable")])
	require.EqualValues(t, 1, now[`issuer_key_fetches_total{issuer="default",result="failure"}`])
	require.EqualValues(t, 0, now[`issuer_key_fetches_total{issuer="default",result="success"}`])
	require.InDelta(t, time.Now().Unix(), now[`issuer_keys_failing_since_timestamp_seconds{issuer="default"}`], 60)
	require.NotContains(t, now, `issuer_keys_fetched_timestamp_seconds{issuer="default"}`)
}

func TestTheAgeOfAnIssuersKeysIsShown(t *testing.T) {
	w := newWorkloads(t)[2]
	m := newLoginMount(t, w)
	var away atomic.Bool
	issuer := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			answer.WriteHeader(http.StatusInternalServerError)
			return
		}
		keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.public, KeyID: keyID, Algorithm: string(w.alg)}}}
		_ = json.NewEncoder(answer).Encode(keys)
	}))
	t.Cleanup(issuer.Close)
	m.write("config", map[string]any{"jwks_url": issuer.URL})
	m.login()
	now := figures(t, m.backend, m.storage)
	require.EqualValues(t, 1, now[`issuer_key_fetches_total{issuer="default",result="success"}`])
	held := now[`issuer_keys_fetched_timestamp_seconds{issuer="default"}`]
	require.InDelta(t, time.Now().Unix(), held, 60)

	away.Store(true)
	ready, err := m.issuer(t.Context(), m.storage, defaultIssuer)
	require.NoError(t, err)
	require.Error(t, ready.Check(t.Context()))
	now = figures(t, m.backend, m.storage)
	require.Equal(t, held, now[`issuer_keys_fetched_timestamp_seconds{issuer="default"}`], "the keys that are held are those")
	require.Positive(t, now[`issuer_keys_failing_since_timestamp_seconds{issuer="default"}`])
	m.login()

	t.Run("and ends with the issuer", func(t *testing.T) {
		m.write("issuer/other", map[string]any{"jwt_validation_pubkeys": []string{w.publicPEM(t)}})
		m.write("role/other", map[string]any{"issuer": "other", "account": "orders", "bound_audiences": "vault", "user_claim": "sub"})
		_, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": "other"})
		require.NoError(t, err)
		require.Contains(t, figures(t, m.backend, m.storage), `verify_seconds{issuer="other"}`)
		for _, path := range []string{"role/other", "issuer/other"} {
			_, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.DeleteOperation, Path: path, Storage: m.storage})
			require.NoError(t, err)
		}
		for name := range figures(t, m.backend, m.storage) {
			require.NotContains(t, name, `"other"`)
		}
	})
}

func TestCredentialsAndLeasesAreCounted(t *testing.T) {
	m := newCredsMount(t)
	m.role("shop", nil)
	m.vaultRole("ops", nil)
	before := figures(t, m.backend, m.storage)
	lease := m.lease("shop", map[string]any{"jwt": m.token(nil)})
	m.refused("shop", map[string]any{"jwt": m.token(nil) + "x"}, "signature")
	m.refused("nobody", nil, "could not be found")
	_, err := m.handle(logical.RenewOperation, lease.Secret)
	require.NoError(t, err)
	_, err = m.handle(logical.RevokeOperation, lease.Secret)
	require.NoError(t, err)
	now := figures(t, m.backend, m.storage)
	require.Equal(t, map[string]float64{
		loginSeries("creds", "shop", "default", "success"):   1,
		loginSeries("creds", "shop", "default", "bad_token"): 1,
		loginSeries("creds", noName, noName, "denied"):       1,
	}, grown(before, now))
	for event, count := range map[string]float64{"issued": 1, "renewed": 1, "revoked": 1, "expired": 0, "revoke_failed": 0} {
		require.Equal(t, count, now[fmt.Sprintf("lease_events_total{event=%q}", event)], event)
	}
	require.EqualValues(t, 1, now["revocations"])

	again := m.lease("shop", map[string]any{"jwt": m.token(nil)})
	m.storage.FailOn(func(operation, _ string) bool { return operation == "put" })
	defer m.storage.FailOn(nil)
	_, err = m.handle(logical.RevokeOperation, again.Secret)
	require.Error(t, err)
	require.EqualValues(t, 1, figures(t, m.backend, m.storage)[`lease_events_total{event="revoke_failed"}`])
}

func TestClientsOfACalloutAreCounted(t *testing.T) {
	m := newCalloutMount(t, nil)
	before := figures(t, m.backend, m.storage)
	_, err := m.ask(m.client())
	require.NoError(t, err)
	bad := m.client()
	bad.Password += "x"
	_, err = m.ask(bad)
	require.Error(t, err)
	unknown := m.client()
	unknown.Username = "nobody"
	_, err = m.ask(unknown)
	require.Error(t, err)
	changed := grown(before, figures(t, m.backend, m.storage))
	require.Len(t, changed, 3)
	require.EqualValues(t, 1, changed[loginSeries("callout", noName, noName, "denied")])
	sum := 0.0
	for name, value := range changed {
		require.Contains(t, name, `path="callout"`)
		sum += value
	}
	require.EqualValues(t, 3, sum)
}

func TestLoginsOfPeopleAreCountedOnceTheyHaveEnded(t *testing.T) {
	m := newPeopleMount(t)
	before := figures(t, m.backend, m.storage)
	resp, err := m.callback(m.sentBack(nil))
	require.NoError(t, err)
	require.NotNil(t, resp.Auth)
	_, _ = m.callback(map[string]any{"state": "st_false", "code": "x"})
	changed := grown(before, figures(t, m.backend, m.storage))
	require.EqualValues(t, 1, changed[loginSeries("oidc", noName, noName, "denied")])
	delete(changed, loginSeries("oidc", noName, noName, "denied"))
	require.Len(t, changed, 1)
	for name, value := range changed {
		require.Contains(t, name, `outcome="success",path="oidc"`)
		require.EqualValues(t, 1, value)
	}
}

// Who has no Vault token names whatever they like, as often as they like.
func TestCallersGrowNeitherMetricsNorMemory(t *testing.T) {
	w := newWorkloads(t)[2]
	m := newLoginMount(t, w)
	m.write("role/Other", map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub"})
	_, _ = m.tryLogin(logical.UpdateOperation, map[string]any{"role": "nobody"})
	before := slices.Sorted(maps.Keys(figures(t, m.backend, m.storage)))
	for i := range 2 * mostCountedRoles {
		for _, role := range []string{fmt.Sprintf("r%d", i), "./dev", strings.Repeat("../", i%50) + "role/dev", "role\x00dev", "(other)"} {
			resp, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": role})
			require.True(t, err != nil || resp.IsError(), role)
		}
	}
	require.Equal(t, before, slices.Sorted(maps.Keys(figures(t, m.backend, m.storage))))
	require.LessOrEqual(t, len(m.metrics.logins.roles), 2)
}

func TestRolesBeyondTheMostAreCountedTogether(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	for i := range mostCountedRoles + 10 {
		m.metrics.logins.of(fmt.Sprintf("role-%d", i), newRoleEntry())
	}
	for i := range mostCountedIssuers + 10 {
		m.metrics.issuers.of(fmt.Sprintf("issuer-%d", i)).Observe(1)
	}
	m.write("role/late", map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub"})
	_, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": "late"})
	require.NoError(t, err)
	now := figures(t, m.backend, m.storage)
	require.EqualValues(t, 1, now[loginSeries("login", otherName, otherName, "success")])
	require.Len(t, m.metrics.logins.roles, mostCountedRoles)
	require.Len(t, m.metrics.issuers.names, mostCountedIssuers)
	require.Positive(t, now[fmt.Sprintf("verify_seconds{issuer=%q}", otherName)])
}

func TestADeletedRoleHasNoMetrics(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	of := func(role string) (has bool) {
		for name := range figures(t, m.backend, m.storage) {
			has = has || strings.Contains(name, fmt.Sprintf("role=%q", role))
		}
		return has
	}
	require.True(t, of("dev"))
	m.write("role/dev", map[string]any{"token_ttl": "11m"})
	m.login()
	require.Equal(t, 2.0, figures(t, m.backend, m.storage)[loginSeries("login", "dev", "default", "success")], "a change of the role lets its counts be")

	m.storage.FailOn(func(operation, key string) bool { return operation == "get" && key == rolePrefix+"dev" })
	m.metrics.logins.changed("dev")
	_, err := m.readMetrics(t.Context(), &logical.Request{Storage: m.storage}, nil)
	require.Error(t, err)
	m.storage.FailOn(nil)

	_, err = m.HandleRequest(t.Context(), &logical.Request{Operation: logical.DeleteOperation, Path: "role/dev", Storage: m.storage})
	require.NoError(t, err)
	require.False(t, of("dev"))

	m.write("role/dev", map[string]any{"account": "orders", "bound_audiences": "vault", "user_claim": "sub"})
	m.login()
	require.Equal(t, 1.0, figures(t, m.backend, m.storage)[loginSeries("login", "dev", "default", "success")])
	other := newLoginMountOn(t, m)
	_, err = other.HandleRequest(t.Context(), &logical.Request{Operation: logical.DeleteOperation, Path: "role/dev", Storage: m.storage})
	require.NoError(t, err)
	m.InvalidateKey(t.Context(), rolePrefix+"dev")
	require.False(t, of("dev"), "deleted on another node")
}

func TestMetricsAreNamedAsPrometheusWantsThem(t *testing.T) {
	m, _, _ := deliveringMount(t)
	m.mustSync(logical.UpdateOperation, nil)
	families, err := m.metrics.registry().Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestMetricsShowNoSecretAndNothingThatWorkloadsSay(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	creds := m.login().Data
	resp, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "metrics", Storage: m.storage})
	require.NoError(t, err)
	text := string(resp.Data[logical.HTTPRawBody].([]byte))
	for _, secret := range []string{m.workload.token, creds["jwt"].(string), creds["user_public_key"].(string), creds["account_public_key"].(string), "sample-user", "shop"} {
		require.NotContains(t, text, secret)
	}
	require.NotRegexp(t, `\bS[UAO][A-Z2-7]{56}\b`, text)
}

func TestADryRunMakesNoMetricsToShow(t *testing.T) {
	m := newAccountMount(t)
	scratch, err := m.scratch(t.Context())
	require.NoError(t, err)
	defer scratch.Cleanup(t.Context())
	scratch.metrics.registry = nil // whoever asks for it panics
	_, err = scratch.writeTo(t.Context(), &logical.Request{}, m.storage, logical.UpdateOperation, "jwt/other", map[string]any{"type": "account"})
	require.NoError(t, err)
}

func TestToCountAndTimeALoginAllocatesNothing(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	role, err := m.role(t.Context(), m.storage, "dev")
	require.NoError(t, err)
	issuer, err := m.issuer(t.Context(), m.storage, defaultIssuer)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		m.counted(byLogin, role, nil)
		issuer.verified.Observe(0.001)
		m.metrics.render.Observe(0.001)
		m.metrics.sign.Observe(0.001)
	}))
}
