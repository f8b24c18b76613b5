package people

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// The hosts of Microsoft Graph, in the clouds that Microsoft runs, and where the
// directory's API before it was, which is retired and which tokens still name.
// An access token goes nowhere else.
const (
	graphHost   = "graph.microsoft.com"
	graphUSHost = "graph.microsoft.us"
	graphCNHost = "microsoftgraph.chinacloudapi.cn"
)

var (
	graphHosts = map[string]bool{graphHost: true, graphUSHost: true, "dod-graph.microsoft.us": true, graphCNHost: true}

	retiredGraphs = map[string]string{
		"graph.windows.net":       graphHost,
		"graph.microsoftazure.us": graphUSHost,
		"graph.chinacloudapi.cn":  graphCNHost,
	}

	// graphOfLogin has the clouds but the public one, by the host of the issuer.
	graphOfLogin = map[string]string{
		"login.microsoftonline.us":         graphUSHost,
		"login.chinacloudapi.cn":           graphCNHost,
		"login.partner.microsoftonline.cn": graphCNHost,
	}
)

// graphVersion is the first part of the path of every request to Graph.
const graphVersion = "/v1.0"

// azure gets the groups of a person from Microsoft Graph when the token leaves them
// out: where there are more than 200 it says instead where they can be had (OpenID
// Connect Core section 5.6.2, distributed claims):
//
//	"_claim_names": {"groups": "src1"},
//	"_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/<tenant>/users/<oid>/getMemberObjects"}}
//
// or, where tokens have to be short, only that there are some: "hasgroups": true.
// A request to Graph needs the person's access token.
type azure struct {
	*api
	fetchGroups bool   // also where the token has them
	graph       string // the host of Graph where the token names none
}

func newAzure(s *settings, c *SourceConfig) (Source, error) {
	a := &azure{api: newAPI(c, "the groups at Microsoft Graph"), fetchGroups: s.flag("fetch_groups"), graph: graphHost}
	if issuer, err := url.Parse(c.DiscoveryURL); err == nil {
		if host, ok := graphOfLogin[strings.ToLower(issuer.Hostname())]; ok {
			a.graph = host
		}
	}
	return a, nil
}

// Find returns the groups that the token leaves out.
func (a *azure) Find(ctx context.Context, of *Subject) (*Found, error) {
	if of.GroupsClaim == "" || !a.fetchGroups && of.groups() != nil {
		return &Found{}, nil
	}
	members, err := a.members(of)
	if err != nil {
		return nil, err
	}
	if members == nil {
		return &Found{}, nil
	}
	if of.AccessToken == "" {
		return nil, errors.New("there is no access token, without which Microsoft Graph cannot be asked for the groups: " +
			"with oidc_response_types=id_token no person has one, and who logs in with a token brings it as distributed_claim_access_token")
	}
	groups, err := a.memberObjects(ctx, members, of.AccessToken)
	if err != nil {
		return nil, err
	}
	return &Found{Groups: groups}, nil
}

// members is where the person's groups can be had; nil if the token does not say
// that there are any.
func (a *azure) members(of *Subject) (*url.URL, error) {
	if !a.fetchGroups {
		endpoint, err := claimEndpoint(of.Claims, of.path().Name())
		if err != nil {
			return nil, err
		}
		if endpoint != nil {
			return endpoint, nil
		}
		if !hasGroups(of.Claims) {
			return nil, nil
		}
	}
	path := "/me"
	if of.Presented {
		// Whose token it is nobody knows. The groups are to be those of whom the
		// verified token is about.
		oid, _ := of.Claims["oid"].(string)
		if !objectID.MatchString(oid) {
			return nil, errors.New("the token has no oid claim with the id that the person has at Microsoft Graph")
		}
		path = "/users/" + oid
	}
	return &url.URL{Scheme: "https", Host: a.graph, Path: graphVersion + path + memberObjects}, nil
}

// memberObjects is Graph's action for the groups and roles that somebody is in,
// directly or not.
const memberObjects = "/getMemberObjects"

// objectID is the form of the ids of Graph.
var objectID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// hasGroups reports whether a token says that it has no room for groups.
func hasGroups(all map[string]any) bool {
	return all["hasgroups"] == true || all["hasgroups"] == "true"
}

// claimEndpoint is where a token says that a claim can be had; nil if it does not.
func claimEndpoint(all map[string]any, claim string) (*url.URL, error) {
	claimNames, _ := all["_claim_names"].(map[string]any)
	name, ok := claimNames[claim].(string)
	if !ok || claim == "" {
		return nil, nil
	}
	sources, _ := all["_claim_sources"].(map[string]any)
	source, _ := sources[name].(map[string]any)
	text, ok := source["endpoint"].(string)
	if !ok {
		return nil, fmt.Errorf("the token's _claim_names have the claim %q at %.100q, for which its _claim_sources have no endpoint", claim, name)
	}
	endpoint, err := graphEndpoint(text)
	if err != nil {
		return nil, fmt.Errorf("the endpoint of the claim %q in _claim_sources %w", claim, err)
	}
	return endpoint, nil
}

// graphEndpoint is the endpoint that a token names, in the Graph of today. One that
// is no Graph's is refused: it would get the person's access token. So is one that
// does something else there than to say who is in which group.
func graphEndpoint(text string) (*url.URL, error) {
	named, err := url.Parse(text)
	switch {
	case err != nil || named.Scheme != "https" || named.User != nil || named.Opaque != "":
		return nil, errors.New("is not an https URL")
	case named.Port() != "" && named.Port() != "443":
		return nil, fmt.Errorf("is at the port %s", named.Port())
	}
	host, prefix := strings.ToLower(named.Hostname()), ""
	if today, ok := retiredGraphs[host]; ok {
		host, prefix = today, graphVersion
	}
	if !graphHosts[host] {
		return nil, fmt.Errorf("is at %.100q, which is not a host of Microsoft Graph, and the access token goes nowhere else", host)
	}
	path := prefix + named.EscapedPath()
	if !memberPath.MatchString(path) {
		return nil, errors.New("has a path that does not end with users/<id>/getMemberObjects")
	}
	return &url.URL{Scheme: "https", Host: host, Path: path}, nil
}

// memberPath matches the paths of memberObjects for somebody: below a version, and
// perhaps a tenant. Not for "me", which is whose the access token is.
var memberPath = regexp.MustCompile(`^/(v1\.0|beta)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?/users/[A-Za-z0-9_-][A-Za-z0-9._-]*/(?i:getMemberObjects)$`)

// memberObjects asks for groups, page by page.
func (a *azure) memberObjects(ctx context.Context, first *url.URL, accessToken string) ([]string, error) {
	l, err := a.begin()
	if err != nil {
		return nil, err
	}
	defer l.end()
	groups := newGroupSet()
	r := &request{
		method:        http.MethodPost,
		url:           first,
		authorization: "Bearer " + accessToken,
		contentType:   "application/json",
		body:          `{"securityEnabledOnly": false}`,
	}
	for {
		var page struct {
			Value []string `json:"value"`
			Next  string   `json:"@odata.nextLink"`
		}
		if _, err := l.do(ctx, r, &page); err != nil {
			return nil, err
		}
		if _, err := groups.add(page.Value...); err != nil {
			return nil, err
		}
		if page.Next == "" {
			return groups.names, nil
		}
		following, err := next(first, page.Next)
		if err != nil {
			return nil, err
		}
		// The link has all of the request in it (OData 4.01 protocol, section 11.2.6.7).
		r = &request{method: http.MethodGet, url: following, authorization: r.authorization}
	}
}
