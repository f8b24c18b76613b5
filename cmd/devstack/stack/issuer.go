package stack

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The documents that an issuer serves.
const (
	DiscoveryPath = "/.well-known/openid-configuration"
	JWKSPath      = "/.well-known/jwks.json"
)

// TokenPath takes claims as a JSON object in a POST and answers with a token that has
// them, for whoever can reach the loopback address.
const TokenPath = "/token"

// A Fault is a way in which an issuer fails.
type Fault int

// The faults that SetFault takes.
const (
	Healthy  Fault = iota
	Down           // connections are cut without an answer
	Slow           // no answer while the fault lasts
	Failing        // status 500
	Garbage        // status 200, and a body that is not JSON
	Huge           // JSON that goes on for a gigabyte
	Redirect       // a redirect to the true document, at another path of the issuer
)

// redirectedPath is where a redirect leads, in front of the document's own path.
const redirectedPath = "/redirected"

// Issuer is a small OIDC issuer: a discovery document, a JWKS, and keys of its own to
// sign tokens with. It counts what is asked of it and fails in chosen ways.
type Issuer struct {
	// URL is the issuer's name, and where its documents are.
	URL string

	server *http.Server
	served chan struct{} // closed when the server has ended

	mutex     sync.Mutex
	keys      []*SigningKey // published, the newest last
	overrides map[string][]byte
	requests  map[string]int
	fault     Fault
	faultOver chan struct{} // closed when the fault that lasts is lifted
}

// StartIssuer starts an issuer with one key for each of the given JWS algorithms,
// such as RS256, ES256 and EdDSA; there must be one. With a CA it serves TLS.
func StartIssuer(ca *CA, algs ...jose.SignatureAlgorithm) (*Issuer, error) {
	if len(algs) == 0 {
		return nil, errors.New("an issuer needs a key")
	}
	i := &Issuer{
		overrides: map[string][]byte{}, requests: map[string]int{},
		faultOver: make(chan struct{}), served: make(chan struct{}),
	}
	for _, alg := range algs {
		if _, err := i.AddKey(alg); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i.URL = "http://" + listener.Addr().String()
	if ca != nil {
		certificate, err := ca.ServerCertificate()
		if err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		i.URL = "https://" + listener.Addr().String()
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	}
	i.server = &http.Server{
		Handler: http.HandlerFunc(i.serve), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // of clients that refuse the certificate, as they should
	}
	go func() {
		defer close(i.served)
		_ = i.server.Serve(listener) // always ErrServerClosed after Close
	}()
	return i, nil
}

// JWKSURL is where the issuer's keys are.
func (i *Issuer) JWKSURL() string { return i.URL + JWKSPath }

// Close stops the issuer.
func (i *Issuer) Close() error {
	i.SetFault(Healthy)
	err := i.server.Close()
	<-i.served
	return err
}

// SetFault has every later request fail in the given way, or none.
func (i *Issuer) SetFault(fault Fault) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.fault = fault
	close(i.faultOver)
	i.faultOver = make(chan struct{})
}

// Override has a path answer with this body instead of its own document; nil undoes it.
func (i *Issuer) Override(path string, body []byte) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if body == nil {
		delete(i.overrides, path)
		return
	}
	i.overrides[path] = body
}

// Requests returns how often a path was asked for, however it was answered.
func (i *Issuer) Requests(path string) int {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	return i.requests[path]
}

// serve counts a request, then fails or answers it.
func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mutex.Lock()
	i.requests[r.URL.Path]++
	fault, faultOver := i.fault, i.faultOver
	i.mutex.Unlock()
	path, redirected := strings.CutPrefix(r.URL.Path, redirectedPath)
	switch fault {
	case Healthy:
		if path == TokenPath && r.Method == http.MethodPost {
			i.serveToken(w, r)
			return
		}
		i.serveDocument(w, path)
	case Down:
		panic(http.ErrAbortHandler)
	case Slow:
		select {
		case <-faultOver:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case Failing:
		http.Error(w, "the issuer fails, as it was told to", http.StatusInternalServerError)
	case Garbage:
		_, _ = io.WriteString(w, "<html>this is no JSON</html>")
	case Huge:
		serveHuge(w)
	case Redirect:
		if redirected {
			i.serveDocument(w, path)
			return
		}
		http.Redirect(w, r, redirectedPath+path, http.StatusFound)
	}
}

func (i *Issuer) serveDocument(w http.ResponseWriter, path string) {
	i.mutex.Lock()
	body, overridden := i.overrides[path]
	keys := i.publicKeys()
	i.mutex.Unlock()
	w.Header().Set("Content-Type", "application/json")
	var document any
	switch {
	case overridden:
		_, _ = w.Write(body) // a client that went away needs no answer
		return
	case path == DiscoveryPath:
		document = map[string]any{
			"issuer": i.URL, "jwks_uri": i.JWKSURL(),
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": algorithms(keys),
		}
	case path == JWKSPath:
		document = keys
	default:
		http.Error(w, "no such document", http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(document)
}

// serveToken mints a token with the newest key.
func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	var claims map[string]any
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&claims); err != nil {
		http.Error(w, "the claims are not a JSON object: "+err.Error(), http.StatusBadRequest)
		return
	}
	i.mutex.Lock()
	key := i.keys[len(i.keys)-1]
	i.mutex.Unlock()
	token, err := i.Mint(key.Alg, claims)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, token) // a client that went away needs no answer
}

// serveHuge writes JSON that is valid as far as it goes, until the client has enough.
func serveHuge(w http.ResponseWriter) {
	if _, err := io.WriteString(w, `{"keys":[`); err != nil {
		return
	}
	block := []byte(strings.Repeat(`{"kty":"none"},`, 1<<12))
	for sent := 0; sent < 1<<30; sent += len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}
