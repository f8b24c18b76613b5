package roles

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/hashicorp/go-secure-stdlib/strutil"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
)

// A boundClaim is one entry of bound_claims: the claim, or one of its elements,
// must be one of the values or match one of the patterns.
type boundClaim struct {
	claim claims.Path
	want  []any
	globs []string // used instead of want with bound_claims_type=glob
}

func compileBoundClaims(boundClaims map[string]any, globs bool) ([]boundClaim, error) {
	bound := make([]boundClaim, 0, len(boundClaims))
	for _, claim := range slices.Sorted(maps.Keys(boundClaims)) {
		path, err := claims.ParsePath(claim)
		if err != nil {
			return nil, badField("bound_claims", "has the claim %q, which %s", claim, err)
		}
		b := boundClaim{claim: path}
		values, isList := boundClaims[claim].([]any)
		if !isList {
			values = []any{boundClaims[claim]}
		}
		if len(values) == 0 {
			return nil, badField("bound_claims", "has an empty list for the claim %q, which no token matches", claim)
		}
		for _, value := range values {
			want, ok := scalar(value)
			if !ok {
				return nil, badField("bound_claims", "has a value for the claim %q that is neither a string, a number, a boolean nor a list of these", claim)
			}
			pattern, isString := value.(string)
			if globs && !isString {
				return nil, badField("bound_claims", "has %v for the claim %q, but with bound_claims_type=glob every value must be a string", value, claim)
			}
			if globs {
				b.globs = append(b.globs, pattern)
			} else {
				b.want = append(b.want, want)
			}
		}
		bound = append(bound, b)
	}
	return bound, nil
}

// match says why the claims do not match, or nothing if they do.
func (b *boundClaim) match(all map[string]any) error {
	found := b.claim.Find(all)
	switch v := found.(type) {
	case nil:
		return fmt.Errorf("the claim %q of bound_claims is not in the token", b.claim)
	case []any:
		if slices.ContainsFunc(v, b.matchesOne) {
			return nil
		}
	default:
		if b.matchesOne(v) {
			return nil
		}
	}
	return fmt.Errorf("the claim %q does not match the role's bound_claims", b.claim)
}

func (b *boundClaim) matchesOne(claim any) bool {
	if b.globs != nil {
		s, ok := claim.(string)
		return ok && strutil.StrListContainsGlob(b.globs, s)
	}
	have, ok := scalar(claim)
	return ok && slices.Contains(b.want, have)
}

// A number is a JSON number in one spelling, so that 1, 1.0 and 1e0 are equal,
// but never equal to the string "1".
type number string

// scalar returns a value that == compares as JSON values are compared, or
// false for an object, a list and null.
func scalar(value any) (any, bool) {
	switch v := value.(type) {
	case string, bool:
		return v, true
	case json.Number:
		return canonical(v), true
	case float64: // of roles that were decoded without json.Decoder.UseNumber
		return canonical(json.Number(strconv.FormatFloat(v, 'g', -1, 64))), true
	case int:
		return canonical(json.Number(strconv.Itoa(v))), true
	}
	return nil, false
}

// canonical gives whole numbers that a float64 holds exactly their integer
// spelling. Those that it does not keep their text: they are not rounded into
// being equal.
func canonical(n json.Number) number {
	const exact = 1 << 53
	if i, err := n.Int64(); err == nil {
		return number(strconv.FormatInt(i, 10))
	}
	f, err := n.Float64()
	if err != nil || math.Abs(f) >= exact {
		return number(n)
	}
	if f == math.Trunc(f) {
		return number(strconv.FormatInt(int64(f), 10))
	}
	return number(strconv.FormatFloat(f, 'g', -1, 64))
}
