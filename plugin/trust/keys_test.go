package trust

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
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

// written are ways to write a key that nkeys reads as the same key.
func written(key string) map[string]string {
	return map[string]string{
		"a line break inside":          key[:20] + "\n" + key[20:],
		"a carriage return inside":     key[:20] + "\r" + key[20:],
		"a Windows line break inside":  key[:20] + "\r\n" + key[20:],
		"a line break before its end":  key[:len(key)-1] + "\n" + key[len(key)-1:],
		"line breaks all the way":      strings.Join(strings.Split(key, ""), "\n"),
		"a line break after the first": key[:1] + "\n" + key[1:],
	}
}

func TestAPublicKeyIsReadAsItIsWrittenWhateverIsAround(t *testing.T) {
	for _, kind := range []Kind{Operator, Account, User} {
		key := mustGenerate(t, kind)
		for _, text := range []string{key.Public(), key.Public() + "\n", "\r\n\t " + key.Public() + " \r\n"} {
			public, err := ParsePublicKey(kind, text)
			require.NoError(t, err)
			require.Equal(t, key.Public(), public)
		}
		require.Error(t, CheckPublicKey(kind, key.Public()+"\n"), "a key in a JWT has nothing around it")
	}
	curve, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	public, err := curve.PublicKey()
	require.NoError(t, err)
	parsed, err := ParsePublicKey(Curve, public+"\n")
	require.NoError(t, err)
	require.Equal(t, public, parsed)
	require.ErrorContains(t, CheckPublicKey(User, public), "is a curve (x25519) public key where a user public key is wanted")
}

func TestAKeyThatIsNotWrittenInItsOneWayIsRefused(t *testing.T) {
	for _, kind := range []Kind{Operator, Account, User} {
		key := mustGenerate(t, kind)
		for name, text := range written(key.Public()) {
			t.Run(name+" of "+kind.String()+" public key", func(t *testing.T) {
				require.True(t, nkeys.IsValidPublicKey(text), "nkeys refuses it by itself")
				_, err := ParsePublicKey(kind, text)
				require.ErrorContains(t, err, "has white space within it")
				require.ErrorContains(t, CheckPublicKey(kind, text), "has white space within it")
				_, err = ParseSeed(kind, text)
				require.ErrorContains(t, err, "public key where "+kind.String()+" seed is wanted")
			})
		}
		for name, text := range written(key.Seed()) {
			t.Run(name+" of "+kind.String()+" seed", func(t *testing.T) {
				_, _, err := nkeys.DecodeSeed([]byte(text))
				require.NoError(t, err, "nkeys refuses it by itself")
				_, err = ParseSeed(kind, text)
				require.ErrorContains(t, err, "has white space within it")
				requireHidden(t, key, err.Error())
				require.ErrorContains(t, CheckPublicKey(kind, text), "take it as disclosed")
			})
		}
		for name, text := range map[string]string{
			"lower case": strings.ToLower(key.Public()),
			"padding":    key.Public() + "====",
			"a space":    key.Public()[:9] + " " + key.Public()[9:],
			"a quote":    `"` + key.Public() + `"`,
		} {
			t.Run(name+" of "+kind.String()+" public key", func(t *testing.T) {
				_, err := ParsePublicKey(kind, text)
				require.Error(t, err)
			})
		}
	}
}

// The last character of a seed has two bits that stand for nothing, and its second
// byte three.
func TestASeedWithOtherUnusedBitsIsRefused(t *testing.T) {
	key := mustGenerate(t, Account)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	seed, same := key.Seed(), 0
	for _, last := range alphabet {
		text := seed[:len(seed)-1] + string(last)
		if _, _, err := nkeys.DecodeSeed([]byte(text)); err != nil || text == seed {
			continue
		}
		same++
		_, err := ParseSeed(Account, text)
		require.EqualError(t, err, "is not an account seed as NATS writes one: its encoding is not the canonical one")
	}
	require.Equal(t, 3, same)
}

// Each field of a config that takes a key, with [K] for it.
var keyFields = map[string]struct {
	kind   Kind
	config string
	read   func(*jwt.Account) string
}{
	"the account of an import":     {Account, `{"imports":[{"subject":"a","type":"stream","account":"[K]"}]}`, func(a *jwt.Account) string { return a.Imports[0].Account }},
	"the revocation of a user":     {User, `{"revocations":{"[K]":5}}`, func(a *jwt.Account) string { return slices.Collect(maps.Keys(a.Revocations))[0] }},
	"the revocation of a token":    {Account, `{"exports":[{"subject":"a","type":"stream","token_req":true,"revocations":{"[K]":5}}]}`, func(a *jwt.Account) string { return slices.Collect(maps.Keys(a.Exports[0].Revocations))[0] }},
	"a signing key":                {Account, `{"signing_keys":["[K]"]}`, func(a *jwt.Account) string { return a.SigningKeys.Keys()[0] }},
	"a scoped signing key":         {Account, `{"signing_keys":[{"kind":"user_scope","key":"[K]"}]}`, func(a *jwt.Account) string { return a.SigningKeys.Keys()[0] }},
	"the scope of a signing key":   {Account, `{"signing_keys":[{"kind":"user_scope","key":"[K]"}]}`, func(a *jwt.Account) string { return a.SigningKeys[a.SigningKeys.Keys()[0]].SigningKey() }},
	"a user of the auth callout":   {User, `{"authorization":{"auth_users":["[K]"]}}`, func(a *jwt.Account) string { return a.Authorization.AuthUsers[0] }},
	"an account of the callout":    {Account, `{"authorization":{"auth_users":["[U]"],"allowed_accounts":["[K]"]}}`, func(a *jwt.Account) string { return a.Authorization.AllowedAccounts[0] }},
	"the key that seals a callout": {Curve, `{"authorization":{"auth_users":["[U]"],"xkey":"[K]"}}`, func(a *jwt.Account) string { return a.Authorization.XKey }},
}

func publicKey(t *testing.T, kind Kind) string {
	t.Helper()
	if kind != Curve {
		return mustGenerate(t, kind).Public()
	}
	pair, err := nkeys.CreateCurveKeys()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	return public
}

func TestEveryKeyInAConfigIsReadAsItIsWrittenOrRefused(t *testing.T) {
	for name, field := range keyFields {
		t.Run(name, func(t *testing.T) {
			config := func(key string) []byte {
				return []byte(fillKeys(t, strings.Replace(field.config, "[K]", strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(key), 1)))
			}
			key := publicKey(t, field.kind)
			parsed, err := ParseAccountConfig(config("\r\n" + key + " \n"))
			require.NoError(t, err)
			require.Equal(t, key, field.read(parsed))
			require.NoError(t, ValidateAccount(mustGenerate(t, Account).Public(), parsed))

			for way, text := range written(key) {
				_, err := ParseAccountConfig(config(text))
				require.ErrorContains(t, err, "has white space within it", way)
			}
			_, err = ParseAccountConfig(config(publicKey(t, Operator)))
			require.ErrorContains(t, err, "is an operator public key where")
			_, err = ParseAccountConfig(config("A"))
			require.ErrorContains(t, err, "public key")
		})
	}
	user := mustGenerate(t, Account).Public()
	parsed, err := ParseUserConfig([]byte(`{"issuer_account":"` + user + `\n"}`))
	require.NoError(t, err)
	require.Equal(t, user, parsed.IssuerAccount)
	_, err = ParseUserConfig([]byte(`{"issuer_account":"` + user[:9] + `\n` + user[9:] + `"}`))
	require.ErrorContains(t, err, "issuer_account is not an account public key as NATS writes one")
	_, err = ParseScope([]byte(`{"key":"` + user[:9] + `\n` + user[9:] + `"}`))
	require.ErrorContains(t, err, "key is not an account public key as NATS writes one")
}

// signedClaims signs claims whatever stands in them, with a key that the issuer is taken
// for whatever way it is written.
func signedClaims(t *testing.T, signer *Key, claims string) string {
	t.Helper()
	token := signer.seal([]byte(claims))
	_, err := jwt.Decode(token)
	require.NoError(t, err, "jwt/v2 refuses it by itself")
	return token
}

func TestAnImportedJWTWithAKeyThatServersWouldNotKnowIsRefused(t *testing.T) {
	operator, account, user := mustGenerate(t, Operator), mustGenerate(t, Account), mustGenerate(t, User)
	broken := func(key string) string { return key[:9] + `\n` + key[9:] }
	accountClaims := func(issuer, subject, nats string) string {
		return `{"iss":"` + issuer + `","sub":"` + subject + `","nats":{` + nats + `"type":"account","version":2}}`
	}
	operatorClaims := func(issuer, subject, nats string) string {
		return `{"iss":"` + issuer + `","sub":"` + subject + `","nats":{` + nats + `"type":"operator","version":2}}`
	}
	const fault = "has white space within it"
	for name, err := range map[string]error{
		"the issuer of an account":   second(DecodeAccount(signedClaims(t, operator, accountClaims(broken(operator.Public()), account.Public(), "")))),
		"the subject of an account":  second(DecodeAccount(signedClaims(t, operator, accountClaims(operator.Public(), broken(account.Public()), "")))),
		"a signing key":              second(DecodeAccount(signedClaims(t, operator, accountClaims(operator.Public(), account.Public(), `"signing_keys":["`+broken(account.Public())+`"],`)))),
		"a revocation":               second(DecodeAccount(signedClaims(t, operator, accountClaims(operator.Public(), account.Public(), `"revocations":{"`+broken(user.Public())+`":5},`)))),
		"the issuer of an operator":  second(DecodeOperator(signedClaims(t, operator, operatorClaims(broken(operator.Public()), operator.Public(), "")))),
		"the subject of an operator": second(DecodeOperator(signedClaims(t, operator, operatorClaims(operator.Public(), broken(operator.Public()), "")))),
		"an operator's signing key":  second(DecodeOperator(signedClaims(t, operator, operatorClaims(operator.Public(), operator.Public(), `"signing_keys":["`+broken(operator.Public())+`"],`)))),
		"the system account":         second(DecodeOperator(signedClaims(t, operator, operatorClaims(operator.Public(), operator.Public(), `"system_account":"`+broken(account.Public())+`",`)))),
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, err, fault) })
	}
	// Line breaks within a JWT's own text go the way of those in keys.
	token := signedClaims(t, operator, accountClaims(operator.Public(), account.Public(), `"limits":{"imports":-1,"exports":-1},`))
	_, err := DecodeAccount("\n " + token + "\r\n")
	require.NoError(t, err)
	for _, text := range []string{token[:60] + "\n" + token[60:], token[:60] + "\r\n" + token[60:], token[:len(token)-1] + "\n" + token[len(token)-1:]} {
		_, err := DecodeAccount(text)
		require.ErrorContains(t, err, "has a character in it that no JWT has")
	}
}

func TestAnActivationTokenWithAKeyThatServersWouldNotKnowIsRefused(t *testing.T) {
	exporter, importer := mustGenerate(t, Account), mustGenerate(t, Account)
	broken := func(key string) string { return key[:9] + `\n` + key[9:] }
	claims := func(issuer, subject, extra string) string {
		return `{"iss":"` + issuer + `","sub":"` + subject + `","nats":{"subject":"a","kind":"stream",` + extra + `"type":"activation","version":2}}`
	}
	config := func(token string) []byte {
		return []byte(`{"imports":[{"subject":"a","type":"stream","account":"` + exporter.Public() + `","token":"` + token + `"}]}`)
	}
	good := signedClaims(t, exporter, claims(exporter.Public(), importer.Public(), ""))
	parsed, err := ParseAccountConfig(config(`\r\n` + good + `\n`))
	require.NoError(t, err)
	require.Equal(t, good, parsed.Imports[0].Token)
	for fault, token := range map[string]string{
		"has an issuer that":              signedClaims(t, exporter, claims(broken(exporter.Public()), importer.Public(), "")),
		"has a subject that":              signedClaims(t, exporter, claims(exporter.Public(), broken(importer.Public()), "")),
		"has an issuer_account that":      signedClaims(t, exporter, claims(exporter.Public(), importer.Public(), `"issuer_account":"`+broken(exporter.Public())+`",`)),
		"is not a JWT as NATS writes one": good[:60] + `\n` + good[60:],
	} {
		_, err := ParseAccountConfig(config(token))
		require.ErrorContains(t, err, "imports[0].token "+fault)
	}
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
