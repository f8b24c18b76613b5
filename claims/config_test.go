package claims

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func TestNewJWTNamesTheFaultyField(t *testing.T) {
	good := eddsa().pem()
	url := "https://issuer.example.com"
	one := "exactly one of oidc_discovery_url, jwks_url, jwks_pairs and jwt_validation_pubkeys must be set"
	privateKey := pemText("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey())))
	cases := map[string]struct {
		config JWTConfig
		fault  string
	}{
		"no key source":                    {JWTConfig{}, one},
		"discovery and a JWKS":             {JWTConfig{OIDCDiscoveryURL: url, JWKSURL: url}, one},
		"a JWKS and pairs":                 {JWTConfig{JWKSURL: url, JWKSPairs: []JWKSPair{{JWKSURL: url}}}, one},
		"a JWKS and keys":                  {JWTConfig{JWKSURL: url, ValidationPubKeys: []string{good}}, one},
		"a CA beside pairs":                {JWTConfig{JWKSPairs: []JWKSPair{{JWKSURL: url}}, JWKSCAPEM: "x"}, "jwks_ca_pem cannot be used with jwks_pairs: each pair has its own"},
		"a pair without URL":               {JWTConfig{JWKSPairs: []JWKSPair{{JWKSURL: url}, {}}}, "jwks_pairs[1] is not an http or https URL"},
		"a pair twice":                     {JWTConfig{JWKSPairs: []JWKSPair{{JWKSURL: url}, {JWKSURL: url}}}, "jwks_pairs[1] has the URL of another pair"},
		"a URL without scheme":             {JWTConfig{OIDCDiscoveryURL: "issuer.example.com"}, "oidc_discovery_url is not an http or https URL"},
		"a URL of a file":                  {JWTConfig{JWKSURL: "file:///etc/passwd"}, "jwks_url is not an http or https URL"},
		"a URL with a password":            {JWTConfig{JWKSURL: "https://user:hunter2@issuer.example.com/jwks"}, "jwks_url is a URL with credentials in it, which errors and logs would show"},
		"a discovery URL with a user":      {JWTConfig{OIDCDiscoveryURL: "https://hunter2@issuer.example.com"}, "oidc_discovery_url is a URL with credentials in it, which errors and logs would show"},
		"a URL without host":               {JWTConfig{JWKSURL: "https:///jwks"}, "jwks_url is not an http or https URL"},
		"a URL with a port for host":       {JWTConfig{JWKSURL: "https://:443/jwks"}, "jwks_url is not an http or https URL"},
		"a URL with a fragment":            {JWTConfig{JWKSURL: url + "/jwks#x"}, "jwks_url has a fragment, which no request would carry"},
		"a pair with a fragment":           {JWTConfig{JWKSPairs: []JWKSPair{{JWKSURL: url + "#"}}}, "jwks_pairs[0] has a fragment, which no request would carry"},
		"a discovery URL with a fragment":  {JWTConfig{OIDCDiscoveryURL: url + "#"}, "oidc_discovery_url has a fragment, which no request would carry"},
		"a discovery URL with a query":     {JWTConfig{OIDCDiscoveryURL: url + "?tenant=1"}, "oidc_discovery_url has a query, which an issuer's identifier has not"},
		"a discovery URL with ? alone":     {JWTConfig{OIDCDiscoveryURL: url + "/?"}, "oidc_discovery_url has a query, which an issuer's identifier has not"},
		"no URL at all":                    {JWTConfig{JWKSURL: "https://a b%"}, "jwks_url is not a URL"},
		"a CA that is none":                {JWTConfig{OIDCDiscoveryURL: url, OIDCDiscoveryCAPEM: good}, "oidc_discovery_url has a CA without a PEM-encoded certificate"},
		"an HMAC algorithm":                {JWTConfig{JWKSURL: url, SupportedAlgs: []string{"RS256", "HS256"}}, `jwt_supported_algs: "HS256" is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA`},
		"the algorithm none":               {JWTConfig{JWKSURL: url, SupportedAlgs: []string{"none"}}, `jwt_supported_algs: "none" is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA`},
		"an empty bound issuer":            {JWTConfig{JWKSURL: url, BoundIssuers: []string{"x", ""}}, "bound_issuer has an empty value"},
		"a key that is no PEM":             {JWTConfig{ValidationPubKeys: []string{good, "x"}}, "jwt_validation_pubkeys: key 2 is not in PEM format"},
		"a private key":                    {JWTConfig{ValidationPubKeys: []string{privateKey}}, "jwt_validation_pubkeys: key 1 is neither a PKIX public key nor an X.509 certificate"},
		"two keys in one text":             {JWTConfig{ValidationPubKeys: []string{good + rs256().pem()}}, "jwt_validation_pubkeys: key 1 has more than one PEM block: give each key as an element of the list"},
		"an RSA key of 1024 bits":          {JWTConfig{ValidationPubKeys: []string{signer{private: smallRSA()}.pem()}}, "jwt_validation_pubkeys: key 1 is an RSA key of 1024 bits, not of 2048 to 16384"},
		"an ECDSA key on P-224":            {JWTConfig{ValidationPubKeys: []string{signer{private: p224Key()}.pem()}}, "jwt_validation_pubkeys: key 1 is an ECDSA key on the curve P-224, not on P-256, P-384 or P-521"},
		"keys of no supported algorithm":   {JWTConfig{ValidationPubKeys: []string{good, es256().pem()}, SupportedAlgs: []string{"RS256", "ES384"}}, "jwt_supported_algs has no algorithm for any of jwt_validation_pubkeys"},
		"an RSA key with an exponent of 1": {JWTConfig{ValidationPubKeys: []string{publicPEM(&rsa.PublicKey{N: rsaKey().N, E: 1})}}, "jwt_validation_pubkeys: key 1 is an RSA key with the exponent 1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := NewJWT(c.config)
			require.EqualError(t, err, c.fault)
		})
	}
}

func TestAJWKSMayHaveAQuery(t *testing.T) {
	newJWT(t, JWTConfig{JWKSURL: "https://issuer.example.com/keys?p=policy"})
}

func publicPEM(key any) string {
	return pemText("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key)))
}

func TestACertificateStandsForItsKey(t *testing.T) {
	signer := signer{edKey(), "EdDSA", ""}
	j := newJWT(t, JWTConfig{ValidationPubKeys: []string{rs256().pem(), certificatePEM(selfSigned(t))}})
	require.NoError(t, verify(j, signer))
}

func TestKeysThatCannotVerifyTokensAreLeftOut(t *testing.T) {
	member := func(s signer, changes map[string]any) json.RawMessage {
		var jwk map[string]any
		if err := json.Unmarshal(must(s.jwk().MarshalJSON()), &jwk); err != nil {
			t.Fatal(err)
		}
		for name, value := range changes {
			jwk[name] = value
		}
		return must(json.Marshal(jwk))
	}
	good := newSigner("good")
	n := base64.RawURLEncoding.EncodeToString(rsaKey().N.Bytes())
	cases := map[string]struct {
		jwk    any
		signer signer // whose token is refused
	}{
		"for encryption":              {member(newSigner("x"), map[string]any{"use": "enc"}), newSigner("x")},
		"of an encryption algorithm":  {member(rs256(), map[string]any{"alg": "RSA-OAEP"}), rs256()},
		"of an algorithm of others":   {member(es256(), map[string]any{"alg": "RS256"}), es256()},
		"of the algorithm of P-384":   {member(es256(), map[string]any{"alg": "ES384"}), es256()},
		"not for verifying":           {member(rs256(), map[string]any{"key_ops": []string{"encrypt"}}), rs256()},
		"of another algorithm":        {member(rs256(), map[string]any{"alg": "PS256"}), rs256()},
		"RSA of 1024 bits":            {member(signer{private: smallRSA(), kid: "small"}, nil), signer{smallRSA(), "RS256", "small"}},
		"RSA with an exponent of 1":   {map[string]any{"kty": "RSA", "kid": "rsa", "n": n, "e": "AQ"}, rs256()},
		"ECDSA off its curve":         {member(es256(), map[string]any{"y": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}), es256()},
		"ECDSA on a curve of another": {member(es256(), map[string]any{"crv": "P-384"}), es256()},
		"Ed25519 of 31 bytes":         {map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64.RawURLEncoding.EncodeToString(make([]byte, 31))}, eddsa()},
		"of an unknown type":          {map[string]any{"kty": "LATTICE", "kid": "ed"}, eddsa()},
		"of no type":                  {map[string]any{"kid": "ed"}, eddsa()},
		"that is no object":           {"ed", eddsa()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data := must(json.Marshal(map[string]any{"keys": []any{c.jwk, member(good, nil)}}))
			server := newIssuer(t)
			server.fail(func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
			j := impatient(newJWT(t, server.jwks()))
			require.NoError(t, verify(j, good), "the other key is good")
			require.Equal(t, errSignature, verify(j, c.signer))
		})
	}
}

// A private key in a JWKS is an accident: everyone has it, and it must not get
// into a snapshot.
func TestAPrivateKeyInAJWKSIsNeitherUsedNorKept(t *testing.T) {
	for _, s := range []signer{rs256(), es256(), eddsa()} {
		data := must(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.private, KeyID: s.kid}, newSigner("x").jwk()}}))
		set, err := parseJWKS(data)
		require.NoError(t, err)
		require.Len(t, set.all, 1)
		require.NotContains(t, string(set.jwks), `"d"`)
	}
}

func TestDiscoveryIsHeldToItsIssuer(t *testing.T) {
	signer := newSigner("1")
	cases := map[string]struct {
		change func(*issuer)
		fault  string // empty: accepted
	}{
		"its own issuer and a JWKS of its own": {func(*issuer) {}, ""},
		"another issuer":                       {func(i *issuer) { i.issuer = "https://mallory.example.com" }, `oidc_discovery_url: discovery document is of the issuer "https://mallory.example.com", not of `},
		"its own issuer with a slash more":     {func(i *issuer) { i.issuer = i.URL + "/" }, "oidc_discovery_url: discovery document is of the issuer "},
		"a JWKS without TLS":                   {func(i *issuer) { i.jwksURI = "http://" + strings.TrimPrefix(i.URL, "https://") + "/jwks" }, "leads away from https"},
		"a JWKS with a password":               {func(i *issuer) { i.jwksURI = "https://user:hunter2@example.com" }, "oidc_discovery_url: discovery document: jwks_uri is a URL with credentials in it, which errors and logs would show"},
		"a JWKS that is a file":                {func(i *issuer) { i.jwksURI = "file:///etc/passwd" }, "oidc_discovery_url: discovery document: jwks_uri is not an http or https URL"},
		"a JWKS that is not there":             {func(i *issuer) { i.jwksURI = i.URL + "/nothing" }, "answered with status 404"},
		"a document that is not there":         {func(i *issuer) { i.fault = http.NotFound }, "answered with status 404"},
		"a document that is a list":            {func(i *issuer) { i.fault = func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("[]")) } }, "oidc_discovery_url: discovery document is not a JSON object"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := newIssuer(t, signer)
			c.change(server)
			j := impatient(newJWT(t, server.discovery()))
			err := j.Check(context.Background())
			if c.fault == "" {
				require.NoError(t, err)
				require.NoError(t, verify(j, signer))
				return
			}
			require.ErrorContains(t, err, c.fault)
			require.ErrorIs(t, verify(j, signer), ErrUnavailable)
		})
	}
}

func TestRedirectsAreFollowedWithinTLS(t *testing.T) {
	signer := newSigner("1")
	target := newIssuer(t, signer)
	server := newIssuer(t)
	server.fail(http.RedirectHandler(target.URL+"/jwks", http.StatusFound).ServeHTTP)
	require.NoError(t, verify(newJWT(t, server.jwks()), signer)) // httptest servers share a certificate
}

func TestAServerWithAnotherCertificateIsNotBelieved(t *testing.T) {
	server := newIssuer(t, newSigner("1"))
	for name, ca := range map[string]string{"another CA": certificatePEM(selfSigned(t)), "the system's CAs": ""} {
		t.Run(name, func(t *testing.T) {
			cfg := server.jwks()
			cfg.JWKSCAPEM = ca
			j := newJWT(t, cfg)
			require.ErrorContains(t, j.Check(context.Background()), "jwks_url: ")
			require.ErrorIs(t, verify(j, newSigner("1")), ErrUnavailable)
		})
	}
}

// A document's host that is down does not matter while the JWKS it named before
// is up.
func TestTheLastKnownJWKSIsUsedWhileTheDocumentIsAway(t *testing.T) {
	first, second := newSigner("1"), newSigner("2")
	server := newIssuer(t, first)
	j := impatient(newJWT(t, server.discovery()))
	require.NoError(t, verify(j, first))
	server.rotate(second)
	server.fail(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jwks" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Write(jwks(second))
	})
	j.remote.list[0].discovered = j.remote.list[0].discovered.Add(-2 * staleAfter)
	require.NoError(t, verify(j, second))
}

func TestAJWKSThatMovedIsDiscoveredAgain(t *testing.T) {
	first, second := newSigner("1"), newSigner("2")
	server, moved := newIssuer(t, first), newIssuer(t, second)
	j := impatient(newJWT(t, server.discovery()))
	require.NoError(t, verify(j, first))
	server.fail(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			http.NotFound(w, r)
			return
		}
		w.Write(must(json.Marshal(map[string]string{"issuer": server.URL, "jwks_uri": moved.URL + "/jwks"})))
	})
	require.ErrorIs(t, verify(j, second), ErrUnavailable, "the attempt that finds out")
	require.NoError(t, verify(j, second))
}

// Whatever the token, parsing it ends in a token or in an error that does not
// quote it, and what it accepts, go-jose accepts too.
func FuzzParseToken(f *testing.F) {
	for _, s := range allSigner() {
		f.Add(s.mint(gitlabPayload))
	}
	for _, header := range []string{`{"alg":"none"}`, `{"alg":"ES256","crit":["b64"],"b64":false}`, `{"alg":"RS256","jwk":{}}`, `{"alg":"RS256","alg":"RS256"}`} {
		f.Add(eddsa().token(header, githubPayload))
	}
	f.Add("a.b.c.d.e")
	f.Add(`{"payload":""}`)
	names := make([]jose.SignatureAlgorithm, 0, len(algorithms))
	for name := range algorithms {
		names = append(names, jose.SignatureAlgorithm(name))
	}
	f.Fuzz(func(t *testing.T, raw string) {
		parsed, err := parseToken(raw, nil)
		if err == nil {
			_, err = parsed.claims()
		}
		if err != nil {
			for _, part := range strings.Split(raw, ".") {
				if len(part) > 25 {
					require.NotContains(t, err.Error(), part)
				}
			}
			return
		}
		jws, err := jose.ParseSignedCompact(strings.TrimSpace(raw), names)
		if err != nil {
			// It looks at the header members that are ignored here.
			require.Regexp(t, "jwk|x5c|certificate|JWK|nonce|header", err.Error())
			return
		}
		require.Equal(t, parsed.alg.name, jws.Signatures[0].Protected.Algorithm)
		require.Equal(t, parsed.kid, jws.Signatures[0].Protected.KeyID)
		require.Equal(t, parsed.signature, jws.Signatures[0].Signature)
	})
}
