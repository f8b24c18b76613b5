package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// The part of their life after which credentials are renewed is chosen at random between
// these, so that the clients of a fleet that started together spread out.
const (
	renewFrom = 0.7
	renewTo   = 0.9
)

// credentials are a user key and the NATS user JWT that is for it.
type credentials struct {
	jwt   string
	url   string
	asked time.Time // before Vault was asked for them
	renew time.Time // when to get others
	ends  time.Time // never later than the JWT's end

	mu  sync.Mutex
	key nkeys.KeyPair // nil once wiped
}

// newCredentials takes them from Vault's answer. The times are by this machine's clock
// and count from when Vault was asked, so that it does not matter what time of day that
// clock shows. Those in the JWT do not tell its life: after a revocation its time of
// issue is ahead of Vault's clock too.
func newCredentials(secret *api.Secret, r *request, asked time.Time) (*credentials, error) {
	text, _ := secret.Data["jwt"].(string)
	if text == "" {
		return nil, errors.New("the answer has no NATS user JWT in its field jwt")
	}
	claims, err := jwt.DecodeUserClaims(text)
	if err != nil {
		return nil, fmt.Errorf("reading the NATS user JWT: %w", err)
	}
	if claims.Subject != r.public {
		return nil, fmt.Errorf("the NATS user JWT is for the user key %s, not for %s", claims.Subject, r.public)
	}
	life, err := lifeOf(secret)
	if err != nil {
		return nil, fmt.Errorf("the NATS user JWT for %s: %w", r.public, err)
	}
	url, _ := secret.Data["url"].(string)
	c := &credentials{jwt: text, url: url, key: r.key, asked: asked}
	c.endBy(asked.Add(life))
	if secret.LeaseDuration > 0 {
		c.endBy(asked.Add(time.Duration(secret.LeaseDuration) * time.Second))
	}
	return c, nil
}

// lifeOf is how long the user JWT of an answer lives, by the answer's field ttl.
func lifeOf(secret *api.Secret) (time.Duration, error) {
	number, ok := secret.Data["ttl"].(json.Number)
	if !ok {
		return 0, errors.New("the answer does not say in its field ttl how long it lives")
	}
	seconds, err := number.Int64()
	if err != nil || seconds <= 0 {
		return 0, fmt.Errorf("the answer says that it lives for %s seconds", number)
	}
	return time.Duration(seconds) * time.Second, nil
}

// endBy has the credentials end at a time, unless they end earlier.
func (c *credentials) endBy(end time.Time) {
	if !c.ends.IsZero() && c.ends.Before(end) {
		return
	}
	part := renewFrom + rand.Float64()*(renewTo-renewFrom)
	c.ends = end
	c.renew = c.asked.Add(time.Duration(part * float64(end.Sub(c.asked))))
}

func (c *credentials) fresh() bool { return time.Now().Before(c.renew) }
func (c *credentials) valid() bool { return time.Now().Before(c.ends) }

func (c *credentials) sign(nonce []byte) ([]byte, error) {
	if bytes.HasPrefix(nonce, []byte(reserved)) {
		return nil, errors.New("the nats-server wants a proof of the user key, of the kind that Vault gets, signed as its nonce")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		return nil, errors.New("the key of this NATS user JWT was wiped: there is a newer one, or the client was closed")
	}
	return c.key.Sign(nonce)
}

func (c *credentials) wipe() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key != nil {
		c.key.Wipe()
		c.key = nil
	}
}
