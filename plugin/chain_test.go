package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// A chainMount is a mount whose deliveries the test makes itself.
type chainMount struct {
	*backend
	t       *testing.T
	storage *storetest.Storage
	servers map[string]string // account JWTs by public key, as servers hold them
}

func newChainMount(t *testing.T) *chainMount {
	t.Helper()
	m := &chainMount{t: t, storage: storetest.New(), servers: map[string]string{}}
	m.restart()
	return m
}

// restart makes the mount anew on the same storage, as after a crash.
func (m *chainMount) restart() {
	m.t.Helper()
	m.restartOn(&logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour})
}

// restartOn is restart with what Vault tells the plugin.
func (m *chainMount) restartOn(system logical.SystemView) {
	m.t.Helper()
	b, err := Factory(m.t.Context(), &logical.BackendConfig{System: system, StorageView: m.storage})
	require.NoError(m.t, err)
	m.backend = b.(*backend)
	m.stop() // nothing is delivered in the background
	m.t.Cleanup(func() { m.backend.Cleanup(context.Background()) })
}

var seedForm = regexp.MustCompile(`S[OAUX][A-Z2-7]{56}`)

// do makes a request, and checks that no seed comes back.
func (m *chainMount) do(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	// The framework and the handlers may change what they are given.
	req := &logical.Request{
		Operation: operation, Path: path, Data: maps.Clone(data), Storage: m.storage, MountPoint: "auth/nats/", MountAccessor: mountAccessor,
	}
	if operation == logical.ReadOperation {
		req.MountAccessor = "" // which Vault tells of what has an existence check only
	}
	resp, err := m.HandleRequest(m.t.Context(), req)
	shown, encodeErr := json.Marshal(resp)
	require.NoError(m.t, encodeErr)
	require.Empty(m.t, seedForm.FindAll(shown, -1), "a seed in the answer of %s", path)
	return resp, err
}

// must makes a request that succeeds, and holds the answer against what the
// OpenAPI document says of it.
func (m *chainMount) must(operation logical.Operation, path string, data map[string]any) map[string]any {
	m.t.Helper()
	resp, err := m.do(operation, path, data)
	require.NoError(m.t, err)
	if resp == nil {
		return nil
	}
	require.NoError(m.t, resp.Error())
	if route := m.Route(path); len(resp.Data) > 0 {
		schema.ValidateResponse(m.t, schema.GetResponseSchema(m.t, route, operation), resp, true)
	}
	return resp.Data
}

func (m *chainMount) write(path string, data map[string]any) map[string]any {
	m.t.Helper()
	return m.must(logical.UpdateOperation, path, data)
}

func (m *chainMount) read(path string) map[string]any {
	m.t.Helper()
	return m.must(logical.ReadOperation, path, nil)
}

// refuse makes a request that is answered with status 400 and leaves storage as
// it is.
func (m *chainMount) refuse(operation logical.Operation, path string, data map[string]any, fault string) {
	m.t.Helper()
	before := m.stored()
	resp, err := m.do(operation, path, data)
	require.NoError(m.t, err)
	require.NotNil(m.t, resp, "nothing was refused")
	require.ErrorContains(m.t, resp.Error(), fault)
	require.True(m.t, maps.Equal(before, m.stored()), "the refused request changed storage")
}

func (m *chainMount) stored() map[string]string {
	m.t.Helper()
	stored := map[string]string{}
	for _, key := range storetest.KeysBelow(m.t, m.storage.Storage, "") {
		if key == longestLifeKey {
			continue // any request may be the first to need it
		}
		entry, err := m.storage.Storage.Get(m.t.Context(), key)
		require.NoError(m.t, err)
		stored[key] = string(entry.Value)
	}
	return stored
}

// deliverPending brings what is pending to the servers, as delivery does.
func (m *chainMount) deliverPending() {
	m.t.Helper()
	source := m.chain.Source(m.storage)
	ids, err := source.Pending(m.t.Context())
	require.NoError(m.t, err)
	for _, id := range ids {
		wanted, ok, err := source.Wanted(m.t.Context(), id)
		require.NoError(m.t, err)
		switch {
		case !ok:
			delete(m.servers, id)
		case wanted != m.servers[id]:
			require.Less(m.t, issuedOf(m.t, m.servers[id]), issuedOf(m.t, wanted), "servers would not take the JWT for newer")
			m.servers[id] = wanted
		}
		require.NoError(m.t, source.Delivered(m.t.Context(), id, wanted))
	}
}

// requireInStep checks that the servers hold what the mount holds, and that the
// mount knows it.
func (m *chainMount) requireInStep() {
	m.t.Helper()
	source := m.chain.Source(m.storage)
	held := map[string]string{}
	for id, err := range source.All(m.t.Context()) {
		require.NoError(m.t, err)
		wanted, ok, err := source.Wanted(m.t.Context(), id)
		require.NoError(m.t, err)
		require.True(m.t, ok)
		held[id] = wanted
	}
	require.Equal(m.t, held, m.servers)
	pending, err := source.Pending(m.t.Context())
	require.NoError(m.t, err)
	require.Empty(m.t, pending)
	named := 0
	names, err := m.chain.Names(m.t.Context(), m.storage.Storage)
	require.NoError(m.t, err)
	for _, name := range names {
		entry, err := m.chain.Named(m.t.Context(), m.storage.Storage, name)
		require.NoError(m.t, err)
		if entry.Delivers() {
			named++
			require.Contains(m.t, held, entry.PublicKey, "%s is lost", name)
		}
	}
	require.Len(m.t, held, named)
}

func issuedOf(t *testing.T, token string) int64 {
	t.Helper()
	if token == "" {
		return 0
	}
	return accountClaims(t, token).IssuedAt
}

func accountClaims(t *testing.T, token any) *jwt.AccountClaims {
	t.Helper()
	claims, err := jwt.DecodeAccountClaims(token.(string))
	require.NoError(t, err)
	return claims
}

func userClaims(t *testing.T, token any) *jwt.UserClaims {
	t.Helper()
	claims, err := jwt.DecodeUserClaims(token.(string))
	require.NoError(t, err)
	return claims
}

func operatorClaims(t *testing.T, token any) *jwt.OperatorClaims {
	t.Helper()
	claims, err := jwt.DecodeOperatorClaims(token.(string))
	require.NoError(t, err)
	return claims
}

func newKey(t testing.TB, kind trust.Kind) *trust.Key {
	t.Helper()
	key, err := trust.Generate(kind)
	require.NoError(t, err)
	return key
}

func TestTheFirstWriteOfConfigMakesAChainThatHolds(t *testing.T) {
	m := newChainMount(t)
	data := m.write("config", map[string]any{"operator_name": "acme", "tags": "staging,eu", "service_url": "nats://a:4222,tls://b:4222"})
	operator, system := operatorClaims(t, data["operator_jwt"]), accountClaims(t, data["system_account_jwt"])

	require.Equal(t, "acme", operator.Name)
	require.Equal(t, jwt.TagList{"staging", "eu"}, operator.Tags)
	require.Equal(t, jwt.StringList{"nats://a:4222", "tls://b:4222"}, operator.OperatorServiceURLs)
	require.Equal(t, system.Subject, operator.SystemAccount)
	require.True(t, operator.DidSign(system))
	require.NotEqual(t, operator.Subject, system.Issuer, "a signing key signs, not the identity")
	require.Len(t, operator.SigningKeys, 2, "the next key is trusted ahead of its time")
	require.Equal(t, "SYS", system.Name)
	require.Len(t, system.Exports, 2)

	read := m.read("config")
	require.Equal(t, data["operator_jwt"], read["operator_jwt"])
	require.Equal(t, "nats://a:4222,tls://b:4222", read["service_url"])
	require.Equal(t, "nats://127.0.0.1:4222", read["account_jwt_server_url"])
	require.Equal(t, []string{"staging", "eu"}, read["tags"])
	require.Equal(t, true, read["strict_signing_key_usage"])
}

func TestALaterWriteOfConfigChangesOnlyWhatItGives(t *testing.T) {
	m := newChainMount(t)
	first := m.write("config", map[string]any{"operator_name": "acme", "tags": "staging"})
	same := m.write("config", map[string]any{"tags": "staging"})
	require.Equal(t, first, same, "a write that changes nothing gave another JWT")

	later := m.write("config", map[string]any{"account_jwt_url": "nats://nats:4222", "strict_signing_key_usage": false})
	before, after := operatorClaims(t, first["operator_jwt"]), operatorClaims(t, later["operator_jwt"])
	require.Equal(t, "acme", after.Name)
	require.Equal(t, before.Subject, after.Subject)
	require.Equal(t, before.SigningKeys, after.SigningKeys)
	require.Equal(t, before.SystemAccount, after.SystemAccount)
	require.Equal(t, "nats://nats:4222", after.AccountServerURL)
	require.False(t, after.StrictSigningKeyUsage)
	require.Equal(t, jwt.TagList{"staging"}, after.Tags)
	require.Equal(t, first["system_account_jwt"], later["system_account_jwt"])

	m.restart()
	require.Equal(t, later["operator_jwt"], m.read("config")["operator_jwt"])
}

func TestAFaultInTheOperatorsConfigIsNamed(t *testing.T) {
	user := newKey(t, trust.User)
	for name, test := range map[string]struct {
		data  map[string]any
		fault string
	}{
		"a server URL with a scheme that is not NATS's": {map[string]any{"account_jwt_server_url": "ftp://a"}, `account_jwt_server_url "ftp://a" has the scheme "ftp"`},
		"a server URL without a host":                   {map[string]any{"account_jwt_server_url": "nats://"}, `account_jwt_server_url "nats://" names no host`},
		"a server URL with a password":                  {map[string]any{"account_jwt_server_url": "nats://u:hunter2@a"}, `account_jwt_server_url holds a URL with credentials`},
		"NATS and HTTP server URLs":                     {map[string]any{"account_jwt_server_url": "nats://a,http://b"}, `both NATS and HTTP`},
		"a service URL that is HTTP":                    {map[string]any{"service_url": "http://a"}, `service_url "http://a" has the scheme "http"`},
		"a CA that is not PEM":                          {map[string]any{"nats_ca_pem": "x"}, `nats_ca_pem holds no PEM certificate`},
		"a client certificate without its key":          {map[string]any{"nats_client_cert_pem": "x"}, `nats_client_key_pem is missing`},
		"a client key without its certificate":          {map[string]any{"nats_client_key_pem": "x"}, `nats_client_cert_pem is missing`},
		"a client certificate that is not one":          {map[string]any{"nats_client_cert_pem": "x", "nats_client_key_pem": "y"}, `nats_client_cert_pem does not go with`},
		"an operator JWT that is not one":               {map[string]any{"operator_jwt": "eyJ"}, `operator_jwt is not a valid NATS JWT`},
		"an operator seed without its JWT":              {map[string]any{"operator_seed": newKey(t, trust.Operator).Seed()}, `operator_jwt is missing`},
		"an import into a mount without an operator":    {map[string]any{"operator_seed": user.Seed(), "no_operator": true}, `no_operator contradicts`},
	} {
		t.Run(name, func(t *testing.T) {
			m := newChainMount(t)
			m.refuse(logical.UpdateOperation, "config", test.data, test.fault)
			m.write("config", nil)
			m.refuse(logical.UpdateOperation, "config", test.data, "")
		})
	}
}

func TestAMountWithoutAnOperatorHasOnlyAccountsOfOthers(t *testing.T) {
	m := newChainMount(t)
	require.Empty(t, m.write("config", map[string]any{"no_operator": true, "service_url": "tls://hosted:4222"}))
	require.Equal(t, true, m.read("config")["no_operator"])
	m.refuse(logical.UpdateOperation, "jwt/orders", map[string]any{"type": "account"}, "type account needs an operator")
	m.refuse(logical.ReadOperation, "config/server", nil, "has no operator")
	m.refuse(logical.UpdateOperation, "config/rotate", nil, "has no operator")

	account, signing := newKey(t, trust.Account), newKey(t, trust.Account)
	written := m.write("jwt/hosted", map[string]any{"type": "account", "public_key": account.Public(), "signing_seeds": signing.Seed()})
	require.Equal(t, account.Public(), written["public_key"])
	require.NotContains(t, written, "jwt")

	opened, err := m.chain.Account(t.Context(), m.storage, "hosted")
	require.NoError(t, err)
	signer, err := opened.Signer(chain.PlainSigner)
	require.NoError(t, err)
	require.Equal(t, signing.Public(), signer.Public())
	require.Equal(t, account.Public(), opened.PublicKey)
	url, err := m.chain.ServiceURL(t.Context(), m.storage)
	require.NoError(t, err)
	require.Equal(t, "tls://hosted:4222", url)

	pending, err := m.chain.Source(m.storage).Pending(t.Context())
	require.NoError(t, err)
	require.Empty(t, pending, "something is to be delivered to a NATS of someone else")
	settings, err := m.chain.DeliverySettings(t.Context(), m.storage)
	require.NoError(t, err)
	require.Nil(t, settings)

	m.refuse(logical.UpdateOperation, "jwt/hosted", map[string]any{"config": "{}"}, "config cannot be written")
	m.refuse(logical.UpdateOperation, "jwt/hosted/rotate", nil, "seed is missing")
	m.refuse(logical.UpdateOperation, "jwt/other", map[string]any{"type": "account", "public_key": signing.Seed()}, "is the seed of an account key")
}

// TestLoginsReadNothing holds what a login asks the chain for against storage.
func TestLoginsReadNothing(t *testing.T) {
	m := newChainMount(t)
	m.write("config", nil)
	m.write("jwt/orders", map[string]any{"type": "account"})
	m.restart()
	login := func() {
		opened, err := m.chain.Account(t.Context(), m.storage, "orders")
		require.NoError(t, err)
		_, err = opened.Signer(chain.PlainSigner)
		require.NoError(t, err)
		_, err = m.chain.ServiceURL(t.Context(), m.storage)
		require.NoError(t, err)
	}
	login()
	before := m.storage.All()
	for range 100 {
		login()
	}
	require.Equal(t, before, m.storage.All())

	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	opened, err := m.chain.Account(t.Context(), m.storage, "orders")
	require.NoError(t, err)
	signer, err := opened.Signer(chain.PlainSigner)
	require.NoError(t, err)
	require.Contains(t, accountClaims(t, m.read("jwt/orders")["jwt"]).SigningKeys, signer.Public(), "the former key signs after its rotation was answered")
}

// A mount that has only issuers and accounts of others needs no config.
func TestTheDefaultServiceURLIsNotLookedForAgain(t *testing.T) {
	m := newChainMount(t)
	url, err := m.chain.ServiceURL(t.Context(), m.storage)
	require.NoError(t, err)
	require.Equal(t, chain.DefaultNATSURL, url)
	before := m.storage.All()
	_, err = m.chain.ServiceURL(t.Context(), m.storage)
	require.NoError(t, err)
	require.Equal(t, before, m.storage.All())
}

// TestEveryChangeIsNewerToTheServers: nats-servers compare times of issue, which
// have only seconds.
func TestEveryChangeIsNewerToTheServers(t *testing.T) {
	m := newChainMount(t)
	m.write("config", nil)
	m.write("jwt/orders", map[string]any{"type": "account"})
	m.deliverPending()
	for i := range 5 {
		m.write("jwt/orders", map[string]any{"config": fmt.Sprintf(`{"limits":{"conn":%d}}`, i)})
		m.deliverPending()
		m.write("config/rotate", map[string]any{"force": true})
		m.deliverPending()
	}
	m.requireInStep()
}

// TestEverythingIsDeliveredWhereverStorageFails makes each step of each change
// fail, as a crash does, and restarts.
func TestEverythingIsDeliveredWhereverStorageFails(t *testing.T) {
	for name, change := range map[string]struct {
		operation logical.Operation
		path      string
		data      map[string]any
	}{
		"an account is made":              {logical.CreateOperation, "jwt/new", map[string]any{"type": "account"}},
		"an account is changed":           {logical.UpdateOperation, "jwt/orders", map[string]any{"config": `{"limits":{"conn":1}}`}},
		"an account is deleted":           {logical.DeleteOperation, "jwt/orders", nil},
		"a signing key is added":          {logical.UpdateOperation, "jwt/orders/keys/second", nil},
		"a signing key is rotated":        {logical.UpdateOperation, "jwt/orders/rotate", map[string]any{"overlap": 60}},
		"the operator's key is rotated":   {logical.UpdateOperation, "config/rotate", nil},
		"the operator's settings change":  {logical.UpdateOperation, "config", map[string]any{"tags": "a"}},
		"the first write of the operator": {logical.UpdateOperation, "config", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for step := 0; ; step++ {
				m := newChainMount(t)
				if !strings.HasPrefix(name, "the first") {
					m.write("config", nil)
					m.write("jwt/orders", map[string]any{"type": "account"})
					m.deliverPending()
				}
				failed, steps := false, 0
				m.storage.FailOn(func(operation, _ string) bool {
					if operation != "put" && operation != "delete" {
						return failed // nothing works after a crash
					}
					steps++
					failed = failed || steps > step
					return failed
				})
				_, err := m.do(change.operation, change.path, change.data)
				m.storage.FailOn(nil)
				m.restart()
				if strings.HasPrefix(name, "the first") {
					m.write("config", nil)
				}
				m.deliverPending()
				m.requireInStep()
				if !failed {
					require.NoError(t, err)
					require.Positive(t, step, "nothing was written")
					return
				}
				require.Error(t, err)
			}
		})
	}
}
