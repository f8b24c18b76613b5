package people

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/standin"
)

// newOktaOrg serves an organization at Okta, where ann is in so many groups.
func newOktaOrg(t *testing.T, groups int) *standin.Internet {
	n := standin.New(t)
	n.Serve(oktaHost, &standin.Okta{
		Token: theAPIToken, Owner: "root@example.com", Page: 50,
		Groups: map[string][]string{
			"00u1":                   {"everyone"},
			"ann@example.com":        numbered("group", groups),
			"a/b?c#d%2F@example.com": {"odd"},
			"root@example.com":       {"admins"},
		},
	})
	return n
}

func numbered(name string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", name, i)
	}
	return names
}

// listed is a JSON list of names.
func listed(names []string) string { return `["` + strings.Join(names, `", "`) + `"]` }

func TestGroupsThatOktaLeavesOutComeFromItsAPI(t *testing.T) {
	const first = "GET " + oktaHost + "/api/v1/users/ann@example.com/groups?limit=200"
	for name, test := range map[string]struct {
		config, claims string // of config: what follows the API token
		user           string
		groups         []string
		requests       int
		first          string
	}{
		"as many as a token has at most": {"", `{"groups": ` + listed(numbered("group", 100)) + `}`, "ann@example.com", numbered("group", 120), 3, first},
		"none":                           {"", `{}`, "ann@example.com", numbered("group", 120), 3, first},
		"fewer stay":                     {"", `{"groups": ` + listed(numbered("group", 99)) + `}`, "ann@example.com", nil, 0, ""},
		"as many as are configured":      {`, "groups_cap": 2`, `{"groups": ["a", "b"]}`, "ann@example.com", numbered("group", 120), 3, first},
		"by another claim":               {`, "user_id_claim": "uid"`, `{"uid": "00u1"}`, "ann@example.com", []string{"everyone"}, 1, "GET " + oktaHost + "/api/v1/users/00u1/groups?limit=200"},
		"by a claim within a claim":      {`, "user_id_claim": "/okta/uid"`, `{"okta": {"uid": "00u1"}}`, "", []string{"everyone"}, 1, ""},
		"only those that match":          {`, "groups_filter": "-1[01]$"`, `{}`, "ann@example.com", []string{"group-10", "group-11"}, 3, ""},
		"only those of the token":        {`, "groups_filter": "^a"`, `{"groups": ["a", "b"]}`, "ann@example.com", []string{"a"}, 0, ""},
		"none that match":                {`, "groups_filter": "^x"`, `{"groups": ["a", "b"]}`, "ann@example.com", []string{}, 0, ""},
		"of a user with odd letters":     {"", `{}`, "a/b?c#d%2F@example.com", []string{"odd"}, 1, "GET " + oktaHost + "/api/v1/users/a%2Fb%3Fc%23d%252F@example.com/groups?limit=200"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newOktaOrg(t, 120)
			config := strings.TrimSuffix(anOktaConfig, "}") + test.config + "}"
			groups, err := asked(t, newSource(t, n, config), &Subject{Claims: object(t, test.claims), User: test.user, AccessToken: "anns-token"})
			require.NoError(t, err)
			require.Equal(t, test.groups, groups)
			requests := n.Requests()
			require.Len(t, requests, test.requests)
			for _, r := range requests {
				require.Equal(t, "SSWS "+theAPIToken, r.Authorization)
			}
			if test.first != "" {
				require.Equal(t, test.first, requests[0].Line)
			}
		})
	}
}

func TestOktaIsNotAskedUnlessItIsConfigured(t *testing.T) {
	n := newOktaOrg(t, 1)
	source := newSource(t, n, `{"provider": "okta", "groups_filter": "^a"}`)
	groups, err := asked(t, source, &Subject{Claims: object(t, `{"groups": `+listed(append(numbered("b", 200), "a"))+`}`), User: "ann@example.com"})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, groups)
	groups, err = asked(t, source, &Subject{Claims: map[string]any{}, User: "ann@example.com"})
	require.NoError(t, err)
	require.Nil(t, groups)
	require.Empty(t, n.Lines())
}

func TestTheOrganizationsURLIsThatOfTheIssuerUnlessItIsConfigured(t *testing.T) {
	n := newOktaOrg(t, 1)
	source := newSource(t, n, `{"provider": "okta", "fetch_groups": true, "api_token": "`+theAPIToken+`"}`, "https://"+oktaHost+"/oauth2/default")
	groups, err := asked(t, source, &Subject{Claims: map[string]any{}, User: "ann@example.com"})
	require.NoError(t, err)
	require.Equal(t, []string{"group-0"}, groups)
}

func TestNobodyGetsTheGroupsOfTheAPITokensOwner(t *testing.T) {
	for _, user := range []string{"me", "ME", " me", ".", ".."} {
		n := newOktaOrg(t, 1)
		_, err := asked(t, newSource(t, n, anOktaConfig), &Subject{Claims: map[string]any{}, User: user})
		require.EqualError(t, err, fmt.Sprintf("provider_config: the role's user_claim is %q, which names nobody", user))
		config := strings.TrimSuffix(anOktaConfig, "}") + `, "user_id_claim": "nick"}`
		_, err = asked(t, newSource(t, n, config), &Subject{Claims: map[string]any{"nick": user}, User: "00u1"})
		require.EqualError(t, err, fmt.Sprintf(`provider_config: the claim "nick" of user_id_claim is %q, which names nobody`, user))
		require.Empty(t, n.Lines())
	}
}

func TestWhatOktaRefusesIsToldWithoutTheAPIToken(t *testing.T) {
	for name, test := range map[string]struct{ config, user, claims, fault string }{
		"a wrong API token":           {strings.Replace(anOktaConfig, theAPIToken, "another-token", 1), "ann@example.com", `{}`, "GET https://example.okta.com/api/v1/users/ann@example.com/groups answered with status 401 (E0000011)"},
		"somebody unknown":            {anOktaConfig, "eve@example.com", `{}`, "answered with status 404 (E0000007)"},
		"nobody":                      {anOktaConfig, "", `{}`, "the role's user_claim is not in the token, or is no string: it says whose groups to ask for"},
		"a user_id_claim of a number": {strings.TrimSuffix(anOktaConfig, "}") + `, "user_id_claim": "uid"}`, "ann@example.com", `{"uid": 1}`, `the claim "uid" of user_id_claim is not in the token, or is no string`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := asked(t, newSource(t, newOktaOrg(t, 1), test.config), &Subject{Claims: object(t, test.claims), User: test.user})
			require.ErrorContains(t, err, test.fault)
			require.NotContains(t, err.Error(), "token\"")
			require.NotContains(t, err.Error(), "another-token")
		})
	}
}

func TestTheAPITokenGoesToTheOrganizationAndNowhereElse(t *testing.T) {
	for _, link := range []string{
		`<https://evil.example/api/v1/users/ann/groups?after=1>; rel="next"`, `<//evil.example/>; rel=next`, `<https://` + oktaHost + `@evil.example/>; rel="next"`,
		`<http://` + oktaHost + `/x>; rel="next"`, `<https://` + oktaHost + `:8443/x>; rel="next"`, `<https://` + oktaHost + `.evil.example/x>; rel="prev next"`,
	} {
		n := standin.New(t)
		n.Serve("evil.example", http.NotFoundHandler())
		n.Serve(oktaHost, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", link)
			_, _ = w.Write([]byte(`[{"profile": {"name": "g"}}]`))
		}))
		_, err := asked(t, newSource(t, n, anOktaConfig), &Subject{Claims: map[string]any{}, User: "ann"})
		require.ErrorContains(t, err, "provider_config: the answer names a next page at ", link)
		require.Len(t, n.Lines(), 1)
	}
}

func TestTheNextPageIsFoundAmongLinks(t *testing.T) {
	for header, want := range map[string]string{
		`<https://a/?after=1>; rel="next"`:                       "https://a/?after=1",
		`<https://a/>; rel="self", <https://a/?x=1,2>; rel=next`: "https://a/?x=1,2",
		`<https://a/>;title="a, <b>; rel=next";rel="prev next"`:  "https://a/",
		`<https://a/>; REL="NEXT"`:                               "https://a/",
		`<https://a/>; rel="self"`:                               "",
		`<https://a/>; rel="nextish"`:                            "",
		`<https://a/>; title="; rel=next"`:                       "",
		`<https://a/>; xrel="next"`:                              "",
		`https://a/; rel="next"`:                                 "",
	} {
		require.Equal(t, want, nextLink([]string{`<https://self/>; rel="self"`, header}), header)
	}
}

func TestTheConfigurationOfOktaIsChecked(t *testing.T) {
	const issuer = "https://example.okta.com"
	for name, test := range map[string]struct{ config, discovery, fault string }{
		"no API token":                   {`"fetch_groups": true`, issuer, "api_token is missing: fetch_groups needs it"},
		"nowhere to ask":                 {`"fetch_groups": true, "api_token": "x"`, "", "org_url is missing: fetch_groups needs it where the issuer has no oidc_discovery_url"},
		"an issuer without TLS":          {`"fetch_groups": true, "api_token": "x"`, "http://example.okta.com", "org_url is missing: the API token is sent to https servers only"},
		"no TLS":                         {`"org_url": "http://example.okta.com"`, issuer, "org_url is not an https URL without credentials"},
		"no host":                        {`"org_url": "https://"`, issuer, "org_url is not an https URL"},
		"a password in the URL":          {`"org_url": "https://a:secret@example.okta.com"`, issuer, "org_url is not an https URL"},
		"no URL":                         {`"org_url": "example.okta.com"`, issuer, "org_url is not an https URL"},
		"a path":                         {`"org_url": "https://example.okta.com/oauth2/default"`, issuer, "org_url is more than a scheme and a host"},
		"a cap that is negative":         {`"groups_cap": -1`, issuer, "groups_cap is negative"},
		"a cap that is a fraction":       {`"groups_cap": 1.5`, issuer, "groups_cap is not a whole number"},
		"a cap that is a string":         {`"groups_cap": "100"`, issuer, "groups_cap is not a whole number"},
		"a cap that is too big":          {`"groups_cap": 1e300`, issuer, "groups_cap is not a whole number"},
		"a filter that is no expression": {`"groups_filter": "("`, issuer, "groups_filter error parsing regexp"},
		"a claim that is no pointer":     {`"user_id_claim": "/a~b"`, issuer, `user_id_claim "/a~b" is not a JSON pointer`},
		"a token that is no string":      {`"api_token": 1`, issuer, "api_token is not a string"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewSource(SourceConfig{Settings: object(t, `{"provider": "okta", `+test.config+`}`), DiscoveryURL: test.discovery})
			require.ErrorContains(t, err, "provider_config "+test.fault)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	for _, cap := range []any{50, 50.0} { // as callers in Go and what was stored have it
		_, err := NewSource(SourceConfig{Settings: map[string]any{"provider": "okta", "groups_cap": cap, "org_url": issuer + "/"}})
		require.NoError(t, err)
	}
}

func TestTheSecretsOfAProviderConfigAreNotShown(t *testing.T) {
	config := object(t, anOktaConfig)
	require.True(t, HasSecret(config))
	shown := ShownSource(config)
	require.Equal(t, map[string]any{"provider": "okta", "org_url": "https://" + oktaHost, "fetch_groups": true}, shown)
	require.False(t, HasSecret(shown))
	require.Equal(t, object(t, anOktaConfig), config, "what is stored stays")
	require.NotContains(t, fmt.Sprintf("%+v %#v", newSource(t, standin.New(t), anOktaConfig), newSource(t, standin.New(t), anOktaConfig)), theAPIToken)
}
