package claims

import (
	"crypto/x509"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func TestAKeyIsForVerifyingOnlyIfItSaysSo(t *testing.T) {
	s := newSigner("1")
	for ops, taken := range map[string]bool{
		`["verify"]`: true, `["sign","verify"]`: true,
		`[]`: false, `["sign"]`: false, `["encrypt","wrapKey"]`: false, `["Verify"]`: false,
		`"verify"`: false, `[1,"verify"]`: false, `{"verify":true}`: false, `null`: true,
	} {
		t.Run(ops, func(t *testing.T) {
			var jwk map[string]any
			require.NoError(t, json.Unmarshal(must(s.jwk().MarshalJSON()), &jwk))
			jwk["key_ops"] = json.RawMessage(ops)
			set, err := parseJWKS(must(json.Marshal(map[string]any{"keys": []any{jwk, newSigner("other").jwk()}})))
			require.NoError(t, err)
			require.Equal(t, taken, slices.Contains(kids(set), "1"))
		})
	}
}

func kids(set *keySet) []string {
	var all []string
	for kid := range set.byKID {
		all = append(all, kid)
	}
	return all
}

func TestASPIFFEBundleHasTheKeysOfTokensAndOthers(t *testing.T) {
	jwk := func(kid, use string) map[string]any {
		var members map[string]any
		require.NoError(t, json.Unmarshal(must(newSigner(kid).jwk().MarshalJSON()), &members))
		if members["use"] = use; use == "" {
			delete(members, "use")
		}
		return members
	}
	all := []any{jwk("jwt", "jwt-svid"), jwk("x509", "x509-svid"), jwk("case", "JWT-SVID"), jwk("sig", "sig"), jwk("none", "")}
	cases := map[string]struct {
		document map[string]any
		kids     []string // none: no key of it can be used
	}{
		"a bundle":                            {map[string]any{"spiffe_sequence": 12, "spiffe_refresh_hint": 300, "keys": all}, []string{"jwt"}},
		"a bundle that its keys show":         {map[string]any{"keys": all}, []string{"jwt"}},
		"a bundle of certificates and no use": {map[string]any{"keys": []any{jwk("x509", "x509-svid"), jwk("none", "")}}, nil},
		"a bundle of one unknown use":         {map[string]any{"spiffe_sequence": 1, "keys": []any{jwk("none", ""), jwk("wit", "wit-svid")}}, nil},
		"a bundle with an unreadable CA":      {map[string]any{"keys": []any{map[string]any{"use": "x509-svid", "kty": "EC"}, jwk("none", ""), jwk("jwt", "jwt-svid")}}, []string{"jwt"}},
		"a JWKS with a use that is unknown":   {map[string]any{"keys": []any{jwk("sig", "sig"), jwk("none", ""), jwk("wit", "wit-svid")}}, []string{"none", "sig"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			set, err := parseJWKS(must(json.Marshal(c.document)))
			if c.kids == nil {
				require.ErrorContains(t, err, "without a public key")
				return
			}
			require.NoError(t, err)
			require.ElementsMatch(t, c.kids, kids(set))
			again, err := parseJWKS(set.jwks)
			require.NoError(t, err)
			require.ElementsMatch(t, c.kids, kids(again), "as read from a snapshot")
		})
	}
}

// Whatever an issuer answers, what is kept of it are public keys, and they are
// the same keys when they are read from a snapshot.
func FuzzParseJWKS(f *testing.F) {
	f.Add(jwks(rs256(), es256(), eddsa()))
	f.Add([]byte(`{"spiffe_sequence":1,"keys":[{"use":"jwt-svid","kty":"OKP","crv":"Ed25519","kid":"a","x":"` + strings.Repeat("A", 43) + `"},{"use":"x509-svid"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"` + strings.Repeat("_", 342) + `","e":"AQAB","alg":"PS256","key_ops":["verify"]},{"kty":"oct","k":"AA"},null,1]}`))
	f.Add(must(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: eddsa().private, KeyID: "d"}, newSigner("x").jwk()}})))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parseJWKS(data)
		if err != nil {
			require.Nil(t, set)
			return
		}
		require.NotEmpty(t, set.all)
		require.LessOrEqual(t, len(set.all), maxKeys)
		for _, k := range set.all {
			require.NoError(t, checkKey(k.public))
		}
		again, err := parseJWKS(set.jwks)
		require.NoError(t, err)
		require.Equal(t, string(set.jwks), string(again.jwks))
		require.Equal(t, set.all, again.all)
		var kept struct{ Keys []map[string]any }
		require.NoError(t, json.Unmarshal(set.jwks, &kept))
		for _, k := range kept.Keys {
			require.NotContains(t, k, "d")
			require.NotContains(t, k, "k")
		}
	})
}

// Whatever is configured as a key, what is taken of it verifies with one of the
// algorithms.
func FuzzParsePEMKeys(f *testing.F) {
	for _, s := range allSigner() {
		f.Add(s.pem())
	}
	f.Add(signer{private: p224Key()}.pem())
	f.Add(rs256().pem() + eddsa().pem())
	f.Add(certificatePEM(selfSigned(f)))
	all := must(allowedAlgorithms(nil))
	f.Fuzz(func(t *testing.T, text string) {
		set, err := parsePEMKeys([]string{eddsa().pem(), text})
		if err != nil {
			require.Regexp(t, "^key 2 (is|has) ", err.Error())
			return
		}
		require.Len(t, set.all, 2)
		_, count := set.unusable(all)
		require.Zero(t, count)
	})
}

// The certificates that are compared are those that are trusted.
func FuzzFingerprints(f *testing.F) {
	ca, other := certificatePEM(selfSigned(f)), certificatePEM(selfSigned(f))
	f.Add(ca+other, other)
	f.Add("x\n"+strings.ReplaceAll(ca, "\n", "\r\n"), ca)
	f.Add(strings.Replace(ca, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1), rs256().pem())
	f.Add("", ca[:len(ca)/2])
	f.Fuzz(func(t *testing.T, a, b string) {
		pool := func(text string) (*x509.CertPool, bool) {
			p := x509.NewCertPool()
			return p, p.AppendCertsFromPEM([]byte(text))
		}
		poolA, some := pool(a)
		require.Equal(t, some, len(fingerprints(a)) > 0)
		poolB, _ := pool(b)
		require.Equal(t, poolA.Equal(poolB), slices.Equal(fingerprints(a), fingerprints(b)))
		both, _ := pool(a + "\n" + b)
		require.Equal(t, within(fingerprints(b), fingerprints(a)), len(fingerprints(b)) == 0 && !some || len(fingerprints(b)) > 0 && both.Equal(poolA))
	})
}
