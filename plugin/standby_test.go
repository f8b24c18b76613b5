package plugin

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
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
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
	authentication "k8s.io/api/authentication/v1"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

// standbyOn is a standby of Vault Enterprise's that has what is stored, and may
// store nothing.
func standbyOn(t *testing.T, storage *storetest.Storage) *backend {
	t.Helper()
	return standbyOf(t, storage, &logical.PluginEnvironment{VaultVersion: "1.21.1", VaultVersionMetadata: "ent.hsm"})
}

// standbyOf is a standby of the server that env says.
func standbyOf(t *testing.T, storage *storetest.Storage, env *logical.PluginEnvironment) *backend {
	t.Helper()
	made, err := Factory(t.Context(), &logical.BackendConfig{StorageView: storage, System: &logical.StaticSystemView{
		DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour, ReplicationStateVal: consts.ReplicationPerformanceStandby,
		PluginEnvironment: env,
	}})
	require.NoError(t, err)
	t.Cleanup(func() { made.Cleanup(t.Context()) })
	return made.(*backend)
}

// What a standby does itself stores nothing, and is listed here. All else is the
// leader's before anything is done: a read of creds too, which makes a lease.
func TestAStandbyForwardsAllThatStores(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	standby := standbyOn(t, m.storage)
	require.NoError(t, standby.initialize(t.Context(), &logical.InitializationRequest{Storage: m.storage})) // as Vault does
	var touched atomic.Int64
	m.storage.FailOn(func(string, string) bool { touched.Add(1); return false })
	here := map[string][]logical.Operation{ // beside every list and every read that is not named below
		loginPattern:     {logical.UpdateOperation, logical.AliasLookaheadOperation, logical.ResolveRoleOperation},
		previewPattern:   {logical.UpdateOperation},
		signPattern:      {logical.UpdateOperation},
		authorizePattern: {logical.UpdateOperation},
	}
	reads := []string{credsPattern, "sync$", callbackPattern}
	for _, path := range newBackend(&logical.BackendConfig{}).Paths {
		for operation := range path.Operations {
			looks := operation == logical.ReadOperation || operation == logical.ListOperation
			if slices.Contains(here[path.Pattern], operation) || looks && !slices.Contains(reads, path.Pattern) {
				continue
			}
			before := touched.Load()
			_, err := standby.HandleRequest(t.Context(), &logical.Request{
				Operation: operation, Path: examplePath(path.Pattern), Storage: m.storage, Data: map[string]any{},
			})
			require.ErrorIs(t, err, logical.ErrReadOnly, "%s %s", operation, path.Pattern)
			require.Equal(t, before, touched.Load(), "%s %s: storage was asked", operation, path.Pattern)
		}
	}
}

// examplePath is a path that the pattern takes.
func examplePath(pattern string) string {
	for _, group := range []string{"(?P<name>.+)", "(?P<name>[^/]+)", "(?P<role>.+)", "(?P<key>.+)", "(?P<key>[^/]+)", "(?P<id>.+)"} {
		pattern = strings.ReplaceAll(pattern, group, "dev")
	}
	return strings.TrimSuffix(strings.TrimSuffix(pattern, "$"), "/?")
}

// A JWT has to be issued later than every revocation of its user, of which a standby
// may not know yet. How long it may live is stored before it does, too.
func TestAStandbyLeavesTheJWTsOfUsersToTheLeader(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})
	_, err := standbyOn(t, m.storage).HandleRequest(t.Context(), &logical.Request{
		Operation: logical.ReadOperation, Path: "jwt/alice", Storage: m.storage,
	})
	require.ErrorIs(t, err, logical.ErrReadOnly)
}

// What a standby does not find may have been written a moment ago.
func TestAStandbyAsksTheLeaderForWhatItDoesNotFind(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	standby := standbyOn(t, m.storage)
	key, err := nkeys.CreateAccount()
	require.NoError(t, err)
	account, err := key.PublicKey()
	require.NoError(t, err)
	for _, request := range []struct {
		operation logical.Operation
		path      string
		data      map[string]any
	}{
		{logical.ReadOperation, "role/new", nil},
		{logical.ReadOperation, "issuer/new", nil},
		{logical.ReadOperation, "jwt/new", nil},
		{logical.ReadOperation, "jwt/v1/accounts/" + account, nil},
		{logical.UpdateOperation, "role/new/preview", map[string]any{"claims": map[string]any{"sub": "me"}}},
		{logical.UpdateOperation, "jwt/new/sign", map[string]any{"nonce": "a"}},
		{logical.UpdateOperation, "login", map[string]any{"role": "new", "jwt": m.workload.token}},
		{logical.UpdateOperation, "login", map[string]any{"jwt": m.workload.token}}, // no default_role yet
	} {
		_, err := standby.HandleRequest(t.Context(), &logical.Request{
			Operation: request.operation, Path: request.path, Storage: m.storage, Data: request.data,
		})
		require.ErrorIs(t, err, logical.ErrReadOnly, request.path)
	}
}

// What a standby shows and issues itself, it stores nothing for.
func TestAStandbyAnswersReadsWithoutStoring(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("jwt/alice", map[string]any{"type": "user", "account": "orders"})
	account, err := m.chain.Account(t.Context(), m.storage, "orders")
	require.NoError(t, err)
	standby := standbyOn(t, m.storage)
	m.storage.FailOn(func(operation, _ string) bool { return operation == "put" || operation == "delete" })
	ask := func(operation logical.Operation, path string, data map[string]any) {
		t.Helper()
		resp, err := standby.HandleRequest(t.Context(), &logical.Request{Operation: operation, Path: path, Storage: m.storage, Data: data})
		require.NoError(t, err, path)
		require.NotNil(t, resp, path)
		require.NoError(t, resp.Error(), path)
	}
	for _, path := range []string{
		"config", "config/server", "issuer/default", "role/dev", "jwt/orders", "jwt/SYS",
		"jwt/orders/revoke", "jwt/orders/keys/default", "jwt/v1/accounts/", "jwt/v1/accounts/" + account.PublicKey,
	} {
		ask(logical.ReadOperation, path, nil)
	}
	for _, path := range []string{"issuer/", "role/", "roles/", "jwt/"} {
		ask(logical.ListOperation, path, nil)
	}
	ask(logical.UpdateOperation, "role/dev/preview", map[string]any{"jwt": m.workload.token})
	ask(logical.UpdateOperation, "jwt/alice/sign", map[string]any{"nonce": "PXoWU7zWAMt75FY"})
	require.NoError(t, standby.periodic(t.Context(), &logical.Request{Storage: m.storage}))
	standby.tasks.end()
	require.NoError(t, standby.initialize(t.Context(), &logical.InitializationRequest{Storage: m.storage}))
	require.Nil(t, standby.delivery.running(), "the leader delivers")
}

// A token that the leader will have to store is the leader's to give: the issuer
// is asked for it once, there. A batch token is stored by nobody, but OpenBao has
// the leader give it.
func TestALoginAtAStandbyHasTheTokenReviewedOnce(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	cluster := newReviewer(t)
	m.write("issuer/cluster", map[string]any{
		"kubernetes_host": cluster.server.URL, "kubernetes_ca_cert": cluster.ca, "token_reviewer_jwt": cluster.token,
		"skip_jwks_validation": true,
	})
	for name, tokenType := range map[string]string{"plain": "default", "service": "service", "batch": "batch"} {
		m.write("role/"+name, map[string]any{
			"issuer": "cluster", "account": "orders", "token_type": tokenType, "user_template": `{"pub":{"allow":["a.x"]}}`,
			"bound_service_account_names": "api", "bound_service_account_namespaces": "shop", "audience": "vault",
		})
	}
	m.storage.FailOn(func(operation, _ string) bool { return operation == "put" || operation == "delete" })
	logIn := func(standby *backend, role string) (*logical.Response, error) {
		return standby.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "login", Storage: m.storage,
			Data: map[string]any{"role": role, "jwt": cluster.token},
		})
	}
	enterprise, openBao := standbyOn(t, m.storage), standbyOf(t, m.storage, &logical.PluginEnvironment{VaultVersion: "2.6.2"})
	for _, role := range []string{"plain", "service", "batch"} {
		_, err := logIn(openBao, role)
		require.ErrorIs(t, err, logical.ErrReadOnly, role)
		if role != "batch" {
			_, err = logIn(enterprise, role)
			require.ErrorIs(t, err, logical.ErrReadOnly, role)
		}
	}
	require.Zero(t, cluster.reviews.Load())

	for reviews, standby := range []*backend{enterprise, standbyOf(t, m.storage, nil)} {
		resp, err := logIn(standby, "batch")
		require.NoError(t, err)
		require.NoError(t, resp.Error())
		require.NotEmpty(t, resp.Data["creds"])
		require.EqualValues(t, reviews+1, cluster.reviews.Load())
	}
	cluster.refuses.Store(true)
	_, err := logIn(enterprise, "batch")
	require.ErrorContains(t, err, "not valid", "what is wrong with a token, a standby says itself")
}

// A standby that has a role, but not yet the account or the issuer that it names
// or has named, leaves the login to the leader.
func TestALoginAtAStandbyThatIsBehindIsTheLeaders(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("role/dev", map[string]any{"token_type": "batch"})
	for _, key := range []string{"jwt/orders", issuerPrefix + defaultIssuer} {
		behind := standbyOn(t, m.storage)
		stored, err := m.storage.Get(t.Context(), key)
		require.NoError(t, err)
		require.NotNil(t, stored, key)
		require.NoError(t, m.storage.Delete(t.Context(), key))
		_, err = behind.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "login", Storage: m.storage,
			Data: map[string]any{"role": "dev", "jwt": m.workload.token},
		})
		require.ErrorIs(t, err, logical.ErrReadOnly, key)
		require.NoError(t, m.storage.Put(t.Context(), stored))
	}
}

// A reviewer answers TokenReviews for the service account shop/api.
type reviewer struct {
	server  *httptest.Server
	ca      string
	token   string
	reviews atomic.Int64
	refuses atomic.Bool
}

func newReviewer(t *testing.T) *reviewer {
	t.Helper()
	r := &reviewer{}
	r.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r.reviews.Add(1)
		w.Header().Set("Content-Type", "application/json")
		review := authentication.TokenReview{Status: authentication.TokenReviewStatus{
			Authenticated: !r.refuses.Load(), Audiences: []string{"vault"},
			User: authentication.UserInfo{Username: "system:serviceaccount:shop:api", UID: "1f9"},
		}}
		review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(r.server.Close)
	r.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw}))

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
	require.NoError(t, err)
	claims, err := json.Marshal(map[string]any{
		"iss": "https://kubernetes.default.svc", "aud": []string{"vault"}, "sub": "system:serviceaccount:shop:api",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "api", "uid": "1f9"}},
	})
	require.NoError(t, err)
	signed, err := signer.Sign(claims)
	require.NoError(t, err)
	r.token, err = signed.CompactSerialize()
	require.NoError(t, err)
	return r
}
