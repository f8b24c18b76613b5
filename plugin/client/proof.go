package client

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// reserved begins every text that a user key signs for a mount. A nats-server has no
// reason to send one as its nonce, unless it wants the signature for itself.
const reserved = "vault-plugin-auth-nats "

// A claim is what a user key is proven for; docs/credentials.md describes it.
type claim struct {
	purpose string // login or creds
	mount   string // auth/nats/ for one
	role    string // empty at a login with the mount's default_role
	token   string // the workload's, if it is sent
	entity  string // ID of the caller's Vault entity, where no token is sent
	user    string // the public key
	time    int64  // Unix time in seconds
}

// text is what is signed.
func (c claim) text() string {
	who := "entity: " + c.entity
	if c.token != "" {
		sum := sha256.Sum256([]byte(c.token))
		who = "jwt-sha256: " + hex.EncodeToString(sum[:])
	}
	return strings.Join([]string{
		reserved + "user key proof v1",
		"purpose: " + c.purpose,
		"mount: " + c.mount,
		"role: " + strings.ToLower(c.role),
		who,
		"user_public_key: " + c.user,
		"time: " + strconv.FormatInt(c.time, 10),
	}, "\n")
}
