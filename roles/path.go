package roles

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A claimPath finds a claim: by its name, or by an RFC 6901 JSON pointer.
type claimPath struct {
	source string
	tokens []string // nil: source is a name
}

// parseClaimPath takes what begins with a slash for a JSON pointer and all else
// for a claim's name, as the JWT method does.
func parseClaimPath(source string) (claimPath, error) {
	if source == "" {
		return claimPath{}, errors.New("names no claim")
	}
	if source[0] != '/' {
		return claimPath{source: source}, nil
	}
	tokens := strings.Split(source[1:], "/")
	for i, token := range tokens {
		unescaped, err := unescapePointer(token)
		if err != nil {
			return claimPath{}, fmt.Errorf("is not a JSON pointer (RFC 6901): %w", err)
		}
		tokens[i] = unescaped
	}
	return claimPath{source: source, tokens: tokens}, nil
}

// unescapePointer turns "~1" into "/" and "~0" into "~".
func unescapePointer(token string) (string, error) {
	for i := 0; i < len(token); i++ {
		if token[i] == '~' && (i+1 == len(token) || token[i+1] != '0' && token[i+1] != '1') {
			return "", fmt.Errorf("a ~ in %q is followed by neither 0 nor 1", token)
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~"), nil
}

// find returns the claim's value, or nil if there is none. A null is none.
func (p claimPath) find(claims map[string]any) any {
	if p.tokens == nil {
		return claims[p.source]
	}
	var value any = claims
	for _, token := range p.tokens {
		switch v := value.(type) {
		case map[string]any:
			value = v[token]
		case []any:
			i, err := strconv.ParseUint(token, 10, 31)
			leadingZero := len(token) > 1 && token[0] == '0'
			if err != nil || leadingZero || int(i) >= len(v) {
				return nil
			}
			value = v[i]
		default:
			return nil
		}
	}
	return value
}
