package delivery

import (
	"encoding/base64"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigIsCheckedWithoutANetwork(t *testing.T) {
	cert, key := newAuthority(t).issue()
	for name, test := range map[string]struct {
		cfg   Config
		fault string // empty: good
	}{
		"one NATS URL":                 {Config{ServerURLs: []string{"nats://127.0.0.1:4222"}}, ""},
		"several, with TLS":            {Config{ServerURLs: []string{"tls://a:1", "nats://b:2"}, TLS: TLS{CA: newAuthority(t).pem, Cert: cert, Key: key}}, ""},
		"account server, notification": {Config{ServerURLs: []string{"https://a/jwt/v1"}, ServiceURLs: []string{"nats://b"}}, ""},
		"no URL":                       {Config{}, "account_jwt_server_url: is empty"},
		"a scheme it does not speak":   {Config{ServerURLs: []string{"ftp://a"}}, `account_jwt_server_url: has the scheme "ftp"`},
		"no host":                      {Config{ServerURLs: []string{"nats://:4222"}}, "account_jwt_server_url: names no host"},
		"not a URL":                    {Config{ServerURLs: []string{"nats://user:pass word@a"}}, "account_jwt_server_url: is not a URL"},
		"NATS and HTTP":                {Config{ServerURLs: []string{"nats://a", "http://b"}}, "both NATS and HTTP"},
		"notification over HTTP":       {Config{ServerURLs: []string{"http://b"}, ServiceURLs: []string{"http://b"}}, `service_url: has the scheme "http"`},
		"CA that is no PEM":            {Config{ServerURLs: []string{"tls://a"}, TLS: TLS{CA: "x"}}, "tls ca: holds no PEM certificate"},
		"certificate without key":      {Config{ServerURLs: []string{"tls://a"}, TLS: TLS{Cert: cert}}, "one is given without the other"},
		"key that is not its":          {Config{ServerURLs: []string{"tls://a"}, TLS: TLS{Cert: cert, Key: "x"}}, "tls client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.cfg.Check()
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.fault)
			require.NotContains(t, err.Error(), "pass")
			_, err = New(test.cfg, nil)
			require.ErrorContains(t, err, test.fault)
		})
	}
}

func TestAccountServersAreFoundAsPeopleWriteThem(t *testing.T) {
	for given, want := range map[string]string{
		"http://a:9090":                  "http://a:9090/jwt/v1/accounts",
		"http://a:9090/":                 "http://a:9090/jwt/v1/accounts",
		"http://a:9090/jwt/v1":           "http://a:9090/jwt/v1/accounts",
		"http://a:9090/jwt/v1/":          "http://a:9090/jwt/v1/accounts",
		"https://a/x/jwt/v1/accounts":    "https://a/x/jwt/v1/accounts",
		"https://a/x/jwt/v1/accounts/":   "https://a/x/jwt/v1/accounts/",
		"https://a/x/jwt/v1/accounts?a=": "https://a/x/jwt/v1/accounts?a=",
	} {
		u, err := url.Parse(given)
		require.NoError(t, err)
		require.Equal(t, want, accountsURL(u).String())
	}
}

func TestAnAnswerIsSuccessOnlyWhenItSaysSo(t *testing.T) {
	const server = `"server":{"name":"n1","id":"N1"}`
	for name, test := range map[string]struct{ data, fault string }{
		"success":           {`{` + server + `,"data":{"account":"A","code":200,"message":"jwt updated"}}`, ""},
		"refusal":           {`{` + server + `,"error":{"code":500,"description":"store is full"}}`, "server n1 refuses: store is full"},
		"both":              {`{` + server + `,"data":{"code":200},"error":{"code":500,"description":"x"}}`, "server n1 refuses: x"},
		"another code":      {`{` + server + `,"data":{"code":500}}`, "neither success nor error"},
		"neither":           {`{` + server + `}`, "neither success nor error"},
		"no server":         {`{"data":{"code":200}}`, "names no server"},
		"empty":             {``, "not JSON"},
		"of another shape":  {`[1]`, "not JSON"},
		"of another type":   {`{"server":{"id":7}}`, "not JSON"},
		"a server's number": {`{"server":{"name":"n1","id":"N1","seq":18446744073709551615},"data":{"code":200}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseClaimsReply([]byte(test.data))
			if test.fault == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.fault)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"server":{"name":"n1","id":"N1"},"data":{"code":200}}`))
	f.Add([]byte(`{"server":{"name":"n1","id":"N1"},"error":{"code":500}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		reply, err := parseClaimsReply(data)
		if err == nil && (reply.Server.ID == "" || reply.Error != nil) {
			t.Errorf("%q passes for a success", data)
		}
	})
}

func TestAVersionIsTheJTIOrElseTheTimeOfIssue(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	for token, want := range map[string]string{
		"e30." + encode([]byte(`{"jti":"X","iat":1}`)) + ".x": "X",
		"e30." + encode([]byte(`{"iat":12}`)) + ".x":          "12",
		"e30." + encode([]byte(`{}`)) + ".x":                  "",
		"e30." + encode([]byte(`{"jti":1}`)) + ".x":           "",
		"":            "",
		"a.b":         "",
		"a.!.c":       "",
		"a.e30.c.e30": "",
	} {
		require.Equal(t, want, version(token), "%q", token)
	}
}

func TestBackoffGrowsToABoundAndNeverComesInStep(t *testing.T) {
	for n := range 100 {
		d := backoff(n)
		require.Positive(t, d)
		require.LessOrEqual(t, d, maxBackoff)
		if n > 10 {
			require.GreaterOrEqual(t, d, maxBackoff*3/4-1)
		}
	}
	require.LessOrEqual(t, backoff(1), minBackoff)
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[backoff(20)] = true
	}
	require.Greater(t, len(seen), 1)
}
