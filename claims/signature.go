package claims

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // SHA-256 for crypto.Hash.New
	_ "crypto/sha512" // SHA-384 and SHA-512
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// An algorithm is a signature algorithm of RFC 7518 section 3.1 or RFC 8037.
type algorithm struct {
	name string
	hash crypto.Hash // what is signed; 0: the message itself
	// check reports whether signature is right for the digest, or for the
	// message where hash is 0. It is false too for a key of the wrong type.
	check func(a *algorithm, key crypto.PublicKey, digest, signature []byte) bool
	curve elliptic.Curve // of an ECDSA algorithm
}

// algorithms are all that are ever accepted: asymmetric ones only. With an HMAC
// among them, the issuer's public key could be used as a secret.
var algorithms = map[string]*algorithm{}

func init() {
	for _, a := range []*algorithm{
		{name: "RS256", hash: crypto.SHA256, check: checkPKCS1v15},
		{name: "RS384", hash: crypto.SHA384, check: checkPKCS1v15},
		{name: "RS512", hash: crypto.SHA512, check: checkPKCS1v15},
		{name: "PS256", hash: crypto.SHA256, check: checkPSS},
		{name: "PS384", hash: crypto.SHA384, check: checkPSS},
		{name: "PS512", hash: crypto.SHA512, check: checkPSS},
		{name: "ES256", hash: crypto.SHA256, check: checkECDSA, curve: elliptic.P256()},
		{name: "ES384", hash: crypto.SHA384, check: checkECDSA, curve: elliptic.P384()},
		{name: "ES512", hash: crypto.SHA512, check: checkECDSA, curve: elliptic.P521()},
		{name: "EdDSA", check: checkEd25519},
	} {
		algorithms[a.name] = a
	}
}

// allowedAlgorithms looks the names up; none stands for all, as in the JWT
// method.
func allowedAlgorithms(names []string) ([]*algorithm, error) {
	var allowed []*algorithm
	for _, name := range names {
		a := algorithms[name]
		if a == nil {
			return nil, fmt.Errorf("%q is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA", name)
		}
		allowed = append(allowed, a)
	}
	if allowed == nil {
		for _, a := range algorithms {
			allowed = append(allowed, a)
		}
	}
	return allowed, nil
}

// takes reports whether the algorithm is one for keys such as this.
func (a *algorithm) takes(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return a.hash != 0 && a.curve == nil
	case *ecdsa.PublicKey:
		return a.curve != nil && a.curve == k.Curve
	case ed25519.PublicKey:
		return a.hash == 0
	}
	return false
}

// verify reports whether key made the signature over message.
func (a *algorithm) verify(key crypto.PublicKey, message, signature []byte) bool {
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(message)
		message = h.Sum(nil)
	}
	return a.check(a, key, message, signature)
}

func checkPKCS1v15(a *algorithm, key crypto.PublicKey, digest, signature []byte) bool {
	k, ok := key.(*rsa.PublicKey)
	return ok && rsa.VerifyPKCS1v15(k, a.hash, digest, signature) == nil
}

func checkPSS(a *algorithm, key crypto.PublicKey, digest, signature []byte) bool {
	k, ok := key.(*rsa.PublicKey)
	// RFC 7518 section 3.5: the salt is as long as the hash. The JWT method takes
	// one of any length.
	return ok && rsa.VerifyPSS(k, a.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

func checkECDSA(a *algorithm, key crypto.PublicKey, digest, signature []byte) bool {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok || k.Curve != a.curve {
		return false
	}
	// RFC 7518 section 3.4: R and S, each as long as the curve's field.
	size := (a.curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r := new(big.Int).SetBytes(signature[:size])
	s := new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(k, digest, r, s)
}

func checkEd25519(_ *algorithm, key crypto.PublicKey, message, signature []byte) bool {
	k, ok := key.(ed25519.PublicKey)
	return ok && ed25519.Verify(k, message, signature)
}

const (
	// RFC 7518 section 3.3: an RSA key must have 2048 bits or more.
	minRSABits = 2048
	// Verification time grows with the square of the size; a larger key is a
	// fault, or an attack on us.
	maxRSABits = 16384
)

// checkKey says why a public key cannot be used with any of the algorithms.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("is an RSA key of %d bits, not of %d to %d", bits, minRSABits, maxRSABits)
		}
		if k.E < 3 || k.E%2 == 0 {
			return fmt.Errorf("is an RSA key with the exponent %d", k.E)
		}
		return nil
	case *ecdsa.PublicKey:
		if !slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, k.Curve) {
			return fmt.Errorf("is an ECDSA key on the curve %s, not on P-256, P-384 or P-521", k.Curve.Params().Name)
		}
		return nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return errors.New("is an Ed25519 key of a wrong size")
		}
		return nil
	}
	return fmt.Errorf("is a %T, not an RSA, ECDSA or Ed25519 public key", key)
}
