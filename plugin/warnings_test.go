package plugin

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
)

func TestSyncWarnsOfADeliveryThatDoesNotComeToItsEnd(t *testing.T) {
	now := time.Now()
	since := func(age time.Duration) *time.Time {
		at := now.Add(-age)
		return &at
	}
	compared := func(age time.Duration) *delivery.Report { return &delivery.Report{Started: now.Add(-age)} }
	missing := func(age time.Duration) []delivery.ServerState {
		return []delivery.ServerState{{Name: "a"}, {Name: "b", MissingSince: since(age)}}
	}
	for name, c := range map[string]struct {
		state   delivery.State
		warning string // empty: none
	}{
		"nothing":             {delivery.State{Connected: true, LastSync: compared(time.Minute)}, ""},
		"before the first":    {delivery.State{Connected: true}, ""},
		"no connection":       {delivery.State{Error: "refused"}, "no connection to NATS: refused"},
		"pending":             {delivery.State{Connected: true, Pending: 3, PendingSince: since(pendingTooLong + time.Second)}, "3 accounts are not delivered"},
		"pending for a while": {delivery.State{Connected: true, Pending: 3, PendingSince: since(pendingTooLong - time.Second)}, ""},
		"missing":             {delivery.State{Connected: true, Servers: missing(missingTooLong + time.Second)}, "a NATS server does not answer since"},
		"missing for a while": {delivery.State{Connected: true, Servers: missing(missingTooLong - time.Second)}, ""},
		"long ago":            {delivery.State{Connected: true, LastSync: compared(comparedTooLong + time.Second)}, "last compared at"},
		"not so long ago":     {delivery.State{Connected: true, LastSync: compared(comparedTooLong - time.Second)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			warnings := deliveryWarnings(c.state, now)
			if c.warning == "" {
				require.Empty(t, warnings)
				return
			}
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0], c.warning)
		})
	}
}

func TestSyncWarnsOfLoginsThatFail(t *testing.T) {
	var w loginWindow
	now := time.Now()
	require.Zero(t, w.failing())
	w.note(now, [outcomes]uint64{})
	w.note(now.Add(time.Minute), [outcomes]uint64{succeeded: 90, denied: 5, unavailable: 4, failed: 1})
	require.InDelta(t, 0.05, w.failing(), 1e-9)
	for i := range 30 {
		w.note(now.Add(time.Duration(2+i)*time.Minute), [outcomes]uint64{succeeded: 90, denied: 5, unavailable: 4, failed: 1})
		require.LessOrEqual(t, len(w.samples), 12)
	}
	require.Zero(t, w.failing(), "it is over")
	w.note(now.Add(time.Hour), [outcomes]uint64{succeeded: 10})
	require.Zero(t, w.failing(), "the counts of a role have gone")
}

// What happens to a mount is seen in its metrics and in the warnings of sync.
func TestSyncAndMetricsTellOfAServerThatIsAway(t *testing.T) {
	m, running, _ := deliveringMount(t)
	m.mustSync(logical.UpdateOperation, nil)
	before := figures(t, m.backend, m.storage)
	require.EqualValues(t, 1, before["delivery_connected"])
	require.NotContains(t, before, "delivery_pending_since_timestamp_seconds")
	require.Positive(t, before[`delivery_pushes_total{result="success"}`])
	require.Positive(t, before["delivery_push_seconds"])
	require.EqualValues(t, (10 * time.Minute).Seconds(), before["delivery_clock_skew_seconds"])

	running.Shutdown()
	running.WaitForShutdown()
	m.write("jwt/late", map[string]any{"type": "account"})
	require.Eventually(t, func() bool {
		return figures(t, m.backend, m.storage)[`delivery_pushes_total{result="failure"}`] > before[`delivery_pushes_total{result="failure"}`]
	}, 30*time.Second, 10*time.Millisecond)
	now := figures(t, m.backend, m.storage)
	require.EqualValues(t, 0, now["delivery_connected"])
	require.EqualValues(t, 1, now["delivery_pending_accounts"])
	require.InDelta(t, time.Now().Unix(), now["delivery_pending_since_timestamp_seconds"], 60)
	resp, err := m.sync(logical.ReadOperation, nil)
	require.NoError(t, err)
	require.Contains(t, resp.Warnings[0], "there is no connection to NATS")
	require.NotEmpty(t, resp.Data["pending_since"])
	state := m.backend.delivery.running().State()
	later, err := m.warnings(t.Context(), m.storage, state, nil, time.Now().Add(pendingTooLong+time.Minute))
	require.NoError(t, err)
	require.Contains(t, later[1], "1 accounts are not delivered")
}

// Where NATS is may be what the write has changed, and nothing waits for it yet.
func TestAWriteOfConfigWarnsWhereNATSCannotBeReached(t *testing.T) {
	m, running, _ := deliveringMount(t)
	m.mustSync(logical.UpdateOperation, nil)
	for _, wrong := range []map[string]any{
		{"account_jwt_server_url": "nats://127.0.0.1:1", "service_url": "nats://127.0.0.1:1"},
		{"default_role": "dev"}, // it is so still
	} {
		resp, err := m.do(logical.UpdateOperation, "config", wrong)
		require.NoError(t, err)
		require.Len(t, resp.Warnings, 1)
		require.Regexp(t, "NATS cannot be reached.*: not connected to NATS: .+", resp.Warnings[0], "and why")
	}
	m.deliverTo(running)
}

// Vault asks again where the plugin's process ended during a request. The second time there is
// nothing to change, and what the first has stored is not on the servers.
func TestTheSameWriteToANewProcessWarnsOfWhatTheFormerLeft(t *testing.T) {
	m, running, _ := deliveringMount(t)
	scoped := map[string]any{"role_type": "vault", "account": "orders", "scoped": true, "user_template": `{"pub":{"allow":["a"]},"sub":{"allow":["a"]}}`}
	account := map[string]any{"type": "account", "config": `{"description":"changed"}`}
	m.write("jwt/orders", map[string]any{"type": "account"})
	m.write("jwt/gone", map[string]any{"type": "account"})
	m.write("jwt/auth", map[string]any{"type": "account"})
	m.write("role/away", scoped)
	m.write("callout/away", map[string]any{"account": "auth", "roles": "*"})
	for _, request := range []struct {
		operation logical.Operation
		path      string
		data      map[string]any
	}{
		{logical.UpdateOperation, "jwt/orders", account},
		{logical.UpdateOperation, "role/dev", scoped},
		{logical.DeleteOperation, "role/away", nil},
		{logical.DeleteOperation, "callout/away", nil},
		{logical.DeleteOperation, "jwt/gone", nil},
	} {
		running.Shutdown()
		running.WaitForShutdown()
		warnings := func() string {
			resp, err := m.do(request.operation, request.path, request.data)
			require.NoError(t, err)
			require.NoError(t, resp.Error())
			require.NotNil(t, resp, "%s %s", request.operation, request.path)
			return strings.Join(resp.Warnings, "\n")
		}
		require.Contains(t, warnings(), "not delivered to the NATS servers yet")
		m.backend.Cleanup(t.Context())
		m.startDelivering()
		require.Contains(t, warnings(), "not delivered to the NATS servers yet", "%s %s", request.operation, request.path)
		running = runServer(t, serverOptions(t, m.must(logical.ReadOperation, "config/server", map[string]any{"dir": t.TempDir()})["config"].(string)))
		m.deliverTo(running)
	}
}

func TestSyncWarnsOfAnIssuerWhoseKeysCannotBeFetched(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("config", map[string]any{"jwks_url": "http://127.0.0.1:1", "skip_jwks_validation": true})
	_, err := m.tryLogin(logical.UpdateOperation, nil)
	require.Error(t, err)
	after := func(age time.Duration) []string {
		warnings, err := m.warnings(t.Context(), m.storage, delivery.State{Connected: true}, nil, time.Now().Add(age))
		require.NoError(t, err)
		return warnings
	}
	require.Empty(t, after(keysTooLong-time.Minute))
	require.Contains(t, after(keysTooLong + time.Minute)[0], `the keys of issuer "default" cannot be fetched since`)
	require.Empty(t, after(forgetFailure+time.Minute), "nobody needs them")
}

func TestSyncAndMetricsTellOfAnAccountThatIsNearlyFull(t *testing.T) {
	m, _, _ := deliveringMount(t)
	m.write("jwt/orders", map[string]any{"type": "account"})
	m.mustSync(logical.UpdateOperation, nil)
	require.Less(t, figures(t, m.backend, m.storage)["account_jwt_fullest_ratio"], 0.01)
	id, _ := m.fill(9000)
	load, err := m.chain.RevocationLoad(t.Context(), m.storage, id)
	require.NoError(t, err)
	require.NoError(t, m.pruneRevocations(t.Context(), m.storage))
	now := figures(t, m.backend, m.storage)
	require.InDelta(t, float64(load.Count)/float64(load.Room), now["account_jwt_fullest_ratio"], 0.01)
	require.EqualValues(t, 9000, now["revocations"])
	resp, err := m.sync(logical.ReadOperation, map[string]any{"account": "SYS"})
	require.NoError(t, err)
	require.Contains(t, resp.Warnings[len(resp.Warnings)-1], `the JWT of account "orders" takes`)
	resp, err = m.sync(logical.ReadOperation, nil)
	require.NoError(t, err)
	require.Contains(t, resp.Warnings, "orders: "+load.Warning(), "once")
	require.NotContains(t, strings.Join(resp.Warnings, "\n"), "the JWT of account")
	m.must(logical.DeleteOperation, "jwt/orders", nil)
	require.Eventually(t, func() bool { return figures(t, m.backend, m.storage)["account_jwt_fullest_ratio"] < 0.01 }, 30*time.Second, 10*time.Millisecond)
}
