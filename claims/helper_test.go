package claims

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// now is the time of tokens in tests: long ago, so that no key is stale then.
var now = time.Unix(1_704_067_200, 0)

// A signer mints tokens.
type signer struct {
	private crypto.Signer
	alg     string
	kid     string
}

// Keys are made once: RSA keys take their time.
var (
	rsaKey    = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	p256Key   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521Key   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey     = sync.OnceValue(func() ed25519.PrivateKey { return newEd25519() })
	smallRSA  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	p224Key   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)) })
	rs256     = func() signer { return signer{rsaKey(), "RS256", "rsa"} }
	es256     = func() signer { return signer{p256Key(), "ES256", "p256"} }
	eddsa     = func() signer { return signer{edKey(), "EdDSA", "ed"} }
	allSigner = func() []signer {
		return []signer{
			{rsaKey(), "RS256", "rsa"}, {rsaKey(), "RS384", "rsa"}, {rsaKey(), "RS512", "rsa"},
			{rsaKey(), "PS256", "rsa"}, {rsaKey(), "PS384", "rsa"}, {rsaKey(), "PS512", "rsa"},
			{p256Key(), "ES256", "p256"}, {p384Key(), "ES384", "p384"}, {p521Key(), "ES512", "p521"},
			{edKey(), "EdDSA", "ed"},
		}
	}
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func newEd25519() ed25519.PrivateKey {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return must(private, err)
}

// newSigner makes a fresh key, of the kind that is made fastest.
func newSigner(kid string) signer { return signer{newEd25519(), "EdDSA", kid} }

// jwk returns the signer's public key.
func (s signer) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.private.Public(), KeyID: s.kid, Use: "sig"}
}

// pem returns the signer's public key.
func (s signer) pem() string {
	return pemText("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(s.private.Public())))
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// token mints a token whose header and payload are values or, as strings, texts.
func (s signer) token(header, payload any) string {
	input := encode(header) + "." + encode(payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(s.sign([]byte(input)))
}

// mint mints a token with the usual header.
func (s signer) mint(payload any) string {
	return s.token(map[string]any{"alg": s.alg, "kid": s.kid, "typ": "JWT"}, payload)
}

func encode(part any) string {
	text, ok := part.(string)
	if !ok {
		text = string(must(json.Marshal(part)))
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// sign signs as RFC 7518 says, below any library for tokens, so that tests can
// sign what such a library refuses to.
func (s signer) sign(input []byte) []byte {
	a := algorithms[s.alg]
	if key, ok := s.private.(ed25519.PrivateKey); ok {
		return ed25519.Sign(key, input)
	}
	h := a.hash.New()
	h.Write(input)
	digest := h.Sum(nil)
	switch key := s.private.(type) {
	case *rsa.PrivateKey:
		if s.alg[0] == 'P' {
			return must(rsa.SignPSS(rand.Reader, key, a.hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(rand.Reader, key, a.hash, digest))
	case *ecdsa.PrivateKey:
		size := (key.Curve.Params().BitSize + 7) / 8
		r, sig, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			panic(err)
		}
		return append(r.FillBytes(make([]byte, size)), sig.FillBytes(make([]byte, size))...)
	}
	panic("unknown key")
}

// payload returns a good payload with changes: a nil value removes a claim.
func payload(changes map[string]any) map[string]any {
	claims := map[string]any{
		"iss": "https://issuer.example.com",
		"sub": "project_path:orders/api",
		"aud": "vault",
		"iat": now.Unix() - 10,
		"nbf": now.Unix() - 10,
		"exp": now.Unix() + 300,
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

// forVault is the audience of tokens in tests.
var forVault = Expected{Audiences: []string{"vault"}}

// jwks renders a JWKS of the signers' public keys.
func jwks(signers ...signer) []byte {
	var set jose.JSONWebKeySet
	for _, s := range signers {
		set.Keys = append(set.Keys, s.jwk())
	}
	return must(json.Marshal(set))
}

func newJWT(t testing.TB, cfg JWTConfig) *JWT {
	t.Helper()
	j, err := NewJWT(cfg)
	require.NoError(t, err)
	t.Cleanup(j.Close)
	return j
}
