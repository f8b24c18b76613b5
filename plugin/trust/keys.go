// Package trust holds the NATS chain of trust: the keys of operators, accounts
// and users, and the JWTs that they sign. It takes values and returns values;
// it knows neither storage nor network nor Vault.
package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"unicode"

	"github.com/nats-io/nkeys"
)

// Kind is what a NATS key belongs to. It is the prefix byte of its encoding.
type Kind nkeys.PrefixByte

// The kinds of keys that sign in a chain of trust, and the one that seals
// authorization requests.
const (
	Operator = Kind(nkeys.PrefixByteOperator)
	Account  = Kind(nkeys.PrefixByteAccount)
	User     = Kind(nkeys.PrefixByteUser)
	Curve    = Kind(nkeys.PrefixByteCurve)
)

// String is the kind's name with its article, as it reads in an error.
func (k Kind) String() string {
	switch nkeys.PrefixByte(k) {
	case nkeys.PrefixByteOperator, nkeys.PrefixByteAccount:
		return "an " + nkeys.PrefixByte(k).String()
	case nkeys.PrefixByteCurve:
		return "a curve (x25519)"
	default:
		return "a " + nkeys.PrefixByte(k).String()
	}
}

// A Key is a NATS key that can sign: an Ed25519 key with its seed already
// expanded, which nkeys does again at every signature. However it is printed
// or marshaled, only its public half shows; the seed comes out of Seed alone.
type Key struct {
	kind    Kind
	private ed25519.PrivateKey
	public  string
}

// Generate makes a new key.
func Generate(kind Kind) (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating %s key: %w", kind, err)
	}
	return newKey(kind, private)
}

// ParseSeed reads the seed of a key of the kind that is wanted, whatever white
// space is around it. The error says what was given instead, and never holds any
// of it.
func ParseSeed(kind Kind, seed string) (*Key, error) {
	seed = strings.TrimSpace(seed)
	prefix, raw, err := nkeys.DecodeSeed([]byte(seed))
	switch {
	case err != nil && nkeys.IsValidPublicKey(seed):
		return nil, fmt.Errorf("is %s public key where %s seed is wanted", Kind(nkeys.Prefix(seed)), kind)
	case err != nil && strings.HasPrefix(seed, "eyJ"):
		return nil, fmt.Errorf("is a JWT where %s seed is wanted", kind)
	case err != nil:
		return nil, fmt.Errorf("is not %s seed", kind)
	case Kind(prefix) != kind:
		return nil, fmt.Errorf("is %s seed where %s seed is wanted", Kind(prefix), kind)
	}
	canonical, err := nkeys.EncodeSeed(prefix, raw)
	if err != nil {
		return nil, fmt.Errorf("is not %s seed", kind)
	}
	if err := checkCanonical(seed, string(canonical), kind.String()+" seed"); err != nil {
		return nil, err
	}
	return newKey(kind, ed25519.NewKeyFromSeed(raw))
}

// checkCanonical refuses another way to write a key than the one: nkeys passes
// over line breaks and unused bits, while nats-servers compare keys as texts.
func checkCanonical(text, canonical, what string) error {
	switch {
	case text == canonical:
		return nil
	case strings.ContainsFunc(text, unicode.IsSpace):
		return fmt.Errorf("is not %s as NATS writes one: it has white space within it", what)
	default:
		return fmt.Errorf("is not %s as NATS writes one: its encoding is not the canonical one", what)
	}
}

func newKey(kind Kind, private ed25519.PrivateKey) (*Key, error) {
	public, err := nkeys.Encode(nkeys.PrefixByte(kind), private[ed25519.SeedSize:])
	if err != nil {
		return nil, fmt.Errorf("encoding %s key: %w", kind, err)
	}
	return &Key{kind: kind, private: private, public: string(public)}, nil
}

// ParsePublicKey reads a public key of the kind that is wanted, and returns it
// without the white space around it. The error says what was given instead; a
// seed is named as one, not repeated.
func ParsePublicKey(kind Kind, text string) (string, error) {
	public := strings.TrimSpace(text)
	return public, CheckPublicKey(kind, public)
}

// CheckPublicKey is ParsePublicKey for a text that has nothing around the key, as
// in a JWT.
func CheckPublicKey(kind Kind, public string) error {
	if prefix, _, err := nkeys.DecodeSeed([]byte(public)); err == nil {
		return fmt.Errorf("is the seed of %s key where %s public key is wanted; take it as disclosed", Kind(prefix), kind)
	}
	if !nkeys.IsValidPublicKey(public) {
		return fmt.Errorf("is not %s public key", kind)
	}
	got := nkeys.Prefix(public)
	if Kind(got) != kind {
		return fmt.Errorf("is %s public key where %s public key is wanted", Kind(got), kind)
	}
	raw, err := nkeys.Decode(got, []byte(public))
	if err != nil {
		return fmt.Errorf("is not %s public key", kind)
	}
	canonical, err := nkeys.Encode(got, raw)
	if err != nil {
		return fmt.Errorf("is not %s public key", kind)
	}
	return checkCanonical(public, string(canonical), kind.String()+" public key")
}

// Kind is what the key belongs to.
func (k *Key) Kind() Kind { return k.kind }

// Public is the public half, in NATS's encoding.
func (k *Key) Public() string { return k.public }

// Seed is the private half, in NATS's encoding. It is for storage, and for the
// one response that hands a new user its key.
func (k *Key) Seed() string {
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByte(k.kind), k.private.Seed())
	if err != nil {
		panic(err) // only for a kind or a length that newKey has refused
	}
	return string(seed)
}

// Sign returns the Ed25519 signature of data (RFC 8032).
func (k *Key) Sign(data []byte) []byte { return ed25519.Sign(k.private, data) }

// String is the public half.
func (k *Key) String() string { return k.public }

// GoString is the public half: %#v would else print the private bytes.
func (k *Key) GoString() string { return k.public }

// Format prints the public half whatever the verb: %x and %d would else reach
// the private bytes.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.public)) }

// MarshalText is the public half, in JSON and every other encoding.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.public), nil }
