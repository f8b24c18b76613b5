package callout

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestACurveKeyShowsItsPublicHalfOnly(t *testing.T) {
	key, err := NewXKey()
	require.NoError(t, err)
	seed, err := key.Seed()
	require.NoError(t, err)
	again, err := ParseXKey(seed)
	require.NoError(t, err)
	require.Equal(t, key.Public(), again.Public())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		require.Equal(t, key.Public(), fmt.Sprintf(verb, key), verb)
	}
	shown, err := json.Marshal(map[string]any{"key": key})
	require.NoError(t, err)
	require.JSONEq(t, `{"key":"`+key.Public()+`"}`, string(shown))
	for _, wrong := range []string{"", key.Public(), seed[1:], "SUAMLK2ZNL35WSMW37E7UD4VZ7ELPKW7DHC3BWBSD2GCZ7IUQQXZIORRBU"} {
		_, err := ParseXKey(wrong)
		require.EqualError(t, err, "is not the seed of a curve key")
	}
}
