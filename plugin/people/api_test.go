package people

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/standin"
)

// oktaHost is where a test's organization at Okta is.
const oktaHost = "example.okta.com"

const (
	anOktaConfig = `{"provider": "okta", "org_url": "https://` + oktaHost + `", "fetch_groups": true, "api_token": "the-api-token"}`
	theAPIToken  = "the-api-token"
)

func TestWhatAProviderAnswersIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		fault  string // empty: an outage, which detail says
		detail string
	}{
		"a huge answer": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "[")
			for range 1 << 12 {
				_, _ = io.WriteString(w, strings.Repeat(" ", 1<<10))
			}
		}, "answered with more than 2097152 bytes", ""},
		"huge headers": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, "", "headers"},
		"too many groups": {func(w http.ResponseWriter, r *http.Request) {
			after := r.URL.Query().Get("after")
			w.Header().Set("Link", fmt.Sprintf(`<https://%s/api/v1/users/ann/groups?after=%sx>; rel="next"`, oktaHost, after))
			var list []string
			for i := range 1000 {
				list = append(list, fmt.Sprintf(`{"profile": {"name": "%d%s"}}`, i, after))
			}
			_, _ = io.WriteString(w, "["+strings.Join(list, ",")+"]")
		}, "there are more than 11000 groups", ""},
		"pages without end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<https://`+oktaHost+`/api/v1/users/ann/groups?after=1>; rel="next"`)
			_, _ = io.WriteString(w, "[]")
		}, "takes more than 200 requests", ""},
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html>")
		}, "answered with what is not the JSON that is documented", ""},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/groups", http.StatusTemporaryRedirect)
		}, "GET https://" + oktaHost + "/api/v1/users/ann/groups answered with status 307", ""},
		"an outage": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		}, "", "GET https://" + oktaHost + "/api/v1/users/ann/groups answered with status 502"},
		"too many requests": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"errorCode": "E0000047", "errorSummary": "API call exceeded rate limit due to too many requests."}`)
		}, "", "answered with status 429 (E0000047)"},
		"a connection that breaks": {func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, "", "EOF"},
		"what was sent": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errorCode": "`+theAPIToken+`", "errorSummary": "`+theAPIToken+`"}`)
		}, "answered with status 403", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := standin.New(t)
			n.Serve(oktaHost, test.answer)
			n.Serve("evil.example", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			groups, err := asked(t, newSource(t, n, anOktaConfig), &Subject{Claims: map[string]any{}, User: "ann"})
			require.Nil(t, groups)
			require.Error(t, err)
			if test.fault != "" {
				require.NotErrorIs(t, err, claims.ErrUnavailable)
				require.ErrorContains(t, err, test.fault)
			} else {
				var outage *claims.UnavailableError
				require.ErrorAs(t, err, &outage)
				require.EqualError(t, err, `issuer "default" is unavailable: the groups at Okta cannot be had now`)
				require.ErrorContains(t, outage.Unwrap(), test.detail)
				require.NotContains(t, outage.Unwrap().Error(), theAPIToken)
				require.NotContains(t, outage.Unwrap().Error(), "limit=", "the query")
			}
			require.NotContains(t, err.Error(), theAPIToken)
			for _, line := range n.Lines() {
				require.NotContains(t, line, "evil.example")
			}
			require.LessOrEqual(t, len(n.Lines()), maxRequests)
		})
	}
}

func TestOnlySoManyLoginsWaitForAProvider(t *testing.T) {
	n := standin.New(t)
	source := newSource(t, n, anOktaConfig).(*okta)
	for range maxLookups {
		_, err := source.begin()
		require.NoError(t, err)
	}
	_, err := asked(t, source, &Subject{Claims: map[string]any{}, User: "ann"})
	require.ErrorIs(t, err, claims.ErrUnavailable)
	require.Empty(t, n.Lines())
}

// FuzzNextPage looks for links that lead a token astray.
func FuzzNextPage(f *testing.F) {
	for _, link := range []string{
		`<https://example.okta.com/api/v1/users/x/groups?after=1>; rel="next"`, `<https://a/>; rel="self", </b?c=d,e>; title="a, b"; rel=next`,
		`<//evil.example/>; rel="next"`, `<https://example.okta.com@evil.example/>; rel=next`, `<https:evil>; rel="prev next"`, `<http://example.okta.com/>; rel=next`,
		`<https://example.okta.com:444/>; rel="next"`, `<\\evil.example>; rel="next"`, `<a>; rel="nextish"`, `<a>; norel=next`, `<a>; title="; rel=next"`, `<`,
	} {
		f.Add(link)
	}
	first, err := url.Parse("https://example.okta.com/api/v1/users/x/groups")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, header string) {
		link := nextLink([]string{header})
		require.Contains(t, header, link)
		page, err := next(first, link)
		if err != nil {
			return
		}
		again, err := url.Parse(page.String())
		require.NoError(t, err)
		require.Equal(t, "https", again.Scheme)
		require.True(t, strings.EqualFold("example.okta.com", again.Host), again.Host)
		require.Nil(t, again.User)
	})
}

func FuzzErrorCode(f *testing.F) {
	for _, body := range []string{
		`{"error": {"code": "Authorization_RequestDenied", "message": "x"}}`, `{"error": {"code": 403, "status": "PERMISSION_DENIED"}}`,
		`{"error": "invalid_grant", "error_description": "x"}`, `{"errorCode": "E0000011"}`, `{"error": "the-token"}`, `{"error": []}`, `[]`,
	} {
		f.Add([]byte(body), "Bearer the-token")
	}
	f.Fuzz(func(t *testing.T, body []byte, sent string) {
		code := errorCode(body, sent)
		if code == "" {
			return
		}
		require.Regexp(t, `^[A-Za-z][A-Za-z0-9_.-]{2,63}$`, code)
		require.NotContains(t, sent, code)
	})
}

func TestTheWordOfAnErrorIsKeptAndItsSentencesAreNot(t *testing.T) {
	for body, code := range map[string]string{
		`{"error": {"code": "Authorization_RequestDenied", "message": "x"}}`:      "Authorization_RequestDenied",
		`{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "x"}}`: "PERMISSION_DENIED",
		`{"error": "unauthorized_client", "error_description": "x"}`:              "unauthorized_client",
		`{"errorCode": "E0000011", "errorSummary": "Invalid token provided"}`:     "E0000011",
		`{"error": {"code": 404, "message": "Resource Not Found: userKey"}}`:      "",
		`{"error": "Bearer token"}`:                                               "",
		`{"error": {"code": "` + digest("secret") + digest("secret") + `"}}`:      "",
		`<html>`: "",
	} {
		require.Equal(t, code, errorCode([]byte(body), ""), body)
	}
	require.Empty(t, errorCode([]byte(`{"error": "abcdef"}`), "Bearer xabcdefx"))
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
