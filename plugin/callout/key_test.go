package callout

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/nats-io/nkeys"
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

func TestACurveKeyOpensAndSealsAsThoseOfNATS(t *testing.T) {
	key, err := NewXKey()
	require.NoError(t, err)
	server, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	public, err := server.PublicKey()
	require.NoError(t, err)
	for _, text := range []string{"a", "a request of some length", "again"} {
		request, err := server.Seal([]byte(text), key.Public())
		require.NoError(t, err)
		opened, err := key.open(request, public)
		require.NoError(t, err)
		require.Equal(t, text, string(opened))
		request[len(request)-1] ^= 1
		_, err = key.open(request, public)
		require.Error(t, err)

		first, err := key.seal([]byte(text), public)
		require.NoError(t, err)
		second, err := key.seal([]byte(text), public)
		require.NoError(t, err)
		require.NotEqual(t, first, second, "each has a nonce of its own")
		opened, err = server.Open(first, key.Public())
		require.NoError(t, err)
		require.Equal(t, text, string(opened))
	}
	require.Equal(t, 1, key.shared.Len())
	for _, wrong := range []string{"", "XABC", key.Public() + "A", "U" + public[1:]} {
		_, err := key.open([]byte("xkv1 and what a nonce and a box may be, of some length"), wrong)
		require.Error(t, err)
	}
	require.Equal(t, 1, key.shared.Len(), "who has sealed nothing is not remembered")
	for _, short := range []string{"", "xkv1", "xkv1 and a nonce and no ", "xkv2 and what a nonce and a box may be"} {
		_, err := key.open([]byte(short), public)
		require.Error(t, err)
	}
}
