package stack

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

func startIssuer(t *testing.T, ca *CA, algs ...jose.SignatureAlgorithm) *Issuer {
	t.Helper()
	issuer, err := StartIssuer(ca, algs...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, issuer.Close()) })
	return issuer
}

// fetch returns an answer's body, at most 1 MiB of it.
func fetch(t *testing.T, client *http.Client, url string) (string, error) {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	require.NoError(t, err)
	return response.Status + " " + string(body), nil
}

func TestTokensVerifyWithThePublishedKeys(t *testing.T) {
	algs := []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}
	issuer := startIssuer(t, nil, algs...)
	body, err := fetch(t, http.DefaultClient, issuer.JWKSURL())
	require.NoError(t, err)
	var keys jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(body, "200 OK ")), &keys))

	for _, alg := range algs {
		token, err := issuer.Mint(alg, map[string]any{"sub": "me", "nbf": nil})
		require.NoError(t, err)
		parsed, err := jose.ParseSignedCompact(token, algs)
		require.NoError(t, err)
		payload, err := parsed.Verify(keys.Key(parsed.Signatures[0].Header.KeyID)[0])
		require.NoError(t, err)
		var claims map[string]any
		require.NoError(t, json.Unmarshal(payload, &claims))
		require.Equal(t, "me", claims["sub"])
		require.Equal(t, issuer.URL, claims["iss"])
		require.NotContains(t, claims, "nbf")
	}
}

func TestARotatedKeyIsNoLongerPublished(t *testing.T) {
	issuer := startIssuer(t, nil, jose.ES256)
	old, err := issuer.Key(jose.ES256)
	require.NoError(t, err)
	_, err = issuer.Rotate(jose.ES256)
	require.NoError(t, err)
	body, err := fetch(t, http.DefaultClient, issuer.JWKSURL())
	require.NoError(t, err)
	require.NotContains(t, body, old.ID)
}

func TestAnIssuerFailsAsItIsTold(t *testing.T) {
	issuer := startIssuer(t, nil, jose.ES256)
	client := &http.Client{}
	for _, c := range []struct {
		fault Fault
		want  string
		fails bool
	}{
		{fault: Healthy, want: `200 OK {"id_token_signing`},
		{fault: Down, fails: true},
		{fault: Slow, fails: true},
		{fault: Failing, want: "500 "},
		{fault: Garbage, want: "200 OK <html>"},
		{fault: Huge, want: `200 OK {"keys":[{"kty"`},
		{fault: Redirect, want: `200 OK {"id_token_signing`},
		{fault: Healthy, want: `200 OK {"id_token_signing`},
	} {
		issuer.SetFault(c.fault)
		client.Timeout = 0
		if c.fault == Slow {
			client.Timeout = 200 * time.Millisecond
		}
		body, err := fetch(t, client, issuer.URL+DiscoveryPath)
		if c.fails {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(body, c.want), "%.100s", body)
	}
	require.Equal(t, 1, issuer.Requests(redirectedPath+DiscoveryPath))
	// A transport repeats a request whose reused connection was cut.
	require.GreaterOrEqual(t, issuer.Requests(DiscoveryPath), 8)
}

func TestAnIssuerWithACAServesTLS(t *testing.T) {
	ca, err := NewCA()
	require.NoError(t, err)
	issuer := startIssuer(t, ca, jose.ES256)
	_, err = fetch(t, http.DefaultClient, issuer.JWKSURL())
	require.ErrorContains(t, err, "certificate")

	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM([]byte(ca.PEM)))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(client.CloseIdleConnections)
	_, err = fetch(t, client, issuer.JWKSURL())
	require.NoError(t, err)
}
