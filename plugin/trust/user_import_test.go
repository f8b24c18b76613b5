package trust

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/stretchr/testify/require"
)

func TestDecodeUserReadsAnNscUser(t *testing.T) {
	for _, path := range []string{"accounts/SYS/users/sys.jwt", "accounts/billing/users/legacy.jwt"} {
		got, err := DecodeUser(fixture(t, path))
		require.NoError(t, err)
		want, err := jwt.DecodeUserClaims(fixture(t, path))
		require.NoError(t, err)
		require.Equal(t, want.String(), got.String())
	}
}

func TestDecodingAForeignUserJWTSaysWhatIsWrongWithIt(t *testing.T) {
	account, user := mustGenerate(t, Account), mustGenerate(t, User)
	encode := func(nats string) string {
		token, err := UserToken{Issuer: account, Subject: user.Public(), IssuedAt: time.Unix(issued, 0), NATS: []byte(nats)}.Encode()
		require.NoError(t, err)
		return token
	}
	good := encode(plainUser)
	for name, test := range map[string]struct{ token, fault string }{
		"nothing":                 {"", "is not a valid NATS JWT"},
		"another signature":       {good[:len(good)-6] + "AAAAAA", "is not a valid NATS JWT"},
		"an account":              {fixture(t, "accounts/orders/orders.jwt"), "is the JWT of an account where that of a user is wanted"},
		"a claim that NATS lacks": {encode(`{"quota":1,"type":"user","version":2}`), "quota"},
		"a subject of nothing":    {encode(`{"pub":{"allow":["a..b"]},"type":"user","version":2}`), "is not valid"},
		"an unknown connection":   {encode(`{"allowed_connection_types":["PIGEON"],"type":"user","version":2}`), "PIGEON"},
		"an issuer that is none":  {encode(`{"issuer_account":"` + user.Public() + `","type":"user","version":2}`), "issuer_account is a user public key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeUser(test.token)
			require.ErrorContains(t, err, test.fault)
		})
	}
	claims, err := DecodeUser(encode(`{"tags":["Team:A"," team:a"],"allowed_connection_types":["mqtt"],"type":"user","version":2}`))
	require.NoError(t, err)
	text, err := json.Marshal(claims.User)
	require.NoError(t, err)
	require.Contains(t, string(text), `"tags":["team:a"]`)
	require.Contains(t, string(text), `"allowed_connection_types":["MQTT"]`)
}
