package people

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Lifetime is how long a login may take, from its beginning until it is fetched.
const Lifetime = 5 * time.Minute

// The callback modes of a role.
const (
	ModeClient = "client" // the browser comes back to the person's own program
	ModeDirect = "direct" // it comes back to Vault, where the program asks for the outcome
	ModeDevice = "device" // there is no way back: the program asks, and the issuer is asked
)

// A Login is what is known of a login between its beginning and its end. Nothing is
// kept of it here: it travels, sealed, as the state that the person's program and the
// issuer hold. So whoever begins logins by the million takes up no memory, and pushes
// out nobody.
type Login struct {
	Mode        string `json:"m"`
	Issuer      string `json:"i"` // the mount's name of it
	Client      string `json:"f"` // of its issuer, see [Provider.Client]
	Role        string `json:"r"`
	RedirectURI string `json:"u,omitempty"`
	ClientNonce string `json:"n,omitempty"` // digest
	Device      string `json:"d,omitempty"` // the device code
	Interval    int    `json:"p,omitempty"` // seconds between two polls
	Address     string `json:"a,omitempty"` // of who began it, for the person to recognize
	Began       int64  `json:"t"`           // Unix time in seconds

	ID ID `json:"-"`
}

// An ID tells a login from all others. It is random.
type ID [chacha20poly1305.NonceSizeX]byte

// Expires is when the login can be completed no more.
func (l *Login) Expires() time.Time { return time.Unix(l.Began, 0).Add(Lifetime) }

// SetClientNonce notes what only the program that began the login is to know.
func (l *Login) SetClientNonce(nonce string) {
	if nonce != "" {
		l.ClientNonce = fingerprint(nonce)
	}
}

// IsOf reports whether the nonce is that of the program that began the login. Where
// that gave none, anyone is.
func (l *Login) IsOf(nonce string) bool {
	return l.ClientNonce == "" || hmac.Equal([]byte(l.ClientNonce), []byte(fingerprint(nonce)))
}

func fingerprint(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// What begins a state. It only says who is likely to have sent one that cannot be
// opened: the browser, which is shown a page then.
const (
	statePrefix   = "st_"
	browserPrefix = "sd_"
)

// mostState is how long a state is that is looked at, in bytes.
const mostState = 8 << 10

// FromBrowser reports whether the state is one of direct mode, by its looks alone.
func FromBrowser(state string) bool { return strings.HasPrefix(state, browserPrefix) }

// A seal makes states of logins, and opens those that it has made. Its key lives as
// long as the mount is loaded, on the node that leads.
type seal struct {
	aead cipher.AEAD
	key  []byte
}

func newSeal() *seal {
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // which never fails
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // of a key of another size
	}
	return &seal{aead: aead, key: key}
}

// close gives the login its ID and returns it as a state.
func (s *seal) close(login *Login) (string, error) {
	_, _ = rand.Read(login.ID[:])
	text, err := json.Marshal(login)
	if err != nil {
		return "", err
	}
	prefix := statePrefix
	if login.Mode == ModeDirect {
		prefix = browserPrefix
	}
	sealed := s.aead.Seal(login.ID[:], login.ID[:], text, []byte(prefix))
	return prefix + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Why a state is not taken.
var (
	errUnknownState = errors.New("the state is not known here: it is not one of this mount, or Vault was restarted or another node came to lead since the login began")
	errExpiredState = errors.New("the login took longer than five minutes")
)

// open returns the login of a state. One that has expired is returned with an error.
func (s *seal) open(state string, now time.Time) (*Login, error) {
	if len(state) > mostState || len(state) < len(statePrefix) {
		return nil, errUnknownState
	}
	prefix, encoded := state[:len(statePrefix)], state[len(statePrefix):]
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(sealed) < s.aead.NonceSize() {
		return nil, errUnknownState
	}
	login := &Login{}
	copy(login.ID[:], sealed)
	text, err := s.aead.Open(nil, login.ID[:], sealed[len(login.ID):], []byte(prefix))
	if err != nil || json.Unmarshal(text, login) != nil {
		return nil, errUnknownState
	}
	if now.After(login.Expires()) {
		return login, errExpiredState
	}
	return login, nil
}

// derive returns a secret of the login's: the same each time, and of no use to
// whoever knows others.
func (s *seal) derive(what string, id ID) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(what))
	mac.Write([]byte{0})
	mac.Write(id[:])
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
