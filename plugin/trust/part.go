package trust

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// DecodePart decodes the header (0) or the claims (1) of a JWT that was made
// here.
func DecodePart(token string, part int, into any) error {
	parts := strings.Split(token, ".")
	if part >= len(parts) {
		return fmt.Errorf("a JWT has no part %d", part)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[part])
	if err != nil {
		return fmt.Errorf("decoding a JWT: %w", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decoding a JWT: %w", err)
	}
	return nil
}
