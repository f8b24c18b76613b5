// Package optest is an OpenID provider for tests, in process. It does what it is told
// to do wrong, too.
package optest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// The client that a provider knows.
const (
	ClientID     = "vault"
	ClientSecret = "it's+a secret/of the%client"
)

// A Provider is an OpenID provider. Its fields are for the test to set before a
// request; each has a good zero value.
type Provider struct {
	tb     testing.TB
	server *httptest.Server
	key    *ecdsa.PrivateKey

	mu     sync.Mutex
	codes  map[string]url.Values // of the authorization request, by code
	device map[string]string     // by device code: pending, done or denied

	Claims      map[string]any                                    // of the ID token, beside what it needs; a nil value takes a claim out
	Change      func(idToken map[string]any)                      // has the last word about the ID token's claims
	AtHash      string                                            // in place of the right at_hash
	Userinfo    map[string]any                                    // nil: there is no userinfo
	Metadata    map[string]any                                    // to be added to the discovery document
	PostOnly    bool                                              // the client's secret is to be in the form
	TokenAnswer func(w http.ResponseWriter, r *http.Request) bool // answers in place of the token endpoint, if it does
	ForeignKey  bool                                              // ID tokens are signed with a key that is not among its own
	Algorithm   jose.SignatureAlgorithm                           // ES256

	Tokens []string // that it has handed out, codes and all: what no log may have
	Asked  int      // requests to the token endpoint
	Keys   int      // requests for keys
}

// Start starts a provider on TLS.
func Start(tb testing.TB) *Provider {
	tb.Helper()
	p := &Provider{tb: tb, codes: map[string]url.Values{}, device: map[string]string{}, Algorithm: jose.ES256}
	p.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.userinfo)
	mux.HandleFunc("POST /device", p.startDevice)
	p.server = httptest.NewTLSServer(mux)
	tb.Cleanup(p.server.Close)
	return p
}

// URL is the issuer.
func (p *Provider) URL() string { return p.server.URL }

// Stop has it answer nothing any more.
func (p *Provider) Stop() { p.server.Close() }

// CA is the certificate that vouches for its server.
func (p *Provider) CA() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw}))
}

// Config are an issuer's fields.
func (p *Provider) Config(more map[string]any) map[string]any {
	fields := map[string]any{
		"oidc_discovery_url": p.URL(), "oidc_discovery_ca_pem": p.CA(), "oidc_client_id": ClientID, "oidc_client_secret": ClientSecret,
	}
	maps.Copy(fields, more)
	return fields
}

// Rotate has it sign with another key, and withdraws the one before.
func (p *Provider) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(p.tb, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = key
}

func (p *Provider) kid() string {
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	require.NoError(p.tb, err)
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	document := map[string]any{
		"issuer": p.URL(), "authorization_endpoint": p.URL() + "/authorize", "token_endpoint": p.URL() + "/token", "jwks_uri": p.URL() + "/keys",
		"device_authorization_endpoint":         p.URL() + "/device",
		"id_token_signing_alg_values_supported": []string{"ES256"}, "subject_types_supported": []string{"public"}, "response_types_supported": []string{"code"},
	}
	if p.Userinfo != nil {
		document["userinfo_endpoint"] = p.URL() + "/userinfo"
	}
	maps.Copy(document, p.Metadata)
	p.answer(w, http.StatusOK, document)
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Keys++
	p.answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: p.kid(), Use: "sig"}}})
}

// Login is a person who logs in at an auth_url: it returns what the browser brings
// back, as the query of its redirect.
func (p *Provider) Login(authURL string) url.Values {
	p.tb.Helper()
	address, err := url.Parse(authURL)
	require.NoError(p.tb, err)
	query := address.Query()
	require.Equal(p.tb, p.URL()+"/authorize", strings.TrimSuffix(authURL, "?"+address.RawQuery))
	require.Equal(p.tb, ClientID, query.Get("client_id"))
	if query.Get("response_type") == "id_token" {
		return url.Values{"state": {query.Get("state")}, "id_token": {p.IDToken(query, "", "")}}
	}
	require.Equal(p.tb, "S256", query.Get("code_challenge_method"))
	code := p.Secret("code")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[code] = query
	return url.Values{"state": {query.Get("state")}, "code": {code}}
}

// Secret makes a text that no log may have.
func (p *Provider) Secret(what string) string {
	text := what + "_" + rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Tokens = append(p.Tokens, text)
	return text
}

// IDToken makes an ID token for an authorization request.
func (p *Provider) IDToken(request url.Values, accessToken, code string) string {
	now := time.Now().Unix()
	said := map[string]any{
		"iss": p.URL(), "sub": "ann", "aud": ClientID, "exp": now + 600, "iat": now, "auth_time": now, "email": "ann@example.com",
	}
	if nonce := request.Get("nonce"); nonce != "" {
		said["nonce"] = nonce
	}
	if accessToken != "" {
		said["at_hash"] = halfHash(accessToken)
	}
	if p.AtHash != "" {
		said["at_hash"] = p.AtHash
	}
	for name, value := range p.Claims {
		if said[name] = value; value == nil {
			delete(said, name)
		}
	}
	if p.Change != nil {
		p.Change(said)
	}
	token := p.Sign(said)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Tokens = append(p.Tokens, token)
	return token
}

// Sign signs claims.
func (p *Provider) Sign(claims map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := p.key
	if p.ForeignKey {
		var err error
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(p.tb, err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.Algorithm, Key: jose.JSONWebKey{Key: key, KeyID: p.kid()}}, nil)
	require.NoError(p.tb, err)
	text, err := json.Marshal(claims)
	require.NoError(p.tb, err)
	signed, err := signer.Sign(text)
	require.NoError(p.tb, err)
	token, err := signed.CompactSerialize()
	require.NoError(p.tb, err)
	return token
}

func halfHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// isClient checks who asks, and answers if it is nobody known.
func (p *Provider) isClient(w http.ResponseWriter, r *http.Request) bool {
	require.NoError(p.tb, r.ParseForm())
	id, secret, basic := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	if !basic {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	if id != ClientID || secret != ClientSecret || basic == p.PostOnly {
		p.refuse(w, http.StatusUnauthorized, "invalid_client")
		return false
	}
	return true
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.Asked++
	p.mu.Unlock()
	require.NoError(p.tb, r.ParseForm())
	if p.TokenAnswer != nil && p.TokenAnswer(w, r) || !p.isClient(w, r) {
		return
	}
	if r.PostForm.Get("grant_type") == "urn:ietf:params:oauth:grant-type:device_code" {
		p.deviceToken(w, r.PostForm.Get("device_code"))
		return
	}
	code := r.PostForm.Get("code")
	p.mu.Lock()
	request, known := p.codes[code]
	delete(p.codes, code) // good once
	p.mu.Unlock()
	verifier := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	switch {
	case r.PostForm.Get("grant_type") != "authorization_code", !known,
		request.Get("redirect_uri") != r.PostForm.Get("redirect_uri"),
		request.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(verifier[:]):
		p.refuse(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	p.handOut(w, request)
}

func (p *Provider) handOut(w http.ResponseWriter, request url.Values) {
	access := p.Secret("access")
	p.answer(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": 600, "refresh_token": p.Secret("refresh"), "id_token": p.IDToken(request, access, ""),
	})
}

func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !strings.HasPrefix(token, "access_") {
		p.refuse(w, http.StatusUnauthorized, "invalid_token")
		return
	}
	info := map[string]any{"sub": "ann"}
	maps.Copy(info, p.Userinfo)
	p.answer(w, http.StatusOK, info)
}

func (p *Provider) startDevice(w http.ResponseWriter, r *http.Request) {
	if !p.isClient(w, r) {
		return
	}
	code := p.Secret("device")
	p.mu.Lock()
	p.device[code] = "pending"
	p.mu.Unlock()
	p.answer(w, http.StatusOK, map[string]any{
		"device_code": code, "user_code": "ABCD-EFGH", "verification_uri": p.URL() + "/activate", "expires_in": 300, "interval": 1,
	})
}

// TypeCode is a person who types the code of every device that waits, or refuses to.
func (p *Provider) TypeCode(agrees bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for code, state := range p.device {
		if state == "pending" && agrees {
			p.device[code] = "done"
		} else if state == "pending" {
			p.device[code] = "denied"
		}
	}
}

func (p *Provider) deviceToken(w http.ResponseWriter, code string) {
	p.mu.Lock()
	state := p.device[code]
	if state == "done" {
		delete(p.device, code)
	}
	p.mu.Unlock()
	switch state {
	case "pending":
		p.refuse(w, http.StatusBadRequest, "authorization_pending")
	case "done":
		p.handOut(w, url.Values{})
	case "denied":
		p.refuse(w, http.StatusBadRequest, "access_denied")
	default:
		p.refuse(w, http.StatusBadRequest, "expired_token")
	}
}

func (p *Provider) refuse(w http.ResponseWriter, status int, code string) {
	p.answer(w, status, map[string]any{"error": code, "error_description": fmt.Sprintf("the test's provider says %s", code)})
}

func (p *Provider) answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	require.NoError(p.tb, json.NewEncoder(w).Encode(body))
}
