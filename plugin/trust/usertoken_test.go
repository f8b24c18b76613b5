package trust

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

const plainUser = `{"pub":{"allow":["orders.>"]},"sub":{},"subs":-1,"data":-1,"payload":-1,"type":"user","version":2}`

func claimsOf(t testing.TB, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	return string(claims)
}

func TestUserTokenIsByteForByteWhatTheNATSLibraryWrites(t *testing.T) {
	account, user := mustGenerate(t, Account), mustGenerate(t, User)
	pair, err := nkeys.FromSeed([]byte(account.Seed()))
	require.NoError(t, err)

	for name, times := range map[string]struct{ expires, begins time.Time }{
		"with an end":             {expires: time.Unix(4102444800, 0)},
		"with a start and an end": {time.Unix(4102444800, 0), time.Unix(4102440000, 0)},
		"with a start":            {begins: time.Unix(4102440000, 0)},
		"without an end":          {},
	} {
		for _, userName := range []string{"ci", "", `repo:o/r "x" <&>`, "名前\x01"} {
			t.Run(name+" and the name "+userName, func(t *testing.T) {
				claims := jwt.NewUserClaims(user.Public())
				claims.Name = userName
				claims.Permissions.Pub.Allow.Add("orders.>")
				claims.IssuerAccount = "ACWLFX4PBYEADUSKKVUS2QYYWPIEWIRXUVQAM7JSRTBMERFRLPLUJ3SP"
				if !times.expires.IsZero() {
					claims.Expires = times.expires.Unix()
				}
				if !times.begins.IsZero() {
					claims.NotBefore = times.begins.Unix()
				}
				want, err := claims.Encode(pair)
				require.NoError(t, err)
				nats, err := json.Marshal(claims.User)
				require.NoError(t, err)

				got, err := UserToken{Issuer: account, Subject: user.Public(), Name: userName,
					IssuedAt: time.Unix(claims.IssuedAt, 0), Expires: times.expires, Begins: times.begins, NATS: nats}.Encode()
				require.NoError(t, err)
				require.Equal(t, claimsOf(t, want), claimsOf(t, got))
				require.Equal(t, want, got)
			})
		}
	}
}

func TestUserTokenRefusesWhatItCannotSign(t *testing.T) {
	user := mustGenerate(t, User)
	for name, token := range map[string]UserToken{
		"no issuer":                {Subject: user.Public(), NATS: []byte(plainUser)},
		"a user key as the issuer": {Issuer: user, Subject: user.Public(), NATS: []byte(plainUser)},
		"no nats claim":            {Issuer: mustGenerate(t, Account), Subject: user.Public()},
		"a list as nats claim":     {Issuer: mustGenerate(t, Account), Subject: user.Public(), NATS: []byte("[]")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := token.Encode()
			require.Error(t, err)
		})
	}
}

func FuzzUserTokenIsReadBackAsItWasWritten(f *testing.F) {
	f.Add("ci", int64(1), int64(2))
	f.Add("a\"\\\x00<>&\u2028", int64(1795304077), int64(0))
	account, err := Generate(Account)
	require.NoError(f, err)
	user, err := Generate(User)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, name string, issued, expires int64) {
		token := UserToken{Issuer: account, Subject: user.Public(), Name: name, IssuedAt: time.Unix(issued, 0), NATS: []byte(plainUser)}
		if expires > 0 {
			token.Expires = time.Unix(expires, 0)
		}
		encoded, err := token.Encode()
		require.NoError(t, err)
		claims, err := jwt.DecodeUserClaims(encoded)
		require.NoError(t, err)
		require.Equal(t, string([]rune(name)), claims.Name, "bytes that are not UTF-8 stand for U+FFFD each, as encoding/json has it")
		require.Equal(t, issued, claims.IssuedAt)
		require.Equal(t, max(expires, 0), claims.Expires)
		require.Equal(t, account.Public(), claims.Issuer)
		require.Equal(t, user.Public(), claims.Subject)
		require.Equal(t, jwt.StringList{"orders.>"}, claims.Pub.Allow)
	})
}

func TestCredsAreByteForByteWhatTheNATSLibraryWrites(t *testing.T) {
	account, user := mustGenerate(t, Account), mustGenerate(t, User)
	token, err := UserToken{Issuer: account, Subject: user.Public(), Name: "ci", IssuedAt: time.Now(), NATS: []byte(plainUser)}.Encode()
	require.NoError(t, err)
	want, err := jwt.FormatUserConfig(token, []byte(user.Seed()))
	require.NoError(t, err)
	require.Equal(t, string(want), Creds(token, user.Seed()))
}

func BenchmarkUserToken(b *testing.B) {
	account, user := mustGenerate(b, Account), mustGenerate(b, User)
	pair, err := nkeys.FromSeed([]byte(account.Seed()))
	require.NoError(b, err)
	now := time.Now()
	token := UserToken{Issuer: account, Subject: user.Public(), Name: "repo:o/r", IssuedAt: now, Expires: now.Add(time.Hour), NATS: []byte(plainUser)}
	encoded, err := token.Encode()
	require.NoError(b, err)
	signed := []byte(encoded[:strings.LastIndexByte(encoded, '.')])

	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = token.Encode()
		}
	})
	b.Run("a bare Ed25519 signature of the same bytes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ed25519.Sign(account.private, signed)
		}
	})
	b.Run("jwt/v2", func(b *testing.B) {
		b.ReportAllocs()
		claims := jwt.NewUserClaims(user.Public())
		for b.Loop() {
			_, _ = claims.Encode(pair)
		}
	})
}
