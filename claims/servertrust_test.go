package claims

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// certified serves a discovery document and keys under a certificate of a CA of its
// own, with names and critical extensions. It returns the CA, too.
func certified(t *testing.T, names []string, critical ...asn1.ObjectIdentifier) (*httptest.Server, string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, Subject: pkix.Name{CommonName: "CA"}}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: names}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		}
	}
	for _, oid := range critical {
		leaf.ExtraExtensions = append(leaf.ExtraExtensions, pkix.Extension{Id: oid, Critical: true, Value: []byte{5, 0}})
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}))
}

func TestAServersCertificateIsTrustedAsTheIssuerSays(t *testing.T) {
	other := asn1.ObjectIdentifier{1, 2, 3, 5}
	odd := asn1.ObjectIdentifier{1, 2, 3, 4}
	const reached = "status 418"
	for name, c := range map[string]struct {
		names    []string
		critical []asn1.ObjectIdentifier
		config   JWTConfig
		foreign  bool // another CA vouches for it
		want     string
	}{
		"as usual":                        {names: []string{"127.0.0.1"}, want: reached},
		"of another name":                 {names: []string{"idp.example.com"}, want: "certificate"},
		"of an allowed name":              {names: []string{"idp.example.com"}, config: JWTConfig{AllowedServerNames: []string{"a.example.com", "idp.example.com"}}, want: reached},
		"of its URL's name alone":         {names: []string{"127.0.0.1"}, config: JWTConfig{AllowedServerNames: []string{"idp.example.com"}}, want: "has none of the names idp.example.com"},
		"of an allowed name, another CA":  {names: []string{"idp.example.com"}, config: JWTConfig{AllowedServerNames: []string{"idp.example.com"}}, foreign: true, want: "unknown authority"},
		"with a critical extension":       {names: []string{"127.0.0.1"}, critical: []asn1.ObjectIdentifier{odd}, want: "unhandled critical extension"},
		"with one that is to be ignored":  {names: []string{"127.0.0.1"}, critical: []asn1.ObjectIdentifier{odd, other}, config: JWTConfig{UnsupportedCriticalExtensions: []string{"1.2.3.4", "1.2.3.5"}, AllowedServerNames: []string{"127.0.0.1"}}, want: reached},
		"with another":                    {names: []string{"127.0.0.1"}, critical: []asn1.ObjectIdentifier{odd}, config: JWTConfig{UnsupportedCriticalExtensions: []string{"2.5.29.54"}, AllowedServerNames: []string{"127.0.0.1"}}, want: "unhandled critical extension"},
		"with one, and of another name":   {names: []string{"idp.example.com"}, critical: []asn1.ObjectIdentifier{odd}, config: JWTConfig{UnsupportedCriticalExtensions: []string{"1.2.3.4"}}, want: "named by an IP address"},
		"with one, and under another CA":  {names: []string{"127.0.0.1"}, critical: []asn1.ObjectIdentifier{odd}, config: JWTConfig{UnsupportedCriticalExtensions: []string{"1.2.3.4"}, AllowedServerNames: []string{"127.0.0.1"}}, foreign: true, want: "unknown authority"},
		"of an allowed name and with one": {names: []string{"idp.example.com"}, critical: []asn1.ObjectIdentifier{odd}, config: JWTConfig{UnsupportedCriticalExtensions: []string{"1.2.3.4"}, AllowedServerNames: []string{"idp.example.com"}}, want: reached},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, ca := certified(t, c.names, c.critical...)
			if c.foreign {
				_, ca = certified(t, c.names)
			}
			c.config.Name, c.config.OIDCDiscoveryURL, c.config.OIDCDiscoveryCAPEM = "a", server.URL, ca
			issuer, err := NewJWT(c.config)
			require.NoError(t, err)
			defer issuer.Close()
			require.ErrorContains(t, issuer.Check(t.Context()), c.want)
		})
	}
	// By name, as servers are.
	for _, names := range [][]string{{"localhost"}, {"elsewhere"}} {
		server, ca := certified(t, names, odd)
		_, port, err := net.SplitHostPort(server.Listener.Addr().String())
		require.NoError(t, err)
		issuer, err := NewJWT(JWTConfig{OIDCDiscoveryURL: "https://localhost:" + port, OIDCDiscoveryCAPEM: ca, UnsupportedCriticalExtensions: []string{"1.2.3.4"}})
		require.NoError(t, err)
		defer issuer.Close()
		err = issuer.Check(t.Context())
		require.Equal(t, names[0] == "localhost", strings.Contains(err.Error(), reached), "%s", err)
	}
	for _, oid := range []string{"", "2", "2.a", "2.-5", "2.5.", "2.5.99999999999"} {
		_, err := NewJWT(JWTConfig{JWKSURL: "https://a", UnsupportedCriticalExtensions: []string{oid}})
		require.ErrorContains(t, err, "unsupported_critical_cert_extensions", oid)
	}
	_, err := NewJWT(JWTConfig{JWKSURL: "https://a", AllowedServerNames: []string{""}})
	require.ErrorContains(t, err, "override_allowed_server_names")
}
