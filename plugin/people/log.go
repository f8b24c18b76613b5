package people

import (
	"encoding/json"
	"strings"
)

// mostLogged is how much of a person's claims is logged, in bytes.
const mostLogged = 8 << 10

// Loggable is a text of claims without what is secret in some issuers': the tokens
// with which the sources of distributed claims are asked, and aggregated claims, which
// are tokens themselves (OpenID Connect Core section 5.6.2).
func Loggable(claims map[string]any) string {
	text, err := json.Marshal(withoutTokens(claims))
	if err != nil {
		return "(not JSON)"
	}
	if len(text) > mostLogged {
		return string(text[:mostLogged]) + "..."
	}
	return string(text)
}

func withoutTokens(value any) any {
	switch v := value.(type) {
	case map[string]any:
		shown := make(map[string]any, len(v))
		for name, member := range v {
			lower := strings.ToLower(name)
			if strings.Contains(lower, "token") || strings.Contains(lower, "secret") || strings.Contains(lower, "password") || lower == "jwt" || lower == "nonce" {
				shown[name] = "[redacted]"
				continue
			}
			shown[name] = withoutTokens(member)
		}
		return shown
	case []any:
		shown := make([]any, len(v))
		for i, element := range v {
			shown[i] = withoutTokens(element)
		}
		return shown
	case string:
		if looksLikeToken(v) {
			return "[redacted]"
		}
	}
	return value
}

// looksLikeToken reports whether a text is a JWT, whatever its claim is called.
func looksLikeToken(text string) bool {
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") >= 2
}
