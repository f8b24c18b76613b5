package claims

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the check of a configuration fetched is at hand when it is used.
func TestKeysThatACheckFetchedAreHandedOver(t *testing.T) {
	signer := newSigner("1")
	for source, config := range map[string]func(*issuer) JWTConfig{"discovery": (*issuer).discovery, "JWKS": (*issuer).jwks} {
		t.Run(source, func(t *testing.T) {
			server := newIssuer(t, signer)
			cfg := config(server)
			candidate := newJWT(t, cfg)
			require.Nil(t, candidate.Keys(), "nothing was fetched yet")
			require.NoError(t, candidate.Check(context.Background()))
			cfg.LastKeys = candidate.Keys()
			candidate.Close()
			require.NotContains(t, string(cfg.LastKeys), `"d"`)

			server.fail(http.NotFound)
			j := newJWT(t, cfg)
			require.NoError(t, verify(j, signer))
			require.Equal(t, cfg.LastKeys, j.Keys())
			_, err := j.Verify(context.Background(), signer.mint(payload(map[string]any{"aud": "other"})), now, forVault)
			require.EqualError(t, err, "aud claim has none of the role's bound audiences")
		})
	}
	require.Nil(t, newJWT(t, JWTConfig{ValidationPubKeys: []string{signer.pem()}}).Keys())
}

// An issuer's write may change where the keys come from, or anything else.
func TestKeysOutliveAWriteThatDoesNotChangeTheirSource(t *testing.T) {
	signer := newSigner("1")
	server, other := newIssuer(t, signer), newIssuer(t, newSigner("2"))
	ca, another := server.ca(), certificatePEM(selfSigned(t))
	url := server.URL + "/jwks"
	jwks := JWTConfig{Name: "gitlab", JWKSURL: url, JWKSCAPEM: ca}
	cases := map[string]struct {
		before, after JWTConfig
		kept          bool
	}{
		"nothing":                             {jwks, jwks, true},
		"another field":                       {jwks, JWTConfig{JWKSURL: url, JWKSCAPEM: ca, BoundIssuers: []string{"x"}, SupportedAlgs: []string{"EdDSA"}}, true},
		"the form of the CA":                  {jwks, JWTConfig{JWKSURL: url, JWKSCAPEM: "the CA:\n" + strings.ReplaceAll(ca, "\n", "\r\n") + "\n\n" + ca}, true},
		"one more CA":                         {jwks, JWTConfig{JWKSURL: url, JWKSCAPEM: another + ca}, true},
		"a CA that is gone":                   {JWTConfig{JWKSURL: url, JWKSCAPEM: another + ca}, jwks, false},
		"another CA":                          {jwks, JWTConfig{JWKSURL: url, JWKSCAPEM: another}, false},
		"the system's CAs":                    {jwks, JWTConfig{JWKSURL: url}, false},
		"another URL":                         {jwks, JWTConfig{JWKSURL: other.URL + "/jwks", JWKSCAPEM: ca}, false},
		"another path":                        {jwks, JWTConfig{JWKSURL: url + "/", JWKSCAPEM: ca}, false},
		"discovery at the same URL":           {jwks, JWTConfig{OIDCDiscoveryURL: url, OIDCDiscoveryCAPEM: ca}, false},
		"a JWKS in place of discovery":        {server.discovery(), JWTConfig{JWKSURL: server.URL, JWKSCAPEM: ca}, false},
		"the JWKS that was discovered":        {server.discovery(), jwks, false},
		"the JWKS as one of pairs":            {jwks, JWTConfig{JWKSPairs: []JWKSPair{{JWKSURL: other.URL}, {JWKSURL: url, JWKSCAPEM: ca}}}, true},
		"the other ones of pairs":             {JWTConfig{JWKSPairs: []JWKSPair{{JWKSURL: url, JWKSCAPEM: ca}, {JWKSURL: other.URL + "/jwks", JWKSCAPEM: ca}}}, jwks, true},
		"configured keys and back again":      {JWTConfig{ValidationPubKeys: []string{signer.pem()}}, jwks, false},
		"discovery without a change":          {server.discovery(), server.discovery(), true},
		"discovery with one more CA":          {server.discovery(), JWTConfig{OIDCDiscoveryURL: server.URL, OIDCDiscoveryCAPEM: ca + another}, true},
		"an issuer that differs in its slash": {server.discovery(), JWTConfig{OIDCDiscoveryURL: server.URL + "/", OIDCDiscoveryCAPEM: ca}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := newJWT(t, c.before)
			require.NoError(t, before.Check(context.Background()))
			c.after.LastKeys = before.Keys()
			after := newJWT(t, c.after)
			require.Equal(t, c.kept, after.Keys() != nil)
			if c.kept {
				verified, _ := after.remote.verify(must(parseToken(signer.mint(payload(nil)), nil)))
				require.True(t, verified)
			}
		})
	}
}

// A snapshot comes from storage. Whatever is in it, what is taken is a public
// key, and what was taken is saved and taken again.
func FuzzRestore(f *testing.F) {
	cfg := JWTConfig{JWKSPairs: []JWKSPair{{JWKSURL: "https://a.example.com"}, {JWKSURL: "https://b.example.com"}}}
	f.Add([]byte(`[{"url":"https://a.example.com","jwks_uri":"https://a.example.com","jwks":` + string(jwks(eddsa(), rs256())) + `}]`))
	f.Add([]byte(`[{"url":"https://b.example.com","cas":["x"],"jwks":{"keys":[]}},null,1]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := cfg
		cfg.LastKeys = data
		j, err := NewJWT(cfg)
		require.NoError(t, err)
		defer j.Close()
		if cfg.LastKeys = j.Keys(); cfg.LastKeys == nil {
			return
		}
		require.True(t, json.Valid(cfg.LastKeys))
		again, err := NewJWT(cfg)
		require.NoError(t, err)
		defer again.Close()
		require.Equal(t, string(cfg.LastKeys), string(again.Keys()))
	})
}
