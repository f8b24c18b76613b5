package claims

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// maxTokenSize bounds a token, in bytes. Tokens of real platforms have one to
// five kilobytes; those with hundreds of groups have thirty.
const maxTokenSize = 128 << 10

// maxHeaderSize bounds a token's header as encoded, in bytes. It is parsed for
// whoever sends it. Those of platforms have a hundred bytes, and a few kilobytes
// with a chain of certificates in it.
const maxHeaderSize = 16 << 10

// A token is a JWS in compact serialization (RFC 7515 section 7.1) whose header
// is checked and whose signature and claims are not.
type token struct {
	*header
	signed    []byte // what the signature covers: header, dot and payload, as encoded
	payload   []byte // the part of signed that is the payload, still encoded
	signature []byte
}

// A header is what matters of a token's header.
type header struct {
	encoded string
	alg     *algorithm
	kid     string // empty: the header has none
}

// parseToken splits a token and reads its header, unless it is the last one,
// which may be nil: an issuer's tokens have the same header until it takes
// another key.
func parseToken(raw string, last *header) (*token, error) {
	// A token read from a file often ends with a newline.
	raw = strings.TrimSpace(raw)
	if raw == "" {
		return nil, errors.New("token is empty")
	}
	if len(raw) > maxTokenSize {
		return nil, fmt.Errorf("token is longer than %d bytes", maxTokenSize)
	}
	if strings.IndexByte(raw, '\n') >= 0 || strings.IndexByte(raw, '\r') >= 0 {
		return nil, errors.New("token has a line break in it") // the base64 decoder would skip it
	}
	if raw[0] == '{' {
		return nil, errors.New("token is not in compact serialization but in JSON serialization")
	}
	switch dots := strings.Count(raw, "."); dots {
	case 2:
	case 4:
		return nil, errors.New("token is encrypted (JWE), not signed")
	default:
		return nil, fmt.Errorf("token has %d parts, not 3", dots+1)
	}

	data := []byte(raw)
	end := bytes.LastIndexByte(data, '.')
	split := bytes.IndexByte(data, '.')
	t := &token{header: last, signed: data[:end], payload: data[split+1 : end]}
	var err error
	if last == nil || last.encoded != raw[:split] {
		if t.header, err = parseHeader(raw[:split]); err != nil {
			return nil, err
		}
	}
	if end+1 == len(data) {
		return nil, errors.New("token has no signature")
	}
	if t.signature, err = decodeBase64(data[end+1:]); err != nil {
		return nil, fmt.Errorf("token signature %w", err)
	}
	return t, nil
}

// parseHeader takes alg and kid from a header, and refuses what would change
// the meaning of the rest. A key or the place of one in it (jwk, jku, x5c, x5u)
// is not looked at, since whoever makes a token can write there what they want.
func parseHeader(encoded string) (*header, error) {
	if len(encoded) > maxHeaderSize {
		return nil, fmt.Errorf("token header is longer than %d bytes", maxHeaderSize)
	}
	members, err := decodePart([]byte(encoded))
	if err != nil {
		return nil, fmt.Errorf("token header %w", err)
	}
	if _, ok := members["crit"]; ok {
		// RFC 7515 section 4.1.11: a critical extension that is not understood
		// makes the token invalid, and none is understood here.
		return nil, errors.New("token header crit names extensions that are not supported")
	}
	if _, ok := members["b64"]; ok {
		return nil, errors.New("token header b64 is not supported")
	}
	if cty, ok := members["cty"]; ok {
		// RFC 7519 section 5.2: cty says that the payload is another token.
		if s, ok := cty.(string); !ok || strings.TrimPrefix(strings.ToLower(s), "application/") == "jwt" {
			return nil, errors.New("token is nested in another token, which is not supported")
		}
	}
	name, ok := members["alg"].(string)
	if !ok {
		return nil, errors.New("token header alg is missing or not a string")
	}
	h := &header{encoded: strings.Clone(encoded), alg: algorithms[name]}
	if h.alg == nil {
		return nil, fmt.Errorf("token header alg is %.20q, which is not one of the asymmetric algorithms", name)
	}
	if kid, ok := members["kid"]; ok {
		if h.kid, ok = kid.(string); !ok {
			return nil, errors.New("token header kid is not a string")
		}
	}
	return h, nil
}

// size is how many bytes of memory are about held for the token.
func (t *token) size() int { return len(t.signed) + len(t.signature) + len(t.encoded) }

// claims decodes the payload.
func (t *token) claims() (map[string]any, error) {
	claims, err := decodePart(t.payload)
	if err != nil {
		return nil, fmt.Errorf("token payload %w", err)
	}
	return claims, nil
}

// decodePart decodes a header or payload.
func decodePart(encoded []byte) (map[string]any, error) {
	data, err := decodeBase64(encoded)
	if err != nil {
		return nil, err
	}
	return DecodeObject(string(data))
}

// base64URL is the encoding of RFC 7515 section 2; strict, so that a token has
// one spelling only.
var base64URL = base64.RawURLEncoding.Strict()

func decodeBase64(encoded []byte) ([]byte, error) {
	data := make([]byte, base64URL.DecodedLen(len(encoded)))
	n, err := base64URL.Decode(data, encoded)
	if err != nil {
		return nil, errors.New("is not base64url")
	}
	return data[:n], nil
}
