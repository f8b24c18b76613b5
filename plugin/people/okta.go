package people

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

const (
	keyAPIToken = "api_token"
	// defaultGroupsCap is how many groups Okta puts into a token at most.
	defaultGroupsCap = 100
	// oktaPage is how many groups Okta lists at one time at most.
	oktaPage = "200"
)

// okta gets the groups of a person from Okta's management API when there are as
// many in the token as Okta puts into one at most, or none: Okta leaves out the
// rest and does not say so. The keys are those of the JWT method, in which this
// provider is since July 2026.
//
// Listing somebody's groups (GET /api/v1/users/{id}/groups) needs the scope
// okta.users.read, which only administrators can give themselves: so it takes an API
// token, and not the person's access token.
type okta struct {
	*api
	fetchGroups bool
	org         *url.URL // nil without fetchGroups
	token       secret
	user        claims.Path // the zero Path: the role's user_claim
	cap         int
	filter      *regexp.Regexp // nil: all groups
}

func newOkta(s *settings, c *SourceConfig) (Source, error) {
	o := &okta{
		api:         newAPI(c, "the groups at Okta"),
		fetchGroups: s.flag("fetch_groups"),
		token:       s.secret(keyAPIToken),
		cap:         s.count("groups_cap"),
	}
	org, user, filter := s.text("org_url"), s.text("user_id_claim"), s.text("groups_filter")
	if s.err != nil {
		return nil, s.err
	}
	if o.cap == 0 {
		o.cap = defaultGroupsCap
	}
	var err error
	if user != "" {
		if o.user, err = claims.ParsePath(user); err != nil {
			return nil, fault.In(providerConfig, "user_id_claim %q %s", user, err)
		}
	}
	if filter != "" {
		if o.filter, err = regexp.Compile(filter); err != nil {
			return nil, fault.In(providerConfig, "groups_filter %s", err)
		}
	}
	if o.fetchGroups || org != "" {
		if o.org, err = orgURL(org, c.DiscoveryURL); err != nil {
			return nil, err
		}
	}
	if o.fetchGroups && o.token.reveal() == "" {
		return nil, fault.In(providerConfig, "api_token is missing: fetch_groups needs it")
	}
	return o, nil
}

// orgURL is where the organization's API is: at org_url, or else where its tokens
// come from.
func orgURL(org, discovery string) (*url.URL, error) {
	if org == "" && discovery == "" {
		return nil, fault.In(providerConfig, "org_url is missing: fetch_groups needs it where the issuer has no oidc_discovery_url")
	}
	u, err := url.Parse(cmp.Or(org, discovery))
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil:
		if org == "" {
			return nil, fault.In(providerConfig, "org_url is missing: the API token is sent to https servers only, and the oidc_discovery_url is of another")
		}
		return nil, fault.In(providerConfig, "org_url is not an https URL without credentials")
	case org != "" && (strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != ""):
		return nil, fault.In(providerConfig, "org_url is more than a scheme and a host, as in https://example.okta.com")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}, nil
}

// Find returns the groups that the token may leave out, and none that groups_filter
// does not match.
func (o *okta) Find(ctx context.Context, of *Subject) (*Found, error) {
	if of.GroupsClaim == "" {
		return &Found{}, nil
	}
	told, known := textList(of.groups())
	if !o.fetchGroups || known && len(told) < o.cap {
		if o.filter == nil || !known {
			return &Found{}, nil // what the token has, or has not, is for the role to say
		}
		return &Found{Groups: o.filtered(told)}, nil
	}
	user, err := o.name(of)
	if err != nil {
		return nil, err
	}
	groups, err := o.groupsOf(ctx, user)
	if err != nil {
		return nil, err
	}
	return &Found{Groups: o.filtered(groups)}, nil
}

// name is what Okta knows the person by.
func (o *okta) name(of *Subject) (string, error) {
	user, claim := of.User, "the role's user_claim"
	if o.user.String() != "" {
		claim = fmt.Sprintf("the claim %q of user_id_claim", o.user)
		user, _ = o.user.Find(of.Claims).(string)
	}
	switch strings.ToLower(strings.TrimSpace(user)) {
	case "":
		return "", fmt.Errorf("%s is not in the token, or is no string: it says whose groups to ask for", claim)
	case "me", ".", "..": // "me" is for Okta who owns the API token
		return "", fmt.Errorf("%s is %q, which names nobody", claim, user)
	}
	return user, nil
}

// filtered are the groups that groups_filter matches, all without one.
func (o *okta) filtered(groups []string) []string {
	if o.filter == nil {
		return groups
	}
	matching := []string{}
	for _, group := range groups {
		if o.filter.MatchString(group) {
			matching = append(matching, group)
		}
	}
	return matching
}

// groupsOf asks for the names of a user's groups, page by page.
func (o *okta) groupsOf(ctx context.Context, user string) ([]string, error) {
	l, err := o.begin()
	if err != nil {
		return nil, err
	}
	defer l.end()
	groups := newGroupSet()
	first := o.org.JoinPath("api/v1/users", url.PathEscape(user), "groups")
	first.RawQuery = url.Values{"limit": {oktaPage}}.Encode()
	for page := first; page != nil; {
		var list []struct {
			Profile struct {
				Name string `json:"name"`
			} `json:"profile"`
		}
		header, err := l.do(ctx, &request{method: http.MethodGet, url: page, authorization: "SSWS " + o.token.reveal()}, &list)
		if err != nil {
			return nil, err
		}
		for _, group := range list {
			if _, err := groups.add(group.Profile.Name); err != nil {
				return nil, err
			}
		}
		link := nextLink(header.Values("Link"))
		if link == "" {
			break
		}
		if page, err = next(first, link); err != nil {
			return nil, err
		}
	}
	return groups.names, nil
}

// nextLink is the target of the link with the relation "next" (RFC 8288 section 3);
// empty if there is none.
func nextLink(headers []string) string {
	for _, header := range headers {
		for _, link := range linkValue.FindAllStringSubmatch(header, -1) {
			if nextRelation.MatchString(link[2]) {
				return link[1]
			}
		}
	}
	return ""
}

var (
	// linkValue matches a link with its parameters, of which values may be quoted.
	linkValue = regexp.MustCompile(`<([^<>]*)>((?:\s*;\s*[\w!#$&+.^|~*-]+\s*(?:=\s*(?:"[^"]*"|[^\s",;<>]*))?)*)`)
	// nextRelation matches parameters among which the relation is, or has in it, next.
	nextRelation = regexp.MustCompile(`(?i);\s*rel\s*=\s*(?:next(?:\s*;|\s*$)|"(?:[^"]*\s)?next(?:\s[^"]*)?")`)
)
