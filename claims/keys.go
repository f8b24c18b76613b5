package claims

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	josejson "github.com/go-jose/go-jose/v4/json"
)

// maxKeys bounds the keys of one JWKS: a token without kid is tried with each.
const maxKeys = 256

// A key is a public key that verifies tokens.
type key struct {
	public crypto.PublicKey
	alg    string // the only algorithm it is for; empty: any that fits its type
}

func (k *key) verify(t *token) bool {
	return (k.alg == "" || k.alg == t.alg.name) && t.alg.verify(k.public, t.signed, t.signature)
}

// A keySet is the parsed keys of one source. It does not change once made.
type keySet struct {
	all   []*key
	byKID map[string][]*key // nil: the keys have no ids, and any may have signed
	jwks  []byte            // the usable keys as a JWKS; nil for configured keys
}

// candidates returns the keys that may have signed t. An id may stand for
// several keys: nothing forbids an issuer to give two keys one id.
func (s *keySet) candidates(t *token) []*key {
	if s == nil {
		return nil
	}
	if s.byKID == nil || t.kid == "" {
		return s.all
	}
	return s.byKID[t.kid]
}

// verify reports whether a key of the set made the token's signature, and if
// none did, whether there was one to try.
func (s *keySet) verify(t *token) (verified, tried bool) {
	candidates := s.candidates(t)
	for _, k := range candidates {
		if k.verify(t) {
			return true, true
		}
	}
	return false, len(candidates) > 0
}

// unusable returns the place, counted from 1, of the first key that verifies
// nothing with the algorithms, and how many of such keys there are.
func (s *keySet) unusable(with []*algorithm) (first, count int) {
	for i, k := range s.all {
		if slices.ContainsFunc(with, func(a *algorithm) bool { return a.takes(k.public) }) {
			continue
		}
		if count++; count == 1 {
			first = i + 1
		}
	}
	return first, count
}

// parsePEMKeys parses configured public keys, each a PKIX public key or an X.509
// certificate. Its errors name the key by its place, counted from 1.
func parsePEMKeys(texts []string) (*keySet, error) {
	set := &keySet{}
	for i, text := range texts {
		public, err := parsePEMKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("key %d %w", i+1, err)
		}
		set.all = append(set.all, &key{public: public})
	}
	return set, nil
}

func parsePEMKey(text []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is not in PEM format")
	}
	if next, _ := pem.Decode(rest); next != nil {
		// Taking all of them could make an issuer of the CA in a chain.
		return nil, errors.New("has more than one PEM block: give each key as an element of the list")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("is neither a PKIX public key nor an X.509 certificate")
		}
		public = certificate.PublicKey
	}
	return public, checkKey(public)
}

// parseJWKS parses a JSON Web Key Set (RFC 7517 section 5), which may be a SPIFFE
// bundle. Keys that no token can be verified with, among them those of unknown
// types and for encryption, are left out; a set with no key left is an error.
func parseJWKS(data []byte) (*keySet, error) {
	var document struct {
		Keys        []json.RawMessage `json:"keys"`
		Sequence    json.RawMessage   `json:"spiffe_sequence"`
		RefreshHint json.RawMessage   `json:"spiffe_refresh_hint"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, errors.New("is not a JSON Web Key Set")
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("is a JSON Web Key Set of %d keys, more than %d", len(document.Keys), maxKeys)
	}
	var keys []publicJWK
	bundle := document.Sequence != nil || document.RefreshHint != nil
	for _, raw := range document.Keys {
		var k publicJWK
		if k.parse(raw) {
			keys = append(keys, k)
		}
		bundle = bundle || k.Use == useJWTSVID || k.Use == useX509SVID
	}

	set := &keySet{byKID: make(map[string][]*key)}
	var kept jose.JSONWebKeySet
	for _, k := range keys {
		if !k.verifies(bundle) {
			continue
		}
		parsed := &key{public: k.Key, alg: k.Algorithm}
		set.all = append(set.all, parsed)
		set.byKID[k.KeyID] = append(set.byKID[k.KeyID], parsed)
		kept.Keys = append(kept.Keys, jose.JSONWebKey{Key: k.Key, KeyID: k.KeyID, Algorithm: k.Algorithm, Use: k.Use})
	}
	if len(set.all) == 0 {
		return nil, errors.New("is a JSON Web Key Set without a public key that tokens can be verified with")
	}
	var err error
	set.jwks, err = json.Marshal(kept)
	return set, err
}

// What the keys of a SPIFFE bundle are for: JWTs, or certificates.
const (
	useJWTSVID  = "jwt-svid"
	useX509SVID = "x509-svid"
)

// A publicJWK is a JSON Web Key.
type publicJWK struct {
	jose.JSONWebKey
	operations []string // key_ops; nil: it has none
}

// parse reports whether the key could be read. Use is set even if not, as long
// as it can be: the certificates of a bundle are of no interest themselves.
func (k *publicJWK) parse(raw json.RawMessage) bool {
	// Not encoding/json, which would take KEY_OPS for key_ops.
	var members struct {
		Use        string   `json:"use"`
		Operations []string `json:"key_ops"`
	}
	err := josejson.Unmarshal(raw, &members)
	if err == nil {
		err = k.UnmarshalJSON(raw)
	}
	k.Use, k.operations = members.Use, members.Operations
	return err == nil
}

// verifies reports whether tokens can be verified with the key. One of a SPIFFE
// bundle says what it is for, and is ignored if it does not (SPIFFE Trust Domain
// and Bundle section 4.2.2).
func (k *publicJWK) verifies(bundle bool) bool {
	switch {
	case bundle && k.Use != useJWTSVID:
		return false
	case !bundle && k.Use != "" && k.Use != "sig":
		return false
	case k.operations != nil && !slices.Contains(k.operations, "verify"): // RFC 7517 section 4.3
		return false
	case checkKey(k.Key) != nil:
		return false
	}
	a := algorithms[k.Algorithm]
	return k.Algorithm == "" || a != nil && a.takes(k.Key)
}
