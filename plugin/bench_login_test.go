package plugin

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	natsjwt "github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/store/storetest"
)

// BenchmarkLogin is a whole login through HandleRequest, in the steady state.
// BenchmarkLoginParts is what no login can do without; `make bench` shows the
// ratio of the two.
func BenchmarkLogin(b *testing.B) {
	for _, w := range newWorkloads(b) {
		b.Run(string(w.alg), func(b *testing.B) {
			m := newLoginMount(b, w)
			b.ReportAllocs()
			for b.Loop() {
				m.login()
			}
		})
	}
}

// BenchmarkLoginParts is the sum of a login's unavoidable parts, each done by the
// library that everyone has for it: the workload's token is decoded and its
// signature checked, a user key is made, the user JWT is encoded and signed.
func BenchmarkLoginParts(b *testing.B) {
	for _, w := range newWorkloads(b) {
		b.Run(string(w.alg), func(b *testing.B) {
			user, err := natsjwt.DecodeUserClaims(newLoginMount(b, w).login().Data["jwt"].(string))
			require.NoError(b, err)
			_, account, err := ed25519.GenerateKey(rand.Reader)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				w.verify(b)
				issueWithLibraries(b, account, user)
			}
		})
	}
}

func TestALoginNeitherReadsNorWritesStorage(t *testing.T) {
	for _, w := range newWorkloads(t) {
		t.Run("with a configured key, "+string(w.alg), func(t *testing.T) {
			newLoginMount(t, w).loginsKeepOffStorage()
		})
	}
	t.Run("with a published key", func(t *testing.T) {
		w := newWorkloads(t)[0]
		issuer := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
			keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.public, KeyID: keyID, Algorithm: string(w.alg)}}}
			_ = json.NewEncoder(answer).Encode(keys)
		}))
		t.Cleanup(issuer.Close)
		m := newLoginMount(t, w)
		m.write("config", map[string]any{"jwks_url": issuer.URL})
		m.login()
		m.tasks.end() // the keys are stored for the next start
		m.loginsKeepOffStorage()
	})
}

func (m *loginMount) loginsKeepOffStorage() {
	m.tb.Helper()
	before := m.storage.All()
	for range 100 {
		m.login()
	}
	require.Equal(m.tb, before, m.storage.All())
}

// A role that stays where it is takes one write, and not one more for each list
// of roles that it is in already.
func TestToEditARoleIsOneWrite(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[0])
	before := m.storage.Writes.Load()
	m.write("role/dev", map[string]any{"token_ttl": "11m"})
	require.EqualValues(t, 1, m.storage.Writes.Load()-before)
}

// gitLabClaims are those of a GitLab job's ID token.
func gitLabClaims() map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": "https://gitlab.example.com", "aud": "vault", "sub": "project_path:shop/orders:ref_type:branch:ref:main",
		"iat": now.Unix(), "nbf": now.Unix() - 5, "exp": now.Add(time.Hour).Unix(), "jti": "6a2f0a1e-6a0c-4c1e-9c5a-4a1d8f6f7c11",
		"namespace_id": "72", "namespace_path": "shop", "project_id": "20", "project_path": "shop/orders",
		"user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com", "user_access_level": "developer",
		"pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch",
		"ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": []string{"shop", "shop/backend"},
		"environment": "production", "environment_protected": "true", "deployment_tier": "production",
		"runner_id": 1, "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
	}
}

const keyID = "key-1"

// A workload has a token that its platform signed.
type workload struct {
	alg    jose.SignatureAlgorithm
	public crypto.PublicKey
	token  string
}

func newWorkloads(tb testing.TB) []*workload {
	tb.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(tb, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(tb, err)
	var made []*workload
	for _, key := range []struct {
		alg     jose.SignatureAlgorithm
		private crypto.Signer
	}{{jose.RS256, rsaKey}, {jose.ES256, ecKey}, {jose.EdDSA, edKey}} {
		options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", keyID)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: key.alg, Key: key.private}, options)
		require.NoError(tb, err)
		payload, err := json.Marshal(gitLabClaims())
		require.NoError(tb, err)
		signed, err := signer.Sign(payload)
		require.NoError(tb, err)
		token, err := signed.CompactSerialize()
		require.NoError(tb, err)
		made = append(made, &workload{alg: key.alg, public: key.private.Public(), token: token})
	}
	return made
}

func (w *workload) publicPEM(tb testing.TB) string {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(w.public)
	require.NoError(tb, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// verify decodes the token and checks its signature.
func (w *workload) verify(tb testing.TB) {
	parts := strings.Split(w.token, ".")
	header, payload, signature := parts[0], parts[1], parts[2]
	signed := header + "." + payload
	var decoded struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}
	var claims map[string]any
	if json.Unmarshal(decode(tb, header), &decoded) != nil || json.Unmarshal(decode(tb, payload), &claims) != nil {
		tb.Fatal("the token is not JSON")
	}
	if !checkSignature(w.public, []byte(signed), decode(tb, signature)) {
		tb.Fatal("the signature is wrong")
	}
}

func decode(tb testing.TB, text string) []byte {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func checkSignature(public crypto.PublicKey, signed, signature []byte) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		digest := sha256.Sum256(signed)
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(signed)
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		return ecdsa.Verify(public, digest[:], r, s)
	case ed25519.PublicKey:
		return ed25519.Verify(public, signed, signature)
	}
	return false
}

// issueWithLibraries makes a user key, and signs a JWT for it.
func issueWithLibraries(tb testing.TB, account ed25519.PrivateKey, user *natsjwt.UserClaims) {
	if _, _, err := ed25519.GenerateKey(rand.Reader); err != nil {
		tb.Fatal(err)
	}
	claims, err := json.Marshal(user)
	if err != nil {
		tb.Fatal(err)
	}
	const header = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ."
	token := base64.RawURLEncoding.AppendEncode([]byte(header), claims)
	signature := ed25519.Sign(account, token)
	token = base64.RawURLEncoding.AppendEncode(append(token, '.'), signature)
	if len(token) == 0 {
		tb.Fatal("no token")
	}
}

// A loginMount is a mount with one role that a workload logs in with.
type loginMount struct {
	*backend
	tb       testing.TB
	storage  *storetest.Storage
	vault    *countingView
	workload *workload
}

func newLoginMount(tb testing.TB, w *workload) *loginMount {
	tb.Helper()
	vault := &countingView{SystemView: &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 24 * time.Hour}}
	m := &loginMount{tb: tb, storage: storetest.New(), vault: vault, workload: w}
	made, err := Factory(context.Background(), &logical.BackendConfig{System: vault, StorageView: m.storage})
	require.NoError(tb, err)
	m.backend = made.(*backend)
	m.stop() // nothing is delivered
	tb.Cleanup(func() { m.Cleanup(context.Background()) })
	m.write("config", map[string]any{"jwt_validation_pubkeys": []string{w.publicPEM(tb)}})
	m.write("jwt/orders", map[string]any{"type": "account"})
	m.write("role/dev", map[string]any{
		"account": "orders", "bound_audiences": "vault", "user_claim": "sub",
		"bound_claims":  map[string]any{"namespace_path": "shop"},
		"user_template": `{"pub":{"allow":["orders.{{claim(namespace_path)}}.>"]},"sub":{"allow":["orders.{{claim(namespace_path)}}.>","_INBOX.>"]}}`,
		"token_ttl":     "10m",
	})
	m.login()
	return m
}

func (m *loginMount) write(path string, data map[string]any) {
	m.tb.Helper()
	resp, err := m.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.UpdateOperation, Path: path, Data: maps.Clone(data), Storage: m.storage,
	})
	require.NoError(m.tb, err)
	require.False(m.tb, resp.IsError(), "%s: %v", path, resp)
}

func (m *loginMount) login() *logical.Response {
	resp, err := m.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "login", Storage: m.storage,
		Data:       map[string]any{"role": "dev", "jwt": m.workload.token},
		Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	})
	if err != nil || resp.IsError() || resp.Auth == nil {
		m.tb.Fatal("login: ", resp, err)
	}
	return resp
}
