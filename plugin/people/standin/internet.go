// Package standin stands in for Microsoft Graph, Google Workspace and Okta in tests:
// servers that speak what these document, their errors and paging included, under
// their own names and by TLS.
package standin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// An Internet has servers of any names, all of them on loopback.
type Internet struct {
	// CAPEM vouches for every one of them.
	CAPEM string

	server *httptest.Server
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey

	mu       sync.Mutex
	handlers map[string]http.Handler
	requests []Request
}

// A Request is one that was made.
type Request struct {
	Line          string // method, host, and path with query
	Authorization string
	Body          string
}

// New starts an Internet without servers. It ends with the test.
func New(t testing.TB) *Internet {
	n := Start()
	t.Cleanup(n.Close)
	return n
}

// Start is New for a whole test program.
func Start() *Internet {
	n := &Internet{handlers: make(map[string]http.Handler), key: newKey()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA of the stand-ins"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, n.key.Public(), n.key))
	n.ca = must(x509.ParseCertificate(der))
	n.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	n.server = httptest.NewUnstartedServer(http.HandlerFunc(n.serve))
	n.server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return n.certificate(hello.ServerName), nil
		},
	}
	n.server.Config.ErrorLog = log.New(io.Discard, "", 0) // who breaks off a connection means it
	n.server.StartTLS()
	return n
}

// Close ends all servers.
func (n *Internet) Close() { n.server.Close() }

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func (n *Internet) certificate(name string) *tls.Certificate {
	key := newKey()
	der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, n.ca, key.Public(), n.key))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Serve has the server of that name answer by the handler.
func (n *Internet) Serve(host string, handler http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[host] = handler
}

func (n *Internet) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	n.mu.Lock()
	n.requests = append(n.requests, Request{r.Method + " " + r.Host + r.URL.RequestURI(), r.Header.Get("Authorization"), string(body)})
	handler := n.handlers[r.Host]
	n.mu.Unlock()
	if handler == nil {
		w.WriteHeader(http.StatusMisdirectedRequest)
		return
	}
	handler.ServeHTTP(w, r)
}

// Requests are those that were made so far.
func (n *Internet) Requests() []Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Request(nil), n.requests...)
}

// Lines are the lines of Requests.
func (n *Internet) Lines() []string {
	var lines []string
	for _, r := range n.Requests() {
		lines = append(lines, r.Line)
	}
	return lines
}

// Transport reaches the servers, and no others.
func (n *Internet) Transport() *http.Transport {
	pool := x509.NewCertPool()
	pool.AddCert(n.ca)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, n.server.Listener.Addr().String())
		},
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		DisableKeepAlives: true,
	}
}

// Proxy is the URL of a proxy behind which the servers are, and no others, for who
// takes one from the environment.
func (n *Internet) Proxy() string {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		server, err := net.Dial("tcp", n.server.Listener.Addr().String())
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer server.Close()
		w.WriteHeader(http.StatusOK)
		client, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		go func() {
			_, _ = io.Copy(server, buffered)
			_ = server.Close()
		}()
		_, _ = io.Copy(client, server)
	}))
	return proxy.URL
}

// write answers with JSON.
func write(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

// object is a JSON object.
type object map[string]any
