package plugin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/chain"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// tryLogin logs in as the mount's workload, with fields changed.
func (m *loginMount) tryLogin(operation logical.Operation, changes map[string]any) (*logical.Response, error) {
	data := map[string]any{"role": "dev", "jwt": m.workload.token}
	for field, value := range changes {
		data[field] = value
	}
	return m.HandleRequest(context.Background(), &logical.Request{
		Operation: operation, Path: "login", Storage: m.storage, Data: data,
		Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	})
}

func (m *loginMount) user() *natsjwt.UserClaims {
	m.tb.Helper()
	user, err := natsjwt.DecodeUserClaims(m.login().Data["jwt"].(string))
	require.NoError(m.tb, err)
	return user
}

func TestVaultIsToldTheAliasAndTheRoleBeforeALogin(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	ahead, err := m.tryLogin(logical.AliasLookaheadOperation, nil)
	require.NoError(t, err)
	require.Equal(t, m.login().Auth.Alias.Name, ahead.Auth.Alias.Name)
	require.Empty(t, ahead.Data, "nothing is issued")
	require.Empty(t, ahead.Auth.Policies)

	refused, err := m.tryLogin(logical.AliasLookaheadOperation, map[string]any{"jwt": m.workload.token + "x"})
	require.NoError(t, err)
	require.True(t, refused.IsError(), "an alias is told of a token that verifies, and of no other")

	resolved, err := m.tryLogin(logical.ResolveRoleOperation, nil)
	require.NoError(t, err)
	require.Equal(t, "dev", resolved.Data["role"])
	unknown, err := m.tryLogin(logical.ResolveRoleOperation, map[string]any{"role": "nobody"})
	require.NoError(t, err)
	require.True(t, unknown.IsError())
}

func TestALoginFromElsewhereThanTheBoundCIDRsIsDenied(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("role/dev", map[string]any{"token_bound_cidrs": "10.0.0.0/8"})
	_, err := m.tryLogin(logical.UpdateOperation, nil)
	require.ErrorIs(t, err, logical.ErrPermissionDenied)
}

// Another node of the cluster wrote; storage is what it has become.
func TestWhatAnotherNodeChangedIsReadAnew(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	require.Equal(t, natsjwt.StringList{"orders.shop.>"}, m.user().Pub.Allow)

	other := newLoginMountOn(t, m)
	other.write("role/dev", map[string]any{"user_template": `{"pub":{"allow":["other.>"]}}`})
	m.InvalidateKey(context.Background(), rolePrefix+"dev")
	require.Equal(t, natsjwt.StringList{"other.>"}, m.user().Pub.Allow)

	before := m.user().Issuer
	other.write("jwt/orders/rotate", map[string]any{})
	m.InvalidateKey(context.Background(), "jwt/orders")
	require.NotEqual(t, before, m.user().Issuer, "a rotated key signs no more")

	other.write("config", map[string]any{"jwt_validation_pubkeys": newWorkloads(t)[2].publicPEM(t)})
	m.InvalidateKey(context.Background(), issuerPrefix+defaultIssuer)
	resp, err := m.tryLogin(logical.UpdateOperation, nil)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature", "the former key of the issuer is trusted no more")
}

// newLoginMountOn is another node on the same storage.
func newLoginMountOn(t *testing.T, m *loginMount) *loginMount {
	t.Helper()
	made, err := Factory(context.Background(), &logical.BackendConfig{
		System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour},
		StorageView: m.storage,
	})
	require.NoError(t, err)
	other := &loginMount{tb: t, storage: m.storage, workload: m.workload, backend: made.(*backend)}
	other.stop()
	t.Cleanup(func() { other.Cleanup(context.Background()) })
	return other
}

// Under a load of logins, no login that begins after a write was acknowledged
// sees what was before it: not the role's template, nor its account's key, nor
// its issuer's, nor the role at all.
func TestNoLoginServesWhatAnAcknowledgedWriteReplaced(t *testing.T) {
	workloads := newWorkloads(t)
	m := newLoginMount(t, workloads[2])
	// acknowledged is the number of the last write that has returned; each
	// template and each login carries the number it is of.
	var acknowledged, logins atomic.Int64
	template := func(n int64) map[string]any {
		return map[string]any{"user_template": fmt.Sprintf(`{"pub":{"allow":["version.%d"]}}`, n)}
	}
	m.write("role/dev", template(0))
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	stale := make(chan string, 8)
	for range 8 {
		group.Go(func() {
			for ctx.Err() == nil {
				least := acknowledged.Load()
				user, err := natsjwt.DecodeUserClaims(m.login().Data["jwt"].(string))
				if err != nil {
					stale <- err.Error()
					return
				}
				var got int64
				if _, err := fmt.Sscanf(user.Pub.Allow[0], "version.%d", &got); err != nil || got < least {
					stale <- fmt.Sprintf("a login that began after write %d has %s", least, user.Pub.Allow[0])
					return
				}
				logins.Add(1)
			}
		})
	}
	for n := int64(1); n <= 200; n++ {
		m.write("role/dev", template(n))
		acknowledged.Store(n)
	}
	stop()
	group.Wait()
	close(stale)
	for fault := range stale {
		t.Error(fault)
	}
	require.Positive(t, logins.Load())

	former := m.user().Issuer
	m.write("jwt/orders/rotate", map[string]any{"overlap": 0})
	require.NotEqual(t, former, m.user().Issuer)
	m.write("config", map[string]any{"jwt_validation_pubkeys": workloads[0].publicPEM(t)})
	resp, err := m.tryLogin(logical.UpdateOperation, nil)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature")
	m.write("config", map[string]any{"jwt_validation_pubkeys": workloads[2].publicPEM(t)})
	m.login()
	_, err = m.HandleRequest(context.Background(), &logical.Request{Operation: logical.DeleteOperation, Path: "role/dev", Storage: m.storage})
	require.NoError(t, err)
	resp, err = m.tryLogin(logical.UpdateOperation, nil)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "could not be found")
}

// A token and a role of two issuers do not go together, and equal subjects of
// two issuers are two aliases.
func TestIssuersAreNotConfused(t *testing.T) {
	workloads := newWorkloads(t)
	m := newLoginMount(t, workloads[2])
	m.write("issuer/other", map[string]any{"jwt_validation_pubkeys": workloads[1].publicPEM(t)})
	m.write("role/other", map[string]any{"account": "orders", "issuer": "other", "bound_audiences": "vault", "user_claim": "sub"})

	first := m.login().Auth.Alias.Name
	resp, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": "other"})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature", "the default issuer's token is none of the other's")
	resp, err = m.tryLogin(logical.UpdateOperation, map[string]any{"jwt": workloads[1].token})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "signature", "nor the other's one of the default issuer's")

	resp, err = m.tryLogin(logical.UpdateOperation, map[string]any{"role": "other", "jwt": workloads[1].token})
	require.NoError(t, err)
	require.NoError(t, resp.Error())
	require.Equal(t, "issuer:other:"+first, resp.Auth.Alias.Name)

	resp, err = m.HandleRequest(context.Background(), &logical.Request{Operation: logical.DeleteOperation, Path: "issuer/other", Storage: m.storage})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "other", "an issuer that a role uses cannot be deleted")
}

// The keys of an issuer that was replaced must not become those of the one that
// took its place.
func TestSavedKeysAreNotTakenOverByAnotherIssuer(t *testing.T) {
	workloads := newWorkloads(t)
	m := newLoginMount(t, workloads[2])
	m.background = t.Context()
	entry, err := readIssuer(t.Context(), m.storage, defaultIssuer)
	require.NoError(t, err)
	m.saveIssuerKeys(m.storage, defaultIssuer, entry, []byte("keys"))
	m.tasks.group.Wait()
	require.NotEmpty(t, storetest.KeysBelow(t, m.storage, issuerKeysPrefix))

	m.write("config", map[string]any{"jwt_validation_pubkeys": workloads[1].publicPEM(t)})
	require.Empty(t, storetest.KeysBelow(t, m.storage, issuerKeysPrefix), "the former issuer's keys stay")
	m.saveIssuerKeys(m.storage, defaultIssuer, entry, []byte("late keys"))
	m.tasks.group.Wait()
	require.Empty(t, storetest.KeysBelow(t, m.storage, issuerKeysPrefix), "late keys of the former issuer are stored")
}

func TestAnIssuerOutageIsToldApartFromARefusal(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("config", map[string]any{"jwks_url": "http://127.0.0.1:1/keys", "skip_jwks_validation": true})
	_, err := m.tryLogin(logical.UpdateOperation, nil)
	var coded logical.HTTPCodedError
	require.ErrorAs(t, err, &coded)
	require.Equal(t, 503, coded.Code())
	require.False(t, strings.Contains(err.Error(), m.workload.token))
}

// A scoped user carries no permissions: they are the key's. Signed with a plain
// key it would have them all, so whatever half of a change is stored, no login
// is answered with such a user.
func TestAScopedUserIsNeverSignedWithAPlainKey(t *testing.T) {
	template := map[string]any{"user_template": `{"pub":{"allow":["a.x"]}}`}
	with := func(changes map[string]any) map[string]any {
		for field, value := range template {
			changes[field] = value
		}
		return changes
	}
	scoped, plain := with(map[string]any{"scoped": true}), with(map[string]any{"scoped": false, "signing_key": "role"})
	for name, change := range map[string][2]map[string]any{
		"from scoped to plain": {scoped, plain},
		"from plain to scoped": {plain, scoped},
	} {
		for half, fails := range map[string]string{"before the role": "role/dev", "after the role": "jwt/orders"} {
			t.Run(name+", "+half, func(t *testing.T) {
				m := newLoginMount(t, newWorkloads(t)[2])
				m.write("role/dev", change[0])
				m.storage.FailOn(func(operation, key string) bool { return operation == "put" && key == fails })
				_, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.UpdateOperation, Path: "role/dev", Data: change[1], Storage: m.storage})
				require.ErrorIs(t, err, storetest.ErrStorage)
				m.storage.FailOn(nil)
				resp, err := m.tryLogin(logical.UpdateOperation, nil)
				if err == nil && !resp.IsError() {
					user := userClaims(t, resp.Data["jwt"])
					named, err := m.chain.Named(t.Context(), m.storage, "orders")
					require.NoError(t, err)
					signer := slices.IndexFunc(named.Keys, func(key chain.SigningKey) bool { return key.PublicKey == user.Issuer })
					require.Equal(t, user.HasEmptyPermissions(), named.Keys[signer].Scope != nil, "a login between the two halves of the change was answered with a user")
				}
				m.write("role/dev", change[1])
				m.login()
			})
		}
	}
}

// A write that is refused leaves the role its key, and its users connected.
func TestARefusedRoleKeepsItsKey(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("role/dev", map[string]any{"scoped": true, "user_template": `{"pub":{"allow":["a.x"]}}`})
	before := m.user().Issuer
	key, err := trust.Generate(trust.Account)
	require.NoError(t, err)
	signing, err := trust.Generate(trust.Account)
	require.NoError(t, err)
	m.write("jwt/hosted", map[string]any{"type": "account", "public_key": key.Public(), "signing_seeds": signing.Seed()})
	resp, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "role/dev", Data: map[string]any{"account": "hosted"}, Storage: m.storage,
	})
	require.NoError(t, err)
	require.True(t, resp.IsError(), "someone else's account takes no scope from here")
	require.Equal(t, before, m.user().Issuer)
}

// Whoever may write an issuer must not get at its reviewer's token by sending it
// to a host of their own.
func TestAReviewersTokenGoesToNoOtherHost(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	seen := make(chan string, 10)
	host := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		seen <- req.Header.Get("Authorization")
	}))
	t.Cleanup(host.Close)
	m.write("issuer/cluster", map[string]any{
		"kubernetes_host": "https://127.0.0.1:1", "token_reviewer_jwt": "very-secret",
		"disable_local_ca_jwt": true, "skip_jwks_validation": true,
	})
	_, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "issuer/cluster", Data: map[string]any{"kubernetes_host": host.URL}, Storage: m.storage,
	})
	require.NoError(t, err)
	close(seen)
	for header := range seen {
		require.NotContains(t, header, "very-secret")
	}
	entry, err := readIssuer(t.Context(), m.storage, "cluster")
	require.NoError(t, err)
	if entry.KubernetesHost == host.URL {
		require.Empty(t, entry.TokenReviewerJWT)
	}
}

// Logins that come at once to a mount that has just started share one fetch of
// the issuer's keys, however slow the storage is.
func TestAColdMountFetchesKeysOnce(t *testing.T) {
	w := newWorkloads(t)[2]
	var fetches atomic.Int64
	keys := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		fetches.Add(1)
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.public, KeyID: keyID, Algorithm: string(w.alg)}}}
		_ = json.NewEncoder(answer).Encode(set)
	}))
	t.Cleanup(keys.Close)
	m := newLoginMount(t, w)
	m.write("config", map[string]any{"jwks_url": keys.URL})
	cold := newLoginMountOn(t, m)
	fetches.Store(0)
	barrier := &barrierStorage{Storage: m.storage, key: issuerPrefix + defaultIssuer, came: make(chan struct{})}
	barrier.missing.Store(20)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			resp, err := cold.HandleRequest(context.Background(), &logical.Request{
				Operation: logical.UpdateOperation, Path: "login", Storage: barrier,
				Data: map[string]any{"role": "dev", "jwt": w.token}, Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
			})
			require.NoError(t, err)
			require.NoError(t, resp.Error())
		})
	}
	group.Wait()
	require.EqualValues(t, 1, fetches.Load())
}

// barrierStorage holds reads of a key back until so many have come as are
// missing: all of them have read before any goes on.
type barrierStorage struct {
	logical.Storage
	key     string
	missing atomic.Int64
	came    chan struct{}
}

func (s *barrierStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	entry, err := s.Storage.Get(ctx, key)
	if key != s.key {
		return entry, err
	}
	if s.missing.Add(-1) == 0 {
		close(s.came)
	}
	<-s.came
	return entry, err
}

// A role cannot become one of the system account behind its back.
func TestARoleOfAnAccountThatBecomesTheSystemAccountIssuesNothing(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.login()
	present, err := m.chain.Account(t.Context(), m.storage, "orders")
	require.NoError(t, err)
	// The operator comes to name it, as a later operator_jwt may.
	operator, err := store.Read[map[string]any](t.Context(), m.storage, "config")
	require.NoError(t, err)
	(*operator)["system_account"] = present.PublicKey
	require.NoError(t, store.Write(t.Context(), m.storage, "config", operator))
	m.chain.Invalidate("config")
	resp, err := m.tryLogin(logical.UpdateOperation, nil)
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "allow_system_account")
}

// The names of bindings are not lost: neither one that stands twice, nor one
// behind the object.
func TestBindingsAreTakenWholeOrNotAtAll(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	for _, text := range []string{`{"a":"1"}{"ref":"main"}`, `{"a":"1","a":"2"}`, `["a"]`, `{"a":`} {
		resp, err := m.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.UpdateOperation, Path: "role/dev", Data: map[string]any{"bound_claims": text}, Storage: m.storage,
		})
		require.NoError(t, err)
		require.ErrorContains(t, resp.Error(), "bound_claims", text)
	}
}

// Numbers come from Vault as floats; a sample with them is as one that a token
// has.
func TestAPreviewTakesNumbers(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	m.write("role/dev", map[string]any{"user_template": `{"pub":{"allow":["orders.{{claim(project_id)}}"]}}`})
	resp, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "role/dev/preview", Storage: m.storage,
		Data: map[string]any{"claims": map[string]any{"sub": "job", "namespace_path": "shop", "project_id": float64(20)}},
	})
	require.NoError(t, err)
	require.Equal(t, true, resp.Data["allowed"], "%v", resp.Data["errors"])
}

// A tool made for Vault's own methods knows no account.
func TestARoleWithoutAccountGetsTheDefaultOne(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	role := map[string]any{"bound_audiences": "vault", "user_claim": "sub"}
	resp, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.CreateOperation, Path: "role/plain", Data: role, Storage: m.storage})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "account")
	m.write("config", map[string]any{"default_account": "orders"})
	m.write("role/plain", role)
	resp, err = m.tryLogin(logical.UpdateOperation, map[string]any{"role": "plain"})
	require.NoError(t, err)
	require.Equal(t, "orders", resp.Data["account"])
}

// A role that moves to another account leaves no key behind, whatever write the
// move dies at: the next write, or the deletion, clears it away.
func TestARoleThatMovesLeavesNoKeyBehind(t *testing.T) {
	for _, mend := range []string{"a write", "a deletion"} {
		t.Run("after "+mend, func(t *testing.T) {
			m := newLoginMount(t, newWorkloads(t)[2])
			m.write("jwt/billing", map[string]any{"type": "account"})
			m.write("role/dev", map[string]any{"scoped": true, "user_template": `{"pub":{"allow":["a.x"]}}`})
			m.storage.FailOn(func(operation, key string) bool { return operation == "put" && key == "jwt/orders" })
			_, err := m.HandleRequest(t.Context(), &logical.Request{
				Operation: logical.UpdateOperation, Path: "role/dev", Data: map[string]any{"account": "billing"}, Storage: m.storage,
			})
			require.ErrorIs(t, err, storetest.ErrStorage)
			m.storage.FailOn(nil)
			var operation logical.Operation = logical.UpdateOperation
			if mend == "a deletion" {
				operation = logical.DeleteOperation
			}
			_, err = m.HandleRequest(t.Context(), &logical.Request{Operation: operation, Path: "role/dev", Data: map[string]any{}, Storage: m.storage})
			require.NoError(t, err)
			account, err := m.chain.Named(t.Context(), m.storage, "orders")
			require.NoError(t, err)
			require.Nil(t, account.Key("role/dev"), "the role's key is still in its former account")
			using, err := store.AccountOfRoles.UsedBy(t.Context(), m.storage, "dev")
			require.NoError(t, err)
			require.NotContains(t, using, "orders")
		})
	}
}

// Vault's JWT method answers a login that it refuses with 400, its Kubernetes
// method with 403; both have 400 for what is missing from the request.
func TestARefusedLoginHasTheStatusOfVaultsOwnMethod(t *testing.T) {
	m := newCredsMount(t)
	cluster := newReviewer(t)
	m.write("issuer/cluster", map[string]any{"kubernetes_host": cluster.server.URL, "kubernetes_ca_cert": cluster.ca, "token_reviewer_jwt": "reviewer"})
	for name, more := range map[string]map[string]any{
		"pod":   nil,
		"other": {"bound_service_account_names": "web"},
		"picky": {"bound_expression": `claims.sub == "another"`},
		"own":   {"user_key": "client"},
	} {
		role := map[string]any{
			"issuer": "cluster", "account": "orders", "audience": "vault",
			"bound_service_account_names": "api", "bound_service_account_namespaces": "shop",
		}
		maps.Copy(role, more)
		m.write("role/"+name, role)
	}
	m.role("dev", nil)
	good := podToken(t, "RS256", "vault")

	for name, test := range map[string]struct {
		role, token string
		deleted     bool // the service account
		want        int
	}{
		"a pod's token":                                       {role: "pod", token: good, want: 200},
		"a pod's token that is none":                          {role: "pod", token: "x", want: 403},
		"a pod's token without a signature":                   {role: "pod", token: podToken(t, "none", "vault"), want: 403},
		"a pod's token for another audience":                  {role: "pod", token: podToken(t, "RS256", "other"), want: 403},
		"a pod's token that the cluster disowns":              {role: "pod", token: good, deleted: true, want: 403},
		"a pod's token of another account":                    {role: "other", token: good, want: 403},
		"a pod's token that an expression is not":             {role: "picky", token: good, want: 403},
		"no pod's token":                                      {role: "pod", want: 400},
		"a pod's token without the key that the role demands": {role: "own", token: good, want: 400},
		"a pod's token for no role":                           {token: good, want: 400},
		"a pod's token for an unknown role":                   {role: "nobody", token: good, want: 400},
		"a job's token":                                       {role: "dev", token: m.token(nil), want: 200},
		"a job's token for another audience":                  {role: "dev", token: m.token(map[string]any{"aud": "other"}), want: 400},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			cluster.refuses.Store(test.deleted)
			data := map[string]any{"role": test.role, "jwt": test.token}
			require.Equal(t, test.want, m.status(logical.UpdateOperation, "login", data))
			if test.role != "own" { // which alias a login is for does not hang on its key
				require.Equal(t, test.want, m.status(logical.AliasLookaheadOperation, "login", data))
			}
		})
	}
	m.t = t
	cluster.refuses.Store(true)
	for _, path := range []string{"creds/pod", "role/pod/preview"} { // which the Kubernetes method does not have
		require.Equal(t, 400, m.status(logical.UpdateOperation, path, map[string]any{"jwt": good}))
	}
	cluster.server.Close()
	require.Equal(t, 503, m.status(logical.UpdateOperation, "login", map[string]any{"role": "pod", "jwt": good}))
}

// status is what Vault answers a request with.
func (m *credsMount) status(operation logical.Operation, path string, data map[string]any) int {
	m.t.Helper()
	req := m.request("", data)
	req.Operation, req.Path = operation, path
	resp, err := m.HandleRequest(m.t.Context(), req)
	var coded logical.HTTPCodedError
	if errors.As(err, &coded) {
		return coded.Code()
	}
	require.NoError(m.t, err)
	if resp.IsError() {
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// podToken is a projected token of the service account shop/api, whose signature
// only the API server checks.
func podToken(t *testing.T, alg, audience string) string {
	t.Helper()
	encode := func(object map[string]any) string {
		raw, err := json.Marshal(object)
		require.NoError(t, err)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	return encode(map[string]any{"alg": alg}) + "." + encode(map[string]any{
		"aud": audience, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "api", "uid": "1f9"}},
	}) + "." + base64.RawURLEncoding.EncodeToString([]byte("a signature"))
}
