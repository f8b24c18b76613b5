package trust

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

func mustGenerate(t testing.TB, kind Kind) *Key {
	t.Helper()
	key, err := Generate(kind)
	require.NoError(t, err)
	return key
}

func TestKeyIsTheSameKeyAsNkeysMakesOfItsSeed(t *testing.T) {
	for _, kind := range []Kind{Operator, Account, User} {
		key := mustGenerate(t, kind)
		pair, err := nkeys.FromSeed([]byte(key.Seed()))
		require.NoError(t, err)
		public, err := pair.PublicKey()
		require.NoError(t, err)
		require.Equal(t, public, key.Public())
		signature, err := pair.Sign([]byte("data"))
		require.NoError(t, err)
		require.Equal(t, signature, key.Sign([]byte("data")))

		again, err := ParseSeed(kind, " "+key.Seed()+"\n")
		require.NoError(t, err)
		require.Equal(t, key.Public(), again.Public())
	}
}

func TestParseSeedSaysWhatWasGivenInstead(t *testing.T) {
	account, user := mustGenerate(t, Account), mustGenerate(t, User)
	curve, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	curveSeed, err := curve.Seed()
	require.NoError(t, err)

	for name, test := range map[string]struct {
		kind        Kind
		seed, fault string
	}{
		"a user seed for an account":      {Account, user.Seed(), "is a user seed where an account seed is wanted"},
		"an account seed for a user":      {User, account.Seed(), "is an account seed where a user seed is wanted"},
		"an account seed for an operator": {Operator, account.Seed(), "is an account seed where an operator seed is wanted"},
		"a curve seed":                    {Account, string(curveSeed), "is a curve (x25519) seed where an account seed is wanted"},
		"a public key":                    {Account, account.Public(), "is an account public key where an account seed is wanted"},
		"a JWT":                           {Account, "eyJ0eXAi.e30.c2ln", "is a JWT where an account seed is wanted"},
		"an empty seed":                   {Account, "", "is not an account seed"},
		"a seed with a typing error":      {User, user.Seed()[:20] + "A" + user.Seed()[21:57] + "7", "is not a user seed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSeed(test.kind, test.seed)
			require.EqualError(t, err, test.fault)
		})
	}
}

func TestCheckPublicKeySaysWhatWasGivenInstead(t *testing.T) {
	account, user := mustGenerate(t, Account), mustGenerate(t, User)
	require.NoError(t, CheckPublicKey(User, user.Public()))
	require.EqualError(t, CheckPublicKey(User, account.Public()), "is an account public key where a user public key is wanted")
	require.EqualError(t, CheckPublicKey(User, user.Seed()), "is the seed of a user key where a user public key is wanted; take it as disclosed")
	require.EqualError(t, CheckPublicKey(User, "U"), "is not a user public key")
	require.EqualError(t, CheckPublicKey(Account, ""), "is not an account public key")
}

func TestKeyNeverShowsItsPrivateHalf(t *testing.T) {
	key := mustGenerate(t, Account)
	inStruct := struct {
		Name string
		Key  *Key
	}{"orders", key}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o"} {
		for _, value := range []any{key, inStruct, &inStruct, []*Key{key}, map[string]*Key{"k": key}} {
			shown := fmt.Sprintf(verb, value)
			requireHidden(t, key, shown)
		}
	}
	marshaled, err := json.Marshal(inStruct)
	require.NoError(t, err)
	require.JSONEq(t, `{"Name":"orders","Key":"`+key.Public()+`"}`, string(marshaled))
	requireHidden(t, key, fmt.Errorf("with %w", fmt.Errorf("%v", key)).Error())
}

func requireHidden(t *testing.T, key *Key, shown string) {
	t.Helper()
	raw := key.private.Seed()
	for _, secret := range []string{key.Seed(), fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), fmt.Sprint(raw)[1:60]} {
		require.False(t, strings.Contains(shown, secret), "the seed shows in %q", shown)
	}
}
