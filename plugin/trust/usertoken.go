package trust

import (
	"crypto/sha512"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// header is the first part of every NATS JWT: {"typ":"JWT","alg":"ed25519-nkey"}.
const header = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ"

// jtiEncoding is how jwt/v2 writes a token's ID: base32 of 32 bytes, without
// padding.
var jtiEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// A UserToken is a NATS user JWT that is to be issued. It is what a login
// spends its time on, so it is put together in one buffer from parts that are
// JSON already.
type UserToken struct {
	Issuer   *Key      // an account's identity key or one of its signing keys
	Subject  string    // the user's public key
	Name     string    // shown by nats-server
	IssuedAt time.Time // to the second
	Expires  time.Time // to the second, rounded down; the zero time for none
	Begins   time.Time // to the second, rounded down; the zero time for at once
	NATS     []byte    // the JSON object of the "nats" claim, complete
}

// Encode signs the token. Its claims are those that jwt/v2 writes, in the same
// order, with an ID made in the same way.
func (t UserToken) Encode() (string, error) {
	if t.Issuer == nil || t.Issuer.kind != Account {
		return "", errors.New("a user JWT is signed by an account key")
	}
	if len(t.NATS) == 0 || t.NATS[0] != '{' {
		return "", errors.New("a user JWT needs its nats claim as a JSON object")
	}
	name, err := appendString(make([]byte, 0, len(t.Name)+2), t.Name)
	if err != nil {
		return "", err
	}

	claims := make([]byte, 0, 320+len(name)+len(t.NATS))
	claims = t.appendClaims(claims, nil, name)
	digest := sha512.Sum512_256(append(claims, '}'))
	id := jtiEncoding.AppendEncode(make([]byte, 0, 56), digest[:])

	claims = t.appendClaims(claims[:0], id, name)
	claims = append(claims, `,"nats":`...)
	claims = append(claims, t.NATS...)
	claims = append(claims, '}')
	return t.Issuer.seal(claims), nil
}

// appendClaims appends the registered claims in jwt/v2's order: exp, jti, iat,
// iss, name, nbf, sub. The closing brace is left to the caller.
func (t UserToken) appendClaims(b, id, name []byte) []byte {
	b = append(b, '{')
	if !t.Expires.IsZero() {
		b = append(b, `"exp":`...)
		b = strconv.AppendInt(b, t.Expires.Unix(), 10)
		b = append(b, ',')
	}
	if len(id) > 0 {
		b = append(b, `"jti":"`...)
		b = append(b, id...)
		b = append(b, `",`...)
	}
	b = append(b, `"iat":`...)
	b = strconv.AppendInt(b, t.IssuedAt.Unix(), 10)
	b = append(b, `,"iss":"`...)
	b = append(b, t.Issuer.public...)
	b = append(b, '"')
	if t.Name != "" {
		b = append(b, `,"name":`...)
		b = append(b, name...)
	}
	if !t.Begins.IsZero() {
		b = append(b, `,"nbf":`...)
		b = strconv.AppendInt(b, t.Begins.Unix(), 10)
	}
	b = append(b, `,"sub":"`...)
	b = append(b, t.Subject...)
	return append(b, '"')
}

// seal makes a token of a claims set: header, claims and signature.
func (k *Key) seal(claims []byte) string {
	encoding := base64.RawURLEncoding
	token := make([]byte, 0, len(header)+1+encoding.EncodedLen(len(claims))+1+encoding.EncodedLen(64))
	token = append(token, header...)
	token = append(token, '.')
	token = encoding.AppendEncode(token, claims)
	signature := k.Sign(token)
	token = append(token, '.')
	token = encoding.AppendEncode(token, signature)
	return string(token)
}

// appendString appends s as a JSON string, escaped as encoding/json does.
func appendString(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			return append(b, quoted...), err
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"'), nil
}

// Creds is the decorated file that NATS clients read (nats.UserCredentials):
// the user's JWT and its seed.
func Creds(jwt, seed string) string {
	return "-----BEGIN NATS USER JWT-----\n" + jwt + "\n------END NATS USER JWT------\n" +
		"\n************************* IMPORTANT *************************\n" +
		"NKEY Seed printed below can be used to sign and prove identity.\n" +
		"NKEYs are sensitive and should be treated as secrets.\n" +
		"\n-----BEGIN USER NKEY SEED-----\n" + seed + "\n------END USER NKEY SEED------\n" +
		"\n*************************************************************\n"
}
