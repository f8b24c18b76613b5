package stack

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A SigningKey is a private key that tokens are signed with.
type SigningKey struct {
	ID        string
	Alg       jose.SignatureAlgorithm
	PublicPEM string // as jwt_validation_pubkeys and pem_keys take it

	private crypto.Signer
}

// NewSigningKey makes a key that no issuer publishes.
func NewSigningKey(alg jose.SignatureAlgorithm) (*SigningKey, error) {
	private, err := generateKey(alg)
	if err != nil {
		return nil, fmt.Errorf("make a key for %s: %w", alg, err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	return &SigningKey{ID: rand.Text(), Alg: alg, PublicPEM: string(encodePEM("PUBLIC KEY", der)), private: private}, nil
}

func generateKey(alg jose.SignatureAlgorithm) (crypto.Signer, error) {
	switch alg {
	case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512:
		return rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jose.ES512:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case jose.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("not an asymmetric algorithm")
}

// Public returns the public key as a JWKS holds it.
func (k *SigningKey) Public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.private.Public(), KeyID: k.ID, Algorithm: string(k.Alg), Use: "sig"}
}

// Sign signs a payload as it is. The header's members are added to alg, typ and kid,
// or replace kid and typ.
func (k *SigningKey) Sign(header map[string]any, payload []byte) (string, error) {
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", k.ID)
	for name, value := range header {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.Alg, Key: k.private}, options)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// AddKey makes a key and publishes it; Mint uses the newest one of an algorithm.
func (i *Issuer) AddKey(alg jose.SignatureAlgorithm) (*SigningKey, error) {
	key, err := NewSigningKey(alg)
	if err != nil {
		return nil, err
	}
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.keys = append(i.keys, key)
	return key, nil
}

// Rotate publishes a new key for the algorithm in place of all its older ones.
func (i *Issuer) Rotate(alg jose.SignatureAlgorithm) (*SigningKey, error) {
	key, err := NewSigningKey(alg)
	if err != nil {
		return nil, err
	}
	i.mutex.Lock()
	defer i.mutex.Unlock()
	var kept []*SigningKey
	for _, old := range i.keys {
		if old.Alg != alg {
			kept = append(kept, old)
		}
	}
	i.keys = append(kept, key)
	return key, nil
}

// Key returns the newest published key of an algorithm.
func (i *Issuer) Key(alg jose.SignatureAlgorithm) (*SigningKey, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	for n := len(i.keys) - 1; n >= 0; n-- {
		if i.keys[n].Alg == alg {
			return i.keys[n], nil
		}
	}
	return nil, fmt.Errorf("the issuer has no key for %s", alg)
}

// PublicKeys returns the PEM of each published key, as jwt_validation_pubkeys takes them.
func (i *Issuer) PublicKeys() []string {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	var keys []string
	for _, key := range i.keys {
		keys = append(keys, key.PublicPEM)
	}
	return keys
}

// Mint signs a token. The claims iss, iat, nbf and exp, of one hour, are there unless
// given; a given nil leaves one out.
func (i *Issuer) Mint(alg jose.SignatureAlgorithm, claims map[string]any) (string, error) {
	key, err := i.Key(alg)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(i.Claims(claims))
	if err != nil {
		return "", err
	}
	return key.Sign(nil, payload)
}

// Claims adds to the given claims those that Mint adds.
func (i *Issuer) Claims(claims map[string]any) map[string]any {
	now := time.Now()
	all := map[string]any{
		"iss": i.URL, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

// publicKeys returns what the issuer publishes. The caller holds the mutex.
func (i *Issuer) publicKeys() jose.JSONWebKeySet {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range i.keys {
		set.Keys = append(set.Keys, key.Public())
	}
	return set
}

func algorithms(keys jose.JSONWebKeySet) []string {
	algs := []string{}
	for _, key := range keys.Keys {
		algs = append(algs, key.Algorithm)
	}
	return algs
}
