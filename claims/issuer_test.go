package claims

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// An issuer is an OIDC issuer that counts what it is asked.
type issuer struct {
	*httptest.Server
	documents atomic.Int64 // requests for the discovery document
	keys      atomic.Int64 // requests for the JWKS

	mu      sync.Mutex
	signers []signer
	fault   http.HandlerFunc // answers instead, if set
	issuer  string           // in the discovery document; empty: the URL
	jwksURI string           // in the discovery document; empty: the URL + /jwks
}

func newIssuer(t testing.TB, signers ...signer) *issuer {
	t.Helper()
	i := &issuer{signers: signers}
	i.Server = httptest.NewTLSServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	fault, signers, name, jwksURI := i.fault, i.signers, i.issuer, i.jwksURI
	i.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		i.documents.Add(1)
	case "/jwks":
		i.keys.Add(1)
	}
	switch {
	case fault != nil:
		fault(w, r)
	case r.URL.Path == "/.well-known/openid-configuration":
		if name == "" {
			name = i.URL
		}
		if jwksURI == "" {
			jwksURI = i.URL + "/jwks"
		}
		w.Write(must(json.Marshal(map[string]string{"issuer": name, "jwks_uri": jwksURI})))
	case r.URL.Path == "/jwks":
		w.Write(jwks(signers...))
	default:
		http.NotFound(w, r)
	}
}

// rotate replaces the issuer's keys.
func (i *issuer) rotate(signers ...signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.signers = signers
}

// fail makes the issuer answer with fault; nil mends it.
func (i *issuer) fail(fault http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault = fault
}

// ca returns the certificate of the issuer's server.
func (i *issuer) ca() string {
	return certificatePEM(i.Certificate())
}

func certificatePEM(certificate *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
}

// discovery configures the issuer by its discovery document.
func (i *issuer) discovery() JWTConfig {
	return JWTConfig{Name: "gitlab", OIDCDiscoveryURL: i.URL, OIDCDiscoveryCAPEM: i.ca()}
}

// jwks configures the issuer by its JWKS.
func (i *issuer) jwks() JWTConfig {
	return JWTConfig{Name: "gitlab", JWKSURL: i.URL + "/jwks", JWKSCAPEM: i.ca()}
}

// serials counts the certificates that were made.
var serials atomic.Int64

// selfSigned returns a certificate that no server has, another one every time.
func selfSigned(t testing.TB) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serials.Add(1)), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, edKey().Public(), edKey())
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return certificate
}
