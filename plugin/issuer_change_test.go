package plugin

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// A jwksServer shows the public key of a workload, unless it is down.
type jwksServer struct {
	*httptest.Server
	down    atomic.Bool
	fetches atomic.Int64
}

func newJWKSServer(t *testing.T, w *workload) *jwksServer {
	t.Helper()
	s := &jwksServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, req *http.Request) {
		s.fetches.Add(1)
		if s.down.Load() {
			http.NotFound(answer, req)
			return
		}
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.public, KeyID: keyID, Algorithm: string(w.alg)}}}
		_ = json.NewEncoder(answer).Encode(set)
	}))
	t.Cleanup(s.Close)
	return s
}

// change writes to a path and returns the warnings.
func (m *loginMount) change(path string, data map[string]any) []string {
	m.tb.Helper()
	resp, err := m.HandleRequest(context.Background(), &logical.Request{
		Operation: logical.UpdateOperation, Path: path, Data: maps.Clone(data), Storage: m.storage,
	})
	require.NoError(m.tb, err)
	require.False(m.tb, resp.IsError(), "%s: %v", path, resp)
	if resp == nil {
		return nil
	}
	return resp.Warnings
}

// issuerAt is the name of the issuer that is written at the path.
func issuerAt(path string) string {
	if path == "config" {
		return defaultIssuer
	}
	return strings.TrimPrefix(path, "issuer/")
}

// certificate returns a CA certificate in PEM format.
func certificate(t *testing.T, serial int64) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// What the check of a write has fetched is there for the first login: a workload
// that can sign is told what is wrong with its token, even if the issuer is down
// by then, and one that cannot sign is told nothing.
func TestAWriteKeepsTheKeysThatItFetched(t *testing.T) {
	for _, path := range []string{"config", "issuer/gitlab"} {
		t.Run(path, func(t *testing.T) {
			workloads := newWorkloads(t)
			m := newLoginMount(t, workloads[2])
			server := newJWKSServer(t, m.workload)
			m.write(path, map[string]any{"jwks_url": server.URL})
			require.EqualValues(t, 1, server.fetches.Load())
			server.down.Store(true)

			issuer := issuerAt(path)
			m.write("role/other", map[string]any{"account": "orders", "issuer": issuer, "bound_audiences": "nats", "user_claim": "sub"})
			m.write("role/good", map[string]any{"account": "orders", "issuer": issuer, "bound_audiences": "vault", "user_claim": "sub"})
			for token, fault := range map[string]string{
				m.workload.token:   "aud claim has none of the role's bound audiences",
				workloads[0].token: "signature",
			} {
				for _, attempt := range []string{"login", "role/other/preview"} {
					data := map[string]any{"jwt": token}
					if attempt == "login" {
						data["role"] = "other"
					}
					resp, err := m.HandleRequest(t.Context(), &logical.Request{
						Operation: logical.UpdateOperation, Path: attempt, Data: data, Storage: m.storage,
						Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
					})
					require.NoError(t, err)
					require.ErrorContains(t, resp.Error(), fault, attempt)
				}
			}
			resp, err := m.tryLogin(logical.UpdateOperation, map[string]any{"role": "good"})
			require.NoError(t, err)
			require.NoError(t, resp.Error())
		})
	}
}

// Keys go only when their source does.
func TestAWriteThatKeepsTheSourceKeepsTheKeys(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	server := newJWKSServer(t, m.workload)
	m.write("config", map[string]any{"jwks_url": server.URL})
	server.down.Store(true)
	for name, change := range map[string]map[string]any{
		"nothing":            {"jwks_url": server.URL},
		"another field":      {"bound_issuer": "https://gitlab.example.com"},
		"the algorithms":     {"jwt_supported_algs": "EdDSA,RS256"},
		"the same in a pair": {"jwks_pairs": []any{map[string]any{"jwks_url": server.URL}}},
		"back from the pair": {"jwks_url": server.URL, "jwks_pairs": []any{}},
	} {
		change["skip_jwks_validation"] = true
		t.Run(name, func(t *testing.T) {
			m.tb = t
			m.write("config", change)
			m.login()
			cold := newLoginMountOn(t, m)
			cold.login()
		})
	}
	m.tb = t
	m.write("config", map[string]any{"jwks_url": server.URL + "/other", "skip_jwks_validation": true})
	_, err := m.tryLogin(logical.UpdateOperation, nil)
	require.ErrorContains(t, err, "unavailable", "the keys of another source")
}

func TestARefusedWriteLeavesTheKeys(t *testing.T) {
	m := newLoginMount(t, newWorkloads(t)[2])
	server := newJWKSServer(t, m.workload)
	m.write("config", map[string]any{"jwks_url": server.URL})
	server.down.Store(true)
	resp, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "config", Data: map[string]any{"jwks_url": server.URL + "/other"}, Storage: m.storage,
	})
	require.NoError(t, err)
	require.ErrorContains(t, resp.Error(), "jwks_url cannot be used")
	newLoginMountOn(t, m).login()
}

func TestAReviewersTokenStaysWithItsServer(t *testing.T) {
	const host = "https://127.0.0.1:6443"
	ca, other := certificate(t, 1), certificate(t, 2)
	for name, test := range map[string]struct {
		change  map[string]any
		kept    bool
		warning bool
	}{
		"nothing":                     {map[string]any{"kubernetes_host": host, "kubernetes_ca_cert": ca}, true, false},
		"another field":               {map[string]any{"disable_iss_validation": false}, true, false},
		"a slash":                     {map[string]any{"kubernetes_host": host + "/"}, true, false},
		"no scheme":                   {map[string]any{"kubernetes_host": "127.0.0.1:6443"}, true, false},
		"one more CA":                 {map[string]any{"kubernetes_ca_cert": other + ca}, true, false},
		"another CA":                  {map[string]any{"kubernetes_ca_cert": other}, false, true},
		"no CA":                       {map[string]any{"kubernetes_ca_cert": ""}, false, true},
		"another host":                {map[string]any{"kubernetes_host": "https://127.0.0.2:6443"}, false, true},
		"another host with its token": {map[string]any{"kubernetes_host": "https://127.0.0.2:6443", "token_reviewer_jwt": "second"}, true, false},
		"the token taken away":        {map[string]any{"kubernetes_host": "https://127.0.0.2:6443", "token_reviewer_jwt": ""}, false, false},
		"another source":              {map[string]any{"jwks_url": "https://127.0.0.1:1"}, false, false},
	} {
		for _, path := range []string{"config", "issuer/cluster"} {
			t.Run(name+" at "+path, func(t *testing.T) {
				m := newLoginMount(t, newWorkloads(t)[2])
				_, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.DeleteOperation, Path: "role/dev", Storage: m.storage})
				require.NoError(t, err) // the default issuer's kind can change now
				m.write(path, map[string]any{
					"kubernetes_host": host, "kubernetes_ca_cert": ca, "token_reviewer_jwt": "first",
					"disable_local_ca_jwt": true, "skip_jwks_validation": true,
				})
				test.change["skip_jwks_validation"] = true
				warnings := m.change(path, test.change)
				entry, err := readIssuer(t.Context(), m.storage, issuerAt(path))
				require.NoError(t, err)
				require.Equal(t, test.kept, entry.TokenReviewerJWT != "")
				warned := strings.Contains(strings.Join(warnings, "\n"), "token_reviewer_jwt was forgotten")
				require.Equal(t, test.warning, warned, warnings)
			})
		}
	}
}
