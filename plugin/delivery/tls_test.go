package delivery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An authority signs the certificates of a test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{t, key, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue makes a certificate for loopback, for servers and clients, and its key.
func (a *authority) issue() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	require.NoError(a.t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(a.t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// serverConfig demands a client certificate of the authority.
func (a *authority) serverConfig() *tls.Config {
	pair, err := tls.X509KeyPair(func() ([]byte, []byte) { c, k := a.issue(); return []byte(c), []byte(k) }())
	require.NoError(a.t, err)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

func TestMutualTLSToNATSAndToAnAccountServer(t *testing.T) {
	ours := newAuthority(t)
	cert, key := ours.issue()
	other := newAuthority(t)
	otherCert, otherKey := other.issue()

	w := newWorld(t)
	o := w.full(w.serverOptions("n1"), t.TempDir(), true)
	o.TLS, o.TLSVerify, o.TLSTimeout, o.TLSConfig = true, true, 5, ours.serverConfig()
	natsServer := w.start(o)
	accountServer := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	accountServer.TLS = ours.serverConfig()
	accountServer.StartTLS()
	defer accountServer.Close()

	for name, test := range map[string]struct {
		tls TLS
		ok  bool
	}{
		"the right certificates":     {TLS{CA: ours.pem, Cert: cert, Key: key}, true},
		"no client certificate":      {TLS{CA: ours.pem}, false},
		"a client of another":        {TLS{CA: ours.pem, Cert: otherCert, Key: otherKey}, false},
		"a server of an unknown one": {TLS{CA: other.pem, Cert: cert, Key: key}, false},
		"the system's authorities":   {TLS{}, false},
	} {
		for kind, url := range map[string]string{"NATS": natsServer.ClientURL(), "account server": accountServer.URL} {
			t.Run(name+" to "+kind, func(t *testing.T) {
				cfg := w.config(url)
				cfg.TLS = test.tls
				r, err := start(cfg, w.memorySource, time.Hour)
				require.NoError(t, err)
				defer r.Close()
				err = r.Deliver(testContext(t), w.systemID)
				require.Equal(t, test.ok, err == nil, "%v", err)
			})
		}
	}
}
