package plugin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// sync makes a request, and holds the answer to what the path says of its
// answers.
func (m *chainMount) sync(operation logical.Operation, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	resp, err := m.do(operation, "sync", data)
	if err == nil && !resp.IsError() {
		schema.ValidateResponse(m.t, schema.GetResponseSchema(m.t, m.pathsSync()[0], operation), resp, true)
	}
	return resp, err
}

func (m *chainMount) mustSync(operation logical.Operation, data map[string]any) map[string]any {
	m.t.Helper()
	resp, err := m.sync(operation, data)
	require.NoError(m.t, err)
	require.NoError(m.t, resp.Error())
	return resp.Data
}

func (m *chainMount) pages(data map[string]any) (all []syncAccount) {
	m.t.Helper()
	for {
		page := m.mustSync(logical.ReadOperation, data)
		all = append(all, page["accounts"].([]syncAccount)...)
		if page["next"] == "" {
			return all
		}
		data["after"] = page["next"]
	}
}

func TestSyncReportsAndReadsTheStateOfDelivery(t *testing.T) {
	m, running, _ := deliveringMount(t)
	for i := range 5 {
		m.write(fmt.Sprintf("jwt/account%d", i), map[string]any{"type": "account"})
	}
	report := m.mustSync(logical.UpdateOperation, nil)
	require.EqualValues(t, 6, report["accounts"])
	require.EqualValues(t, 6, report["delivered"])
	require.EqualValues(t, 0, report["failed"])
	require.Len(t, report["servers"], 1)

	state := m.mustSync(logical.ReadOperation, nil)
	require.Equal(t, true, state["connected"])
	require.Empty(t, state["error"])
	require.EqualValues(t, 0, state["pending"])
	require.Len(t, state["accounts"], 6)
	require.EqualValues(t, 6, state["last_sync"].(map[string]any)["delivered"])

	one := m.pages(map[string]any{"account": "account3"})
	require.Len(t, one, 1)
	require.Equal(t, "account3", one[0].Name)
	require.Equal(t, m.read("jwt/account3")["public_key"], one[0].Account)
	require.Equal(t, accountClaims(t, m.read("jwt/account3")["jwt"]).ID, one[0].Delivered)
	require.Equal(t, 1, one[0].Servers)

	names := map[string]bool{}
	for _, account := range m.pages(map[string]any{"limit": 2}) {
		names[account.Name] = true
		require.False(t, account.Pending)
	}
	require.Len(t, names, 6)
	require.Empty(t, m.pages(map[string]any{"pending": true}))

	running.Shutdown()
	running.WaitForShutdown()
	m.write("jwt/account3", map[string]any{"config": `{"description":"changed"}`})
	pending := m.pages(map[string]any{"pending": true})
	require.Len(t, pending, 1)
	require.Equal(t, "account3", pending[0].Name)
	require.Contains(t, pending[0].Error, "not connected to NATS")
	require.NotNil(t, pending[0].NextTry)
	m.must(logical.DeleteOperation, "jwt/account4", nil)
	named := map[string]bool{}
	for _, account := range m.pages(map[string]any{"pending": true}) {
		named[account.Name] = true
	}
	require.True(t, named["account4"], "an account that was deleted is known by its name until the servers have dropped it")
	state = m.mustSync(logical.ReadOperation, nil)
	require.Equal(t, false, state["connected"])
	require.EqualValues(t, 2, state["pending"])
	_, err := m.sync(logical.UpdateOperation, nil)
	var coded logical.HTTPCodedError
	require.ErrorAs(t, err, &coded)
	require.Equal(t, http.StatusBadGateway, coded.Code())
}

func TestSyncPrunesOnlyWhenAsked(t *testing.T) {
	m, running, _ := deliveringMount(t)
	m.write("jwt/stray", map[string]any{"type": "account"})
	stray := m.read("jwt/stray")["public_key"].(string)

	// As if the mount had never known it.
	require.NoError(t, m.storage.Delete(t.Context(), "jwt/stray"))
	require.NoError(t, m.storage.Delete(t.Context(), "account-id/"+stray))
	m.chain.Invalidate("jwt/stray")
	m.chain.Invalidate("account-id/" + stray)

	report := m.mustSync(logical.UpdateOperation, nil)
	require.Equal(t, []any{map[string]any{"account": stray, "pruned": false}}, report["unknown"])
	_, err := running.AccountResolver().Fetch(stray)
	require.NoError(t, err)

	report = m.mustSync(logical.UpdateOperation, map[string]any{"prune": true})
	require.Equal(t, []any{map[string]any{"account": stray, "pruned": true}}, report["unknown"])
	require.EqualValues(t, 1, report["pruned"])
	_, err = running.AccountResolver().Fetch(stray)
	require.Error(t, err)
}

// A write that died half way leaves its marker. A comparison that finds the servers
// right settles it, and knows a change that is under way by its version.
func TestAComparisonSettlesWhatAnInterruptedWriteLeft(t *testing.T) {
	m, running, _ := deliveringMount(t)
	m.write("jwt/orders", map[string]any{"type": "account"})
	orders, gone := m.read("jwt/orders")["public_key"].(string), newKey(t, trust.Account).Public()
	m.mustSync(logical.UpdateOperation, nil)
	for name, leave := range map[string]func(){
		"the marker": func() {},
		"the marker and the next version": func() {
			index := map[string]any{}
			entry, err := m.storage.Get(t.Context(), "account-id/"+orders)
			require.NoError(t, err)
			require.NoError(t, entry.DecodeJSON(&index))
			index["issued"] = time.Now().Unix() + 100
			require.NoError(t, store.Write(t.Context(), m.storage, "account-id/"+orders, index))
		},
		"the marker of an account that is gone": func() {
			require.NoError(t, store.Write(t.Context(), m.storage, "pending/"+gone, map[string]any{"since": 1}))
		},
	} {
		require.NoError(t, store.Write(t.Context(), m.storage, "pending/"+orders, map[string]any{"since": 1}))
		leave()
		require.Equal(t, false, m.read("jwt/orders")["delivered"])
		report := m.mustSync(logical.UpdateOperation, nil)
		require.EqualValues(t, 2, report["delivered"], name)
		require.EqualValues(t, 0, report["failed"], name)
		require.Equal(t, true, m.read("jwt/orders")["delivered"], name)
		require.EventuallyWithT(t, func(c *assert.CollectT) { require.NoError(c, m.inStep(running), name) }, 20*time.Second, 5*time.Millisecond)
	}
}

func TestSyncRefusesWhatItCannotDo(t *testing.T) {
	m := newChainMount(t)
	for _, operation := range []logical.Operation{logical.UpdateOperation, logical.ReadOperation} {
		resp, err := m.sync(operation, nil)
		require.NoError(t, err)
		require.ErrorContains(t, resp.Error(), "nothing is delivered")
	}

	m, _, _ = deliveringMount(t)
	for name, test := range map[string]struct {
		data  map[string]any
		fault string
	}{
		"an empty page":      {map[string]any{"limit": 0}, "limit is 0"},
		"a page too long":    {map[string]any{"limit": 1001}, "limit is 1001"},
		"an unknown account": {map[string]any{"account": "nobody"}, `"nobody" is not an account`},
	} {
		resp, err := m.sync(logical.ReadOperation, test.data)
		require.NoError(t, err, name)
		require.ErrorContains(t, resp.Error(), test.fault, name)
	}
}

func TestSyncTellsOfAFormerLeaderWhoseClockWasAhead(t *testing.T) {
	m := &chainMount{t: t, storage: storetest.New()}
	require.NoError(t, store.Write(t.Context(), m.storage, "leader", map[string]any{"at": time.Now().Add(20 * time.Minute)}))
	m.startDelivering()
	m.write("config", map[string]any{"account_jwt_server_url": "nats://127.0.0.1:1"})
	require.NoError(t, m.periodic(t.Context(), &logical.Request{Storage: m.storage}))
	read := func() []string {
		resp, err := m.sync(logical.ReadOperation, nil)
		require.NoError(t, err)
		return slices.DeleteFunc(resp.Warnings, func(w string) bool { return strings.HasPrefix(w, "there is no connection to NATS: ") })
	}
	require.Len(t, read(), 1)
	require.Contains(t, read()[0], "the clock of the Vault node that led before was ahead of this one's by 1")
	m.write("config", map[string]any{"clock_skew": "1h"})
	require.Empty(t, read())
}
