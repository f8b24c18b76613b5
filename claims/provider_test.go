package claims

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"
)

// Who speaks to an issuer as an OpenID provider has its document and its keys from
// where tokens are verified.
func TestAProviderIsDiscoveredWhereItsKeysAre(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	var documents, keys atomic.Int64
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			keys.Add(1)
			require.NoError(t, json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "one"}}}))
			return
		}
		documents.Add(1)
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"%s/keys","token_endpoint":"%s/token"}`, server.URL, server.URL, server.URL)
	}))
	defer server.Close()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: "one"}}, nil)
	require.NoError(t, err)
	token, err := jwt.Signed(signer).Claims(map[string]any{"sub": "ann", "nonce": "n", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}).Serialize()
	require.NoError(t, err)

	issuer, err := NewJWT(JWTConfig{Name: "a", OIDCDiscoveryURL: server.URL})
	require.NoError(t, err)
	defer issuer.Close()
	now := time.Now()
	for range 3 {
		document, err := issuer.Discovery(t.Context(), now)
		require.NoError(t, err)
		require.Contains(t, string(document), "/token")
		jwks, err := issuer.KeysFor(t.Context(), token, now)
		require.NoError(t, err)
		require.Contains(t, string(jwks), `"one"`)
		identity, err := issuer.Verify(t.Context(), token, now, Expected{})
		require.NoError(t, err)
		require.Equal(t, "n", identity.Profile().Claims["nonce"])
		changed := identity.With(map[string]any{"team": "shop"}).Without("nonce")
		require.Equal(t, "shop", changed.Profile().Claims["team"])
		require.NotContains(t, changed.Profile().Claims, "nonce")
		require.Contains(t, identity.Profile().Claims, "nonce", "the identity itself does not change")
	}
	require.EqualValues(t, 1, documents.Load())
	require.EqualValues(t, 1, keys.Load())

	// Of an issuer whose keys are known from before, the document is fetched; while it
	// is down there is none.
	server.Close()
	later, err := NewJWT(JWTConfig{Name: "a", OIDCDiscoveryURL: server.URL, LastKeys: issuer.Keys()})
	require.NoError(t, err)
	defer later.Close()
	_, err = later.Discovery(t.Context(), now)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = issuer.Discovery(t.Context(), now.Add(2*time.Hour))
	require.NoError(t, err, "what is known of an issuer that is down goes on")

	static, err := NewJWT(JWTConfig{Name: "a", JWKSURL: "https://127.0.0.1:1"})
	require.NoError(t, err)
	defer static.Close()
	_, err = static.Discovery(t.Context(), now)
	require.ErrorContains(t, err, "oidc_discovery_url")
}
