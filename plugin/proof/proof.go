// Package proof is how the holder of a NATS user key proves that it has it: with a
// signature over a text that says what for. It takes values and returns values.
//
// A user key signs whatever a NATS server sends as its nonce. So the text says what
// it is in its first line, which whoever signs nonces refuses (see Reserved), and it
// is good for one use, at one place, for one caller, for some minutes.
package proof

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// What a key is proven for.
const (
	Login = "login"
	Creds = "creds"
)

// MostOff is how far the time of a proof may be from the clock, either way.
const MostOff = 5 * time.Minute

// reserved begins every text that a user key signs for a mount.
const reserved = "vault-plugin-auth-nats "

// Reserved reports whether a text is none to be signed as a server's nonce: its
// signature might be taken for a proof, of this version or another.
func Reserved(nonce string) bool { return strings.HasPrefix(nonce, reserved) }

// A Claim is what the holder of a key says by signing it.
type Claim struct {
	Purpose string // Login or Creds
	Mount   string // the mount's path in its namespace: auth/nats/
	Role    string // as the request names it: empty for the default role of a login
	Token   string // the workload's token that is sent, whatever white space is around it
	Entity  string // ID of the caller's Vault entity, where no token is sent
	User    string // the public key
	Time    int64  // Unix time in seconds
}

// Text is what is signed. Each line but the first is a name and its value; none of
// the values can have a line break in it.
func (c Claim) Text() string {
	who, id := "entity", c.Entity
	if c.Token != "" {
		sum := sha256.Sum256([]byte(strings.TrimSpace(c.Token)))
		who, id = "jwt-sha256", hex.EncodeToString(sum[:])
	}
	return strings.Join([]string{
		reserved + "user key proof v1",
		"purpose: " + c.Purpose,
		"mount: " + c.Mount,
		"role: " + c.Role,
		who + ": " + id,
		"user_public_key: " + c.User,
		"time: " + strconv.FormatInt(c.Time, 10),
	}, "\n")
}

// Check says what is wrong with a signature of the claim, in standard base64.
func (c Claim) Check(signature string, now time.Time) error {
	if off := now.Sub(time.Unix(c.Time, 0)); off.Abs() > MostOff {
		return fault.In("user_key_time", "is %s, and it is %s here: the two may be %s apart",
			time.Unix(c.Time, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), MostOff)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(signature))
	if err != nil {
		return fault.In("user_key_signature", "is not standard base64: %s", err)
	}
	key, err := nkeys.FromPublicKey(c.User)
	if err != nil {
		return fault.In("user_public_key", "is not a public key: %s", err)
	}
	if key.Verify([]byte(c.Text()), raw) != nil {
		return fault.In("user_key_signature", "is not by the key of user_public_key over the proof for %s", c.place())
	}
	return nil
}

// place is what a caller may have got wrong in the text.
func (c Claim) place() string {
	who := "this jwt"
	if c.Token == "" {
		who = "the entity " + c.Entity
	}
	role := "the default role"
	if c.Role != "" {
		role = fmt.Sprintf("role %q", c.Role)
	}
	return fmt.Sprintf("purpose %s, mount %q, %s, %s and the time %d", c.Purpose, c.Mount, role, who, c.Time)
}
