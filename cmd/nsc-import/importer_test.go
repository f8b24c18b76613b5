package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin"
)

// mountedPlugin is the real plugin behind as much of Vault's API as is used, at
// auth/nats.
type mountedPlugin struct {
	t       *testing.T
	backend logical.Backend
	storage logical.Storage
	writes  int
}

func newMount(t *testing.T) *mountedPlugin {
	storage := &logical.InmemStorage{}
	backend, err := plugin.Factory(t.Context(), &logical.BackendConfig{
		System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour},
		StorageView: storage,
	})
	require.NoError(t, err)
	t.Cleanup(func() { backend.Cleanup(context.Background()) })
	m := &mountedPlugin{t: t, backend: backend, storage: storage}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", "a token")
	t.Setenv("VAULT_MAX_RETRIES", "0")
	return m
}

func (m *mountedPlugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, found := strings.CutPrefix(r.URL.Path, "/v1/auth/nats/")
	if !found || r.Header.Get("X-Vault-Token") != "a token" {
		http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
		return
	}
	operation, data := logical.Operation(logical.ReadOperation), map[string]any{}
	if r.Method != http.MethodGet {
		operation = logical.UpdateOperation
		m.writes++
		if err := json.NewDecoder(r.Body).Decode(&data); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if stringsIn(data) > 1000 {
			http.Error(w, `{"errors":["too many strings"]}`, http.StatusBadRequest)
			return
		}
	}
	resp, err := m.request(operation, path, data)
	answer, status := map[string]any{}, http.StatusOK
	var coded logical.HTTPCodedError
	switch {
	case errors.As(err, &coded):
		// As Vault words it.
		answer["errors"], status = []string{"1 error occurred:\n\t* " + err.Error() + "\n\n"}, coded.Code()
	case err != nil:
		answer["errors"], status = []string{err.Error()}, http.StatusInternalServerError
	case resp.IsError():
		answer["errors"], status = []string{resp.Error().Error()}, http.StatusBadRequest
	case resp == nil && operation == logical.ReadOperation:
		status = http.StatusNotFound
	case resp != nil:
		answer["data"], answer["warnings"] = resp.Data, resp.Warnings
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// stringsIn counts what OpenBao's listener takes 1,000 of.
func stringsIn(value any) (count int) {
	switch v := value.(type) {
	case string:
		return 1
	case []any:
		for _, each := range v {
			count += stringsIn(each)
		}
	case map[string]any:
		for _, each := range v {
			count += 1 + stringsIn(each)
		}
	}
	return count
}

func (m *mountedPlugin) request(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	return m.backend.HandleRequest(context.Background(), &logical.Request{
		Operation: operation, Path: path, Data: data, Storage: m.storage, MountPoint: "auth/nats/",
	})
}

func (m *mountedPlugin) read(path string) map[string]any {
	m.t.Helper()
	resp, err := m.request(logical.ReadOperation, path, nil)
	require.NoError(m.t, err)
	require.NotNil(m.t, resp, "%s is not there", path)
	require.NoError(m.t, resp.Error())
	return resp.Data
}

// runImport imports, and checks that no seed is shown.
func runImport(t *testing.T, h *home, more ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), h.options(more...), &out)
	shown := out.String()
	if err != nil {
		shown += err.Error()
	}
	for _, seed := range h.seeds {
		require.NotContains(t, shown, seed)
	}
	return out.String(), err
}

// server runs nats-server on the nsc configuration, with the full resolver that
// nsc has pushed to.
func (h *home) server(system testAccount, accounts ...testAccount) (*natsserver.Server, string) {
	t := h.t
	dir := t.TempDir()
	resolver, err := natsserver.NewDirAccResolver(dir, 0, time.Hour, natsserver.HardDelete)
	require.NoError(t, err)
	for _, a := range append(accounts, system) {
		require.NoError(t, resolver.Store(a.id, a.token))
	}
	server, err := natsserver.NewServer(&natsserver.Options{
		ServerName: "n1", Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoLog: true, NoSigs: true,
		TrustedOperators: []*jwt.OperatorClaims{h.claims}, SystemAccount: system.id, AccountResolver: resolver,
	})
	require.NoError(t, err)
	server.Start()
	t.Cleanup(func() { server.Shutdown(); server.WaitForShutdown() })
	require.True(t, server.ReadyForConnections(10*time.Second))
	return server, dir
}

func connect(t *testing.T, server *natsserver.Server, token func() string, key nkeys.KeyPair) *nats.Conn {
	t.Helper()
	client, err := nats.Connect(server.ClientURL(), nats.MaxReconnects(0),
		nats.UserJWT(func() (string, error) { return token(), nil }, key.Sign))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func TestARunningNATSGoesOnUnderTheImportedOperator(t *testing.T) {
	h, system, orders, billing := acme(t)
	plainKey, plainJWT := h.user(orders, "app", orders.signer)
	scopedKey, scopedJWT := h.user(orders, "reader", orders.scoped)
	h.user(billing, "identity", billing.key)
	server, dir := h.server(system, orders, billing)
	h.claims.AccountServerURL = server.ClientURL()
	h.writeOperator()

	sender := connect(t, server, func() string { return plainJWT }, plainKey)
	receiver := connect(t, server, func() string { return scopedJWT }, scopedKey)
	messages, err := receiver.SubscribeSync("orders.>")
	require.NoError(t, err)
	exchange := func(sender *nats.Conn) {
		t.Helper()
		require.NoError(t, receiver.Flush())
		require.NoError(t, sender.Publish("orders.new", nil))
		_, err := messages.NextMsg(10 * time.Second)
		require.NoError(t, err)
	}
	exchange(sender)

	m := newMount(t)
	out, err := runImport(t, h, "-n")
	require.NoError(t, err)
	require.Contains(t, out, "7 would be imported, 0 left out, 0 failed")
	require.NotContains(t, out, "nothing would change")
	stored, err := m.storage.List(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, stored)
	out, err = runImport(t, h)
	require.NoError(t, err, out)
	require.Contains(t, out, "7 imported, 0 left out, 0 failed")
	require.Contains(t, out, "[4/7] account orders -> auth/nats/jwt/orders: identity key, 2 of 2 signing keys")
	require.NotContains(t, out, "warning")

	// What was imported is what was there, and the server has the mount's JWTs.
	operator, err := jwt.DecodeOperatorClaims(m.read("config")["operator_jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, h.claims.Subject, operator.Subject)
	require.Equal(t, h.claims.SigningKeys, operator.SigningKeys)
	for name, a := range map[string]testAccount{"SYS": system, "orders": orders, "billing_team": billing} {
		read := m.read("jwt/" + name)
		require.Equal(t, a.id, read["public_key"])
		before, err := jwt.DecodeAccountClaims(a.token)
		require.NoError(t, err)
		after, err := jwt.DecodeAccountClaims(read["jwt"].(string))
		require.NoError(t, err)
		require.Equal(t, before.Account, after.Account)
		require.Equal(t, before.Name, after.Name)
		held, err := os.ReadFile(dir + "/" + a.id + ".jwt")
		require.NoError(t, err)
		require.Equal(t, read["jwt"], string(held))
	}

	// Users from before go on, connected and anew; so do those that the mount
	// signs now.
	exchange(sender)
	require.Zero(t, sender.Stats().Reconnects+receiver.Stats().Reconnects)
	exchange(connect(t, server, func() string { return plainJWT }, plainKey))
	exchange(connect(t, server, func() string { return m.read("jwt/orders.app")["jwt"].(string) }, plainKey))
	again := connect(t, server, func() string { return m.read("jwt/orders.reader")["jwt"].(string) }, scopedKey)
	refused := make(chan error, 1)
	again.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err })
	_, err = again.SubscribeSync("other")
	require.NoError(t, err)
	select {
	case err := <-refused:
		require.ErrorIs(t, err, nats.ErrPermissionViolation)
	case <-time.After(10 * time.Second):
		t.Fatal("the scope is not in force")
	}

	out, err = runImport(t, h)
	require.NoError(t, err, "to import again is harmless: %s", out)
	out, err = runImport(t, h, "-n")
	require.NoError(t, err)
	require.Equal(t, 7, strings.Count(out, "nothing would change"))
}

func TestAFailureOfOneLeavesTheOthersToBeImported(t *testing.T) {
	h, _, orders, _ := acme(t)
	h.user(orders, "app", orders.signer)
	m := newMount(t)
	operator := find(t, plan(t, h), "ACME")
	_, err := m.request(logical.UpdateOperation, operator.path, operator.data)
	require.NoError(t, err)
	resp, err := m.request(logical.UpdateOperation, "jwt/orders", map[string]any{"type": "account"})
	require.NoError(t, err)
	require.NoError(t, resp.Error())

	out, err := runImport(t, h, "-n")
	require.ErrorContains(t, err, "2 could not be imported")
	require.Contains(t, out, "3 would be imported, 0 left out, 2 failed")
	out, err = runImport(t, h)
	require.ErrorContains(t, err, "2 could not be imported")
	require.Contains(t, out, "3 imported, 0 left out, 2 failed")
	require.Contains(t, out, `"orders" exists already`)
	require.Contains(t, out, "failed: its account could not be imported")
	m.read("jwt/billing_team")
}

func TestWithoutTheOperatorNothingIsImported(t *testing.T) {
	h, _, _, _ := acme(t)
	m := newMount(t)
	_, err := m.request(logical.UpdateOperation, "config", nil)
	require.NoError(t, err)
	out, err := runImport(t, h)
	require.ErrorContains(t, err, "the operator could not be imported")
	require.Contains(t, out, "an operator never changes")
	require.Equal(t, 1, m.writes)

	t.Setenv("VAULT_TOKEN", "another")
	out, err = runImport(t, h)
	require.Error(t, err)
	require.Contains(t, out, "permission denied")
}

func TestTheTokenIsThatOfVaultsTokenHelper(t *testing.T) {
	dir := t.TempDir()
	helper := func(script string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "helper"), []byte("#!/bin/sh\n"+script), 0o700))
	}
	helper(`[ "$1" = get ] && echo "a token"`)
	makeFile(t, "token_helper = \""+filepath.Join(dir, "helper")+"\"\n", dir, "config")
	t.Setenv("VAULT_CONFIG_PATH", filepath.Join(dir, "config"))
	h, _, _, _ := acme(t)
	newMount(t)
	t.Setenv("VAULT_TOKEN", "")
	out, err := runImport(t, h)
	require.NoError(t, err, out)

	helper("exit 0")
	_, err = runImport(t, h)
	require.ErrorContains(t, err, "log in to Vault first")
	helper("echo out of order >&2; exit 1")
	_, err = runImport(t, h)
	require.ErrorContains(t, err, "out of order")
	makeFile(t, "nonsense = 1\n", dir, "config")
	_, err = runImport(t, h)
	require.ErrorContains(t, err, "nonsense")
}

// A server may take no more than a thousand strings in what is nested in a request.
func TestAUserOfAThousandSubjectsAndAnAccountOfAThousandKeysAreImported(t *testing.T) {
	h, _, orders, _ := acme(t)
	h.user(orders, "wide", orders.signer, func(c *jwt.UserClaims) {
		for n := range 1500 {
			c.Pub.Allow.Add(fmt.Sprintf("orders.%d", n))
		}
	})
	var keys []nkeys.KeyPair
	for range 1100 {
		key := h.key(nkeys.CreateAccount)
		h.keep(key)
		keys = append(keys, key)
	}
	h.account("many", func(c *jwt.AccountClaims) {
		for _, key := range keys {
			c.SigningKeys.Add(h.public(key))
		}
	})
	m := newMount(t)
	out, err := runImport(t, h)
	require.NoError(t, err, out)
	user, err := jwt.DecodeUserClaims(m.read("jwt/orders.wide")["jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, 1501, len(user.Pub.Allow))
	require.Equal(t, 1102, len(m.read("jwt/many")["signing_keys"].([]map[string]any)))
}

// What the mount would refuse is said before anything is in it, and what was done
// in it since stays.
func TestTheDryRunSaysWhatTheImportWillDo(t *testing.T) {
	h, _, orders, billing := acme(t)
	h.user(orders, "app", orders.signer)
	h.user(orders, "wide", orders.scoped, func(c *jwt.UserClaims) { c.Name = ">" })
	h.user(billing, "odd", billing.scoped, func(c *jwt.UserClaims) { c.Pub.Allow.Add("x") })
	m := newMount(t)
	last := func(out string) string { return out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:] }
	lines := func(out string) []string {
		var kept []string
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			if !strings.Contains(line, "nothing would change") && !strings.Contains(line, "not delivered") && !strings.Contains(line, "not connected") {
				kept = append(kept, line)
			}
		}
		return kept[:len(kept)-1]
	}
	both := func() string {
		dry, err := runImport(t, h, "-n")
		require.Error(t, err)
		out, err := runImport(t, h)
		require.Error(t, err)
		require.Equal(t, lines(out), lines(dry))
		require.Equal(t, strings.Replace(last(out), " imported", " would be imported", 1), last(dry))
		return out
	}
	out := both()
	require.Contains(t, last(out), "5 imported, 0 left out, 2 failed")
	require.Contains(t, out, `failed: nats_name is ">"`)
	require.Contains(t, out, "failed: user_jwt has permissions or limits, and is signed by a scoped key")

	for _, path := range []string{"jwt/orders.app", "jwt/billing_team"} {
		_, err := m.request(logical.DeleteOperation, path, nil)
		require.NoError(t, err)
	}
	out = both()
	require.Contains(t, last(out), "3 imported, 3 left out, 1 failed")
	require.Contains(t, out, "left out: account_jwt is of account "+billing.id+", which was deleted here at ")
	require.Contains(t, out, "left out: its account is left out")
	require.Contains(t, out, "left out: user_jwt is of user ")
}

func TestAMountThatDoesNotKnowDryRunsIsNotAskedOnceMore(t *testing.T) {
	h, _, _, _ := acme(t)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = w.Write([]byte(`{"data":{"operator_jwt":"x"}}`))
	}))
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", "a token")
	out, err := runImport(t, h, "-n")
	require.ErrorContains(t, err, "the operator could not be imported")
	require.Contains(t, out, "the mount does not know dry_run, so this may have been written")
	require.Equal(t, 1, asked)
}

func TestAUserComesWithAllThatItsJWTSays(t *testing.T) {
	h, _, orders, _ := acme(t)
	h.user(orders, "mute", orders.signer, func(c *jwt.UserClaims) { c.NatsLimits, c.Name = jwt.NatsLimits{}, "mute *" })
	key, token := h.user(orders, "elsewhere", orders.scoped)
	h.lose(key)
	m := newMount(t)
	out, err := runImport(t, h)
	require.NoError(t, err, out)
	mute, err := jwt.DecodeUserClaims(m.read("jwt/orders.mute")["jwt"].(string))
	require.NoError(t, err)
	require.Equal(t, jwt.NatsLimits{}, mute.NatsLimits, "0 is not unlimited")
	require.Equal(t, "mute *", mute.Name)
	before, err := jwt.DecodeUserClaims(token)
	require.NoError(t, err)
	after, err := jwt.DecodeUserClaims(m.read("jwt/orders.elsewhere")["jwt"].(string))
	require.NoError(t, err)
	before.Expires, before.ID, before.IssuedAt = after.Expires, after.ID, after.IssuedAt
	require.Equal(t, before.String(), after.String())
	require.Equal(t, false, m.read("jwt/orders.elsewhere")["seed_set"])
}
