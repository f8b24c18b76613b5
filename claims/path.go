package claims

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// A Path finds a claim: by its name, or by an RFC 6901 JSON pointer. The zero
// Path finds none.
type Path struct {
	source string
	tokens []string // nil: source is a name
}

// ParsePath takes what begins with a slash for a JSON pointer and all else for a
// claim's name, as the JWT method does.
func ParsePath(source string) (Path, error) {
	if source == "" {
		return Path{}, errors.New("names no claim")
	}
	if source[0] != '/' {
		return Path{source: source}, nil
	}
	tokens := strings.Split(source[1:], "/")
	for i, token := range tokens {
		unescaped, err := unescapePointer(token)
		if err != nil {
			return Path{}, fmt.Errorf("is not a JSON pointer (RFC 6901): %w", err)
		}
		tokens[i] = unescaped
	}
	return Path{source: source, tokens: tokens}, nil
}

// Named is the path of the claim of that name, whatever it begins with.
func Named(name string) Path { return Path{source: name} }

// unescapePointer turns "~1" into "/" and "~0" into "~".
func unescapePointer(token string) (string, error) {
	for i := 0; i < len(token); i++ {
		if token[i] == '~' && (i+1 == len(token) || token[i+1] != '0' && token[i+1] != '1') {
			return "", fmt.Errorf("a ~ in %q is followed by neither 0 nor 1", token)
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~"), nil
}

// String is the path as it was written; empty for the zero Path.
func (p Path) String() string { return p.source }

// Name is the name of the claim that the path finds, where that is one of the
// token's own and not a part of one; else it is empty.
func (p Path) Name() string {
	switch len(p.tokens) {
	case 0:
		return p.source
	case 1:
		return p.tokens[0]
	}
	return ""
}

// Top is the name of the token's own claim that the path begins with.
func (p Path) Top() string {
	if len(p.tokens) == 0 {
		return p.source
	}
	return p.tokens[0]
}

// Find returns the claim's value, or nil if there is none. A null is none.
func (p Path) Find(claims map[string]any) any {
	switch {
	case p.source == "":
		return nil
	case p.tokens == nil:
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

// With returns claims in which the path finds value. It changes nothing of
// claims, and makes the objects on the way to the value that are not there. What
// is there and is no object it does not replace.
func (p Path) With(claims map[string]any, value any) (map[string]any, error) {
	tokens := p.tokens
	if tokens == nil {
		tokens = []string{p.source}
	}
	top := maps.Clone(claims)
	if top == nil {
		top = make(map[string]any, 1)
	}
	object := top
	for _, token := range tokens[:len(tokens)-1] {
		var next map[string]any
		switch v := object[token].(type) {
		case nil:
			next = make(map[string]any, 1)
		case map[string]any:
			next = maps.Clone(v)
		default:
			return nil, fmt.Errorf("leads through %q, which is not an object", token)
		}
		object[token] = next
		object = next
	}
	object[tokens[len(tokens)-1]] = value
	return top, nil
}
