package callout

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/nacl/box"
)

// An XKey is a curve key (x25519) for which nats-servers seal their requests, and
// which seals the answers. However it is printed or marshaled, only its public half
// shows.
//
// It opens and seals as the curve keys of nkeys do, but keeps what it shares with a
// server: to make that anew for each request and for each answer would be nearly half
// of what the callout costs in the plugin.
type XKey struct {
	seed   [32]byte
	public string
	shared *lru.Cache[string, *[32]byte] // by the public key of a server
}

// mostServers is how many servers' keys are remembered. A server has another after each
// start.
const mostServers = 256

// NewXKey makes a new key.
func NewXKey() (*XKey, error) {
	pair, err := nkeys.CreateCurveKeys()
	if err != nil {
		return nil, fmt.Errorf("generating a curve key: %w", err)
	}
	return openXKey(pair)
}

// ParseXKey reads the seed of a key; the error holds nothing of it.
func ParseXKey(seed string) (*XKey, error) {
	pair, err := nkeys.FromCurveSeed([]byte(seed))
	if err != nil {
		return nil, errors.New("is not the seed of a curve key")
	}
	return openXKey(pair)
}

func openXKey(pair nkeys.KeyPair) (*XKey, error) {
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("encoding a curve key: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, fmt.Errorf("encoding a curve key: %w", err)
	}
	_, raw, err := nkeys.DecodeSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("decoding a curve key: %w", err)
	}
	shared, err := lru.New[string, *[32]byte](mostServers)
	if err != nil {
		return nil, err
	}
	return &XKey{seed: [32]byte(raw), public: public, shared: shared}, nil
}

// Public is the public half, in NATS's encoding.
func (k *XKey) Public() string { return k.public }

// Seed is the private half, in NATS's encoding, for storage.
func (k *XKey) Seed() (string, error) {
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteCurve, k.seed[:])
	return string(seed), err
}

// What is sealed is the version, a nonce, and a box of NaCl's.
const (
	nonceSize = 24
	headSize  = len(nkeys.XKeyVersionV1) + nonceSize
)

var (
	errXKey   = errors.New("is not a public curve key")
	errSealed = errors.New("cannot be opened")
)

// with is what the key shares with a server.
func (k *XKey) with(server string) (*[32]byte, error) {
	if shared, ok := k.shared.Get(server); ok {
		return shared, nil
	}
	raw, err := nkeys.Decode(nkeys.PrefixByteCurve, []byte(server))
	if err != nil || len(raw) != 32 {
		return nil, errXKey
	}
	var shared [32]byte
	box.Precompute(&shared, (*[32]byte)(raw), &k.seed)
	return &shared, nil
}

// open opens what a server has sealed for the key.
func (k *XKey) open(message []byte, server string) ([]byte, error) {
	if len(message) <= headSize || !bytes.HasPrefix(message, sealed) {
		return nil, errSealed
	}
	shared, err := k.with(server)
	if err != nil {
		return nil, err
	}
	nonce := [nonceSize]byte(message[len(sealed):headSize])
	opened, ok := box.OpenAfterPrecomputation(nil, message[headSize:], &nonce, shared)
	if !ok {
		return nil, errSealed
	}
	k.shared.Add(server, shared) // who has only a public key pushes nobody out
	return opened, nil
}

// seal seals for a server.
func (k *XKey) seal(message []byte, server string) ([]byte, error) {
	shared, err := k.with(server)
	if err != nil {
		return nil, err
	}
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // it never fails
	out := append(make([]byte, 0, headSize+box.Overhead+len(message)), sealed...)
	return box.SealAfterPrecomputation(append(out, nonce[:]...), message, &nonce, shared), nil
}

// Format prints the public half whatever the verb.
func (k *XKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.public)) }

// MarshalText is the public half, in JSON and every other encoding.
func (k *XKey) MarshalText() ([]byte, error) { return []byte(k.public), nil }
