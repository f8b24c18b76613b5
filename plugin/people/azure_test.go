package people

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/people/standin"
)

const (
	ann = "5b8c2e39-3f41-4a73-8b57-0d6a64c1f001"
	bob = "5b8c2e39-3f41-4a73-8b57-0d6a64c1f002"
	// anOverage is what a token says of ann's groups when it has no room for them.
	anOverage = `{"oid": "` + ann + `", "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/users/` + ann + `/getMemberObjects"}}}`
)

// newGraph serves Microsoft Graph, where ann and bob are.
func newGraph(t *testing.T, hosts ...string) *standin.Internet {
	n := standin.New(t)
	people := map[string]string{"anns-token": ann, "bobs-token": bob, "an-apps-token": ""}
	graph := &standin.Graph{
		Who:    func(token string) (string, bool) { id, good := people[token]; return id, good },
		Groups: map[string][]string{ann: {"g1", "g2", "g3", "g4", "g5"}, bob: {"admins"}},
		Page:   2,
	}
	for _, host := range append(hosts, graphHost) {
		n.Serve(host, graph)
	}
	return n
}

func TestGroupsThatATokenOfAzureHasNoRoomForComeFromGraph(t *testing.T) {
	all := []string{"g1", "g2", "g3", "g4", "g5"}
	for name, test := range map[string]struct {
		config, issuer string // of config: what follows the provider
		of             Subject
		claims         string
		groups         []string
		first          string // request; empty: none
	}{
		"an overage": {
			of: Subject{AccessToken: "anns-token"}, claims: anOverage, groups: all,
			first: "POST graph.microsoft.com/v1.0/72f988bf-86f1-41af-91ab-2d7cd011db47/users/" + ann + "/getMemberObjects",
		},
		"an overage below a JSON pointer": {
			of: Subject{AccessToken: "anns-token", GroupsClaim: "/groups"}, claims: anOverage, groups: all,
			first: "POST graph.microsoft.com/v1.0/72f988bf-86f1-41af-91ab-2d7cd011db47/users/" + ann + "/getMemberObjects",
		},
		"an overage of an application's login": {
			of: Subject{AccessToken: "an-apps-token", Presented: true}, claims: anOverage, groups: all,
			first: "POST graph.microsoft.com/v1.0/72f988bf-86f1-41af-91ab-2d7cd011db47/users/" + ann + "/getMemberObjects",
		},
		"an overage in the cloud of the US": {
			of: Subject{AccessToken: "anns-token"}, claims: strings.ReplaceAll(anOverage, "graph.windows.net", "graph.microsoftazure.us"), groups: all,
			first: "POST graph.microsoft.us/v1.0/72f988bf-86f1-41af-91ab-2d7cd011db47/users/" + ann + "/getMemberObjects",
		},
		"an overage of another cloud": {
			of: Subject{AccessToken: "anns-token"}, claims: strings.ReplaceAll(anOverage, "graph.windows.net/", "dod-graph.microsoft.us/v1.0/"), groups: all,
			first: "POST dod-graph.microsoft.us/v1.0/72f988bf-86f1-41af-91ab-2d7cd011db47/users/" + ann + "/getMemberObjects",
		},
		"hasgroups": {
			of: Subject{AccessToken: "anns-token"}, claims: `{"hasgroups": true}`, groups: all,
			first: "POST graph.microsoft.com/v1.0/me/getMemberObjects",
		},
		"hasgroups in the cloud of the US": {
			issuer: "https://login.microsoftonline.us/common/v2.0",
			of:     Subject{AccessToken: "anns-token"}, claims: `{"hasgroups": "true"}`, groups: all,
			first: "POST graph.microsoft.us/v1.0/me/getMemberObjects",
		},
		"groups in the token": {
			of: Subject{AccessToken: "anns-token"}, claims: `{"groups": ["g1"], "hasgroups": true}`,
		},
		"fetch_groups, whatever the token has": {
			config: `, "fetch_groups": true`,
			of:     Subject{AccessToken: "anns-token"}, claims: `{"groups": ["g1"]}`, groups: all,
			first: "POST graph.microsoft.com/v1.0/me/getMemberObjects",
		},
		"fetch_groups with a token that was brought": {
			config: `, "fetch_groups": true`,
			of:     Subject{AccessToken: "an-apps-token", Presented: true}, claims: `{"oid": "` + ann + `"}`, groups: all,
			first: "POST graph.microsoft.com/v1.0/users/" + ann + "/getMemberObjects",
		},
		"no groups, and no more of them elsewhere": {
			of: Subject{AccessToken: "anns-token"}, claims: `{"_claim_names": {"other": "src1"}, "hasgroups": false}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newGraph(t, graphUSHost, "dod-graph.microsoft.us")
			of := test.of
			of.Claims = object(t, test.claims)
			if of.GroupsClaim == "" {
				of.GroupsClaim = "groups"
			}
			more, err := Ask(t.Context(), newSource(t, n, `{"provider": "azure"`+test.config+`}`, test.issuer), &of)
			require.NoError(t, err)
			groups, _ := textList(more["groups"])
			require.Equal(t, test.groups, groups)
			if test.first == "" {
				require.Empty(t, n.Lines())
				return
			}
			requests := n.Requests()
			require.Equal(t, test.first, requests[0].Line)
			require.JSONEq(t, `{"securityEnabledOnly": false}`, requests[0].Body)
			require.Len(t, requests, 3, "pages")
			for _, r := range requests[1:] {
				require.Contains(t, r.Line, "GET "+strings.TrimPrefix(test.first, "POST "))
				require.Equal(t, "Bearer "+of.AccessToken, r.Authorization)
			}
		})
	}
}

func TestNobodyGetsTheGroupsOfAnotherByTheirAccessToken(t *testing.T) {
	// Mallory has an ID token of his own, and an access token of an administrator who
	// once used an application of his.
	for name, config := range map[string]string{"fetch_groups": `{"provider": "azure", "fetch_groups": true}`, "hasgroups": `{"provider": "azure"}`} {
		t.Run(name, func(t *testing.T) {
			n := newGraph(t)
			source := newSource(t, n, config)
			_, err := asked(t, source, &Subject{Claims: object(t, `{"oid": "`+ann+`", "hasgroups": true}`), AccessToken: "bobs-token", Presented: true})
			require.EqualError(t, err, "provider_config: POST https://graph.microsoft.com/v1.0/users/"+ann+"/getMemberObjects answered with status 403 (Authorization_RequestDenied)")

			for _, oid := range []string{`""`, `null`, `"../me"`, `"` + bob + `/../x"`, `["` + bob + `"]`} {
				_, err = asked(t, source, &Subject{Claims: object(t, `{"oid": `+oid+`, "hasgroups": true}`), AccessToken: "bobs-token", Presented: true})
				require.EqualError(t, err, "provider_config: the token has no oid claim with the id that the person has at Microsoft Graph")
			}
			require.Len(t, n.Lines(), 1)
		})
	}
}

func TestAnAccessTokenGoesToGraphAndNowhereElse(t *testing.T) {
	path := "/v1.0/users/" + ann + "/getMemberObjects"
	for endpoint, fault := range map[string]string{
		"https://evil.example" + path:                              `is at "evil.example", which is not a host of Microsoft Graph`,
		"https://graph.microsoft.com.evil.example" + path:          "is not a host of Microsoft Graph",
		"https://graph.microsoft.com@evil.example" + path:          "is not an https URL",
		"https://evil.example#graph.microsoft.com" + path:          "is not a host of Microsoft Graph",
		"https://169.254.169.254" + path:                           "is not a host of Microsoft Graph",
		"https://graph.microsoft.com:8443" + path:                  "is at the port 8443",
		"http://graph.microsoft.com" + path:                        "is not an https URL",
		"//graph.microsoft.com" + path:                             "is not an https URL",
		path:                                                       "is not an https URL",
		"":                                                         "is not an https URL",
		"https:graph.microsoft.com" + path:                         "is not an https URL",
		"https://graph.microsoft.com/v1.0/me/getMemberObjects":     "has a path that does not end with users/<id>/getMemberObjects",
		"https://graph.microsoft.com/v1.0/me/sendMail":             "has a path that does not end with users/<id>/getMemberObjects",
		"https://graph.microsoft.com/v1.0/me/../users/x/sendMail":  "has a path",
		"https://graph.microsoft.com/v1.0/users/a%2Fb/sendMail":    "has a path",
		"https://graph.microsoft.com" + path + "/../../x":          "has a path",
		"https://graph.windows.net/users/../me/getMemberObjects":   "has a path",
		"https://graph.microsoft.com/v1.0/users/%2e%2e/sendMail?/": "has a path",
	} {
		t.Run(endpoint, func(t *testing.T) {
			n := newGraph(t, "evil.example", "169.254.169.254", "graph.microsoft.com.evil.example")
			quoted, err := json.Marshal(endpoint)
			require.NoError(t, err)
			_, err = asked(t, newSource(t, n, `{"provider": "azure"}`), &Subject{
				Claims:      object(t, `{"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": `+string(quoted)+`}}}`),
				AccessToken: "anns-token",
			})
			require.ErrorContains(t, err, `provider_config: the endpoint of the claim "groups" in _claim_sources `)
			require.ErrorContains(t, err, fault)
			require.Empty(t, n.Lines())
		})
	}
}

func TestAPageOfGroupsIsOnlyAskedForAtGraph(t *testing.T) {
	for link, fault := range map[string]string{
		"https://evil.example/v1.0/x":              `the answer names a next page at "evil.example" and not at "graph.microsoft.com", where the token is for`,
		"http://graph.microsoft.com/v1.0/x":        `the answer names a next page at "graph.microsoft.com" and not`,
		"//evil.example/v1.0/x":                    `the answer names a next page at "evil.example" and not`,
		"https://graph.microsoft.com:444/x":        `the answer names a next page at "graph.microsoft.com:444" and not`,
		"https://x@graph.microsoft.com/v1.0/x":     `the answer names a next page at "graph.microsoft.com" and not`,
		"https://graph.microsoft.com/\x01?x=%zz":   "the answer names a next page that is not a URL",
		"https://graph.microsoft.com/v1.0/me/next": "takes more than 200 requests",
	} {
		t.Run(link, func(t *testing.T) {
			n := standin.New(t)
			n.Serve("evil.example", http.NotFoundHandler())
			n.Serve(graphHost, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]any{"value": []string{"g1"}, "@odata.nextLink": link})
			}))
			_, err := asked(t, newSource(t, n, `{"provider": "azure"}`), &Subject{Claims: object(t, anOverage), AccessToken: "anns-token"})
			require.ErrorContains(t, err, fault)
			require.NotContains(t, err.Error(), "anns-token")
			for _, line := range n.Lines() {
				require.Contains(t, line, " "+graphHost+"/")
			}
		})
	}
}

func TestWhatGraphRefusesIsToldWithoutTheToken(t *testing.T) {
	for name, test := range map[string]struct{ token, claims, fault string }{
		"no access token":                  {"", anOverage, "there is no access token, without which Microsoft Graph cannot be asked for the groups"},
		"a token for another API":          {"a-token-for-another-api", anOverage, "answered with status 401 (InvalidAuthenticationToken)"},
		"a token that is no header":        {"a\r\ntoken", anOverage, ""},
		"another's":                        {"bobs-token", anOverage, "answered with status 403 (Authorization_RequestDenied)"},
		"names without sources":            {"anns-token", `{"_claim_names": {"groups": "src1"}}`, `the token's _claim_names have the claim "groups" at "src1", for which its _claim_sources have no endpoint`},
		"sources without an endpoint":      {"anns-token", `{"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"JWT": "x"}}}`, "have no endpoint"},
		"sources that are no objects":      {"anns-token", `{"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": ["endpoint"]}}`, "have no endpoint"},
		"an endpoint that is not a string": {"anns-token", `{"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": 1}}}`, "have no endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := asked(t, newSource(t, newGraph(t), `{"provider": "azure"}`), &Subject{Claims: object(t, test.claims), AccessToken: test.token})
			require.Error(t, err)
			if test.fault == "" {
				require.ErrorIs(t, err, claims.ErrUnavailable)
			} else {
				require.ErrorContains(t, err, "provider_config: ")
				require.ErrorContains(t, err, test.fault)
			}
			if test.token != "" {
				require.NotContains(t, err.Error(), test.token)
			}
		})
	}
}

func TestTheConfigurationOfAzureIsChecked(t *testing.T) {
	_, err := NewSource(SourceConfig{Settings: object(t, `{"provider": "azure", "fetch_groups": "true"}`)})
	require.EqualError(t, err, "provider_config fetch_groups is neither true nor false")
	_, err = NewSource(SourceConfig{Settings: object(t, `{"provider": "azure", "fetch_group": true}`)})
	require.EqualError(t, err, `provider_config has the key "fetch_group", which the provider azure does not know: it has provider, fetch_groups`)
}

// FuzzClaimEndpoint looks for tokens that get an access token sent elsewhere.
func FuzzClaimEndpoint(f *testing.F) {
	f.Add(anOverage)
	f.Add(`{"_claim_names": {"groups": "a"}, "_claim_sources": {"a": {"endpoint": "https://graph.microsoft.com@evil.example/v1.0/users/a/getMemberObjects"}}}`)
	f.Add(`{"_claim_names": {"groups": "a"}, "_claim_sources": {"a": {"endpoint": "https://GRAPH.microsoft.com:443/v1.0/users/a/getmemberobjects?x#y"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := claims.DecodeObject(text)
		if err != nil {
			return
		}
		endpoint, err := claimEndpoint(all, "groups")
		if err != nil || endpoint == nil {
			return
		}
		sent, err := url.Parse(endpoint.String())
		require.NoError(t, err)
		require.Equal(t, "https", sent.Scheme)
		require.True(t, graphHosts[sent.Host], sent.Host)
		require.Regexp(t, `(?i)/getmemberobjects$`, sent.Path)
		require.NotContains(t, sent.Path, "..")
		require.Nil(t, sent.User)
	})
}
