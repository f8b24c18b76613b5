package claims

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/stretchr/testify/require"
)

// The test vectors of Project Wycheproof, as far as they concern the algorithms
// of this package: https://github.com/c2sp/wycheproof.

// A vectorGroup is a group of test vectors with one key. Which members it has
// depends on the file.
type vectorGroup struct {
	Comment string
	Public  json.RawMessage // a JWK or a JWKS; none: the key is symmetric
	DER     hexBytes        `json:"publicKeyDer"`
	Key     struct {
		Curve string
	} `json:"publicKey"`
	Hash       string `json:"sha"`
	MaskHash   string `json:"mgfSha"`
	SaltLength int    `json:"sLen"`
	Tests      []struct {
		ID        int `json:"tcId"`
		Comment   string
		Result    string // valid, invalid or acceptable
		Flags     []string
		JWS       any      // a string, or an object in JSON serialization
		Message   hexBytes `json:"msg"`
		Signature hexBytes `json:"sig"`
	}
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func vectors(t *testing.T, file string) []vectorGroup {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, file)
	require.NoError(t, err)
	var document struct {
		Groups []vectorGroup `json:"testGroups"`
	}
	require.NoError(t, json.Unmarshal(data, &document))
	require.NotEmpty(t, document.Groups)
	return document.Groups
}

func TestJWSVectorsOfWycheproof(t *testing.T) {
	// Where this package departs from the vectors, and why.
	const (
		noAlgorithm = "the key's alg is ES521: that of P-521 is ES512"
		otherAlg    = "the key's alg is PS256, the token's PS384"
		weakKey     = "how an issuer makes its keys is not looked at"
	)
	files := map[string]map[int]string{
		"json_web_signature_test.json": {346: otherAlg, 347: noAlgorithm, 350: otherAlg, 351: noAlgorithm},
		"json_web_key_test.json":       {7: weakKey},
	}
	checked := 0
	for file, departures := range files {
		for _, group := range vectors(t, file) {
			set := vectorKeys(group.Public)
			for _, c := range group.Tests {
				t.Run(fmt.Sprintf("%s %d %s %s", file, c.ID, group.Comment, c.Comment), func(t *testing.T) {
					verified := false
					if text, ok := c.JWS.(string); ok {
						if parsed, err := parseToken(text, nil); err == nil {
							verified, _ = set.verify(parsed)
						}
					}
					checked++
					want := c.Result == "valid" && group.Public != nil // or else it is an HMAC
					if why := departures[c.ID]; why != "" {
						require.NotEqual(t, want, verified, why)
						return
					}
					require.Equal(t, want, verified)
				})
			}
		}
	}
	require.Greater(t, checked, 400)
}

// vectorKeys parses the keys of a group as those of an issuer. It returns nil,
// which verifies nothing, if none can be used.
func vectorKeys(public json.RawMessage) *keySet {
	if !strings.Contains(string(public), `"keys"`) {
		public = must(json.Marshal(map[string]any{"keys": []json.RawMessage{public}}))
	}
	set, err := parseJWKS(public)
	if err != nil {
		return nil
	}
	return set
}

func TestSignatureVectorsOfWycheproof(t *testing.T) {
	// What of an algorithm's name follows from a group's hash.
	bits := map[string]string{"SHA-256": "256", "SHA-384": "384", "SHA-512": "512"}
	files, err := fs.Glob(wycheproof.TestVectors, "*_test.json")
	require.NoError(t, err)
	checked := map[string]int{}
	for _, file := range files {
		var name func(vectorGroup) string
		switch {
		case file == "ed25519_test.json":
			name = func(vectorGroup) string { return "EdDSA" }
		case strings.HasPrefix(file, "ecdsa_secp") && strings.HasSuffix(file, "_p1363_test.json"):
			name = func(g vectorGroup) string { return "ES" + bits[g.Hash] }
		case strings.HasPrefix(file, "rsa_signature_"):
			name = func(g vectorGroup) string { return "RS" + bits[g.Hash] }
		case strings.HasPrefix(file, "rsa_pss_") && !strings.HasSuffix(file, "_params_test.json"):
			name = func(g vectorGroup) string { return "PS" + bits[g.Hash] }
		default:
			continue
		}
		t.Run(file, func(t *testing.T) {
			for _, group := range vectors(t, file) {
				a := algorithms[name(group)]
				if a == nil {
					continue // of a hash that no algorithm uses
				}
				public, err := x509.ParsePKIXPublicKey(group.DER)
				if err != nil || checkKey(public) != nil {
					continue // a key that is not taken either
				}
				for _, c := range group.Tests {
					fits := group.fits(a)
					if !fits && c.Result != "valid" {
						continue // what is wrong there may be right here
					}
					want := fits && c.Result == "valid" // nothing that is merely acceptable
					require.Equal(t, want, a.verify(public, c.Message, c.Signature), "%s, %d: %s", a.name, c.ID, c.Comment)
					checked[a.name]++
				}
			}
		})
	}
	t.Log(checked)
	for name := range algorithms {
		require.Greater(t, checked[name], 50, name)
	}
}

// fits reports whether the algorithm of RFC 7518 is the one that the group's
// signatures are made with.
func (g *vectorGroup) fits(a *algorithm) bool {
	hashes := map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}
	switch a.name[:2] {
	case "ES":
		curves := map[string]string{"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
		return curves[g.Key.Curve] == a.name
	case "PS":
		return hashes[g.MaskHash] == a.hash && g.SaltLength == a.hash.Size()
	}
	return true
}
