package people

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// providerConfig is the issuer's field that settings are of.
const providerConfig = "provider_config"

// A secret is a value of provider_config that is shown to nobody. It is behind a
// pointer, since fmt calls no Formatter of a field that is not exported.
type secret struct{ text *string }

func newSecret(text string) secret { return secret{&text} }

// reveal returns the value; empty: there is none.
func (s secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Format shows that there is a secret, whatever the verb.
func (secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalJSON does so in JSON.
func (secret) MarshalJSON() ([]byte, error) { return []byte(`"[secret]"`), nil }

// settings read a provider_config key by key, as the JWT method does: no value is
// turned into one of another type. err is the first fault.
type settings struct {
	config map[string]any
	known  []string
	err    error
}

// value returns the key's value, nil if there is none.
func (s *settings) value(key string) any {
	s.known = append(s.known, key)
	return s.config[key]
}

func (s *settings) fault(key, what string) {
	if s.err == nil {
		s.err = fault.In(providerConfig, "%s %s", key, what)
	}
}

func (s *settings) text(key string) string {
	value := s.value(key)
	text, ok := value.(string)
	if value != nil && !ok {
		s.fault(key, "is not a string")
	}
	return text
}

func (s *settings) secret(key string) secret { return newSecret(s.text(key)) }

func (s *settings) flag(key string) bool {
	value := s.value(key)
	flag, ok := value.(bool)
	if value != nil && !ok {
		s.fault(key, "is neither true nor false")
	}
	return flag
}

// count returns a whole number that is not negative; 0 if there is none.
func (s *settings) count(key string) int {
	number := math.NaN()
	switch v := s.value(key).(type) {
	case nil:
		return 0
	case json.Number:
		if f, err := v.Float64(); err == nil {
			number = f
		}
	case float64:
		number = v
	case int:
		number = float64(v)
	}
	switch {
	case number != math.Trunc(number) || number > math.MaxInt32: // of NaN, too
		s.fault(key, "is not a whole number")
	case number < 0:
		s.fault(key, "is negative")
	default:
		return int(number)
	}
	return 0
}

// unknown is the first fault, or that a key was not asked for: a misspelled one
// would be without effect, and a groups_filter without effect lets all groups in.
func (s *settings) unknown(provider string) error {
	if s.err != nil {
		return s.err
	}
	for _, key := range slices.Sorted(maps.Keys(s.config)) {
		if !slices.Contains(s.known, key) {
			return fault.In(providerConfig, "has the key %.100q, which the provider %s does not know: it has %s", key, provider, strings.Join(s.known, ", "))
		}
	}
	return nil
}
