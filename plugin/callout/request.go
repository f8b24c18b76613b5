// Package callout reads what a nats-server asks an auth callout (ADR-26), and
// writes the answer. It is pure: it takes bytes and keys, and knows neither who a
// client is nor what it gets.
//
// A request is a JWT that the nats-server signs with a key that it makes when it
// starts, so whoever can send one can sign one: a request proves nothing about the
// client, whose token does. What it is held against are mistakes and replays. A
// replay harms nobody: the answer is about a user key that the server has made for
// one connection and whose seed nobody has kept.
package callout

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

const (
	// Subject is where nats-servers ask, in the callout's account.
	Subject = "$SYS.REQ.USER.AUTH"

	// Queue is the queue group of those who answer.
	Queue = "nats-callout"

	// XKeyHeader is the header with the server's public curve key, of a request that
	// is sealed.
	XKeyHeader = "Nats-Server-Xkey"

	// MaxRequest is how many bytes a request may have. What fills one are a token and
	// the certificates of the client.
	MaxRequest = 256 << 10

	audience = "nats-authorization-request"
)

// Leeway is how far the clocks of a nats-server and of Vault may be apart. A server
// gives its request two seconds, unless authorization.timeout says otherwise.
const Leeway = time.Minute

// A Request is one that was read and found in order.
type Request struct {
	Server string // public key of the server, which signed it
	User   string // public key that the server made for the client
	Host   string // the client's address, as the server says

	options jwt.ConnectOptions
	account string // that was asked
	xkey    *XKey  // for which it was sealed; nil if it was not
	reply   string // public curve key of the server
}

// A Seal is how requests to a callout may come.
type Seal struct {
	Required bool
	Keys     []*XKey // that one may be sealed for
}

// Read reads a request to the callout of an account; xkey is the header that came
// with it. The errors continue a sentence that begins with "request".
func Read(raw []byte, xkey, account string, seal Seal, now time.Time) (*Request, error) {
	if len(raw) > MaxRequest {
		return nil, fmt.Errorf("has %d bytes: at most %d are taken", len(raw), MaxRequest)
	}
	r := &Request{account: account, reply: xkey}
	token, err := r.unseal(raw, seal)
	if err != nil {
		return nil, err
	}
	claims, err := jwt.DecodeAuthorizationRequestClaims(string(token))
	if err != nil {
		return nil, errors.New("is no authorization request that a nats-server signed")
	}
	if err := r.check(claims, now); err != nil {
		return nil, err
	}
	r.Server, r.User = claims.Issuer, claims.UserNkey
	r.Host, r.options = claims.ClientInformation.Host, claims.ConnectOptions
	return r, nil
}

// sealed begins whatever a curve key has sealed.
var sealed = []byte(nkeys.XKeyVersionV1)

func (r *Request) unseal(raw []byte, seal Seal) ([]byte, error) {
	isSealed := bytes.HasPrefix(raw, sealed)
	switch {
	case !isSealed && seal.Required:
		return nil, errors.New("is not sealed, and the callout has an xkey: the nats-server may not have the account's present JWT yet")
	case !isSealed:
		return raw, nil
	case r.reply == "":
		return nil, fmt.Errorf("is sealed, and came without its header %s", XKeyHeader)
	}
	for _, key := range seal.Keys {
		if opened, err := key.open(raw, r.reply); err == nil {
			r.xkey = key
			return opened, nil
		}
	}
	return nil, errors.New("is sealed for a key that the callout does not have, or not by the server of its header")
}

func (r *Request) check(claims *jwt.AuthorizationRequestClaims, now time.Time) error {
	switch {
	case claims.Audience != audience:
		return fmt.Errorf("is for %q, and not for an auth callout", claims.Audience)
	case claims.Subject != r.account:
		return fmt.Errorf("is about account %q, which is not the callout's", claims.Subject)
	case claims.Server.ID != claims.Issuer:
		return fmt.Errorf("is of server %q, and another has signed it", claims.Server.ID)
	case r.xkey != nil && claims.Server.XKey != r.reply:
		return fmt.Errorf("is of a server with another xkey than its header %s has", XKeyHeader)
	case claims.Expires == 0:
		return errors.New("has no end")
	case now.Add(-Leeway).Unix() > claims.Expires:
		return fmt.Errorf("has ended at %s, by Vault's clock more than %s ago", unix(claims.Expires), Leeway)
	case claims.IssuedAt > now.Add(Leeway).Unix():
		return fmt.Errorf("is of %s, by Vault's clock more than %s ahead", unix(claims.IssuedAt), Leeway)
	}
	if err := trust.CheckPublicKey(trust.User, claims.UserNkey); err != nil {
		return fmt.Errorf("has a user_nkey that %w", err)
	}
	return nil
}

func unix(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }
