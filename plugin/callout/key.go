package callout

import (
	"errors"
	"fmt"

	"github.com/nats-io/nkeys"
)

// An XKey is a curve key (x25519) for which nats-servers seal their requests, and
// which seals the answers. However it is printed or marshaled, only its public half
// shows.
type XKey struct {
	pair   nkeys.KeyPair
	public string
}

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
	return &XKey{pair: pair, public: public}, nil
}

// Public is the public half, in NATS's encoding.
func (k *XKey) Public() string { return k.public }

// Seed is the private half, in NATS's encoding, for storage.
func (k *XKey) Seed() (string, error) {
	seed, err := k.pair.Seed()
	return string(seed), err
}

// Format prints the public half whatever the verb.
func (k *XKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.public)) }

// MarshalText is the public half, in JSON and every other encoding.
func (k *XKey) MarshalText() ([]byte, error) { return []byte(k.public), nil }
