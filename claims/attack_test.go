package claims

import (
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// header returns the usual header of a signer with changes.
func (s signer) header(changes map[string]any) map[string]any {
	header := map[string]any{"alg": s.alg, "kid": s.kid, "typ": "JWT"}
	maps.Copy(header, changes)
	return header
}

// An attacker has a key of their own, the issuer's public keys, and tokens that
// the issuer signed for others. None of it gets them in.
func TestVerifyRefusesForgedTokens(t *testing.T) {
	good := es256()
	mallory := newSigner("mallory")
	malloryJWK := mallory.jwk()
	parts := strings.Split(good.mint(payload(nil)), ".")
	unsigned := func(header any) string { return encode(header) + "." + encode(payload(nil)) + "." }
	withHMAC := func(secret []byte) string {
		input := encode(map[string]any{"alg": "HS256", "kid": good.kid}) + "." + encode(payload(nil))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	claims := string(must(base64.RawURLEncoding.DecodeString(parts[1])))

	cases := map[string]struct{ token, fault string }{
		"no token":                 {"", "token is empty"},
		"white space":              {" \n", "token is empty"},
		"garbage":                  {"garbage", "token has 1 parts, not 3"},
		"two parts":                {parts[0] + "." + parts[1], "token has 2 parts, not 3"},
		"an encrypted token":       {"a.b.c.d.e", "token is encrypted (JWE), not signed"},
		"JSON serialization":       {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "token is not in compact serialization but in JSON serialization"},
		"a line break in a part":   {parts[0] + "." + parts[1][:8] + "\n" + parts[1][8:] + "." + parts[2], "token has a line break in it"},
		"padding":                  {parts[0] + "." + parts[1] + "." + parts[2] + "==", "token signature is not base64url"},
		"standard base64":          {parts[0] + "." + parts[1] + "." + strings.Repeat("+", len(parts[2])), "token signature is not base64url"},
		"a second spelling":        {parts[0] + "." + parts[1] + "." + respell(parts[2]), "token signature is not base64url"},
		"a header that is no JSON": {base64.RawURLEncoding.EncodeToString([]byte("{")) + "." + parts[1] + "." + parts[2], "token header has no member name at byte 1"},

		"alg none":                      {unsigned(map[string]any{"alg": "none"}), `token header alg is "none", which is not one of the asymmetric algorithms`},
		"alg None":                      {unsigned(map[string]any{"alg": "None"}), `token header alg is "None", which is not one of the asymmetric algorithms`},
		"no alg":                        {unsigned(map[string]any{"kid": good.kid}), "token header alg is missing or not a string"},
		"alg that is a list":            {unsigned(map[string]any{"alg": []string{"ES256"}}), "token header alg is missing or not a string"},
		"alg in lower case":             {unsigned(map[string]any{"alg": "es256"}), `token header alg is "es256", which is not one of the asymmetric algorithms`},
		"no signature":                  {parts[0] + "." + parts[1] + ".", "token has no signature"},
		"a signature of zeros":          {parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])), "token signature is not by a key of the issuer"},
		"HMAC with the PEM public key":  {withHMAC([]byte(good.pem())), `token header alg is "HS256", which is not one of the asymmetric algorithms`},
		"HMAC with the JWK":             {withHMAC(must(good.jwk().MarshalJSON())), `token header alg is "HS256", which is not one of the asymmetric algorithms`},
		"an ECDSA signature in ASN.1":   {parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(asn1Signature(parts[0]+"."+parts[1])), "token signature is not by a key of the issuer"},
		"another key under a known kid": {mallory.token(mallory.header(map[string]any{"kid": good.kid}), payload(nil)), "token signature is not by a key of the issuer"},
		"another key without kid":       {mallory.token(map[string]any{"alg": "EdDSA"}, payload(nil)), "token signature is not by a key of the issuer"},
		"a key in the header":           {mallory.token(mallory.header(map[string]any{"jwk": malloryJWK}), payload(nil)), "token signature is not by a key of the issuer"},
		"a URL of keys in the header":   {mallory.token(mallory.header(map[string]any{"jku": "https://mallory.example.com/jwks"}), payload(nil)), "token signature is not by a key of the issuer"},
		"a certificate in the header":   {mallory.token(mallory.header(map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(selfSigned(t).Raw)}}), payload(nil)), "token signature is not by a key of the issuer"},
		"a URL of certificates":         {mallory.token(mallory.header(map[string]any{"x5u": "https://mallory.example.com/cert"}), payload(nil)), "token signature is not by a key of the issuer"},
		"a kid that is a path":          {mallory.token(mallory.header(map[string]any{"kid": "../../../../dev/null"}), payload(nil)), "token signature is not by a key of the issuer"},
		"a kid that is SQL":             {mallory.token(mallory.header(map[string]any{"kid": "x' UNION SELECT 'key"}), payload(nil)), "token signature is not by a key of the issuer"},
		"a kid that is a number":        {good.token(good.header(map[string]any{"kid": 1}), payload(nil)), "token header kid is not a string"},
		"an algorithm of another key":   {signer{rsaKey(), "RS256", good.kid}.mint(payload(nil)), "token signature is not by a key of the issuer"},
		"a key on another curve":        {signer{p384Key(), "ES384", good.kid}.mint(payload(nil)), "token signature is not by a key of the issuer"},
		"another payload":               {parts[0] + "." + encode(payload(map[string]any{"sub": "admin"})) + "." + parts[2], "token signature is not by a key of the issuer"},
		"another header":                {encode(good.header(map[string]any{"typ": "x"})) + "." + parts[1] + "." + parts[2], "token signature is not by a key of the issuer"},

		"crit":                         {good.token(good.header(map[string]any{"crit": []string{"exp"}, "exp": 1}), payload(nil)), "token header crit names extensions that are not supported"},
		"an empty crit":                {good.token(good.header(map[string]any{"crit": []string{}}), payload(nil)), "token header crit names extensions that are not supported"},
		"b64 false":                    {good.token(good.header(map[string]any{"b64": false}), payload(nil)), "token header b64 is not supported"},
		"b64 false with crit":          {good.token(good.header(map[string]any{"b64": false, "crit": []string{"b64"}}), payload(nil)), "token header crit names extensions that are not supported"},
		"a nested token":               {good.token(good.header(map[string]any{"cty": "JWT"}), good.mint(payload(nil))), "token is nested in another token, which is not supported"},
		"a nested token as media type": {good.token(good.header(map[string]any{"cty": "application/jwt"}), good.mint(payload(nil))), "token is nested in another token, which is not supported"},
		"a nested token unannounced":   {good.mint(good.mint(payload(nil))), "token payload is not a JSON object"},
		"alg twice":                    {good.token(`{"alg":"none","alg":"ES256","kid":"p256"}`, payload(nil)), "token header has a member name twice in one object at byte 27"},
		"sub twice":                    {good.mint(strings.Replace(claims, `"sub":`, `"sub":"admin","sub":`, 1)), "token payload has a member name twice in one object"},
		"sub twice, once escaped":      {good.mint(strings.Replace(claims, `"sub":`, `"\u0073ub":"admin","sub":`, 1)), "token payload has a member name twice in one object"},
		"sub in another case":          {good.mint(payload(map[string]any{"SUB": "admin"})), `claim "SUB" can be taken for the registered claim sub`},
		"sub with a long s":            {good.mint(payload(map[string]any{"ſub": "admin"})), `claim "ſub" can be taken for the registered claim sub`},
		"invalid UTF-8":                {good.mint("{\"sub\":\"\xff\"}"), "token payload is not valid UTF-8"},
		"a payload that is a list":     {good.mint(`[]`), "token payload is not a JSON object"},
		"an oversized token":           {good.mint(payload(map[string]any{"x": strings.Repeat("x", maxTokenSize)})), "token is longer than 131072 bytes"},
		"deeply nested claims":         {good.mint(`{"x":` + nest(100) + `}`), "token payload is nested more than 32 levels deep"},
	}
	sources := map[string]JWTConfig{
		"static keys": {ValidationPubKeys: []string{good.pem()}},
		"a JWKS":      newIssuer(t, good).jwks(),
	}
	for source, cfg := range sources {
		j := newJWT(t, cfg)
		require.NoError(t, j.Check(context.Background()))
		if j.remote != nil {
			j.remote.list[0].interval = 0
		}
		for name, c := range cases {
			t.Run(name+" with "+source, func(t *testing.T) {
				_, err := j.Verify(context.Background(), c.token, now, forVault)
				require.ErrorContains(t, err, c.fault)
				require.NotErrorIs(t, err, ErrUnavailable)
			})
		}
		_, err := j.Verify(context.Background(), good.mint(payload(nil))+"\n", now, forVault)
		require.NoError(t, err, "a good token is still good")
	}
}

// respell changes bits of the last character that no byte is made of.
func respell(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, text[len(text)-1])
	return text[:len(text)-1] + string(alphabet[last|1])
}

// asn1Signature signs as X.509 has it, not as JWS does.
func asn1Signature(input string) []byte {
	digest := sha256.Sum256([]byte(input))
	return must(ecdsa.SignASN1(rand.Reader, p256Key(), digest[:]))
}

func TestVerifyHoldsToTheSupportedAlgorithms(t *testing.T) {
	j := newJWT(t, JWTConfig{ValidationPubKeys: []string{rs256().pem()}, SupportedAlgs: []string{"PS256", "RS512"}})
	for alg, fault := range map[string]string{
		"PS256": "", "RS512": "",
		"RS256": "token header alg is RS256, which the issuer is not configured to accept",
		"PS512": "token header alg is PS512, which the issuer is not configured to accept",
	} {
		t.Run(alg, func(t *testing.T) {
			_, err := j.Verify(context.Background(), signer{rsaKey(), alg, ""}.mint(payload(nil)), now, forVault)
			if fault == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, fault)
		})
	}
}

// Who cannot sign must not find out by trying what a role demands.
func TestVerifyDoesNotTellTheUnsignedWhatTheRoleDemands(t *testing.T) {
	server := newIssuer(t, rs256())
	for source, cfg := range map[string]JWTConfig{"static keys": {ValidationPubKeys: []string{rs256().pem()}}, "a JWKS": server.jwks()} {
		t.Run(source, func(t *testing.T) {
			cfg.BoundIssuers = []string{"https://issuer.example.com"}
			j := newJWT(t, cfg)
			require.NoError(t, j.Check(context.Background()))
			if j.remote != nil {
				impatient(j)
			}
			for _, change := range []map[string]any{{"aud": "other"}, {"iss": "other"}, {"exp": 1}, {"SUB": "x"}} {
				_, err := j.Verify(context.Background(), newSigner("x").mint(payload(change)), now, forVault)
				require.Equal(t, errSignature, err)
			}
		})
	}
}

// Signatures are checked here as go-jose checks them, but for the length of an
// RSA-PSS salt, which go-jose does not look at.
func FuzzVerifySignature(f *testing.F) {
	signers := allSigner()
	var names []jose.SignatureAlgorithm
	for i, s := range signers {
		f.Add(uint8(i), uint8(i), []byte("payload"), s.sign([]byte("payload")))
		names = append(names, jose.SignatureAlgorithm(s.alg))
	}
	f.Fuzz(func(t *testing.T, keyIndex, algIndex uint8, content, signature []byte) {
		public := signers[int(keyIndex)%len(signers)].private.Public()
		a := algorithms[signers[int(algIndex)%len(signers)].alg]
		input := encode(map[string]any{"alg": a.name}) + "." + base64.RawURLEncoding.EncodeToString(content)
		if int(keyIndex)%len(signers) == int(algIndex)%len(signers) && len(signature)%2 == 0 {
			signature = signers[int(keyIndex)%len(signers)].sign([]byte(input)) // or else none would be good
		}
		jws, err := jose.ParseSignedCompact(input+"."+base64.RawURLEncoding.EncodeToString(signature), names)
		if err != nil {
			return
		}
		_, err = jws.Verify(public)
		verified := a.verify(public, []byte(input), signature)
		if err == nil && !verified && strings.HasPrefix(a.name, "PS") {
			return
		}
		require.Equal(t, err == nil, verified, fmt.Sprint(err))
	})
}
